"""The Bench in JupyterLab itself, as a person uses it: one notebook, from the first cell to the file without a kernel."""

import json
import time
from pathlib import Path

from tests.browser.lab import Lab

OPEN = """\
import workbench as wb
from workbench import prompts

model = wb.load("nano")
pair = prompts.pairs(model, "indirect object", n=1, seed=0)[0]
bench = wb.Bench(model, pair)"""


def open_view(notebook, title: str) -> None:
    notebook.page.locator(".wb-root").get_by_role("tab", name=title, exact=True).click()


def test_a_session_from_the_first_click_to_the_saved_file(lab: Lab, tmp_path: Path):
    with lab.open([OPEN, "bench"]) as notebook:
        notebook.run_all()
        root = notebook.page.locator(".wb-root")
        root.get_by_role("tab", name="Attention", exact=True).wait_for()

        # A token: chosen here, known in Python.
        root.locator(".wb-tokens .wb-token").nth(5).click()
        notebook.wait_value("bench.selection.position", 5)

        # A head of the mosaic.
        open_view(notebook, "Attention")
        heads = root.get_by_role("grid", name="heads").first
        heads.wait_for()
        box = heads.bounding_box()
        heads.click(position={"x": box["width"] * 0.5, "y": box["height"] * 0.3})
        notebook.wait_value("bench.selection.head is not None", True)
        chosen = notebook.run("bench.selection.layer, bench.selection.head")
        assert notebook.run("bench.selection.values().dims").startswith("(")
        assert chosen.startswith("(")

        # An expert, banned by a click: the run follows.
        open_view(notebook, "Routing")
        ribbon = root.get_by_role("grid").first
        ribbon.wait_for()
        notebook.run("bench.select(layer=1, expert=4, position=7); None")
        root.get_by_role("button", name="Ban").first.click()
        notebook.wait_value("str([spec.expert for spec in bench.interventions])", "[4]")
        assert float(notebook.run("float(bench.run.kl.mean())")) > 0

        # Undo.
        root.get_by_role("button", name="Undo", exact=True).click()
        notebook.wait_value("len(bench.interventions)", 0)
        root.get_by_role("button", name="Redo", exact=True).click()
        notebook.wait_value("len(bench.interventions)", 1)

        # What is on screen as a cell without widgets, run here.
        root.get_by_role("button", name="Copy code", exact=True).click()
        code = root.locator("pre").first
        code.wait_for()
        cell = notebook.start(code.inner_text())
        notebook.wait(lambda: notebook.outputs(cell), timeout=120)
        assert "AblateExpert" in code.inner_text()
        assert notebook.run("[spec.expert for spec in run.interventions]") == "[4]"

        # Saved, and opened without a kernel: the static form is there, the live one is not.
        notebook.run("bench.wait()")
        time.sleep(1)
        notebook.save()
        saved = json.dumps(notebook.saved().cells[1])
        assert "wb-static" in saved and "AblateExpert" in saved
        notebook.reopen(kernel=False)
        static = notebook.page.locator(".wb-static").first
        static.wait_for()
        assert "AblateExpert" in static.inner_text()
        assert notebook.page.locator(".wb-root").count() == 0
