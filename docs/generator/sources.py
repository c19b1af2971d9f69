"""Files of the repository that are pages of the site too, and links between files turned into links between pages."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LESSONS = sorted(path.name for path in (ROOT / "notebooks" / "lessons").glob("*.ipynb"))

# Where a file of the repository stands in the site. A file in docs/ that is missing here stops the build.
PAGES = {
    "notebooks/00_start.ipynb": "start/first-look.md",
    "notebooks/experiments.ipynb": "start/a-study.md",
    "notebooks/scale.ipynb": "scale/notebook.md",
    "notebooks/bench.ipynb": "bench/tour.md",
    "docs/bench.md": "bench/views.md",
    "docs/devices.md": "scale/devices.md",
    "docs/hardware.md": "scale/hardware.md",
    "docs/scale.md": "scale/cluster.md",
    "docs/determinism.md": "reference/determinism.md",
    "docs/planted.md": "reference/planted.md",
    "docs/teaching.md": "lessons/teaching.md",
    "data/nano/card.md": "reference/nano.md",
    "workbench/widgets/README.md": "reference/widgets.md",
    "docs/licences.md": "project/licences.md",
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
    **{f"notebooks/lessons/{name}": f"lessons/{name.removesuffix('.ipynb')}.md" for name in LESSONS},
}
# A link to a folder leads to the page about it.
FOLDERS = {"notebooks/lessons": "lessons/index.md", "notebooks": "start/first-look.md", "docs": "index.md"}
PICTURES = "docs/screenshots"

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(\s*([^()\s]+)\s*\)")
_INCLUDE = re.compile(r"^<!-- include (?P<file>\S+) # (?P<heading>.+?) -->$", flags=re.MULTILINE)
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", flags=re.MULTILINE | re.DOTALL)


def present() -> dict[str, str]:
    """Those files of PAGES that are there.

    Raises:
        ValueError: for a page in docs/ that has no place in the site.
    """
    unplaced = sorted(path.name for path in (ROOT / "docs").glob("*.md") if f"docs/{path.name}" not in PAGES)
    if unplaced:
        raise ValueError(f"docs/{unplaced[0]} has no place in the site; give it one in docs/generator/sources.py")
    return {source: page for source, page in PAGES.items() if (ROOT / source).is_file()}


def section(file: str, heading: str) -> str:
    """What stands under a heading of a Markdown file, to the next one of its rank.

    Raises:
        ValueError: for a heading that the file does not have.
    """
    text = (ROOT / file).read_text(encoding="utf-8")
    found = re.search(rf"^(#+) {re.escape(heading)}\n(.*?)(?=^#{{1,2}} |\Z)", text, flags=re.MULTILINE | re.DOTALL)
    if not found:
        raise ValueError(f"{file} has no heading {heading!r}, which a page of the site includes")
    return found[2].strip()


def included(text: str, page: str) -> str:
    """A page with ``<!-- include FILE # HEADING -->`` replaced by what stands there."""
    return _INCLUDE.sub(lambda found: relinked(section(found["file"], found["heading"]), found["file"], page), text)


def relinked(text: str, source: str, page: str) -> str:
    """A file's Markdown with its links as they must be in a page of the site.

    Args:
        source: where the text stands in the repository.
        page: where it will stand in the site.
    """
    pieces = _CODE.split(text)
    return "".join(piece if n % 2 else _relinked(piece, source, page) for n, piece in enumerate(pieces))


def _relinked(text: str, source: str, page: str) -> str:
    def changed(found: re.Match[str]) -> str:
        picture, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, hash_, anchor = target.partition("#")
        file = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if (there := address(file)) is None:
            return f"{words} (`{file}`)" if words != file else f"`{file}`"
        return f"{picture}[{words}]({relative(there, page)}{hash_}{anchor})"

    return _LINK.sub(changed, text)


def address(file: str) -> str | None:
    """Where a file of the repository stands in the site; None if it does not."""
    if file.startswith(f"{PICTURES}/"):
        return file.removeprefix("docs/")
    if file in PAGES and (ROOT / file).is_file():
        return PAGES[file]
    return FOLDERS.get(file)


def relative(target: str, page: str) -> str:
    """A page's address as seen from another."""
    return posixpath.relpath(target, posixpath.dirname(page) or ".")
