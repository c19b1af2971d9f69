"""What holds of every view: keys reach all of it, it is small at every size, failures are said once and mended."""

import re

import pytest

import workbench as wb
from tests.browser.benches import PROMPT, like_20b, make_bench, settle, tokens_of_length
from tests.widgets.every_view import VIEWS, WORK, small_atlas, work
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.widgets import runs

ALONE = tuple(view for view in VIEWS if view != "effect")  # which is above the views, where there are interventions
# What the keyboard can reach, each with a number.
FOCUSABLE = """() => [...document.querySelectorAll('.wb-root *')].filter(e => e.tabIndex >= 0 && !e.disabled &&
  e.checkVisibility({ visibilityProperty: true }) && (!(e instanceof SVGElement) || e.hasAttribute('tabindex')))
  .map((e, i) => { e.dataset.place = i; return e.outerHTML.slice(0, 120) })"""
FOCUSED = """() => {
  const e = document.activeElement, look = getComputedStyle(e);
  return e.closest('.wb-root') && { place: Number(e.dataset.place), html: e.outerHTML.slice(0, 120),
    seen: look.outlineStyle !== 'none' && parseFloat(look.outlineWidth) >= 1 && look.opacity !== '0' };
}"""
LOUD = """() => [...document.querySelectorAll('.wb-root :is([data-place], [role=tab], [role=radio])')]
  .filter(e => e.dataset.lmSuppressShortcuts !== 'true').map(e => e.outerHTML.slice(0, 120))"""
NAMELESS = """() => [...document.querySelectorAll(`.wb-root :is(button, input, select, textarea, [tabindex],
  [role=grid], [role=listbox], [role=tree], [role=img], [role=dialog], [role=toolbar])`)].filter(e => {
    const labels = [document.getElementById(e.getAttribute('aria-labelledby')), ...(e.labels ?? [])];
    if (e.localName === 'button' || ['tab', 'option', 'radio', 'gridcell', 'row'].includes(e.role)) labels.push(e);
    return !`${e.ariaLabel ?? ''}${labels.map(label => label?.textContent ?? '').join('')}`.trim();
  }).map(e => e.outerHTML.slice(0, 120))"""
# A legend of colours without words says nothing to who does not see them.
WORDLESS = """() => [...document.querySelectorAll('.wb-root :is(.wb-legend, .wb-key-item)')]
  .filter(e => !e.innerText.trim()).map(e => e.outerHTML.slice(0, 120))"""
GRIDS = ".wb-root :is([role=grid], [role=listbox], [role=tree])"
CURSOR = """e => { const at = document.getElementById(e.getAttribute('aria-activedescendant'));
  return `${at?.id} ${at?.ariaLabel ?? at?.textContent}` }"""
SIZE = """() => {
  const root = document.querySelector('.wb-root'), page = document.documentElement;
  const beyond = Math.max(...[root, page].map(e => e.scrollWidth - e.clientWidth));
  return { nodes: root.querySelectorAll('*').length, beyond };
}"""
SAID = """() => {
  const seen = (what) => [...document.querySelectorAll(`.wb-root :is(${what})`)].filter(e => e.checkVisibility());
  return { alerts: seen('[role=alert]').map(e => e.innerText), waiting: seen('.wb-spinner, [aria-busy=true]').length };
}"""


def show(page, bench, view, timeout=60):
    """Only this view, settled; the effect is above the text's own."""
    name = "tokens" if view == "effect" else view
    bench.session.look(open=[name])
    page.wait(lambda: [tab.get_attribute("id").rsplit("-", 1)[-1] for tab in page.get("tab").all()] == [name])
    settle(page, bench, timeout)


def touched(bench):
    bench.add(wb.AblateHead(1, 2))
    bench.session.wait(120)
    if bench.session.tokenizer is not None:
        bench["routing"].use_texts({"people": ["Mia went to the park.", "Tom saw a dog."], "numbers": ["1 2 3"]})
    bench.session.options("steering", direction="token", length=8)
    bench.session.options("generation", length=6)
    bench.atlas = small_atlas(bench.model)
    return bench


@pytest.fixture(scope="module")
def full(nano):
    """A Bench in which every view has done its work."""
    made = touched(make_bench(nano, PROMPT, ["tokens"]))
    made.select(layer=2, head=1, position=5)
    work(made)
    yield made
    made.close()


# ---------------------------------------------------------------- keys and names


def tabbed(page):
    """Where Tab stops, from the first to the last; and where one would not see it."""
    page.page.evaluate("() => { const main = document.querySelector('main'); main.tabIndex = -1; main.focus() }")
    stops, unseen = [], []
    for _ in range(300):
        page.press("Tab")
        at = page.page.evaluate(FOCUSED)
        if at is None or at["place"] in stops:
            return stops, unseen
        stops.append(at["place"])
        unseen += [] if at["seen"] else [at["html"]]
    raise AssertionError("Tab finds no end")


def test_tab_reaches_all_of_every_view_and_all_of_it_is_seen_and_named(full, page_of):
    page, wrong = page_of(full), {}
    for view in ALONE:
        show(page, full, view)
        there = page.page.evaluate(FOCUSABLE)
        stops, unseen = tabbed(page)
        wrong |= {f"{view}: {what}": found for what, found in {
            "axe": page.axe(".wb-root"),
            "not reached": [html for place, html in enumerate(there) if place not in stops],
            "focus not seen": unseen,
            "JupyterLab's shortcuts reach it": page.page.evaluate(LOUD),
            "without a name": page.page.evaluate(NAMELESS),
            "a legend without words": page.page.evaluate(WORDLESS),
        }.items() if found}  # fmt: skip
    assert wrong == {}


def test_arrow_keys_move_in_every_grid_and_strip_in_the_dark_too(full, page_of):
    page, wrong = page_of(full, width=600, theme="dark"), {}
    for view in ALONE:
        show(page, full, view)
        wrong[f"{view}: axe"] = page.axe(".wb-root")
        for place in page.css(GRIDS).all():
            if place.locator("[role=gridcell], [role=option], [role=treeitem]").count() < 2:
                continue  # a branch of one token: there is nowhere to go
            places = arrowed(page, place)
            wrong[f"{view}: {place.get_attribute('aria-label')}"] = places if len(set(places)) < 2 else []
        settle(page, full)
    assert {what: found for what, found in wrong.items() if found} == {}


def arrowed(page, grid):
    """Where the arrow keys lead, from a grid's first cell."""
    grid.focus()
    page.press("Control+Home", "Home")
    seen = [grid.evaluate(CURSOR)]
    for key in ("ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.press(key)
        page.pump(0.5, until=lambda: grid.evaluate(CURSOR) != seen[-1])  # not every key has somewhere to go
        seen.append(grid.evaluate(CURSOR))
    page.press("Escape")
    return seen


def test_a_popup_gives_the_focus_back(full, page_of):
    page = page_of(full)
    show(page, full, "logit_lens")
    grid = page.css(".wb-lens [role=grid]").first
    grid.focus()
    page.press("ArrowDown", "Enter")
    page.wait(lambda: page.get("dialog").count() == 1)
    page.get("button", "Close").focus()
    page.press("Escape")
    page.wait(lambda: page.get("dialog").count() == 0)
    assert page.focused().startswith("grid: logit lens")


# ---------------------------------------------------------------- sizes


def pair_of(n):
    """Two texts of n tokens that differ in one."""
    ids = tokens_of_length(n)
    return {"clean": ids, "corrupt": (*ids[: n // 2], 40 + (ids[n // 2] + 5) % 900, *ids[n // 2 + 1 :])}


@pytest.mark.parametrize(("n", "big"), [(1, False), (300, False), (2000, False), (20, True)])
def test_every_view_is_small_and_no_wider_than_the_page(bench_page, n, big):
    bench, page = bench_page(pair_of(n), model=like_20b() if big else None, open=["tokens"], width=600)
    bench.add(wb.AblateHead(1, 2))
    bench.session.wait(120)
    bench.select(layer=bench.session.config.n_layers - 2, head=1, position=n // 2)
    settle(page, bench, 60)
    for view in ALONE:
        before = len(page.messages)
        with page.frames() as seen:
            show(page, bench, view, 120)
        size, largest = page.page.evaluate(SIZE), max(message.size for message in page.messages[before:])
        sizes = f"{size['nodes']:5} elements, largest message {largest / 1e6:.2f} MB"
        print(f"{view:12} {sizes}, longest task {seen.longest_task:.0f} ms")
        assert size["nodes"] < 1600 and size["beyond"] <= 0 and largest < 2e6, view


# ---------------------------------------------------------------- failures


def test_a_run_that_fails_is_said_once_in_every_view_and_can_be_tried_again(bench_page, monkeypatch):
    def full_memory(*given, **options):
        raise MemoryError("this run needs 31 GB, and 4 GB are free; take a shorter text")

    monkeypatch.setattr(runs, "run", full_memory)
    bench, page = bench_page(open=["tokens"])
    for view in ALONE:
        show(page, bench, view)
        said = page.page.evaluate(SAID)
        assert said["waiting"] == 0 and len(said["alerts"]) == 1 and "needs 31 GB" in said["alerts"][0], view
        if view not in ("history", "generation", "atlas"):  # which need no run
            assert "There is no run to show" in page.text(".wb-view"), view
    with pytest.raises(ValueError, match="needs 31 GB"):
        _ = bench.run
    monkeypatch.undo()
    page.click("button", "Try again")
    settle(page, bench)
    assert page.page.evaluate(SAID)["alerts"] == [] and len(bench.run.tokens[0]) == 14


def test_numbers_of_other_interventions_are_not_shown_as_those_that_failed(bench_page, monkeypatch):
    bench, page = bench_page(open=["logit_lens"])
    bench.add(wb.AblateHead(1, 1))
    settle(page, bench)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "rerun", lambda *given, **options: 1 / 0)
        bench.add(wb.AblateHead(1, 2))
        settle(page, bench)
        assert [text.split("\n")[0] for text in page.page.evaluate(SAID)["alerts"]] == [
            "Error: ZeroDivisionError: division by zero"
        ]
        assert page.css(".wb-view canvas").count() == 0 and page.css(".wb-touched table").count() == 0
    page.click("button", "Undo")
    settle(page, bench)
    assert page.page.evaluate(SAID)["alerts"] == [] and page.css(".wb-view canvas").count() > 0
    assert bench.interventions == (wb.AblateHead(1, 1),)


def test_work_that_fails_says_so_in_its_view_and_goes_on_when_asked(bench_page, monkeypatch):
    bench, page = bench_page(open=["tokens"])
    bench.session.options("effect", live=False)  # before there is one: else it may write its texts meanwhile
    touched(bench)
    submit, words = bench.session.submit, "OSError: <b>the disk is full"

    def failing(work, label, **about):
        def fail(job):
            raise OSError("<b>the disk is full")

        return submit(fail if about.get("view") else work, label, **about)

    for view, action in WORK.items():
        monkeypatch.setattr(bench.session, "submit", failing)
        show(page, bench, view)
        if view != "steering":  # which writes its texts by itself
            bench[view].act(action)
        settle(page, bench)
        monkeypatch.undo()
        said = page.page.evaluate(SAID)
        assert said["alerts"] == [words] and said["waiting"] == 0, view
        failed = next(job for job in reversed(bench.jobs) if job.state == "failed")
        page.get("button", re.compile("^Resume: ")).click()
        # Not the newest job: the screen asks for small ones of its own meanwhile.
        page.wait(
            lambda failed=failed: any(job.label == failed.label and job.state == "done" for job in bench.jobs), 60
        )
        settle(page, bench, 60)
        assert page.page.evaluate(SAID)["alerts"] == [], view


# ---------------------------------------------------------------- without a tokenizer


def test_every_view_works_without_a_tokenizer(bench_page):
    model = random_weights(HookedGptOss(NANO.with_(name="bare")), 0)
    texts = {"clean": (5, 6, 7, 8, 9), "corrupt": (5, 6, 3, 8, 9)}
    bench, page = bench_page(texts, model=model, open=["tokens"])
    touched(bench)
    for view in ALONE:
        if view in WORK and view != "routing":  # whose texts are words
            bench[view].act(WORK[view])
        show(page, bench, view)
        said = page.page.evaluate(SAID)
        assert said["alerts"] == [] and said["waiting"] == 0, view
        assert bench[view].static()
        exec(compile(bench.code(view), view, "exec"), {"model": model, "print": lambda *words, **how: None})
    page.click("button", "Edit prompt")
    page.type("textbox", "token ids of clean", "1 2 1024")
    page.click("button", "Run")
    page.wait(lambda: "ids from 0 to 1023" in str(page.page.evaluate(SAID)["alerts"]))
