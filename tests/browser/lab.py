"""Drive JupyterLab itself: open a notebook, run it, click into a widget, read Python's side in a cell of one's own.

    with lab.open("bench.ipynb") as notebook:
        notebook.run_all()
        notebook.page.get_by_role("button", name="Ban expert 5").click()
        assert notebook.run("bench.selection.expert") == "5"

Leaving the block fails if the page raised an error, if a cell did, or if anything beyond the server was asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import nbformat

from tests.browser.chromium import Chromium
from tests.browser.lab_server import Server
from tests.browser.notebook import WIDTH, Notebook

Cells = Sequence[str] | Path


class Lab:
    """One server, started when it is first used, and the notebooks opened on it."""

    def __init__(self, chromium: Chromium, ipykernel: str | None = None) -> None:
        self.chromium, self.ipykernel = chromium, ipykernel
        self._server: Server | None = None
        self._n = 0

    @property
    def server(self) -> Server:
        if self._server is None:
            self._server = Server(self.ipykernel)
        return self._server

    def open(self, cells: Cells, *, theme: str = "light", kernel: bool = True, width: int = WIDTH) -> Notebook:
        """Open a copy of a notebook, or a new one with these cells. Nothing is run.

        Args:
            cells: a notebook's path, or the sources of code cells.
            kernel: False opens it without one, as a reader does who has none.
        """
        _ = self.chromium.browser  # first: where there is no browser, no server is needed
        self._n += 1
        if isinstance(cells, Path):
            name = f"{cells.stem}-{self._n}.ipynb"
            shutil.copy(cells, self.server.root / name)
        else:
            name = f"notebook-{self._n}.ipynb"
            write(self.server.root / name, cells)
        return Notebook(self.chromium.browser, self.server, name, theme, kernel, width)

    def close(self) -> None:
        """End the server. It is started again when it is needed again."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def write(path: Path, cells: Sequence[str]) -> None:
    """A notebook of code cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(notebook, path)
