"""The atlas in a browser: an expert is chosen, its contexts are read and run, and what is on screen is Python's."""

import re

import numpy as np
import pytest

from tests.browser.benches import SHAPE_20B, atlas_of, load_nano, microworld_atlas, settle
from workbench.model import NANO, HookedGptOss, random_weights

PICKER = "experts of each layer, by load"


@pytest.fixture(scope="module")
def atlas():
    return microworld_atlas(6)


@pytest.fixture
def open_page(bench_page, atlas):
    def make(*given, shown=atlas, **options):
        bench, page = bench_page(*given, open=["atlas"], **options)
        bench.atlas = shown
        settle(page, bench)
        return bench, page

    return make


def titled(page, words):
    return page.css(".wb-panel-title").filter(has_text=words)


def rows(page):
    """The listed contexts that are on screen: their cells' texts, without marks of isolation."""
    return [
        [re.sub("[\u2066-\u2069]", "", cell) for cell in row.locator(".wb-cell").all_text_contents()]
        for row in page.css(".wb-atlas-list .wb-row").all()
    ]


def test_keys_in_the_picker_choose_an_expert_and_the_contexts_are_pythons(open_page):
    bench, page = open_page()
    page.css(f"[role=grid][aria-label='{PICKER}']").focus()
    page.press("Control+Home", "ArrowDown", "ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "Enter")
    page.wait(lambda: (bench.selection.layer, bench.selection.expert) == (2, 3))
    page.wait(lambda: titled(page, "Contexts of L2E3").count() == 1)
    settle(page, bench)
    view, shown = bench["atlas"], rows(page)
    for cells, each in zip(shown, view.contexts, strict=False):
        assert cells[0] == f"{each.weight:.3f}"
        assert cells[1] == "".join(view.data({"what": "contexts"})[0]["rows"][view.contexts.index(each)]["tokens"])
        assert cells[2].startswith(each.domain)
    marks = page.css(".wb-atlas-list mark").all_text_contents()
    assert marks == [bench.session.word(each.ids[each.centre]) for each in view.contexts[: len(marks)]]
    said = view.data({"what": "spread"})[0]
    table = page.css(".wb-atlas-scroll tbody tr").all()
    assert len(table) == len(said["groups"])
    for line, group in zip(table, said["groups"], strict=True):
        words = line.text_content()
        assert words.startswith(group["name"]) and f"{group['lift']:.2f}" in words
        assert f"{group['count']:,} of {group['tokens']:,}" in words
    assert page.axe(".wb-root") == []


def test_a_selection_from_elsewhere_and_a_neighbour_are_followed(open_page):
    bench, page = open_page(theme="dark", width=600)
    bench.select(layer=1, expert=5)
    page.wait(lambda: titled(page, "Contexts of L1E5").count() == 1)
    settle(page, bench)
    first = bench["atlas"].data({"what": "spread"})[0]["neighbours"][0]["expert"]
    page.get("button", re.compile(f"^E{first}: choose")).click()
    page.wait(lambda: (bench.selection.layer, bench.selection.expert) == (1, first))
    page.wait(lambda: titled(page, f"Contexts of L1E{first}").count() == 1)
    bench.select(head=2)  # something else is chosen: the expert stays
    settle(page, bench)
    assert titled(page, f"Contexts of L1E{first}").count() == 1


def test_the_weight_of_a_token_is_shown_where_the_mouse_is(open_page):
    bench, page = open_page()
    bench.select(layer=2, expert=3)
    settle(page, bench)
    token = page.css(".wb-atlas-list mark").first
    token.hover()
    page.wait(lambda: f"weight {bench['atlas'].contexts[0].weight:.3f}" in page.text(".wb-atlas-readout"))
    assert token.get_attribute("title") == f"weight {bench['atlas'].contexts[0].weight:.3f}"


def test_a_click_chooses_a_context_keys_read_it_and_a_button_makes_it_the_prompt(open_page):
    bench, page = open_page()
    bench.select(layer=2, expert=3)
    settle(page, bench)
    page.css(".wb-atlas-list .wb-row").nth(2).click()
    page.wait(lambda: bench["atlas"].context is not None)
    each = bench["atlas"].contexts[2]
    assert (bench["atlas"].context.document, bench["atlas"].context.position) == (each.document, each.position)
    page.wait(lambda: page.css(".wb-atlas-chosen").count() == 1)
    chosen = bench["atlas"].context
    page.get("listbox", "the chosen context, token by token").focus()
    page.press("ArrowLeft")
    page.wait(lambda: f"weight {chosen.weights[chosen.centre - 1]:.3f}" in page.text(".wb-atlas-chosen [role=status]"))
    page.click("button", "Open as prompt")
    page.wait(lambda: bench.selection.position == each.position)
    settle(page, bench)
    assert bench.base.tokens[0, each.position] == each.ids[each.centre]
    assert float(bench.selection.values()) == pytest.approx(each.weight, abs=1e-5)
    page.click("button", "Undo")
    page.wait(lambda: len(bench.base.tokens[0]) == 14)
    page.click("button", "Close")
    page.wait(lambda: bench["atlas"].context is None and page.css(".wb-atlas-chosen").count() == 0)


def test_the_contexts_are_run_and_every_number_on_screen_is_the_datasets(open_page):
    bench, page = open_page()
    bench.select(layer=2, expert=3)
    bench.session.options("atlas", n=8)
    settle(page, bench)
    page.click("button", "Run 8 with and without it")
    page.wait(lambda: bench["atlas"].effects is not None and bench["atlas"].effects.sizes["context"] == 8, timeout=60)
    settle(page, bench)
    data = bench["atlas"].effects
    for cells, kl, change in zip(rows(page), data.kl.values.T, data.loss_change.values[0], strict=False):
        assert cells[-3:-1] == ["0" if value == 0 else "<0.001" if value < 5e-4 else f"{value:.3f}" for value in kl]
        assert float(cells[-1].replace("−", "-")) == pytest.approx(float(change), abs=6e-4)
    words = page.text(".wb-atlas-bottom")
    mean, low, high = (float(data[f"kl_{end}"][0]) for end in ("mean", "low", "high"))
    assert f"{mean:.3f} ({low:.3f} to {high:.3f})" in words
    assert f"it serves {int((data.weight[1] > 0).sum())} of the framed tokens" in words
    raised = page.css(".wb-atlas-words").first.locator("li").all_text_contents()
    assert len(raised) == 10 and f"+{float(data.raised[0]):.3f}" in raised[0]
    page.css(".wb-atlas-list").get_by_role("button", name=re.compile("^KL E3")).click()  # sorted by effect
    page.wait(lambda: rows(page)[0][-3] == f"{float(data.kl[0].max()):.3f}")
    bench.select(layer=2, expert=4)  # the numbers of one expert never stand beside another
    page.wait(lambda: titled(page, "Contexts of L2E4").count() == 1)
    settle(page, bench)
    assert "Run 8" in page.text(".wb-atlas") and page.css(".wb-atlas-words").count() == 0


def test_without_an_atlas_it_says_how_one_is_made_and_opens_a_folder(open_page, atlas, tmp_path):
    bench, page = open_page(shown=None)
    assert 'wb.atlas(model, texts, "my-atlas")' in page.text(".wb-atlas")
    assert page.axe(".wb-root") == []
    page.type("textbox", "or open a folder", str(tmp_path))
    page.click("button", "Open")
    page.wait(lambda: "there is no atlas in" in page.text(".wb-root"))
    assert bench.atlas is None
    page.errors.clear()
    page.type("textbox", "or open a folder", str(atlas.folder))
    page.click("button", "Open")
    page.wait(lambda: bench.atlas is not None and page.css(".wb-atlas-list").count() == 1)
    bench.session.options("atlas", folder=str(tmp_path / "gone"))
    page.wait(lambda: "The atlas cannot be read" in page.text(".wb-atlas"))
    bench.atlas = atlas
    page.wait(lambda: page.css(".wb-atlas-list").count() == 1)
    page.click("button", "Another…")  # closed while it is on screen
    page.wait(lambda: bench.atlas is None and "No atlas is open" in page.text(".wb-atlas"))


def test_an_atlas_of_a_model_of_many_experts_is_small_on_the_page_and_of_another_shape_says_so(open_page):
    shape = SHAPE_20B | {"n_heads": 4, "n_key_value_heads": 1, "d_model": 32}
    wide = random_weights(HookedGptOss(NANO.with_(**shape), load_nano().tokenizer), 0)
    documents = {f"domain {i}": ["Mia went to the park and saw a dog. " * 2] * 3 for i in range(40)}
    bench, page = open_page(shown=atlas_of(wide, documents))
    assert "another model" in page.text(".wb-atlas") and "24 layers × 32 experts" in page.text(".wb-atlas")
    bench.session.options("atlas", n=200, once=False)
    page.css(f"[role=grid][aria-label='{PICKER}']").focus()
    busiest = np.unravel_index(int(np.argmax(bench.atlas.load()["count"].values)), (24, 32))
    page.press("Control+Home", *["ArrowDown"] * busiest[0], *["ArrowRight"] * busiest[1], "Enter")
    page.wait(lambda: titled(page, f"Contexts of L{busiest[0]}E{busiest[1]}").count() == 1)
    settle(page, bench)
    assert bench.selection.expert is None and page.get("button", re.compile("^Run ")).count() == 0
    assert page.page.evaluate("document.querySelectorAll('.wb-atlas *').length") < 2_500
    assert max(message.size for message in page.messages) < 2_000_000
