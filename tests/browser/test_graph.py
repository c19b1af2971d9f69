"""The route graph in a browser: traced, pruned, pinned, confirmed and touched, by mouse and by keys."""

import re

import pytest

import workbench as wb
from tests.browser.benches import ANSWER, settle, tokens_of_length
from workbench.experiments.nodes import Node

WINDOW = ".wb-graph-window"
DETAIL = ".wb-graph-detail"
# Milliseconds for each of many places of the mouse: what is under it is found, and lit.
HOVER = """async (window) => {
  const [element, took] = [document.querySelector(window), []];
  const { left, top, width, height } = element.getBoundingClientRect();
  for (let i = 0; i < 60; i++) {
    const [across, down] = [((width - 100) * (i % 12)) / 12, ((height - 120) * (i % 5)) / 5];
    const at = { clientX: left + 90 + across, clientY: top + 10 + down, bubbles: true };
    const start = performance.now();
    element.dispatchEvent(new PointerEvent("pointermove", at));
    const found = performance.now() - start;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    took.push(found + Number(element.querySelector("canvas + canvas").dataset.took));
  }
  return took;
}"""


@pytest.fixture
def open_page(bench_page):
    def make(*given, open=("graph",), **options):
        bench, page = bench_page(*given, open=list(open), **options)
        page.wait(lambda: page.css(".wb-graph-summary").count() == 1, 30, "the graph")
        settle(page, bench)
        return bench, page

    return make


def names(bench):
    return bench["graph"].data({})[0]["names"]


def cell(page):
    """The words of the node under the cursor."""
    return page.css(f"{WINDOW} [role=gridcell]").text_content().strip()


def walk_to(page, kind, most=60):
    """Keys until the cursor is on a node of this kind ("H" or "E")."""
    page.css(WINDOW).focus()
    for _ in range(most):
        if found := re.match(rf"L(\d+) {kind}(\d+) at .* \((\d+)\)", cell(page)):
            return tuple(map(int, found.groups()))
        page.press("ArrowDown")
    raise AssertionError(cell(page))


def row(page, text):
    return page.css(".wb-graph .wb-row").filter(has_text=text).first


def test_a_short_text_is_traced_at_once_and_how_far_to_believe_it_stands_beside_it(open_page):
    bench, page = open_page()
    said = bench["graph"].data({})[0]["summary"]
    text = page.text(".wb-graph-summary")
    assert f"+{said['value']:.1f}" in text and said["verdict"].split(":")[0] in text
    assert f"{round(30 * said['live_signs'])} of 30 edges" in text and "what is not linear in experts" in text
    assert sum(job.view == "graph" for job in bench.jobs) == 1, "it is traced once"


def test_keys_walk_the_nodes_enter_pins_and_the_selection_follows_in_python(open_page):
    bench, page = open_page(theme="dark")
    layer, head, position = walk_to(page, "H")
    page.press("Enter")
    page.wait(
        lambda: (bench.selection.layer, bench.selection.head, bench.selection.position) == (layer, head, position)
    )
    page.wait(lambda: f"L{layer} H{head}" in page.text(f"{DETAIL} h3"))
    promoted = bench["graph"].data({"what": "node", "node": f"L{layer}H{head}@{position}"})[0]
    page.wait(lambda: promoted["raised"][0]["text"] in page.text(".wb-graph-promotes"))
    page.press("e")
    page.wait(lambda: page.text(f"{DETAIL} h3") == "Edge")
    page.press("Escape")
    page.wait(lambda: page.text(f"{DETAIL} h3") == "Most influential")


def test_a_selection_made_elsewhere_is_pinned_here(open_page):
    bench, page = open_page()
    node = next(Node.parse(name) for name in names(bench) if "E" in name and name.startswith("L"))
    bench.select(layer=node.layer, expert=node.index, position=node.pos)
    page.wait(lambda: f"L{node.layer} E{node.index}" in page.text(f"{DETAIL} h3"))
    assert page.css(f"{WINDOW} [role=gridcell]").get_attribute("aria-selected") == "true"


def test_the_threshold_prunes_in_the_browser_alone_and_is_kept(open_page):
    bench, page = open_page()
    _, arrays = bench["graph"].data({})
    slider = page.get("slider", "Threshold")
    before = len(page.messages)
    slider.evaluate("e => { e.value = 80; e.dispatchEvent(new Event('input', { bubbles: true })) }")
    share = 1e-5 * (0.5 / 1e-5) ** 0.8
    expected = int((arrays["edge"][:, 1] >= share).sum())
    page.wait(lambda: f"{expected} of {len(arrays['edge'])} edges" in page.text(".wb-graph"))
    assert not [m for m in list(page.messages)[before:] if m.way == "in" and "ask" in str(m.content.get("do"))]
    slider.evaluate("e => e.dispatchEvent(new Event('change', { bubbles: true }))")
    page.wait(lambda: bench["graph"].option("threshold") == pytest.approx(share))
    assert bench["graph"].shown(bench["graph"].known()[2], errors=True) == expected


def test_an_edge_of_the_table_is_confirmed_and_knocked_out(open_page):
    bench, page = open_page(width=600)
    page.get("radio", "Edges").click()
    about, arrays = bench["graph"].data({})
    known = set(arrays["checked"].tolist())
    seen = bench["graph"].shown(bench["graph"].known()[2], errors=True)
    ends = [[about["names"][i] for i in pair] for pair in arrays["ends"][:seen].tolist()]
    e = next(e for e, (a, b) in enumerate(ends) if e not in known and "H" in b and not a.startswith("error"))
    grid = page.get("grid", "edges that are shown")
    grid.focus()
    page.press("Home", *["ArrowDown"] * e, "Enter")
    page.wait(lambda: page.text(f"{DETAIL} h3") == "Edge")
    assert "Not confirmed" in page.text(DETAIL)
    page.get("button", "Confirm this edge").click()
    page.wait(lambda: "live model" in page.text(DETAIL), 30)
    settle(page, bench)
    assert bench["graph"].data({})[0]["summary"]["n_checked"] == 31
    page.get("button", "Knock out").click()
    source, target = (Node.parse(name) for name in ends[e])
    page.wait(
        lambda: bench.interventions == (wb.KnockOut(target.layer, ((target.pos, source.pos),), target.index, "drop"),)
    )
    settle(page, bench)
    page.wait(lambda: "with the interventions" in page.text(".wb-graph-summary"))
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_node_is_ablated_and_the_attention_view_opens_on_it(open_page):
    bench, page = open_page()
    layer, head, position = walk_to(page, "H")
    page.press("Enter")
    page.get("button", "Ablate here").click()
    page.wait(lambda: bench.interventions == (wb.AblateHead(layer, head, positions=(position,)),))
    settle(page, bench)
    right, wrong = (bench.session.tokenizer.encode(word)[0] for word in ANSWER)
    logits = bench.run.logits[0, -1]
    after = float(logits[right] - logits[wrong])
    shown = page.text(".wb-graph-summary").split("with the interventions")[1].split()[0].replace("−", "-")
    assert float(shown) == pytest.approx(after, abs=0.06)
    page.get("button", "Open in Attention").click()
    page.wait(lambda: "attention" in bench.session.state.open)
    page.wait(lambda: page.get("tab", "Attention").get_attribute("aria-selected") == "true")
    assert (bench.selection.layer, bench.selection.head) == (layer, head)


def test_another_target_and_number_of_nodes_are_traced_anew(open_page):
    bench, page = open_page()
    page.get("combobox", "Nodes").select_option("25")
    page.wait(lambda: "of 25" in page.text(".wb-graph") or "nodes" in page.text(".wb-graph"))
    page.wait(lambda: bench["graph"].option("n_nodes") == 25 and bench["graph"].data({})[0]["traced"], 30)
    page.type("textbox", "another token", " the")
    page.press("Enter")
    page.wait(lambda: bench["graph"].option("target") == "token")
    page.wait(lambda: bench["graph"].data({})[0]["traced"], 30)
    settle(page, bench)
    value = float(bench.base.logits[0, -1, bench.session.tokenizer.encode(" the")[0]])
    shown = page.text(".wb-graph-large").replace("−", "-").split()[0]
    assert float(shown) == pytest.approx(value, abs=0.06)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_with_a_node_pinned(open_page, theme):
    bench, page = open_page(theme=theme)
    walk_to(page, "E")
    page.press("Enter")
    settle(page, bench)
    assert page.axe(".wb-root") == []
    loud = ":is(button, select, input, [tabindex]):not([data-lm-suppress-shortcuts=true])"
    assert page.css(f".wb-graph {loud}").count() == 0, "JupyterLab's own shortcuts keep away"


def test_hostile_tokens_are_only_text(open_page):
    bench, page = open_page("<img src=x onerror=alert(1)> \u202eMia</script><b>x</b>")
    walk_to(page, "H")
    page.press("Enter")
    settle(page, bench)
    assert page.css(".wb-root img, .wb-root script, .wb-graph dd b").count() == 0


def test_hovering_over_many_edges_repaints_within_a_frame(open_page):
    bench, page = open_page()
    page.get("combobox", "Nodes").select_option("200")
    page.wait(lambda: bench["graph"].option("n_nodes") == 200 and bench["graph"].data({})[0]["traced"], 30)
    settle(page, bench)
    page.get("slider", "Threshold").evaluate(
        "e => { e.value = 0; e.dispatchEvent(new Event('change', { bubbles: true })) }"
    )
    page.wait(lambda: bench["graph"].option("threshold") == 0)
    settle(page, bench)
    assert len(bench["graph"].data({})[1]["edge"]) > 2000
    took = page.page.evaluate(HOVER, WINDOW)
    assert sorted(took)[len(took) // 2] < 16, took
    assert page.page.evaluate("document.querySelectorAll('.wb-graph *').length") < 1500


def test_a_long_text_waits_for_the_button_and_an_earlier_token_is_traced_at_once(bench_page):
    bench, page = bench_page(tokens_of_length(2000), open=["graph"])
    settle(page, bench)
    text = page.text(".wb-graph")
    assert "Not traced yet" in text and "82,000 nodes" in text and page.get("button", "Trace").count() == 1
    bench.select(position=40)
    page.get("button", "selected token (40)").click()
    page.wait(lambda: page.css(".wb-graph-summary").count() == 1, 30)
    settle(page, bench)
    assert bench["graph"].data({})[0]["position"] == 40
