"""Other versions of ipykernel, whose callbacks run elsewhere: on the main thread, or on a subshell's."""

import pytest

from tests.browser.test_lab_driver import TOY

BUSY = "import time\nwhile toy.count < 2 and time.monotonic() < end: time.sleep(0.01)\ntoy.count"


@pytest.mark.slow
@pytest.mark.parametrize(("version", "while_busy"), [("6.31.0", False), ("7.3.0", True)])
def test_a_click_is_heard_while_a_cell_runs_only_where_there_are_subshells(lab_of, version, while_busy):
    with lab_of(version).open([*TOY, "import time; end = time.monotonic() + 60"]) as notebook:
        notebook.run_all()
        assert notebook.run("import ipykernel; ipykernel.__version__") == repr(version)
        notebook.page.locator(".toy-count").click()
        notebook.wait_value("toy.count", 1)
        notebook.run("end = time.monotonic() + 3")
        cell = notebook.start(BUSY)
        notebook.page.locator(".toy-count").click()
        notebook.wait(lambda: notebook.outputs(cell))
        assert notebook.text(cell) == ("2" if while_busy else "1")
        notebook.wait_value("toy.count", 2)
