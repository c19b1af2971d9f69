"""One notebook in a page of JupyterLab: its cells, its kernel, its file."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nbformat

from tests.browser.lab_server import Server

WIDTH, HEIGHT = 1400, 1000
IDLE = "window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
PANEL = "jupyterapp.shell.currentWidget"
MODEL = f"{PANEL}.content.model"
# Lab itself says these; they are no fault of a widget.
HARMLESS = (
    "favicon",
    "Failed to load resource: the server responded with a status of 404",  # no language server, no saved workspace
    "ERR_BLOCKED_BY_CLIENT",  # what was refused is reported by its address
    "ERR_FAILED",
)


class Notebook:
    """A notebook in a page of its own.

    Attributes:
        page: Playwright's page; `page.locator(".wb-root")` and so on reach into the widgets.
        errors: what the page threw or wrote to its console as an error.
        outside: the addresses beyond the server that were asked for; each was refused.
    """

    def __init__(self, browser: Any, server: Server, name: str, theme: str, kernel: bool, width: int) -> None:
        self.server, self.name, self.theme = server, name, theme
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.allow_failed_cells = False
        self.reopened = self.without_kernel = False
        self.context = browser.new_context(viewport={"width": width, "height": HEIGHT}, service_workers="block")
        try:
            self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=server.url)
            self._guard()
            self.page = self.context.new_page()
            self._listen()
            self._load(kernel)
        except BaseException:
            self.close()
            raise

    def _guard(self) -> None:
        own = self.server.url

        def judge(route: Any) -> None:
            self.outside.append(route.request.url)
            route.abort()

        self.context.route(lambda url: not url.startswith((own, "data:", "blob:")), judge)

    def _listen(self) -> None:
        self.page.set_default_timeout(20_000)
        self.page.on("pageerror", self._threw)
        self.page.on("console", self._heard)

    def _threw(self, error: Any) -> None:
        # ipywidgets' own extension looks for the kernel of a notebook that is opened without one.
        known = (
            self.without_kernel and "(reading 'kernel')" in str(error) and "jupyterlab-manager" in (error.stack or "")
        )
        if not known:
            self.errors.append(f"error: {error}\n{error.stack}")

    def _heard(self, message: Any) -> None:
        # Lab says so of every widget whose kernel is gone: the static form beside it is for that.
        known = (*HARMLESS, "widget model not found") if self.reopened else HARMLESS
        if message.type == "error" and not any(text in message.text for text in known):
            self.errors.append(f"console: {message.text}")

    def _load(self, kernel: bool) -> None:
        self.without_kernel = self.without_kernel or not kernel
        # A workspace of its own: nothing is opened that another test left.
        workspace = f"{self.server.url}lab/workspaces/{Path(self.name).stem}"
        tree = f"/tree/{self.name}" if kernel else ""
        self.page.goto(f"{workspace}{tree}?reset&token={self.server.token}")
        self.wait("window.jupyterapp?.shell && !document.querySelector('#jupyterlab-splash')", 60)
        if not kernel:
            self._open_without_kernel()
        self.wait(f"{PANEL}?.context?.isReady && {MODEL}?.cells.length > 0", 60)
        if kernel:
            self.wait(IDLE, 60)
        if self.theme == "dark":
            self.js("jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' })")
            self.wait("document.body.dataset.jpThemeLight === 'false'")

    def _open_without_kernel(self) -> None:
        refused = {"shouldStart": False, "canStart": False, "autoStartDefault": False}
        given = {"path": self.name, "factory": "Notebook", "kernelPreference": refused}
        self.js(
            "async given => { await jupyterapp.restored; await jupyterapp.commands.execute('docmanager:open', given) }",
            given,
        )

    # ------------------------------------------------------------ the end

    @property
    def problems(self) -> list[str]:
        """Everything that must not have happened so far."""
        found = [*self.errors, *(f"asked for {url}" for url in self.outside)]
        return found + ([] if self.allow_failed_cells else self.failures())

    def _seen(self) -> str:
        try:
            return "\n".join(self.problems) or "no error was seen"
        except Exception as error:  # the page itself is gone
            return f"{self.errors} ({error})"

    def failures(self) -> list[str]:
        """Cells' errors and what they wrote to stderr."""
        return [
            f"cell {i}: {output.get('evalue') or output.get('text')}"
            for i in range(self.n_cells)
            for output in self.outputs(i)
            if output["output_type"] == "error" or output.get("name") == "stderr"
        ]

    def close(self) -> None:
        """Close the page, and end its kernel."""
        with suppress(Exception):
            self.context.close()
        with suppress(Exception):
            self.end_kernel()

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, kind: object, error: BaseException | None, *trace: object) -> None:
        try:
            if error is not None:
                error.add_note(f"in the notebook meanwhile: {self._seen()}")
            problems = [] if kind else self.problems
        finally:
            self.close()
        assert not problems, "\n".join(problems)

    # ------------------------------------------------------------ JavaScript and time

    def js(self, expression: str, argument: Any = None) -> Any:
        """A JavaScript expression's value; `jupyterapp` is Lab. A promise is awaited."""
        return self.page.evaluate(expression, argument)

    def wait(self, condition: str | Callable[[], Any], timeout: float = 20) -> Any:
        """Wait until a JavaScript expression, or a Python function, gives something true, and give it."""
        end = time.perf_counter() + timeout
        look = (lambda: self.js(condition)) if isinstance(condition, str) else condition
        while not (found := look()):
            if time.perf_counter() > end:
                seen = "\n".join(self.errors) or "no error was seen"
                raise AssertionError(f"{condition} did not come within {timeout} s ({seen})")
            self.page.wait_for_timeout(20)
        return found

    # ------------------------------------------------------------ cells

    @property
    def n_cells(self) -> int:
        return self.js(f"{MODEL}.cells.length")

    def run_all(self, timeout: float = 120) -> None:
        """Run every cell, and wait until the last one is done."""
        self.page.set_default_timeout(1000 * timeout)
        try:
            self.js("jupyterapp.commands.execute('notebook:run-all-cells')")
        finally:
            self.page.set_default_timeout(20_000)

    def outputs(self, cell: int) -> list[dict[str, Any]]:
        """A cell's outputs, as in the notebook's format; cell -1 is the last."""
        return self.js(f"i => {MODEL}.cells.get(i).outputs?.toJSON() ?? []", cell % self.n_cells)

    def text(self, cell: int) -> str:
        """What a cell printed, and its value as text.

        Raises:
            AssertionError: the cell raised; holds the traceback.
        """
        found = []
        for output in self.outputs(cell):
            assert output["output_type"] != "error", "\n".join(output["traceback"])
            said = output.get("text") or output.get("data", {}).get("text/plain", "")
            found.append(said if isinstance(said, str) else "".join(said))
        return "".join(found).rstrip("\n")

    def add(self, source: str) -> int:
        """Put a code cell at the end; gives its number."""
        self.js(
            "source => { const { content } = jupyterapp.shell.currentWidget; content.activeCellIndex = "
            "content.model.cells.length - 1; const at = content.model.sharedModel.cells.length; "
            "content.model.sharedModel.insertCell(at, { cell_type: 'code', source, metadata: { trusted: true } }); "
            "content.activeCellIndex = at; content.deselectAll(); }",
            source,
        )
        return self.n_cells - 1

    def start(self, source: str) -> int:
        """Put a cell at the end and start it, without waiting; gives its number."""
        cell = self.add(source)
        self.js("() => void jupyterapp.commands.execute('notebook:run-cell')")
        return cell

    def run(self, source: str, timeout: float = 60) -> str:
        """Put a cell at the end, run it as a user would, and give its text."""
        cell = self.add(source)
        self.page.set_default_timeout(1000 * timeout)
        try:
            self.js("jupyterapp.commands.execute('notebook:run-cell')")
        finally:
            self.page.set_default_timeout(20_000)
        return self.text(cell)

    def value(self, expression: str, timeout: float = 20) -> Any:
        """A Python expression's value (a literal: numbers, texts, lists, dicts), from the kernel and without a cell."""
        answer = self.js(
            "async code => { const { kernel } = jupyterapp.shell.currentWidget.sessionContext.session; const future = "
            "kernel.requestExecute({ code: '', silent: true, store_history: false, "
            "user_expressions: { value: code } }); "
            "return (await future.done).content.user_expressions.value; }",
            expression,
        )
        assert answer["status"] == "ok", f"{expression}: {answer.get('ename')}: {answer.get('evalue')}"
        return ast.literal_eval(answer["data"]["text/plain"])

    def wait_value(self, expression: str, expected: Any = True, timeout: float = 20) -> None:
        """Wait until a Python expression has a value in the kernel."""
        end, seen = time.perf_counter() + timeout, None
        while (seen := self.value(expression)) != expected:
            assert time.perf_counter() < end, f"{expression} was {seen!r}, and {expected!r} was expected"
            self.page.wait_for_timeout(20)

    # ------------------------------------------------------------ kernel and file

    def save(self) -> Path:
        """Save, and give the file's path."""
        self.js("jupyterapp.commands.execute('docmanager:save')")
        self.wait(f"!{PANEL}.context.model.dirty")
        return self.server.root / self.name

    def saved(self) -> Any:
        """The file as it is on the disk now, by nbformat."""
        return nbformat.read(self.server.root / self.name, as_version=4)

    def end_kernel(self) -> None:
        """End this notebook's kernel."""
        for session in self.server.ask("api/sessions"):  # pyright: ignore[reportGeneralTypeIssues]
            if session["path"] == self.name:
                self.server.ask(f"api/sessions/{session['id']}", "DELETE")

    def reload(self) -> None:
        """Load the page again from what was saved, while the kernel goes on."""
        self.page.goto("about:blank")
        self._load(True)

    def reopen(self, kernel: bool = True) -> None:
        """Load the page again from what was saved, with a fresh kernel or, as a reader does who has none, without."""
        self.end_kernel()
        self.reopened = True
        self.page.goto("about:blank")
        self._load(kernel)

    def screenshot(self, path: Path | str) -> Path:
        self.page.screenshot(path=str(path))
        return Path(path)
