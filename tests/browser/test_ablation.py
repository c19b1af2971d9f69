"""The ablation bench in a browser, on nano and on as many components as the 20b has."""

import numpy as np
import pytest

import workbench as wb
from tests.browser.benches import like_20b, settle, tokens_of_length

ROWS = "document.querySelectorAll('.wb-ablation-table .wb-row').length"
FIRST = "document.querySelector('.wb-ablation-table .wb-row .wb-ablation-name').textContent"


@pytest.fixture
def ablation(bench_page):
    def ablation(*what, **options):
        bench, page = bench_page(*what, open=["ablation"], **options)
        settle(page, bench)
        page.wait_js(f"{ROWS} > 0")
        return bench, page

    return ablation


def cells(page, name):
    """The numbers of one row, as they are written."""
    row = page.css(".wb-ablation-table .wb-row").filter(has_text=name).first
    return [
        text.replace("−", "-").replace("≈ ", "").replace("+", "")
        for text in row.locator(".wb-cell").all_inner_texts()[3:]
    ]


def test_the_table_has_the_numbers_of_runs_left_difference_and_right(ablation):
    bench, page = ablation()
    page.get("button", "Run 64 ablations").click()
    page.wait_js("document.body.textContent.includes('All are run')", 60)
    right, wrong = bench.session.metric()
    gaps = []
    for name in ("clean", "corrupt"):
        base = bench.session.run(name)
        runs = [base, wb.run(bench.model, base.tokens, [wb.AblateHead(0, 3)])]
        gaps.append(np.diff([float(run.logits[0, -1, right] - run.logits[0, -1, wrong]) for run in runs])[0])
    found = [float(text) for text in cells(page, "L0 H3")[9:]]
    assert found == pytest.approx([gaps[0], gaps[1] - gaps[0], gaps[1]], rel=6e-3, abs=6e-4)
    assert page.axe(".wb-root") == []


def test_a_row_is_selected_everywhere_and_a_selection_made_elsewhere_is_shown(ablation):
    bench, page = ablation()
    page.css(".wb-ablation-table .wb-row").filter(has_text="L0 H5").click()
    page.wait(lambda: (bench.selection.layer, bench.selection.head) == (0, 5))
    bench.select(layer=2, head=6)
    page.wait_js("document.querySelector('.wb-ablation-table .wb-row.wb-selected')?.textContent.includes('L2 H6')")
    assert page.css(".wb-ablation-table .wb-row.wb-selected").is_visible()
    page.click("radio", "Layers")
    page.wait_js(
        "document.querySelector('.wb-ablation-table .wb-row.wb-selected .wb-ablation-name')?.textContent === 'L2'"
    )


def test_by_keys_a_row_is_taken_out_put_back_and_chosen_for_the_group(ablation):
    bench, page = ablation()
    page.css(".wb-ablation-table .wb-table").focus()
    page.press("ArrowDown", "ArrowDown", "o")
    page.wait(lambda: bench.interventions == (wb.AblateHead(0, 2),))
    page.wait_js("document.querySelector('.wb-ablation-out')?.textContent === 'L0 H2'")
    page.press("x", "ArrowDown", "x")
    page.wait(lambda: bench.session.views["ablation"].option("group") == [[0, 2], [0, 3]])
    page.press("ArrowUp", "o")
    page.wait(lambda: bench.interventions == ())
    settle(page, bench)


def test_a_group_is_knocked_out_beside_random_groups_and_put_on_the_bench(ablation):
    bench, page = ablation(theme="dark", width=600)
    bench.session.options("ablation", kind="layer", group=[[0, 0], [1, 0]])
    settle(page, bench)
    page.get("button", "Knock out", exact=True).click()
    page.wait_js("document.querySelectorAll('.wb-ablation-mark').length === 2", 60)
    settle(page, bench)
    assert "5 random groups of 2" in page.css(".wb-ablation-strip").first.inner_text()
    assert page.css(".wb-ablation-strip circle").count() == 10
    assert page.axe(".wb-root") == []
    page.click("button", "Take out on the Bench")
    page.wait(lambda: bench.interventions == (wb.AblateLayer(0), wb.AblateLayer(1)))
    settle(page, bench)


def test_the_table_is_sorted_by_a_column_and_the_overview_follows(ablation):
    bench, page = ablation()
    page.css(".wb-ablation-table .wb-table-title").filter(has_text="clean").nth(2).click()
    page.wait(lambda: bench.session.views["ablation"].option("sort") == "direct.left")
    settle(page, bench)
    direct = bench.session.views["ablation"].data({})[1]["direct"][0]
    best = int(direct.argmax())
    assert page.page.evaluate(FIRST) == f"L{best // 8} H{best % 8}"
    assert "direct effect, clean, as the table is sorted" in page.css(".wb-ablation").inner_text()


def test_a_sweep_over_as_many_heads_as_the_20b_has_streams_stops_and_goes_on(ablation):
    bench, page = ablation(tokens_of_length(40), model=like_20b())
    assert (
        page.page.evaluate(ROWS) < 60
        and page.page.evaluate("document.querySelectorAll('.wb-ablation *').length") < 2500
    )
    page.get("button", "Run 1536 ablations").click()
    job = page.wait(
        lambda: next((job for job in bench.session.jobs if job.view == "ablation" and job.done > 5), None), 60
    )
    page.get("button", "Cancel: ablate every head, zero").first.click()
    page.wait(lambda: job.state == "cancelled")
    kept = bench.session.views["ablation"]
    sweep = kept.sweep(kept.choice(), kept.choice().sides()[0])
    done = 1536 - sweep.left
    page.wait_js(f"document.body.textContent.includes('Run {sweep.left} ablations')")
    page.get("button", "Resume: ablate every head, zero").first.click()
    page.wait(lambda: 1536 - sweep.left > done, 60)
    page.get("button", "Cancel: ablate every head, zero").first.click()
    settle(page, bench)
    assert max(message.size for message in page.messages if message.method == "custom") < 200_000


@pytest.mark.parametrize("n", [1, 300])
def test_short_and_long_texts_have_a_table(ablation, n):
    bench, page = ablation(tokens_of_length(n), width=600)
    for kind in ("Experts", "Layers", "Sinks"):
        page.click("radio", kind)
        page.wait(lambda kind=kind: kind.lower().startswith(bench.session.views["ablation"].option("kind")))
        settle(page, bench)
    assert "L0 H0 sink" in page.css(".wb-ablation-table").inner_text()


def test_hostile_names_and_tokens_are_text(ablation):
    hostile = {"<img src=x onerror=alert(1)>": "Anna </script><b>x</b>", "two": "Ben gave it"}
    bench, page = ablation(hostile)
    assert page.css(".wb-ablation img, .wb-ablation b").count() == 0
    assert "<img src=x onerror=alert(1)>" in page.css(".wb-ablation-said").inner_text()
    scope: dict = {}
    bench.session.options("ablation", kind="layer")
    exec(bench.code("ablation"), scope)
    assert scope["left"].sizes["component"] == 4
