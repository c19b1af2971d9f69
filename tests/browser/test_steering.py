"""The steering view in a browser, on nano."""

import io

import numpy as np
import pytest
import torch

import workbench as wb
from tests.browser.benches import like_20b, settle, tokens_of_length

SHOWN = "document.querySelector('.wb-steering-scale output')?.textContent"
KL = "document.querySelector('.wb-steering-pair .wb-note span')?.textContent"


@pytest.fixture
def steering(bench_page):
    def steering(*what, **options):
        bench, page = bench_page(*what, open=["steering"], **options)
        settle(page, bench)
        page.wait_js(KL)
        return bench, page

    return steering


def kl_of(bench, spec, vector):
    """KL after the text, by a run of its own."""
    done = wb.run(bench.model, bench.base.tokens, [spec], sources={"v": vector})
    return float(done.kl[0, -1])


def test_what_is_on_screen_is_what_a_run_with_the_vector_gives(steering):
    bench, page = steering()
    bench.session.options("steering", token=688, layer=1, scale=25.0)
    settle(page, bench)
    spec = wb.Steer("blocks.1.hook_resid_post", "v", 25.0)
    expected = kl_of(bench, spec, bench.model.unembed.weight[688].detach())
    assert float(page.page.evaluate(KL).split()[1]) == pytest.approx(expected, rel=6e-3)
    steered = page.css(".wb-steering-column").nth(1).inner_text()
    with bench.model.edited([spec], {"v": bench.model.unembed.weight[688].detach()}):
        text = bench.model.generate(bench.base.tokens, 24).finish().text
    assert text.replace(" ", "␣").replace("\n", "¶") in steered.replace("\n", "")
    assert page.axe(".wb-root") == []


def test_the_effect_follows_the_slider_while_it_is_dragged_and_is_kept_when_it_is_let_go(steering):
    bench, page = steering()
    slider = page.get("slider", "Scale")
    before = page.page.evaluate(KL)
    slider.focus()
    drag = "(e) => { e.value = Number(e.max) / 2; e.dispatchEvent(new Event('input', { bubbles: true })); }"
    slider.evaluate(drag)
    page.wait_js(f"{KL} !== {before!r} ")
    assert bench.session.views["steering"].option("scale") is None
    page.press("ArrowRight")
    page.wait(lambda: bench.session.views["steering"].option("scale") is not None)
    settle(page, bench)
    assert page.page.evaluate(SHOWN) == f"× {bench.session.views['steering'].option('scale'):.3g}"


def test_a_typed_scale_is_taken_and_what_is_no_number_is_refused_in_words(steering):
    bench, page = steering()
    page.type("textbox", "scale, typed", "-3.5")
    page.press("Enter")
    page.wait(lambda: bench.session.views["steering"].option("scale") == -3.5)
    page.type("textbox", "scale, typed", "much")
    page.press("Enter")
    page.wait_js("document.body.textContent.includes('“much” is no number')")
    page.errors.clear()


def test_typed_texts_become_a_direction_and_an_empty_side_says_what_is_missing(steering):
    bench, page = steering(theme="dark", width=600)
    page.click("radio", "difference of means")
    page.wait_js("document.body.textContent.includes('at least one text on each side')")
    page.type("textbox", "Mean of these texts, one a line", "Anna is glad")
    page.type("textbox", "less the mean of these", "Ben is sad")
    page.wait_js("document.querySelectorAll('.wb-steering-pair table').length === 2")
    page.wait(lambda: bench.session.views["steering"].option("negative") == "Ben is sad")
    settle(page, bench)
    assert page.axe(".wb-root") == []


def test_an_expert_of_the_selection_is_followed_until_it_is_pinned(steering):
    bench, page = steering()
    page.click("radio", "expert")
    bench.select(layer=1, position=3, expert=6)
    page.wait_js("document.body.textContent.includes('L1 E6 @3')")
    page.get("checkbox", "follows the selection").uncheck()
    page.wait(lambda: bench.session.views["steering"].option("of_index") == 6)
    bench.select(layer=2, position=5, expert=0)
    settle(page, bench)
    assert "L1 E6 @3" in page.css(".wb-steering-length").inner_text()


def test_a_direction_goes_on_the_bench_as_a_vector_and_a_chip_and_its_chip_is_updated(steering):
    bench, page = steering()
    bench.session.options("steering", token=688, layer=1, scale=25.0)
    settle(page, bench)
    page.click("button", "Put it on the Bench")
    page.wait(lambda: len(bench.interventions) == 1)
    (spec,) = bench.interventions
    assert (spec.site, spec.scale, spec.positions) == ("blocks.1.hook_resid_post", 25.0, None)
    settle(page, bench)
    vector = bench.model.unembed.weight[688].detach()
    torch.testing.assert_close(
        bench.run.kl[0, -1].item(), kl_of(bench, wb.Steer(spec.site, "v", 25.0), vector), rtol=1e-3, atol=1e-6
    )
    page.type("textbox", "scale, typed", "30")
    page.press("Enter")
    page.click("button", "Update the Bench")
    page.wait(lambda: bench.interventions[0].scale == 30)
    assert len(bench.interventions) == 1


def test_a_vector_is_opened_from_a_file_and_a_hostile_one_is_refused_in_words(steering):
    bench, page = steering()
    page.click("radio", "file or saved")
    page.wait_js("document.body.textContent.includes('Open a file with a vector')")
    held = io.BytesIO()
    np.save(held, np.arange(1, 129, dtype=np.float32))
    field = page.css("input[aria-label='vector file']")
    field.set_input_files({"name": "<img src=x onerror=alert(1)>.npy", "mimeType": "x", "buffer": held.getvalue()})
    page.wait(lambda: bench.session.views["steering"].option("vector") != "")
    settle(page, bench)
    assert page.css("img").count() == 0 and "onerror" in page.css(".wb-steering-length").inner_text()
    pickled = io.BytesIO()
    np.save(pickled, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    field.set_input_files({"name": "bad.npy", "mimeType": "x", "buffer": pickled.getvalue()})
    page.wait_js("document.body.textContent.includes('holds no vector that can be read')")
    page.errors.clear()
    page.bridge.errors.clear()


def test_a_text_is_written_token_by_token_and_can_be_stopped_and_gone_on_with(steering):
    bench, page = steering()
    bench.session.options("steering", token=688, layer=1, scale=60.0, length=192)
    marks = "document.querySelectorAll('.wb-steering-column mark').length"
    page.wait_js(f"{marks} > 3")
    page.get("button", "Cancel: texts, steered by 60").first.click()
    writing = next(job for job in bench.session.jobs if job.label == "texts, steered by 60")
    page.wait(lambda: writing.state == "cancelled", what=str(bench.session.jobs))
    settle(page, bench)
    so_far = page.css(".wb-steering-column mark").count()
    assert 3 < so_far < 192
    page.get("button", "Resume: texts, steered by 60").first.click()
    page.wait_js(f"{marks} > {so_far}")
    for job in bench.session.jobs:
        job.cancel()


@pytest.mark.parametrize("n", [1, 300])
def test_short_and_long_texts_of_a_model_with_as_many_parts_as_the_20b_are_steered(steering, n):
    _, page = steering(tokens_of_length(n), model=like_20b() if n == 1 else None, width=600)
    page.wait_js("document.querySelectorAll('.wb-steering-pair table').length === 2")
    assert page.page.evaluate("document.querySelectorAll('.wb-steering *').length") < 600
    assert max(message.size for message in page.messages if message.method == "custom") < 200_000
