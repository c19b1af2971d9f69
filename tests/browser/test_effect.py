"""The effect panel in a browser: numbers that follow the edits, texts that come word by word."""

import statistics

import pytest

import workbench as wb
from workbench.widgets import Bench

CHAT = wb.Chat().user("Where is Mia? Mia is in the garden. Tom is in the kitchen. Where is Mia?")
HARD = (wb.AblateHead(1, 0), wb.AblateLayer(1))
AFTER = "document.querySelector('.wb-effect .wb-distribution tbody tr td:last-child')?.innerText"


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
def panel(benches, page_of, nano):
    """`panel(specs, width=…)`: a page with a Bench, and the Bench."""

    def make(specs=HARD, **options):
        bench = Bench(nano, CHAT, interventions=specs, open=["logit_lens"])
        benches.append(bench)
        bench.session.wait(60)
        page = page_of(bench, **options)
        page.wait_js("document.querySelector('.wb-effect .wb-distribution tr') !== null", 20)
        return page, bench

    return make


def test_the_numbers_on_screen_are_those_of_python_and_follow_the_selection(panel):
    page, bench = panel()
    bench.select(position=31)
    page.wait(lambda: "31" in page.text(".wb-effect-parts .wb-panel-head"))
    before, after = (run.logits[0, 31].softmax(-1) for run in (bench.base, bench.run))
    bars = bench["effect"].data({"position": 31})[0]["bars"]
    rows = page.css(".wb-effect .wb-distribution tbody tr").all_inner_texts()
    assert len(rows) == len(bars)
    for row, bar in zip(rows, bars, strict=True):
        numbers = [part for part in row.split() if part.endswith("%")]
        for shown, p in zip(numbers, (before[bar["id"]], after[bar["id"]]), strict=True):
            assert float(shown.strip("<%")) == pytest.approx(100 * float(p), rel=0.01, abs=0.011)
    assert f"{bench.run.kl.mean():.3g}" in page.text(".wb-effect-sum")


def test_a_flipped_token_and_a_layer_are_selected_by_click_and_by_key(panel):
    page, bench = panel()
    rows = page.css(".wb-effect [role=row].wb-row")
    first = int(rows.first.inner_text().split()[0])
    rows.first.click()
    page.wait(lambda: bench.selection.position == first)
    page.press("ArrowDown", "Enter")
    page.wait(lambda: bench.selection.position > first)
    page.css(".wb-effect .wb-column").nth(2).click()
    page.wait(lambda: bench.selection.layer == 2)
    page.press("ArrowRight", "Enter")
    page.wait(lambda: bench.selection.layer == 3)


def test_both_texts_are_written_and_their_differences_marked(panel, nano):
    page, bench = panel()
    page.wait_js("document.querySelectorAll('.wb-said-end').length > 0", 20)
    page.wait(lambda: not bench.session.under_way(), 20)
    with nano.edited(HARD):
        expected = nano.generate(bench.base.tokens, 24).finish()
    shown = page.css(".wb-said-text").nth(1).inner_text().replace("\n", "")
    assert shown.startswith("".join(bench.session.word(token) for token in expected.new_tokens[0].tolist()))
    assert "part at token 2" in page.text(".wb-effect-text")
    assert page.css(".wb-said-new").count() > 0 and page.css(".wb-said-old").count() > 0
    assert page.axe() == []


def test_the_text_is_made_again_when_the_interventions_change(panel):
    page, bench = panel((wb.AblateLayer(1),))
    page.wait(lambda: bench["effect"].data({})[0]["completion"] and not bench.session.under_way(), 20)
    old = page.css(".wb-said-text").nth(1).inner_text()
    bench.add(wb.AblateHead(1, 0))
    bench.add(wb.AblateLayer(0))
    page.wait(
        lambda: (
            page.css(".wb-said-text").count() == 2 and page.css(".wb-said-text").nth(1).inner_text() not in ("", old)
        ),
        20,
    )
    page.wait(lambda: not bench.session.under_way(), 20)
    shown = page.css(".wb-said-text").nth(1)

    def as_python_says():
        said = bench["effect"].data({})[0]["completion"]
        if not said or not said["after"]:  # the job for the second intervention has not begun yet
            return False
        return shown.inner_text().replace("\n", "").startswith("".join(said["after"]["tokens"]))

    page.wait(as_python_says)


def test_it_folds_away_and_says_when_everything_is_off(panel):
    page, bench = panel((wb.AblateHead(1, 0),), theme="dark", width=600)
    assert page.axe() == []
    page.click("button", "Less")
    page.wait(lambda: page.css(".wb-effect-parts").count() == 0 and "KL after" in page.text(".wb-effect-sum"))
    bench.session.toggle(bench.session.state.chips[0].id)
    page.wait(lambda: "All interventions are off" in page.text(".wb-touched"))


def test_a_toggled_expert_shows_within_300_ms(panel):
    page, bench = panel((wb.AblateExpert(1, 3), wb.AblateHead(1, 0)))
    bench.session.options("effect", live=False)
    bench.select(position=39)
    page.wait(lambda: "39" in page.text(".wb-effect-parts .wb-panel-head"))
    page.pump(0.3)
    chip = page.css(".wb-chip-toggle").first
    mean = "document.querySelector('.wb-effect-sum').innerText"
    taken = []
    for _ in range(6):
        now = page.page.evaluate(mean)
        taken.append(
            page.latency(chip.click, f"({mean}) !== {now!r} && !document.querySelector('.wb-effect .wb-stale')")
        )
        page.pump(0.1)
    assert statistics.quantiles(taken)[0] < 300  # of the quicker half: others may be at work on this machine
