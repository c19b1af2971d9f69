"""The Bench on ipykernels whose callbacks run elsewhere: on the main thread, or on a subshell's."""

import re

import pytest

from tests.browser.lab import Lab
from tests.browser.notebook import Notebook
from tests.browser.test_lab_bench import LEFT, OPEN, button, open_view

# A cell that starts a sweep, and does not end before a click was heard.
BUSY = """\
bench.session.options("patching", part="attn_out")
job, end = patching.start(patching.sweep(patching.study())), time.monotonic() + {}
print("begun", flush=True)
while not (job.cancelled and bench.selection.position == 9) and time.monotonic() < end:
    time.sleep(0.01)
job.cancelled, bench.selection.position"""


def click_token(notebook: Notebook, position: int):
    notebook.page.locator(".wb-root .wb-top-strip .wb-token").nth(position).click()


def try_out(notebook: Notebook):
    """A click is a value, an edit is followed by its run, a sweep stops where it is told to."""
    notebook.run_all()
    click_token(notebook, 5)
    notebook.wait_value("bench.selection.position", 5)

    open_view(notebook, "Routing")
    notebook.run("bench.select(layer=1, expert=4, position=7); None")
    button(notebook, re.compile("^Ban")).click()
    notebook.page.locator(".wb-effect-sum").wait_for()
    notebook.wait_value("[spec.expert for spec in bench.run.interventions]", [4])
    assert float(notebook.run("float(bench.run.kl.mean())")) > 0

    open_view(notebook, "Patching")
    total = notebook.value(LEFT)
    button(notebook, re.compile("^Run .* cells")).click()
    notebook.wait(lambda: notebook.value(LEFT) < total, 60)
    button(notebook, "Cancel: patch resid_pre").click()
    notebook.wait_value("sweep().state", "cancelled")
    button(notebook, f"Run the {notebook.value(LEFT)} cells left").wait_for()


def interfere(notebook: Notebook, seconds: float) -> int:
    """Start a cell that takes so long, and click a token meanwhile; gives the cell's number."""
    cell = notebook.start(BUSY.format(seconds))
    notebook.wait(lambda: "begun" in str(notebook.outputs(cell)))
    click_token(notebook, 9)
    return cell


def test_the_installed_ipykernel(lab: Lab):
    with lab.open([OPEN, "bench"]) as notebook:
        try_out(notebook)


@pytest.mark.slow
def test_ipykernel_6_where_a_click_waits_for_the_cell_that_runs(lab_of):
    with lab_of("6.31.0").open([OPEN, "bench"]) as notebook:
        try_out(notebook)
        assert notebook.run("import ipykernel; ipykernel.__version__") == "'6.31.0'"
        cell = interfere(notebook, 2)
        notebook.wait(lambda: "(" in notebook.text(cell))
        assert "(False, 7)" in notebook.text(cell)
        notebook.wait_value("bench.selection.position", 9)


@pytest.mark.slow
def test_ipykernel_7_where_a_click_and_a_cancel_are_heard_while_a_cell_runs(lab_of):
    with lab_of("7.3.0").open([OPEN, "bench"]) as notebook:
        try_out(notebook)
        assert notebook.run("import ipykernel; ipykernel.__version__") == "'7.3.0'"
        cell = interfere(notebook, 60)
        button(notebook, "Cancel: patch attn_out").click()
        notebook.wait(lambda: "(" in notebook.text(cell), 70)
        assert "(True, 9)" in notebook.text(cell)
