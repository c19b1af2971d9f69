"""A real Python widget and its real script in a browser page, joined without Jupyter: fast enough to try everything.

    with Page(chromium.browser, bench, theme="dark", width=600) as page:
        page.click("button", "Ban expert 5")
        page.wait(lambda: bench.selection.expert == 5)
        assert page.axe() == []

Leaving the block fails if the page raised an error, wrote one to its console, or asked for anything on a network, or if
a Python callback raised. What a test looks at in Python is changed by another thread, as in a notebook: use `wait`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import anywidget

from tests.browser import axe, hosts
from tests.browser.bridge import Bridge, Message

PADDING = 16  # left and right of the widget together


class Frames:
    """What `Page.frames` measured. `gaps` are the milliseconds between frames, `long_tasks` those above 50 ms."""

    seconds: float = 0.0
    frames: int = 0
    changes: int = 0
    gaps: list[float]
    long_tasks: list[float]

    @property
    def fps(self) -> float:
        """Frames a second, over the whole time."""
        return self.frames / self.seconds

    @property
    def longest_task(self) -> float:
        """Milliseconds; 0 where none was above the 50 ms from which a browser reports them."""
        return max(self.long_tasks, default=0.0)


class Page:
    """A page with one widget, or several.

    Attributes:
        page: Playwright's own page, for what is not here.
        errors: what the page threw or wrote to its console as an error.
        outside: the addresses that were asked for beyond the page itself; each was refused.
    """

    def __init__(
        self,
        browser: Any,
        *widgets: anywidget.AnyWidget,
        theme: hosts.Theme = "light",
        width: int = 1000,
        height: int = 800,
        host: hosts.Host = "lab",
        scale: float = 1,
        timeout: float = 30,
    ) -> None:
        """
        Args:
            width: what the widget gets, in CSS pixels; the page is `PADDING` wider.
            scale: device pixels for a CSS pixel.
            timeout: seconds that the first view may take.
        """
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.host: hosts.Host = host
        self.bridge = Bridge(widgets, hosts.page(host, theme))
        try:
            size = {"width": width + PADDING, "height": height}
            self.context = browser.new_context(viewport=size, device_scale_factor=scale, service_workers="block")
            self.page = self._opened()
            self.wait(lambda: self.page.evaluate("harness.drawn()") >= len(widgets), timeout, "the widget's first view")
        except BaseException:
            self.close()
            raise

    def _opened(self) -> Any:
        page = self.context.new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: self.errors.append(f"error: {error}"))
        page.on("console", lambda message: message.type == "error" and self.errors.append(f"console: {message.text}"))
        page.on("request", lambda request: self._requested(request.url))
        page.on("websocket", lambda socket: self._requested(socket.url))
        page.goto(self.bridge.url)
        return page

    def _requested(self, url: str) -> None:
        own = (self.bridge.url, f"ws://127.0.0.1:{self.bridge.port}/", "blob:", "data:")
        if not url.startswith(own):
            self.outside.append(url)

    # ------------------------------------------------------------ the end

    @property
    def problems(self) -> list[str]:
        """Everything that must not have happened: errors in the page or in a callback, requests to elsewhere."""
        self.pump()
        outside = [f"asked for {url}" for url in self.outside]
        return [*self.errors, *outside, *(f"Python: {error}" for error in self.bridge.errors)]

    def close(self) -> None:
        """Close the page and the threads behind it."""
        with suppress(Exception):
            self.context.close()
        self.bridge.close()

    def __enter__(self) -> Page:
        return self

    def __exit__(self, kind: object, *problem: object) -> None:
        try:
            problems = [] if kind else self.problems
        finally:
            self.close()
        assert not problems, "\n".join(problems)

    # ------------------------------------------------------------ Python's side

    @property
    def messages(self) -> list[Message]:
        """What crossed the wire so far, in both directions."""
        return self.bridge.messages

    def is_even(self) -> bool:
        """Whether the page has handled all that Python said, painted it, and sent nothing that is still on its way."""
        before = list(self.messages)
        crossed = self.page.evaluate("() => harness.crossed()")
        out = sum(message.way == "out" for message in before)
        return crossed == {"received": out, "sent": len(before) - out} and len(self.messages) == len(before)

    def run(self, function: Callable[[], Any]) -> Any:
        """Call a function on the thread where the widget's callbacks run, as a notebook's cell would."""
        return self.bridge.run(function)

    def pump(self, seconds: float = 0.0, until: Callable[[], Any] | None = None) -> None:
        """Let time pass, and the page's events reach this thread, until the time is over or `until()` holds."""
        end = time.perf_counter() + seconds
        while True:
            self.page.wait_for_timeout(1)
            if time.perf_counter() >= end or (until is not None and until()):
                return

    def wait(self, condition: Callable[[], Any], timeout: float = 45, what: str = "") -> Any:
        """Wait until a condition holds in Python, and give what it gave.

        Raises:
            AssertionError: it did not, within `timeout` seconds; says what went wrong in the page meanwhile.
        """
        end = time.perf_counter() + timeout
        while not (found := condition()):
            if time.perf_counter() > end:
                seen = "\n".join([*self.errors, *self.bridge.errors]) or "no error was seen"
                raise AssertionError(f"{what or 'the condition'} did not come within {timeout} s ({seen})")
            self.page.wait_for_timeout(3)
        return found

    def wait_js(self, expression: str, timeout: float = 45) -> Any:
        """Wait until a JavaScript expression is truthy in the page, and give its value."""
        return self.wait(lambda: self.page.evaluate(expression), timeout, expression)

    # ------------------------------------------------------------ hands and eyes

    def get(self, role: str, name: str | None = None, exact: bool = True, within: str | None = None) -> Any:
        """Playwright's locator of an element by its role and accessible name, as a screen reader finds it."""
        root = self.page if within is None else self.page.locator(within)
        return root.get_by_role(role, exact=exact, **({} if name is None else {"name": name}))

    def css(self, selector: str) -> Any:
        """Playwright's locator by CSS."""
        return self.page.locator(selector)

    def click(self, role: str, name: str | None = None, **options: Any) -> None:
        """Click by role and name. Options: of Playwright's click (modifiers=["Shift"], position={"x": 3, "y": 4})."""
        self.get(role, name).click(**options)

    def hover(self, role: str, name: str | None = None, **options: Any) -> None:
        self.get(role, name).hover(**options)

    def press(self, *keys: str) -> None:
        """Keys, one after the other, where the focus is: "ArrowRight", "Shift+ArrowRight", "Enter"."""
        for key in keys:
            self.page.keyboard.press(key)

    def type(self, role: str, name: str | None, text: str) -> None:
        """Put a text into a field, in place of what was there."""
        self.get(role, name).fill(text)

    def focused(self) -> str:
        """The element that has the focus, as "role or tag: name"."""
        return self.page.evaluate(
            "(() => { const e = document.activeElement; return `${e.role ?? e.tagName.toLowerCase()}: "
            "${e.ariaLabel ?? e.textContent.trim().slice(0, 80)}` })()"
        )

    def text(self, selector: str = "main") -> str:
        """What can be read there."""
        return self.page.locator(selector).first.inner_text()

    def screenshot(self, path: Path | str, selector: str | None = None) -> Path:
        """A PNG of the whole page, or of one element."""
        if selector is None:
            self.page.screenshot(path=str(path), full_page=True)
        else:
            self.page.locator(selector).first.screenshot(path=str(path))
        return Path(path)

    def axe(self, root: str = "main", impacts: tuple[str, ...] = axe.SERIOUS) -> list[str]:
        """What axe-core finds serious or critical under `root`; empty is good."""
        return axe.findings(self.page, root, impacts)

    def theme(self, theme: hosts.Theme) -> None:
        """Change the host's theme while the widget is on screen."""
        self.page.evaluate(
            "given => { for (const [tag, all] of Object.entries(given)) for (const [name, value] of "
            "Object.entries(all)) document.querySelector(tag).setAttribute(name, value); }",
            hosts.attributes(self.host, theme),
        )

    def resize(self, width: int, height: int = 800) -> None:
        """Give the widget another width."""
        self.page.set_viewport_size({"width": width + PADDING, "height": height})

    def show(self, widget: anywidget.AnyWidget) -> str:
        """Show a widget once more, as a second cell would. Gives its key for `hide` (and the id of its place)."""
        n = self.page.evaluate("harness.drawn()")
        key = self.page.evaluate("id => harness.show(id)", widget.model_id)
        self.wait(lambda: self.page.evaluate("harness.drawn()") > n, what="the view")
        return key

    def hide(self, key: str) -> None:
        """Take one view away, as clearing a cell's output does; the first view's key is "view-0"."""
        self.page.evaluate("key => harness.hide(key)", key)

    # ------------------------------------------------------------ measures

    def latency(self, act: Callable[[], Any], met: str, timeout: float = 5) -> float:
        """Milliseconds from the user's event (pointer down, key down, wheel) to the paint of the first frame in which a
        JavaScript expression holds. Playwright's own few milliseconds between pointer down and up are in it.
        """
        self.page.evaluate(
            f"() => {{ const found = probes.latency(() => ({met}), {1000 * timeout}); found.catch(() => 0); "
            "probes.pending = found; }"
        )
        act()
        return float(self.page.evaluate("() => probes.pending"))

    @contextmanager
    def frames(self, watch: str = "0") -> Iterator[Frames]:
        """Frames and long tasks of what happens inside the block; `watch` is a JavaScript expression whose changes from
        frame to frame are counted in `changes`.
        """
        self.page.evaluate(f"() => {{ probes.running = probes.record(() => ({watch})) }}")
        found = Frames()
        yield found
        vars(found).update(self.page.evaluate("() => probes.running()"))
