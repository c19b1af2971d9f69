"""A number on screen is of what stands beside it, and of now: not of the run, the cell or the choice before."""

import threading

import pytest

import workbench as wb
from tests.browser.benches import microworld_atlas, settle, tokens_of_length

SHARP = (
    "[...document.querySelectorAll('.wb-root canvas')].map(c => [c.width / c.clientWidth, c.height / c.clientHeight])"
)
LENS = ".wb-lens .wb-matrix-window"


@pytest.fixture
def opened(bench_page):
    def make(*given, **options):
        bench, page = bench_page(*given, **options)
        settle(page, bench)
        return bench, page

    return make


@pytest.fixture
def held(monkeypatch):
    """`held(view, wanted)`: answers to the asks that are wanted wait until `.set()`."""
    made = []

    def hold(view, wanted):
        gate, real = threading.Event(), view.data
        made.append(gate)
        monkeypatch.setattr(view, "data", lambda ask: (wanted(ask) and gate.wait(20), real(ask))[1])
        return gate

    yield hold
    for gate in made:
        gate.set()


@pytest.mark.parametrize("view", ["logit_lens", "attention", "graph"])
def test_every_canvas_is_painted_again_for_a_screen_of_another_sharpness(opened, view):
    bench, page = opened(open=[view])
    if view == "graph":
        page.css(".wb-graph-left").first.wait_for()
    screen = page.page.context.new_cdp_session(page.page)
    for i, ratio in enumerate((2, 1, 1.5)):
        # As high as no canvas depends on: the widget's width, and with it all that is painted, stays as it is.
        size = {"width": 1016, "height": 801 + i, "deviceScaleFactor": ratio, "mobile": False}
        screen.send("Emulation.setDeviceMetricsOverride", size)
        settle(page, bench)
        found = page.wait(lambda ratio=ratio: _sharp(page, ratio), 10, f"canvases of {ratio}")
        assert len(found) >= 2


def _sharp(page, ratio):
    found = page.page.evaluate(SHARP)
    return found if all(abs(each - ratio) < 0.1 for both in found for each in both) else None


def test_the_words_under_a_resting_mouse_follow_the_run(opened):
    bench, page = opened(open=["logit_lens"])
    bench.add(wb.AblateHead(0, 0))  # its chip and the effect stand above: the grid will not move again
    bench.session.options("effect", open=False)
    settle(page, bench)
    window, tip = page.css(LENS), page.css(f"{LENS} .wb-tip")
    box = window.bounding_box()
    at = {"x": box["width"] / 2, "y": box["height"] / 2}
    window.hover(position=at)
    before = tip.text_content()
    bench.add(wb.AblateLayer(0))
    settle(page, bench)
    assert tip.is_visible() and window.bounding_box() == box
    page.wait(lambda: tip.text_content() != before, 10)
    after = tip.text_content()
    page.page.mouse.move(1, 1)
    window.hover(position=at)
    assert tip.text_content() == after


def test_the_keys_go_on_from_what_another_hand_chose_and_never_beyond_a_shorter_text(opened):
    bench, page = opened(open=["logit_lens"])
    page.css(LENS).focus()
    page.press("Control+End", "Enter")
    settle(page, bench)
    assert bench.selection.position == len(bench.base.tokens[0]) - 1
    bench.session.select(position=3, layer=1)
    settle(page, bench)
    page.css(LENS).focus()
    page.press("ArrowDown", "Enter")
    settle(page, bench)
    assert (bench.selection.position, bench.selection.layer) == (4, 1)
    page.press("Control+End")
    bench.session.set_prompts({"clean": "Mia went"})
    settle(page, bench)
    page.css(LENS).focus()
    page.press("Enter")
    settle(page, bench)
    assert bench.selection.position == len(bench.base.tokens[0]) - 1
    grid = page.css(LENS)
    assert grid.locator("[role=row]").get_attribute("aria-rowindex") == grid.get_attribute("aria-rowcount")


def test_the_number_beside_a_slider_is_that_under_the_hand(opened):
    bench, page = opened(open=["generation"])
    slider = page.get("slider", "Temperature")
    slider.evaluate("input => { input.value = '1.5'; input.dispatchEvent(new Event('input', { bubbles: true })) }")
    page.wait(lambda: slider.locator("xpath=../output").text_content() == "1.5")
    assert slider.get_attribute("aria-valuetext") == "1.5" and bench["generation"].option("temperature") == 0
    slider.evaluate("input => input.dispatchEvent(new Event('change', { bubbles: true }))")
    page.wait(lambda: bench["generation"].option("temperature") == 1.5)
    settle(page, bench)
    bench.session.options("generation", temperature=0.5)
    page.wait(lambda: slider.locator("xpath=../output").text_content() == "0.5")


def test_the_mouse_on_a_load_of_one_layer_lights_no_expert_of_another(opened):
    bench, page = opened(open=["routing"])
    bench.select(layer=0)
    settle(page, bench)
    table = page.css("[role=grid][aria-label='load of every layer and expert']")
    table.scroll_into_view_if_needed()
    box = table.bounding_box()
    for row, lit in ((0, 1), (2, 0)):
        table.hover(position={"x": box["width"] / 2, "y": 18 + 18 * row + 9})
        said = table.locator(".wb-tip").text_content()
        assert said.startswith(f"layer {row},")
        page.wait(lambda lit=lit: page.css(".wb-column.wb-hovered").count() == lit)


def test_a_reading_that_ends_where_the_last_one_did_is_shown_too(opened):
    bench, page = opened(open=["logit_lens"])

    def asked():
        contents = [message.content for message in page.messages if message.method == "custom"]
        return sum(each.get("ask", {}).get("part") == "grid" for each in contents)

    for _ in range(3):
        before = asked()
        bench.session.stream("logit_lens", "grid", {"done": 5, "total": 5}, {})
        page.wait(lambda before=before: asked() > before, what="the grid is asked again")
        settle(page, bench)


def test_in_a_long_text_the_line_of_attention_stands_under_its_own_token(opened, held):
    bench, page = opened(tokens_of_length(300), open=["attention"])
    bench.select(position=250)
    settle(page, bench)
    first = page.text(".wb-attention-of")
    assert "at position 250 " in first
    gate = held(bench["attention"], lambda ask: ask.get("what") == "line")
    bench.select(position=200)
    page.pump(0.4)
    assert page.text(".wb-attention-of") == first
    gate.set()
    settle(page, bench)
    said = page.text(".wb-attention-of")
    assert "at position 200 " in said and said != first


def test_effects_of_another_way_to_take_an_expert_out_are_not_shown_as_of_this_one(opened, held):
    bench, page = opened(open=["atlas"])
    bench.atlas = microworld_atlas(6)
    bench.select(layer=2, expert=3)
    bench.session.options("atlas", n=3)
    bench["atlas"].measure().wait(60)
    settle(page, bench)
    columns = page.css(".wb-atlas-list [role=columnheader]")
    assert "KL E3" in " ".join(columns.all_inner_texts())
    gate = held(bench["atlas"], lambda ask: ask.get("what") == "effects")
    page.get("combobox", "Without it").select_option("zero")
    page.wait(lambda: bench["atlas"].option("policy") == "zero")
    page.pump(0.3)
    assert "KL" not in " ".join(columns.all_inner_texts())
    gate.set()
    settle(page, bench)
    assert "KL" not in " ".join(columns.all_inner_texts())  # nothing was run in this way yet
    page.get("combobox", "Without it").select_option("reroute")
    page.wait(lambda: "KL E3" in " ".join(columns.all_inner_texts()))
