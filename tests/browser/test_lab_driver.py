"""The driver of JupyterLab itself, on the toy widget."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.browser.lab import Lab

TOY = ["from tests.browser.toy import Toy\ntoy = Toy()", "toy", "print('last')"]


def test_run_all_click_and_read_the_value_back_in_python(lab: Lab):
    with lab.open(TOY) as notebook:
        notebook.run_all()
        assert notebook.text(2) == "last"
        button = notebook.page.locator(".toy-count")
        button.click()
        notebook.wait_value("toy.count", 1)
        button.click()
        notebook.page.locator(".toy-shown", has_text="2").wait_for()
        assert notebook.run("toy.count") == "2"
        assert notebook.run("print('a'); toy.name") == "a\n''"
        notebook.page.locator(".toy-name").fill("Mia")
        notebook.wait_value("toy.name", "Mia")
        assert notebook.page.locator(".toy").evaluate("e => getComputedStyle(e).fontSize") == "13px"
    assert lab.server.ask("api/sessions") == []


def test_reopened_without_a_kernel_it_shows_what_was_saved(lab: Lab):
    with lab.open(
        ["from IPython.display import HTML, display\ndisplay(HTML('<p class=kept>kept</p>'))", *TOY]
    ) as notebook:
        notebook.run_all()
        notebook.save()
        assert "kept" in notebook.saved().cells[0].outputs[0].data["text/html"]
        notebook.reopen(kernel=False)
        notebook.page.locator("p.kept").wait_for()
        assert notebook.page.locator(".toy").count() == 0  # Lab does not save what a widget shows
        notebook.reopen()
        assert notebook.run("1 + 1") == "2"
        notebook.reopen(kernel=False)
        assert lab.server.ask("api/kernels") == []


def test_a_cell_that_fails_and_a_request_to_elsewhere_are_noticed(lab: Lab):
    with lab.open(["1 / 0"], theme="dark") as notebook:
        notebook.run_all()
        notebook.js("fetch('https://example.org/x').catch(() => 0)")
        problems = "\n".join(notebook.problems)
        assert "division by zero" in problems and "https://example.org/x" in problems
        with pytest.raises(AssertionError, match="ZeroDivisionError"):
            notebook.text(0)
        notebook.allow_failed_cells = True
        notebook.outside.clear()


def test_the_server_ends_with_the_process_that_started_it():
    script = (
        "import time; from tests.browser.lab_server import Server; s = Server(); "
        "print(s.url, s.home, flush=True); time.sleep(600)"
    )
    ours = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert ours.stdout is not None
    try:
        url, home = ours.stdout.readline().split()
    finally:
        os.kill(ours.pid, signal.SIGKILL)
        ours.wait()
    end = time.perf_counter() + 15
    while time.perf_counter() < end and _answers(url):
        time.sleep(0.1)
    assert not _answers(url)
    end = time.perf_counter() + 5
    while time.perf_counter() < end and Path(home).exists():
        time.sleep(0.1)
    assert not Path(home).exists()


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True
