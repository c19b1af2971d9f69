"""The Bench in JupyterLab itself, as a person uses it: from the first cell to the file without a kernel."""

import json
import re

import pytest

from tests.browser.lab import Lab
from tests.browser.notebook import IDLE, Notebook

# The first words differ, so that every cell of the patching grid is there to be run: a sweep of some seconds.
OPEN = """\
import asyncio, threading, time
import workbench as wb

model = wb.load("nano")
end = "When Ben and Anna went to the forest, {1} gave a hat to"
story = "{0} is in the park. " + "Tom is in the kitchen. " * 14 + end
pair = {"clean": story.format("Mia", "Anna"), "corrupt": story.format("Tom", "Ben")}
bench = wb.Bench(model, pair, answer=(" Ben", " Anna"), open=["attention", "routing", "patching", "history"])
patching = bench["patching"]
asked, ended = [], []

def sweep():  # the newest
    return [job for job in bench.jobs if job.label == "patch resid_pre"][-1]

def watch(job):  # when it is asked to stop, and when it has
    def look():
        job.cancel_event.wait()
        asked.append(time.time())
        job.wait()
        ended.append(time.time())
    threading.Thread(target=look, daemon=True).start()

def hooks():  # left on the model
    return sum(len(point.fwd_hooks) + len(point.bwd_hooks) for point in model.hook_dict.values())"""
LEFT = "patching.sweep(patching.study()).left"
CLICKED = "addEventListener('click', e => { window.clicked = (performance.timeOrigin + e.timeStamp) / 1000 }, true)"


def open_view(notebook: Notebook, title: str):
    notebook.page.locator(".wb-root").get_by_role("tab", name=title, exact=True).click()


def button(notebook: Notebook, name: str | re.Pattern[str]):
    return notebook.page.locator(".wb-root").get_by_role("button", name=name, exact=True).first


def click_cell(notebook: Notebook, grid: str, x: float, y: float) -> list[int]:
    """Click a cell at a share of a grid's width and height; gives the numbers that its tooltip says."""
    window = notebook.page.locator(f"{grid} .wb-matrix-window").first
    window.scroll_into_view_if_needed()
    box = window.bounding_box()
    place = {"x": box["width"] * x, "y": box["height"] * y}
    window.hover(position=place)
    tip = window.locator(".wb-tip")
    tip.wait_for()
    said = tip.text_content()
    window.click(position=place)
    return [int(number) for number in re.findall(r"(?:position|layer|head) (\d+)", said)]


def test_a_session_from_the_first_click_to_the_file_without_a_kernel(lab: Lab):
    with lab.open([OPEN, "bench"]) as notebook:
        notebook.run_all()
        root = notebook.page.locator(".wb-root")
        choose(notebook)
        sweep_with_three_breaks(notebook)
        edit_and_go_back(notebook)
        code_says_the_same(notebook)
        file_holds_the_same(notebook)

        # The page is loaded again while the kernel runs: everything is there again, and works.
        notebook.run("bench.wait()")
        notebook.save()
        notebook.reload()
        root.locator(".wb-chip").wait_for()
        strip = root.locator(".wb-top-strip .wb-token")
        assert root.locator(".wb-top-strip .wb-selected").get_attribute("data-i") == "7"
        strip.nth(4).click()
        notebook.wait_value("bench.selection.position", 4)
        open_view(notebook, "Patching")
        button(notebook, "All 416 cells are run").wait_for()

        # Without a kernel the static form is there, the live one is not.
        saved = json.dumps(notebook.saved().cells[1])
        assert "wb-static" in saved and "AblateExpert" in saved
        notebook.reopen(kernel=False)
        static = notebook.page.locator(".wb-static").first
        static.wait_for()
        assert "AblateExpert" in static.inner_text() and "share of" in static.inner_text()
        assert root.count() == 0 and notebook.page.get_by_text("Loading widget...").first.is_hidden()


def choose(notebook: Notebook):
    """A token, a head, an expert, a patch: each clicked, each a value in a cell of Python."""
    notebook.page.locator(".wb-root .wb-top-strip .wb-token").nth(5).click()
    notebook.wait_value("bench.selection.position", 5)

    open_view(notebook, "Attention")
    chosen = click_cell(notebook, ".wb-attention", 0.5, 0.3)
    notebook.wait_value("[bench.selection.layer, bench.selection.head]", chosen[:2])
    assert notebook.run("bench.selection.values().shape") == "(104,)"  # what the token at 5 looks at

    open_view(notebook, "Routing")
    position, layer = click_cell(notebook, ".wb-routing-ribbon", 0.6, 0.4)
    notebook.wait_value("[bench.selection.position, bench.selection.layer]", [position, layer])
    used = f"bench.base['blocks.{layer}.mlp.hook_expert_indices'][0, {position}].tolist()"
    assert notebook.run(f"bench.selection.expert in {used}") == "True"

    open_view(notebook, "Patching")
    layer, position = click_cell(notebook, ".wb-patching-grid", 0.5, 0.5)
    notebook.wait_value("bench.selection.site", f"blocks.{layer}.hook_resid_pre")
    assert notebook.run("bench.selection.position") == str(position)


def sweep_with_three_breaks(notebook: Notebook):
    """Cancel keeps what is done and comes at once, Resume goes on."""
    left, took = [notebook.value(LEFT)], []
    notebook.js(CLICKED)
    button(notebook, re.compile("^Run .* cells")).click()
    for _ in range(3):
        notebook.wait(lambda: notebook.value(LEFT) < left[-1], 60)
        notebook.value("watch(sweep())")
        button(notebook, "Cancel: patch resid_pre").click()
        notebook.wait_value("sweep().state", "cancelled")
        notebook.wait_value("len(ended) == len(asked) > 0")
        took.append([notebook.value(f"{times}[-1]") - notebook.js("window.clicked") for times in ("asked", "ended")])
        left.append(notebook.value(LEFT))
        button(notebook, f"Run the {left[-1]} cells left").wait_for()
        button(notebook, "Resume: patch resid_pre").click()
        notebook.wait_value("sweep().total", left[-1])
    assert left[0] > left[1] > left[2] > left[3] > 0
    notebook.wait_value(LEFT, 0, 120)
    button(notebook, "All 416 cells are run").wait_for()
    begun_and_over = "(lambda begun: (wb.run(model, pair['clean']), time.time() - begun)[1])(time.time())"
    forward = min(notebook.value(begun_and_over) for _ in range(3))
    heard = ", ".join(f"{1000 * asked:.0f} and {1000 * ended:.0f}" for asked, ended in took)
    print(f"Cancel: heard and over after {heard} ms; a forward pass takes {1000 * forward:.0f} ms")
    # The best of three, from when Python knows: others may be at work here. In tests/bench it counts from the click.
    assert min(ended - asked for asked, ended in took) < forward + 0.1


def edit_and_go_back(notebook: Notebook):
    """An expert is banned by a click and the run follows; undo, redo."""
    open_view(notebook, "Routing")
    notebook.run("bench.select(layer=1, expert=4, position=7); None")
    button(notebook, re.compile("^Ban")).click()
    notebook.wait_value("[spec.expert for spec in bench.interventions]", [4])
    assert float(notebook.run("float(bench.run.kl.mean())")) > 0
    notebook.page.locator(".wb-effect-sum").wait_for()
    button(notebook, "Undo").click()
    notebook.wait_value("len(bench.interventions)", 0)
    button(notebook, "Redo").click()
    notebook.wait_value("len(bench.interventions)", 1)


def code_says_the_same(notebook: Notebook):
    """What is on screen as a cell without widgets, run: the same edit, and the sweep as if nobody had stopped it."""
    button(notebook, "Copy code").click()
    code = notebook.page.locator(".wb-root pre, .wb-popup pre").first
    code.wait_for()
    given = code.inner_text()
    assert notebook.js("navigator.clipboard.readText()") == given
    notebook.page.keyboard.press("Escape")
    notebook.run(given, timeout=120)
    assert notebook.run("[spec.expert for spec in run.interventions]") == "[4]"
    assert notebook.run("float(abs(grid.metric - patching.table().metric).max()) < 1e-4") == "True"
    assert notebook.run("int(grid.metric.notnull().sum())") == "416"


def file_holds_the_same(notebook: Notebook):
    """Saved and loaded, it is the same study with the same things chosen."""
    notebook.run("again = wb.Bench.load(bench.save('bench.json'), model); again.wait()")
    assert (
        notebook.run("again.code() == bench.code(), again.selection.position, len(again.interventions)")
        == "(True, 7, 1)"
    )
    notebook.run("again.undo(); again.close()")


def test_a_view_alone_an_awaited_job_and_an_interrupted_wait(lab: Lab):
    with lab.open([OPEN, "run = wb.run(model, pair['clean'])\nwb.view.attention(run)", "bench.wait()"]) as notebook:
        notebook.run_all()
        chosen = click_cell(notebook, ".wb-attention", 0.5, 0.3)
        notebook.page.get_by_text(f"Layer {chosen[0]}, head {chosen[1]}", exact=True).wait_for()
        assert notebook.page.locator(".wb-tabs").count() == 0

        # A job can be awaited in a cell.
        sweep = "patching.start(patching.sweep(patching.study()))"
        assert notebook.run(f"job = {sweep}\nawait job\njob.state, {LEFT}", timeout=120) == "('done', 0)"

        # The stop button while a cell waits: the work stops too, and the model is as it was.
        notebook.run(
            "bench.session.options('patching', part='head')"
        )  # long: it must not end before the button is heard
        cell = notebook.start(f"job = {sweep}\nprint('waits', flush=True)\nbench.wait()")
        notebook.wait(lambda: "waits" in str(notebook.outputs(cell)), 60)
        notebook.js("jupyterapp.commands.execute('notebook:interrupt-kernel')")
        notebook.wait(lambda: len(notebook.outputs(cell)) > 1)
        with pytest.raises(AssertionError, match="KeyboardInterrupt"):
            notebook.text(cell)
        notebook.wait(IDLE)  # until then it drops what it is asked to run
        assert notebook.run("job.wait(10).state, hooks()") == "('cancelled', 0)"
        assert notebook.run("0 < patching.sweep(patching.study()).left") == "True"
        notebook.allow_failed_cells = True
