"""The logit lens in a browser: what one clicks, reads and sees."""

import statistics

import pytest

import workbench as wb
from tests.figures.data import HOSTILE
from workbench.widgets import Bench

PAIR = {"mia": "Mia is in the garden. Where is Mia?", "tom": "Tom is in the garden. Where is Tom?"}
CELL = ".wb-lens [role=gridcell]"
POPUP = ".wb-lens .wb-popup"


@pytest.fixture(scope="module")
def nano():
    return wb.load("nano")


@pytest.fixture
def benches():
    """Closed after the pages that show them."""
    made = []
    yield made
    for bench in made:
        bench.close()


@pytest.fixture
def lens(benches, page_of, nano):
    """`lens(prompt, width=…)`: a page with a Bench whose only view is the lens, and the Bench."""

    def make(prompt=PAIR, **options):
        bench = Bench(nano, prompt, open=["logit_lens"])
        benches.append(bench)
        bench.session.wait(60)
        page = page_of(bench, **options)
        page.wait_js(f"document.querySelector('{CELL}') !== null", 20)
        return page, bench

    return make


def click(page, row, col, **options):
    """Click the cell of a row and column of five, as far as the rows are in sight."""
    page.wait_js("document.querySelector('.wb-lens canvas') !== null")
    box = page.css(".wb-lens .wb-matrix-window").bounding_box()
    labels = page.page.evaluate("document.querySelector('.wb-lens .wb-matrix-all').offsetWidth")
    left = labels - 5 * 120  # five columns of their largest width
    page.css(".wb-lens .wb-matrix-window").click(
        position={"x": left + col * 120 + 20, "y": 18 + row * 21 + 10}, **options
    )
    assert box["width"] > labels


def said(page):
    return page.css(CELL).inner_text()


def test_a_click_selects_and_opens_the_cell_and_the_popup_moves_with_the_arrow_keys(lens):
    page, bench = lens()
    click(page, 4, 2)
    page.wait(lambda: (bench.selection.position, bench.selection.layer) == (4, 1))
    page.wait_js(f"document.querySelectorAll('{POPUP} tbody tr').length === 10")
    cell, _ = bench["logit_lens"].data({"part": "cell", "position": 4, "stage": 2})
    shown = page.css(f"{POPUP} tbody th").all_inner_texts()
    assert [text.strip() for text in shown] == [each["text"] for each in cell["top"]]
    assert "layer 1" in page.text(f"{POPUP} .wb-popup-title")
    page.press("ArrowRight", "ArrowDown")
    page.wait(lambda: (bench.selection.position, bench.selection.layer) == (5, 2))
    page.wait(lambda: "layer 2" in page.text(f"{POPUP} .wb-popup-title"))
    page.press("Home")
    page.wait(lambda: bench.selection.site == "hook_embed" and bench.selection.layer is None)
    page.press("Escape")
    page.wait(lambda: page.css(POPUP).count() == 0)
    assert page.axe() == []


def test_what_is_selected_elsewhere_is_marked_and_said_here(lens):
    page, bench = lens()
    bench.select(position=7, layer=2)
    page.wait(lambda: "position 7, layer 2" in said(page))
    assert page.css(CELL).get_attribute("aria-selected") == "true"
    likeliest = bench["logit_lens"].table()
    assert said(page).startswith(bench.session.word(int(likeliest.top_id.values[7, 3].item())))


def test_tokens_are_pinned_by_shift_click_and_by_key_and_drawn_over_the_layers(lens):
    page, bench = lens()
    click(page, 2, 2, modifiers=["Shift"])
    page.wait(lambda: bench["logit_lens"].option("pinned") == [2])
    click(page, 4, 3)
    page.press("p")
    page.wait(lambda: bench["logit_lens"].option("pinned") == [2, 4])
    page.wait_js("document.querySelectorAll('.wb-lens-chart path.wb-line-path').length === 2")
    page.press("Escape")
    page.click("button", "Unpin ␣in, position 2")
    page.wait(lambda: bench["logit_lens"].option("pinned") == [4])
    page.get("combobox", "Shows").select_option("kl")
    page.wait(lambda: bench["logit_lens"].option("measure") == "kl")
    page.wait(lambda: "KL(final" in page.css(".wb-lens-chart svg").first.text_content())
    assert page.axe() == []


def test_two_prompts_are_compared_and_a_token_is_followed(lens):
    page, bench = lens()
    page.get("combobox", "Difference from").select_option("tom")
    page.wait(lambda: "less tom" in page.text(".wb-lens-key"))
    bench.select(position=0, layer=0)
    page.wait(lambda: "in tom:" in said(page))
    page.get("combobox", "Colour").last.select_option("kl")
    page.wait(lambda: "KL(run ‖ other)" in said(page))
    page.type("textbox", "Target", " garden")
    page.press("Enter")
    page.wait(lambda: bench["logit_lens"].option("target") == bench.model.to_single_token(" garden"))
    page.wait(lambda: "␣garden" in page.text(".wb-lens-target"))
    page.click("button", "Follow the final prediction again")
    page.wait(lambda: bench["logit_lens"].option("target") is None)
    page.type("textbox", "Target", "two words of it")
    page.press("Enter")
    page.wait(lambda: "tokens" in page.text(".wb-status"))
    page.errors.clear()  # the refusal is in the console too


def test_an_intervention_changes_what_is_on_screen(lens):
    page, bench = lens()
    bench.select(position=9, layer=3)
    page.wait(lambda: "position 9, layer 3" in said(page))
    before = said(page)
    bench.add(wb.AblateLayer(1))
    page.wait(lambda: said(page) != before)
    word = bench.session.word(int(bench.run.logits[0, 9].argmax()))
    page.wait(lambda: said(page).startswith(word))


def test_two_thousand_tokens_are_a_few_elements_and_dark_and_narrow_are_sound(lens, nano):
    ids = nano.to_tokens("Mia is in the garden. Tom went to the mill. ")[0].tolist()
    page, bench = lens((ids * 200)[:2000], width=600, theme="dark")
    assert page.page.evaluate("document.querySelectorAll('.wb-lens *').length") < 160
    bench.select(position=1990, layer=3)
    page.wait(lambda: "position 1990" in said(page))
    page.wait_js("document.querySelector('.wb-lens .wb-matrix-window').scrollTop > 40000")
    page.get("radio", "overview").click()
    page.wait(lambda: bench["logit_lens"].option("rows") == "overview")
    assert page.axe() == []
    fits = "[...document.querySelectorAll('.wb-lens *')].every(e => e.getBoundingClientRect().right <= innerWidth)"
    assert page.page.evaluate(fits)
    sent = [message.size for message in page.messages if message.way == "out" and message.method == "custom"]
    assert max(sent) < 500_000


def test_hostile_tokens_make_no_element(lens, nano, monkeypatch):
    monkeypatch.setattr(type(nano.tokenizer), "str_tokens", lambda self, ids: [HOSTILE[i % len(HOSTILE)] for i in ids])
    page, bench = lens("Mia is in the garden. Where is Mia?")
    bench.select(position=2, layer=1)
    click(page, 3, 1)
    page.wait_js(f"document.querySelectorAll('{POPUP} tbody tr').length === 10")
    assert page.page.evaluate("document.querySelectorAll('.wb-root :is(img, script, b, a, iframe)').length") == 0


def test_the_lens_follows_a_selection_at_once(lens):
    page, bench = lens()
    text = "document.querySelector('.wb-lens [role=gridcell]').innerText"
    bench.select(position=0, layer=1)
    page.wait(lambda: "position 0, layer 1" in said(page))
    page.css(".wb-strip-window").first.focus()
    taken = [page.latency(lambda: page.press("ArrowRight"), f"{text}.includes('position {i},')") for i in range(1, 8)]
    assert statistics.quantiles(taken)[0] < 100  # of the quicker half: others may be at work on this machine
