"""Routing in a browser: clicks, keys and the slider reach the model, and what the model says is on screen."""

import re

import numpy as np
import pytest

import workbench as wb
from tests.browser.benches import SHAPE_20B, load_nano, settle, tokens_of_length
from workbench.model import NANO, HookedGptOss, random_weights

GRID = ".wb-routing-ribbon .wb-matrix-window"
INSPECTOR = ".wb-routing-inspector"


def wide_model():
    """As many layers and experts as the 20b; few heads, which are not looked at here."""
    shape = SHAPE_20B | {"n_heads": 4, "n_key_value_heads": 1, "d_model": 32}
    return random_weights(HookedGptOss(NANO.with_(**shape), load_nano().tokenizer), 0)


@pytest.fixture
def open_page(bench_page):
    def make(*given, **options):
        bench, page = bench_page(*given, open=["routing"], **options)
        settle(page, bench)
        return bench, page

    return make


def chosen(bench, run=None):
    """[pos layer slot] of a run, from its own sites."""
    run = bench.base if run is None else run
    sites = [
        run[f"blocks.{layer}.mlp.hook_expert_indices"][0].numpy() for layer in range(bench.session.config.n_layers)
    ]
    return np.stack(sites, 1)


def cell_under(page, x, y):
    """(position, layer) of the cell under a point of the ribbon, as its tooltip says; None elsewhere."""
    page.css(GRID).hover(position={"x": x, "y": y})
    tip = page.css(f"{GRID} .wb-tip")
    found = None if tip.is_hidden() else re.search(r"position (\d+), layer (\d+)", tip.text_content())
    return tuple(map(int, found.groups())) if found else None


def focus_cell(page, bench, position, layer):
    """The keyboard's cursor on a cell, slot 0, with keys alone."""
    page.css(GRID).focus()
    page.press("Control+Home", *["ArrowDown"] * position)
    slots = bench.session.config.experts_per_token
    page.press(*["ArrowRight"] * (layer * slots))


def test_a_click_selects_the_expert_of_the_slot_under_it(open_page):
    bench, page = open_page()
    box = page.css(GRID).bounding_box()
    across = [(x, cell_under(page, x, 60)) for x in range(60, int(box["width"]) - 4, 4)]
    position, layer = next(cell for _, cell in across if cell and cell[1] == 1)
    inside = [x for x, cell in across if cell == (position, layer)]
    for x, slot in ((inside[0] + 5, 0), (inside[-1] - 4, -1)):
        page.css(GRID).click(position={"x": x, "y": 60})
        expert = int(chosen(bench)[position, layer, slot])
        page.wait(lambda expert=expert: bench.selection.expert == expert)
        assert (bench.selection.position, bench.selection.layer) == (position, layer)
        assert page.css(INSPECTOR).get_attribute("aria-label") == f"layer {layer}, expert {expert}"


def test_a_selection_made_elsewhere_is_followed(open_page):
    bench, page = open_page(theme="dark")
    expert = int(chosen(bench)[4, 2, 1])
    bench.select(layer=2, position=4, expert=expert)
    page.wait(lambda: page.css(INSPECTOR).get_attribute("aria-label") == f"layer 2, expert {expert}")
    page.wait(lambda: "position 4, layer 2" in page.text(".wb-routing"), what="the experts of the token")
    assert page.get("gridcell", within=GRID, exact=False).text_content().startswith(bench.session.tokens()[4])


def test_keys_move_over_slots_and_ban_the_expert_under_the_cursor(open_page):
    bench, page = open_page()
    focus_cell(page, bench, 3, 1)
    page.press("ArrowRight", "b")
    expert = int(chosen(bench)[3, 1, 1])
    page.wait(lambda: bench.interventions == (wb.AblateExpert(1, expert),))
    settle(page, bench)
    made = wb.run(bench.model, bench.base.tokens, [wb.AblateExpert(1, expert)])
    effect = page.text(".wb-routing-effect")
    assert (
        f"{int((made.logits[0].argmax(-1) != bench.base.logits[0].argmax(-1)).sum())} of {len(made.tokens[0])}"
        in effect
    )
    assert f"{int(made.flipped_routes.sum())}" in effect
    page.css(GRID).focus()
    words = page.get("gridcell", within=GRID, exact=False).text_content()
    assert f"E{chosen(bench, made)[3, 1, 0]} " in words and "route changed; before" in words
    page.press("b")  # now on the expert that took its place
    page.wait(lambda: len(bench.interventions) == 2)
    assert bench.interventions[1].expert == int(chosen(bench, made)[3, 1, 1])


def test_edits_act_at_this_token_where_that_is_chosen_by_key(open_page):
    bench, page = open_page()
    focus_cell(page, bench, 2, 0)
    page.press("e")
    page.wait(lambda: bench["routing"].option("where") == "token")
    page.press("z")
    page.wait(lambda: bench.interventions == (wb.AblateExpert(0, int(chosen(bench)[2, 0, 0]), "zero", (2,)),))
    page.press("x")
    page.wait(lambda: bench.interventions == ())
    page.press("s")
    page.wait(lambda: page.page.evaluate("document.activeElement.tagName") == "SELECT")


def test_the_slider_shows_what_it_would_do_and_acts_when_it_is_let_go(open_page):
    bench, page = open_page()
    expert = int(chosen(bench)[5, 1, 0])
    bench.select(layer=1, position=5, expert=expert)
    settle(page, bench)
    before = len(bench.session.history.entries)
    slider = page.get("slider", "Weight", within=INSPECTOR)
    slider.evaluate("e => { e.value = 0.3; e.dispatchEvent(new Event('input', { bubbles: true })) }")
    page.wait(lambda: "What it would do" in page.text(".wb-routing"))
    assert bench.interventions == () and len(bench.session.history.entries) == before
    slider.evaluate("e => { e.value = 0.3; e.dispatchEvent(new Event('change', { bubbles: true })) }")
    page.wait(lambda: bench.interventions == (wb.ReweightExpert(1, expert, 0.3),))
    page.wait(lambda: "What the edits did" in page.text(".wb-routing"))
    assert len(bench.session.history.entries) == before + 1
    page.wait(lambda: "weight × 0.3 everywhere" in page.text(".wb-routing-own"))


def test_what_rank_3_would_have_written_and_forcing_it(open_page):
    bench, page = open_page(width=600)
    bench.select(layer=2, position=6)
    page.wait(lambda: page.css(".wb-routing-next").count() == 4)
    settle(page, bench)
    rows = bench["routing"].data({"what": "unchosen", "layer": 2, "position": 6})[0]["rows"]
    for row, line in zip(rows, page.css(".wb-routing-table tbody tr").all(), strict=True):
        said = line.inner_text().replace("−", "-")
        assert f"E{row['expert']}" in said and f"{row['probability']:.3f}" in said
        assert row["chosen"] or f"{row['forced']:.3f}".replace("-0.000", "0.000") in said
    page.click("button", f"Force expert {rows[2]['expert']} at this token")
    page.wait(lambda: bench.interventions == (wb.ForceExpert(2, rows[2]["expert"], (6,)),))
    settle(page, bench)
    assert int(chosen(bench, bench.run)[6, 2, -1]) == rows[2]["expert"]
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_the_corpus_runs_is_cancelled_and_goes_on(open_page):
    bench, page = open_page()
    bench.select(layer=1, position=5, expert=int(chosen(bench)[5, 1, 0]))
    bench["routing"].use_texts([" ".join(["Mia lives in the park."] * 12)] * 60)
    page.wait(lambda: page.get("button", "Run 60 texts").count() == 1)
    page.click("button", "Run 60 texts")
    page.wait(lambda: page.css(".wb-routing-contexts li").count() > 0, 20)
    page.page.get_by_role("button", name="Cancel: ", exact=False).first.click()
    page.wait(lambda: bench.jobs[-1].state == "cancelled", 20)
    done = bench["routing"].corpus.found.attrs["n_done"]
    assert 0 < done < 60
    settle(page, bench)
    page.page.get_by_role("button", name="Resume: ", exact=False).first.click()
    page.wait(lambda: bench["routing"].corpus.found.attrs["n_done"] == 60, 40)
    page.wait(lambda: "60 of 60 texts" in page.text(".wb-routing"))
    words = {bench.session.word(token) for token in bench.model.tokenizer.encode("Mia lives in the park. Mia")}
    assert set(page.css(".wb-routing-contexts mark").all_inner_texts()) <= words


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_with_everything_open(open_page, theme):
    bench, page = open_page(theme=theme)
    bench.select(layer=1, position=5, expert=2)
    bench["routing"].use_texts(["Mia lives in the park."])
    bench["routing"].act({"kind": "corpus"})
    bench["routing"].act({"kind": "ban", "layer": 1, "expert": 2, "position": None})
    settle(page, bench)
    assert page.axe(".wb-root") == []
    focusable = ".wb-routing :is(button, select, input, [tabindex])"
    unquiet = (
        f"[...document.querySelectorAll('{focusable}')].filter(e => e.dataset.lmSuppressShortcuts !== 'true').length"
    )
    assert page.page.evaluate(unquiet) == 0


def test_hostile_tokens_are_only_text(open_page):
    bench, page = open_page("<img src=x onerror=alert(1)> \u202eMia</script><b>x</b>")
    bench["routing"].use_texts({"<img src=x onerror=alert(2)>": ["<svg onload=alert(3)> Tom"]})
    bench["routing"].act({"kind": "corpus"})
    bench.select(layer=1, position=1, expert=int(chosen(bench)[1, 1, 0]))
    settle(page, bench)
    page.wait(lambda: page.css(".wb-routing-table tbody tr").count() > 2)
    assert page.css(".wb-root img, .wb-root script, .wb-routing b:not([aria-hidden])").count() == 0


def test_2000_tokens_in_24_layers_scroll_smoothly_in_a_small_page(open_page):
    _, page = open_page(tokens_of_length(2000), model=wide_model())
    page.css(GRID).hover(position={"x": 300, "y": 200})
    with page.frames(f"document.querySelector('{GRID}').scrollTop") as seen:
        for _ in range(40):
            page.page.mouse.wheel(0, 300)
            page.pump(0.01)
    assert page.page.evaluate(f"document.querySelector('{GRID}').scrollTop") > 5000
    assert page.page.evaluate("document.querySelectorAll('.wb-routing *').length") < 1500
    assert seen.longest_task < 100, (seen.fps, seen.longest_task)
