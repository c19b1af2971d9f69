"""A docstring of this project as Markdown: its sections, its roles, its examples."""

from __future__ import annotations

import re
from collections.abc import Callable

SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises")
_ENTRY = re.compile(r"^(?P<name>[\w*, ]{1,60}): (?P<text>.*)", flags=re.DOTALL)
_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr):`~?([\w.]+)`")

Link = Callable[[str], str]


def as_markdown(docstring: str, link: Link) -> str:
    """A docstring's text.

    Args:
        docstring: dedented, as ``inspect.getdoc`` gives it.
        link: name → Markdown of a link to it, or the name as code where it has no page.
    """
    return "\n\n".join(_block(block, link) for block in _blocks(docstring) if block.strip())


def first_sentence(docstring: str) -> str:
    """The first paragraph on one line."""
    return " ".join(docstring.split("\n\n")[0].split())


def _blocks(docstring: str) -> list[str]:
    """Paragraphs; a section's lines stay together until the indentation ends."""
    made: list[str] = []
    inside = False
    for paragraph in docstring.split("\n\n"):
        if inside and paragraph.startswith(" "):
            made[-1] += "\n\n" + paragraph
            continue
        inside = bool(re.match(rf"({'|'.join(SECTIONS)}):\n", paragraph))
        made.append(paragraph)
    return made


def _block(block: str, link: Link) -> str:
    if block.startswith(">>>"):
        return f"```pycon\n{block}\n```"
    head, _, rest = block.partition("\n")
    if head.rstrip(":") in SECTIONS and head.endswith(":") and rest:
        return f"**{head[:-1]}**\n\n{_section(_dedented(rest), link)}"
    return _inline(block, link)


def _dedented(text: str) -> str:
    return "\n".join(line.removeprefix("    ") for line in text.split("\n"))


def _section(text: str, link: Link) -> str:
    """Entries ``name: what it is`` as a list, anything else as text."""
    entries = re.split(r"\n(?=\S)", text)
    if not all(_ENTRY.match(entry) for entry in entries):
        joined = " ".join(line.strip() for line in text.split("\n"))
        return _inline(joined, link)
    return "\n".join(_entry(entry, link) for entry in entries)


def _entry(entry: str, link: Link) -> str:
    found = _ENTRY.match(entry)
    assert found is not None
    text = " ".join(line.strip() for line in found["text"].split("\n"))
    names = ", ".join(f"`{name.strip()}`" for name in found["name"].split(","))
    return f"- {names}: {_inline(text, link)}"


def _inline(text: str, link: Link) -> str:
    """Roles as links; what Markdown would read as its own is left to stand as it is."""
    pieces = re.split(r"(``.+?``)", _ROLE.sub(lambda found: f"``ROLE {found[1]}``", text), flags=re.DOTALL)
    return "".join(_piece(piece, link) for piece in pieces)


def _piece(piece: str, link: Link) -> str:
    if piece.startswith("``ROLE "):
        return link(piece[7:-2])
    if piece.startswith("``"):
        return piece
    return re.sub(r"([*_<\[\]|])", r"\\\1", piece)
