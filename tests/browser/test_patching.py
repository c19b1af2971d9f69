"""Patching in a browser: what one clicks, drags, types and sees."""

import statistics
import threading
import time

import numpy as np
import pytest

import workbench as wb
from tests.browser.benches import settle
from tests.figures.data import HOSTILE
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.widgets.views import patching_sweep

GRID = ".wb-patching-grid .wb-matrix-window"
CELL = ".wb-patching-grid [role=gridcell]"
STRIP = ".wb-patching-window"


@pytest.fixture
def opened(bench_page):
    """`bench, page = opened(prompts, width=…)`: a Bench on which only patching is open, settled."""

    def make(*what, **options):
        bench, page = bench_page(*what, open=["patching"], **options)
        settle(page, bench)
        return bench, page

    return make


def sweep(bench):
    return bench["patching"].sweep(bench["patching"].study())


def token(page, side: int, column: int):
    return page.css(f'.wb-patching-token[data-side="{side}"][data-column="{column}"]')


def choose(page, row: int, column: int):
    """Go to a cell with the keys, and choose it."""
    page.css(GRID).focus()
    page.press("Control+Home", *["ArrowDown"] * row, *["ArrowRight"] * column, "Enter")


def test_a_chosen_cell_is_the_selection_and_shows_what_its_patch_does(opened):
    bench, page = opened()
    choose(page, 1, 11)
    page.wait(
        lambda: (
            (bench.selection.layer, bench.selection.position, bench.selection.site)
            == (1, 11, "blocks.1.hook_resid_pre")
        )
    )
    page.wait_js("document.querySelectorAll('.wb-patching-effect tbody tr').length >= 2")
    json, _ = bench["patching"].data({"kind": "cell", "row": 1, "column": 11})
    seen = dict(zip(page.css(".wb-patching-effect tbody th").all_inner_texts(),
                    page.css(".wb-patching-effect tbody td:last-child").all_inner_texts(), strict=True))  # fmt: skip
    assert [text.strip() for text in seen] == [each["text"] for each in json["tokens"]]
    for text, each in zip(seen.values(), json["tokens"], strict=True):
        assert text == "< 0.01%" or float(text.strip("%")) == pytest.approx(100 * each["patched"], rel=0.01)
    assert f"brings back {json['share']:.3g}" in page.text(".wb-patching-effect")
    page.wait_js("document.querySelector('.wb-patching-texts')?.getAttribute('aria-busy') === 'false'")
    assert page.css(".wb-patching-texts dd").all_inner_texts()[1].startswith("␣Ben")
    assert "≈" not in page.text(CELL) and "brings back" in page.css(CELL).inner_text()  # measured now

    page.click("button", "Put it on the Bench")
    page.wait(lambda: bench.interventions == (wb.Patch("blocks.1.hook_resid_pre", "clean", (11,)),))
    assert bench.session.state.subject == "corrupt"


def test_a_mouse_click_chooses_what_the_tooltip_said(opened):
    bench, page = opened()
    place = {"x": 500, "y": 70}
    page.css(GRID).hover(position=place)
    said = page.page.evaluate("document.querySelector('.wb-patching-grid .wb-tip').textContent")
    page.css(GRID).click(position=place)
    page.wait(lambda: bench.selection.position is not None)
    assert said.startswith(f"resid_pre, layer {bench.selection.layer}, position {bench.selection.position}")


def test_estimates_come_first_then_exact_cells_cancel_keeps_them_and_resume_goes_on(opened, monkeypatch):
    bench, page = opened()
    push, gate = patching_sweep.push, threading.Event()

    def slow(swept, session, now=False):
        push(swept, session, True)
        if not now and not gate.is_set() and swept.left < 15:
            time.sleep(0.15)

    assert "not run yet" in page.css(CELL).inner_text() or "nothing differs" in page.css(CELL).inner_text()
    page.click("button", "Estimate only")
    page.wait(lambda: sweep(bench).estimate is not None)
    settle(page, bench)
    assert sweep(bench).left == 20
    monkeypatch.setattr(patching_sweep, "push", slow)
    page.click("button", "Run 20 cells")
    page.wait(lambda: 0 < sweep(bench).left < 12, 10)
    cancel = page.css(".wb-patching .wb-job").get_by_role("button", name="Cancel: patch resid_pre")
    cancel.click()
    page.wait(lambda: bench.jobs[-1].state == "cancelled")
    left = sweep(bench).left
    page.get("button", f"Run the {left} cells left").wait_for()
    gate.set()
    page.css(".wb-patching .wb-job").get_by_role("button", name="Resume: patch resid_pre").click()
    page.wait(lambda: sweep(bench).left == 0)
    page.get("button", "All 20 cells are run").wait_for()
    assert bench.jobs[-1].total == left
    r, n = sweep(bench).correlation()
    assert f"r = {r:.2f}" in page.text(".wb-patching-scatter") and f"{n} cells" in page.text(".wb-patching-scatter")
    assert f"±{sweep(bench).floor:.3f}".rstrip("0") in page.text(".wb-patching-grid .wb-key")
    assert page.axe(".wb-root") == []


def test_a_residual_is_dragged_with_the_mouse_to_the_other_prompt(opened):
    bench, page = opened()
    bench.select(layer=1)
    settle(page, bench)
    start, end = (token(page, *place).bounding_box() for place in ((0, 9), (1, 4)))
    mouse = page.page.mouse
    mouse.move(start["x"] + 8, start["y"] + 8)
    mouse.down()
    mouse.move(start["x"] - 60, start["y"] + 18, steps=4)
    mouse.move(end["x"] + 8, end["y"] + 8, steps=4)
    assert page.css(".wb-patching-ghost").inner_text() == "␣Anna"
    assert "wb-patching-over" in token(page, 1, 4).get_attribute("class")
    mouse.up()
    page.wait(lambda: bench.interventions == (wb.Patch("blocks.1.hook_resid_pre", "clean", (4,), (9,)),))
    assert page.css(".wb-patching-ghost").count() == 0
    # Let go where nothing is, or on the same prompt, nothing happens.
    mouse.move(start["x"] + 8, start["y"] + 8)
    mouse.down()
    mouse.move(start["x"] - 80, start["y"] + 8, steps=4)
    mouse.up()
    settle(page, bench)
    assert len(bench.interventions) == 1


def test_the_keys_mark_move_and_drop(opened):
    bench, page = opened()
    bench.select(layer=2, position=0)
    settle(page, bench)
    page.css(STRIP).focus()
    page.press("ArrowUp", *["ArrowRight"] * 9, "m")
    assert "source position 9 is marked" in page.text(".wb-patching-strip [role=status]")
    page.press("ArrowDown", "ArrowLeft", "ArrowLeft", "d")
    page.wait(lambda: bench.interventions == (wb.Patch("blocks.2.hook_resid_pre", "clean", (7,), (9,)),))
    page.wait(lambda: bench.session.state.subject == "corrupt")
    settle(page, bench)
    page.press("m", "Escape", "ArrowRight", "d", "Enter")  # let go: nothing is dropped; Enter selects
    page.wait(lambda: bench.selection.position == 8)
    assert len(bench.interventions) == 1


def test_what_is_chosen_elsewhere_is_followed_at_once(opened):
    bench, page = opened()
    met = "document.querySelector('" + CELL + "')?.textContent.includes('position {}')"
    chosen = "document.querySelector('.wb-patching-target .wb-patching-token.wb-selected')?.dataset.column === '{}'"
    bench.select(layer=2, position=3)
    page.wait_js(met.format(3))
    page.wait_js(chosen.format(3))
    page.css(STRIP).focus()
    waited = []
    for position in range(4, 9):
        page.press("ArrowRight")
        waited.append(
            page.latency(lambda: page.press("Enter"), chosen.format(position) + " && " + met.format(position))
        )
        page.wait(lambda position=position: bench.selection.position == position)
    assert statistics.median(waited) < 100


def test_source_metric_and_part_are_chosen_above_the_grid(opened):
    bench, page = opened(width=600)
    page.get("radiogroup", "Source").get_by_role("radio", name="corrupt").click()
    page.wait_js("document.querySelector('.wb-patching-name.wb-patching-source').textContent.includes('corrupt')")
    page.get("combobox", "Metric").select_option("kl")
    page.click("radio", "head")
    page.wait(lambda: bench["patching"].study().part == "head" and bench["patching"].study().metric == "kl")
    assert bench["patching"].study().source == "corrupt"
    page.wait_js(f"document.querySelector('{GRID}').ariaColCount === '8'")
    page.click("radio", "each position")
    page.get("combobox", "Layer").select_option("3")
    page.wait(lambda: bench["patching"].study().layer == 3)
    page.wait_js(
        f"(({{ariaColCount: c, ariaRowCount: r}}) => c === '14' && r === '8')(document.querySelector('{GRID}'))"
    )
    settle(page, bench)
    choose(page, 5, 9)
    page.wait(lambda: (bench.selection.layer, bench.selection.head, bench.selection.position) == (3, 5, 9))
    assert "head 5, layer 3, position 9" in page.css(CELL).inner_text()


def test_without_a_second_prompt_it_says_why_and_offers_to_write_one(opened):
    bench, page = opened("Mia went to the park. Where did Mia", theme="dark")
    assert "Patching needs a second prompt" in page.text(".wb-patching-missing")
    assert page.axe(".wb-root") == []
    page.type("textbox", "Second prompt: change the word that decides", "Tom went to the park. Where did Mia")
    page.click("button", "Compare with this")
    page.wait(lambda: len(bench.session.state.prompts) == 2)
    page.get("button", "Estimate only").wait_for()
    assert bench.session.state.prompt("corrupt").input.startswith("Tom")
    page.run(lambda: bench.session.set_prompts({"prompt": "Mia went", "corrupt": "Mia went to"}))
    page.wait_js("document.querySelector('.wb-patching-missing')?.textContent.includes('unlike numbers of tokens')")
    assert token(page, 0, 1).count() == 1  # single tokens can still be dragged


def test_hostile_tokens_are_text_and_nothing_else(opened, nano):
    ids = nano.tokenizer.encode("".join(text for text in HOSTILE if len(text) < 200))
    other = [*ids[:-1], (ids[-1] + 1) % 500]
    bench, page = opened({"<b>a": tuple(ids), "<img src=x>": tuple(other)}, theme="dark")
    page.css(".wb-patching .wb-primary").click()
    page.wait(lambda: sweep(bench).left == 0, 20)
    choose(page, 1, len(ids) - 1)
    page.wait_js("document.querySelector('.wb-patching-texts')?.getAttribute('aria-busy') === 'false'")
    assert page.css(".wb-patching img, .wb-patching b, .wb-patching script").count() == 0
    assert page.axe(".wb-root") == []


def test_a_grid_of_24_by_1000_streams_smoothly(opened, nano):
    config = NANO.with_(
        n_layers=24, d_model=32, d_mlp=8, n_heads=2, n_key_value_heads=1, n_experts=4, d_head=8, name="tall"
    )
    model = random_weights(HookedGptOss(config, nano.tokenizer), 0)
    tokens = tuple(np.random.default_rng(0).integers(3, 900, 1000).tolist())
    bench, page = opened({"clean": tokens, "corrupt": (5, *tokens[1:])}, model=model)
    swept, values = sweep(bench), np.random.default_rng(1).normal(size=(24, 1000))
    swept.estimate = values / 2
    stop = threading.Event()

    def stream():
        order = iter(np.random.default_rng(2).permutation(24_000))
        while not stop.is_set():
            for i in (next(order, 0) for _ in range(12)):
                swept.exact.flat[i] = values.flat[i]
            patching_sweep.push(swept, bench.session)
            time.sleep(0.01)

    thread = threading.Thread(target=stream, daemon=True)
    thread.start()
    for _ in range(6):  # on a machine that others use too, the best of a few looks
        with page.frames("document.querySelector('.wb-patching .wb-primary').textContent") as seen:
            page.pump(1.2)
        if seen.changes / seen.seconds >= 15 and seen.longest_task < 100:
            break
    stop.set()
    thread.join()
    assert seen.changes / seen.seconds >= 15
    assert seen.longest_task < 100
    assert max(message.size for message in page.messages) < 2_000_000
