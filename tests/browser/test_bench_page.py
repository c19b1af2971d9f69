"""The Bench in the harness: that the harness fits it."""

from tests.browser.benches import settle, tokens_of_length, unanswered


def test_the_bench_settles_and_nothing_is_left_open(bench_page):
    bench, page = bench_page(open=["tokens"])
    settle(page, bench)
    assert unanswered(page) == []
    assert page.css(".wb-root").count() == 1
    assert page.axe(".wb-root") == []


def test_a_prompt_has_as_many_tokens_as_were_asked_for(bench_page):
    bench, page = bench_page(tokens_of_length(300), open=["tokens"], theme="dark", width=600)
    settle(page, bench)
    assert len(bench.base.tokens[0]) == 300
    assert page.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
