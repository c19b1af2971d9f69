"""The history view with more steps than are shown, and than are kept."""

import pytest

import workbench as wb
from tests.browser.benches import PROMPT, make_bench, settle

STEPS = ".wb-history-steps li"


@pytest.fixture
def long(nano, page_of):
    """Of 131 steps the newest 120."""
    bench = make_bench(nano, PROMPT, ["history"], steps=120)
    for i in range(130):
        bench.session.edit((wb.AblateHead(i % 2, i % 3),), f"step {i + 2}")
    bench.session.wait(60)
    page = page_of(bench)
    settle(page, bench)
    yield bench, page
    bench.close()


def numbers(page):
    return [int(text) for text in page.css(".wb-history-number").all_inner_texts()]


def test_steps_are_shown_fifty_at_once_and_those_that_fell_off_are_said(long):
    bench, page = long
    assert numbers(page) == list(range(82, 132))
    assert "steps 82 to 131 of 131; steps 1 to 11 have fallen off" in page.text(".wb-history")
    page.click("button", "Earlier")
    page.wait(lambda: numbers(page) == list(range(32, 82)))
    page.click("button", "Earlier")
    page.wait(lambda: numbers(page) == list(range(12, 62)))
    assert page.get("button", "Earlier").is_disabled() and page.axe(".wb-root") == []
    page.css(f"{STEPS} .wb-history-go").first.click()
    settle(page, bench)
    assert bench.session.history.at == 0 and page.get("button", "Undo").is_disabled()
    assert "you are here" in page.css(STEPS).first.inner_text() and numbers(page) == list(range(12, 62))
    page.click("button", "Later")
    page.wait(lambda: numbers(page) == list(range(62, 112)))
    page.click("button", "Where I am")
    page.wait(lambda: numbers(page) == list(range(12, 62)))


def test_two_steps_far_apart_are_compared(long):
    bench, page = long
    page.click("button", "compare step 131")
    page.click("button", "Earlier")
    page.wait(lambda: numbers(page)[0] == 32)
    page.click("button", "compare step 32")
    page.wait(lambda: "step 131 and step 32" in page.text(".wb-history"))
    bench.add(wb.AblateLayer(1))
    settle(page, bench)
    assert numbers(page)[-1] == 132 and "steps 1 to 12 have fallen off" in page.text(".wb-history")


def test_where_one_stands_is_in_sight_when_the_view_opens_and_after_each_step(long):
    bench, page = long
    in_sight = (
        "(() => { const list = document.querySelector('.wb-history-steps').getBoundingClientRect();"
        "const item = document.querySelector('.wb-history-now').getBoundingClientRect();"
        "return item.top >= list.top - 1 && item.bottom <= list.bottom + 1 })()"
    )
    page.wait_js(in_sight)
    ids = [entry.id for entry in bench.session.history.entries]
    for index in (0, 90, 91, 60):
        bench.session.travel(lambda history, index=index: history.goto(ids[index]))
        settle(page, bench)
        assert page.page.evaluate(in_sight), index
