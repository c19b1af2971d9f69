"""Find a Chromium or Chrome, start it without a window, and stop it again.

Playwright drives it, but never with a browser of its own: those come from a download. Tests that find no browser are
skipped and say so; with WORKBENCH_NEEDS_BROWSER=1 they fail instead, so that CI cannot pass by skipping.
"""

from __future__ import annotations

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
    ),
    "win32": (
        r"%ProgramFiles%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Google\Chrome\Application\chrome.exe",
        r"%LocalAppData%\Google\Chrome\Application\chrome.exe",
        r"%ProgramFiles(x86)%\Microsoft\Edge\Application\msedge.exe",
    ),
}
FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",  # the same pixels on every machine
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1 , EXCLUDE localhost",  # what nothing intercepts fails
)
MISSING = (
    "no Chromium or Chrome was found on PATH or in its usual places (Debian: apt-get install chromium "
    "fonts-dejavu-core fonts-liberation; or set WORKBENCH_CHROMIUM=/path/to/chrome)"
)


def find() -> str | None:
    """The path of a Chromium or Chrome: $WORKBENCH_CHROMIUM, else one on PATH, else one where its installer puts it."""
    given = os.environ.get("WORKBENCH_CHROMIUM")
    if given:
        return shutil.which(given)
    places = [os.path.expandvars(place) for place in PLACES.get(sys.platform, ())]
    on_path = [found for name in NAMES if (found := shutil.which(name))]
    return next((place for place in [*on_path, *places] if Path(place).is_file()), None)


class Chromium:
    """One browser, started when it is first used.

    While it runs, Playwright holds this thread's asyncio loop: `asyncio.run` fails. That is why it is stopped as soon
    as the last test of this folder is done.
    """

    def __init__(self) -> None:
        self._playwright: Any = None
        self._browser: Any = None

    @property
    def browser(self) -> Any:
        """Playwright's Browser.

        Raises:
            pytest.skip.Exception, or pytest.fail.Exception with WORKBENCH_NEEDS_BROWSER=1: there is no browser.
        """
        if self._browser is None:
            self._start()
        return self._browser

    def _start(self) -> None:
        path = find() or _absent(MISSING)
        try:
            from playwright.sync_api import sync_playwright
        except ImportError:
            _absent("the package playwright is not installed (pip install 'gpt-oss-workbench[test]')")
        self._playwright = sync_playwright().start()
        try:
            self._browser = self._playwright.chromium.launch(executable_path=path, args=list(FLAGS), headless=True)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End the browser and Playwright's driver. It may be started again."""
        browser, playwright = self._browser, self._playwright
        self._browser = self._playwright = None
        if browser is not None:
            with suppress(Exception):  # it may have died
                browser.close()
        if playwright is not None:
            playwright.stop()

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *problem: object) -> None:
        self.stop()


def _absent(why: str) -> NoReturn:
    if os.environ.get("WORKBENCH_NEEDS_BROWSER") == "1":
        pytest.fail(f"WORKBENCH_NEEDS_BROWSER=1, but {why}")
    pytest.skip(f"browser tests are left out: {why}")
