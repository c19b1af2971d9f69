"""The attention view in a browser: what a hand does to it arrives in Python, and what Python has is on the screen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.browser.benches import like_20b, settle, tokens_of_length
from workbench.figures.style import EXPERTS, INK, PAPER, hex_to_rgb

SQUARE = ".wb-attention-window"
TITLE = ".wb-attention-large h3"


def title(page: Any, words: str) -> None:
    page.wait_js(f"document.querySelector({TITLE!r})?.textContent === {words!r}")


def said(page: Any) -> str:
    """The words of the cell where the keys are."""
    return page.css(f"{SQUARE} [role=gridcell]").text_content()


def keyed(page: Any, *keys: str) -> None:
    page.css(SQUARE).focus()
    page.press(*keys)


def test_a_click_on_a_thumbnail_is_a_selection_in_python_and_shows_it_in_large(bench_page):
    bench, page = bench_page(open=["attention"])
    settle(page, bench)
    heads = page.get("grid", "heads of layer 0, a row for each key-value head")
    box = heads.bounding_box()
    heads.click(position={"x": box["width"] * 0.3, "y": box["height"] * 0.75})
    page.wait(lambda: bench.selection.head is not None)
    assert bench.selection.layer == 0 and bench.selection.head in range(4, 8)
    title(page, f"Layer 0, head {bench.selection.head}")
    heads.focus()
    before = bench.selection.head
    page.press("ArrowUp", "Enter")
    page.wait(lambda: bench.selection.head == before - 4)
    title(page, f"Layer 0, head {before - 4}")


def test_a_selection_from_python_is_followed_in_every_part(bench_page):
    bench, page = bench_page(open=["attention"])
    settle(page, bench)
    bench.select(layer=1, head=3, position=12, key=10)
    title(page, "Layer 1, head 3")
    settle(page, bench)
    share = bench.base["blocks.1.attn.hook_pattern"][0, 3, 12, 10].item()
    words = said(page)
    assert words.startswith("query 12 “␣hat” → key 10 “␣gave”") and f"{share:.3g}" in words
    assert page.css(".wb-attention-edge").text_content().startswith("12 “␣hat” → 10 “␣gave” ")
    assert "␣hat at position 12 looks at" in page.text(".wb-attention-of").replace("\n", " ").replace("  ", " ")
    marked = page.css(".wb-attention-line [role=option].wb-selected")
    assert marked.get_attribute("data-i") == "12"


def test_the_cells_have_the_colours_of_the_runs_numbers(bench_page):
    bench, page = bench_page(open=["attention"])
    bench.select(layer=1, head=0)
    title(page, "Layer 1, head 0")
    settle(page, bench)
    steps = [np.array(hex_to_rgb(colour), float) for colour in (PAPER, EXPERTS[0], INK)]
    steps[2] = steps[1] + (steps[2] - steps[1]) * 0.55
    pattern = bench.base["blocks.1.attn.hook_pattern"][0, 0].numpy()
    sinks = bench.base["blocks.1.attn.hook_sink"][0, :, 0].numpy()
    for query, key in ((3, -1), (13, -1), (6, 1), (10, 4), (13, 10)):
        value = sinks[query] if key < 0 else pattern[query, key]
        at = 2 * value
        expected = steps[int(at)] + (steps[min(int(at) + 1, 2)] - steps[int(at)]) * (at - int(at))
        shown = page.page.evaluate(
            """([selector, query, key, n]) => {
              const canvas = document.querySelector(`${selector} canvas`), box = canvas.getBoundingClientRect();
              const [cell, ratio] = [28, canvas.width / box.width];
              const [x0, y0] = [box.width - 1 - cell * n, box.height - 1 - cell * n];
              const [x, y] = [key < 0 ? x0 - 10 - cell / 2 : x0 + (key + 0.5) * cell, y0 + (query + 0.5) * cell];
              return [...canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data].slice(0, 3);
            }""",
            [SQUARE, query, key, 14],
        )
        assert np.abs(np.array(shown) - expected).max() <= 4, (query, key, value, shown, expected)


def test_an_edge_is_cut_by_delete_and_restored_by_delete_and_the_pattern_follows(bench_page):
    bench, page = bench_page(open=["attention"])
    bench.select(layer=1, head=3, position=13, key=8)
    title(page, "Layer 1, head 3")
    settle(page, bench)
    keyed(page, "Delete")
    page.wait(lambda: bench.interventions == (wb.KnockOut(1, ((13, 8),), 3),))
    settle(page, bench)
    assert said(page).endswith("\n0") and "✕ cut" in page.text(".wb-attention-large")
    page.click("button", "Hide from all")
    page.wait(lambda: bench.interventions == (wb.KnockOut(1, ((13, 8), (None, 8)), 3),))
    settle(page, bench)
    page.click("button", "Show to all")
    keyed(page, "Delete")
    page.wait(lambda: bench.interventions == ())
    page.get("combobox", "Freed share").select_option("drop")
    keyed(page, "Delete")
    page.wait(lambda: bench.interventions == (wb.KnockOut(1, ((13, 8),), 3, "drop"),))
    keyed(page, "Home", "Enter")
    page.wait(lambda: bench.selection.key == -1)
    settle(page, bench)
    assert said(page).startswith("query 13 “␣to” → sink")
    keyed(page, "Delete")
    page.wait(lambda: wb.EditSink(1, 3, "remove", positions=(13,)) in bench.interventions)


def test_the_sinks_slider_reruns_while_it_is_dragged_and_is_one_step_to_undo(bench_page):
    bench, page = bench_page(open=["attention"])
    bench.select(layer=1, head=3)
    title(page, "Layer 1, head 3")
    settle(page, bench)
    revisions = {bench.session.revision}
    page.get("slider", "times the sink's share").focus()
    for _ in range(12):
        page.press("ArrowLeft")
        page.pump(0.03)
        revisions.add(bench.session.revision)
    page.wait(lambda: bench.interventions == (wb.EditSink(1, 3, "scale", 0.4),))
    settle(page, bench)
    assert len(revisions) > 2, "the run followed while it was dragged"
    assert len(bench.session.history.entries) == 2
    expected = wb.run(bench.model, bench.base.tokens, bench.interventions)
    torch.testing.assert_close(bench.run.logits, expected.logits, atol=1e-4, rtol=1e-4)
    page.get("combobox", "Its sink").select_option("restore")
    page.wait(lambda: bench.interventions == ())


def test_a_head_is_ablated_by_button_and_the_difference_shown(bench_page):
    bench, page = bench_page(open=["attention"], theme="dark")
    bench.select(layer=0, head=4)
    title(page, "Layer 0, head 4")
    page.click("button", "Ablate head")
    page.wait(lambda: bench.interventions == (wb.AblateHead(0, 4),))
    settle(page, bench)
    assert page.get("button", "Restore head").get_attribute("aria-pressed") == "true"
    page.click("radio", "edited − unedited")
    page.wait(lambda: bench.session.state.options.get("attention", {}).get("values") == "change")
    name = "blocks.1.attn.hook_pattern"
    change = (bench.run[name] - bench.base[name])[0, 0]
    query, key = divmod(int(change.abs().argmax()), change.shape[1])
    bench.select(layer=1, head=0, position=query, key=key)
    title(page, "Layer 1, head 0")
    settle(page, bench)
    assert "change " in said(page) and f"{change[query, key].abs().item():.3g}" in said(page)
    assert "change of the share of attention" in page.text(".wb-attention-large")


def test_the_text_under_the_pattern_follows_the_mouse_and_the_direction(bench_page):
    bench, page = bench_page(open=["attention"])
    bench.select(layer=1, head=3)
    title(page, "Layer 1, head 3")
    settle(page, bench)
    token = page.css(".wb-attention-line [data-i='12']")
    token.hover()
    page.wait_js("document.querySelector('.wb-attention-of').textContent.includes('at position 12')")
    page.click("radio", "into")
    page.css(".wb-attention-line [data-i='10']").hover()
    page.wait_js("document.querySelector('.wb-attention-of').textContent.includes('at position 10 is looked at by')")
    share = bench.base["blocks.1.attn.hook_pattern"][0, 3, 12, 10].item()
    words = page.css(".wb-attention-line [data-i='12']").get_attribute("title")
    assert f"attention to 10: {100 * share:.3g}%" in words


def test_in_a_long_text_a_click_chooses_the_strongest_edge_of_its_block(bench_page):
    bench, page = bench_page(tokens_of_length(300), open=["attention"])
    bench.select(layer=1, head=2)
    title(page, "Layer 1, head 2")
    settle(page, bench)
    assert "each cell the largest of 2 × 2" in page.text(".wb-attention-large")
    square = page.css(SQUARE)
    box = square.bounding_box()
    square.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.8})
    page.wait(lambda: bench.selection.key is not None)
    query, key = bench.selection.position, bench.selection.key
    pattern = bench.base["blocks.1.attn.hook_pattern"][0, 2].numpy()
    rows, cols = (slice(at // 2 * 2, at // 2 * 2 + 2) for at in (query, key))
    assert pattern[query, key] == pattern[rows, cols].max()


def test_layers_are_worked_out_on_demand_and_seen_as_they_come(page_of, nano):
    from workbench import view

    kept = [name for name in nano.sites.wanted(None) if not name.endswith("hook_pattern")]
    run = wb.run(nano, torch.tensor([tokens_of_length(300)]), sites=kept, name="bare")
    widget = view.attention(run, show="all")
    page = page_of(widget)
    page.click("button", "Work out 4 layers")
    page.wait(lambda: [job.state for job in widget.session.jobs if job.view == "attention"] == ["done"], 20)
    page.wait(lambda: page.css("button:has-text('Work out')").count() == 0)
    contents = [message.content for message in page.messages if message.content]
    assert len({content["key"] for content in contents if content.get("did") == "stream"}) == 4


@pytest.mark.parametrize("show", ["layer", "all"])
def test_at_the_20bs_numbers_nothing_is_large_and_nothing_seriously_wrong_for_readers_of_screens(bench_page, show):
    bench, page = bench_page(model=like_20b(), open=["attention"], theme="dark", width=600)
    bench.session.options("attention", show=show)
    settle(page, bench)
    assert page.axe(".wb-root") == []
    assert page.page.evaluate("document.querySelectorAll('.wb-attention *').length") < 900
    assert max(message.size for message in page.messages) < 2e6
    assert page.page.evaluate("document.documentElement.scrollWidth") <= 616


def test_hostile_tokens_are_only_text(bench_page):
    bench, page = bench_page("<img src=x onerror=alert(1)> </script> \u202eevil \u200b", open=["attention"])
    settle(page, bench)
    keyed(page, "Control+End", "Enter")
    settle(page, bench)
    assert page.page.evaluate("document.querySelectorAll('.wb-root img, .wb-root script').length") == 0
    assert "\u202e" not in page.text(".wb-attention")


def test_what_python_cannot_answer_is_said_with_a_way_to_try_again(bench_page):
    bench, page = bench_page(open=["attention"])
    settle(page, bench)
    view = bench["attention"]
    answer = view._zoom

    def fails(ask: dict) -> Any:
        raise ValueError("there is no memory for this pattern")

    view._zoom = fails
    bench.select(layer=2, head=1)
    page.wait(lambda: page.get("alert").count())
    assert "there is no memory for this pattern" in page.text("[role=alert]")
    view._zoom = answer
    page.click("button", "Try again")
    title(page, "Layer 2, head 1")
    page.errors.clear()


def test_a_chosen_head_is_on_screen_at_once(bench_page):
    bench, page = bench_page(open=["attention"])
    bench.select(layer=1, head=0)
    title(page, "Layer 1, head 0")
    settle(page, bench)
    heads = page.get("grid", "heads of layer 1, a row for each key-value head")
    heads.focus()
    page.press("ArrowRight")
    times = []
    for head in (1, 2, 3):
        met = f"document.querySelector({TITLE!r}).textContent === 'Layer 1, head {head}'"
        times.append(page.latency(lambda: page.press("Enter"), met))
        settle(page, bench)
        page.press("ArrowRight")
    print("ms from Enter to the new head in large:", [round(time) for time in times])
    assert sorted(times)[1] < 300
