"""An executed notebook as a page: its text, its code, and the outputs that are stored in it. Nothing is run."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nbformat

INLINE = re.compile(r"data:image/(png|jpeg|gif);base64,([A-Za-z0-9+/=\s]+)")
# A frozen widget hides itself where a live one stands; no kernel runs in a page.
HIDES = re.compile(r"<style>\.jp-OutputArea.*?</style>", flags=re.DOTALL)
FOLDED = {"solution": "The solution", "predict": "How the answer is measured"}


@dataclass
class Page:
    """A notebook as Markdown, with what Markdown must not touch beside it."""

    markdown: str = ""
    pieces: dict[str, str] = field(default_factory=dict)  # placeholder → HTML
    pictures: dict[str, bytes] = field(default_factory=dict)  # file name → its bytes


def page(path: Path, note: str = "") -> Page:
    """Read a notebook.

    Args:
        path: an executed notebook.
        note: Markdown that comes after its first cell.
    """
    made = Page()
    parts: list[str] = []
    for n, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
        elif cell.cell_type == "code" and (cell.source.strip() or cell.outputs):
            parts.append(_code(cell))
            parts += [out for output in cell.outputs if (out := _output(output, made, path.stem))]
        if n == 0 and note:
            parts.append(note)
    made.markdown = "\n\n".join(parts) + "\n"
    return made


def _code(cell: Any) -> str:
    # As many backticks as the code cannot hold.
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", cell.source)), default=0))
    block = f"{fence}python\n{cell.source}\n{fence}"
    tags = cell.metadata.get("tags", [])
    if not cell.metadata.get("jupyter", {}).get("source_hidden"):
        return block
    title = next((FOLDED[tag] for tag in tags if tag in FOLDED), "The code")
    return f'<details class="wb-fold" markdown="1"><summary>{title}</summary>\n\n{block}\n\n</details>'


def _output(output: Any, made: Page, name: str) -> str | None:
    if output.output_type == "stream":
        return _text(output.text, made, name)
    data = output.get("data", {})
    if "image/png" in data:
        src = _stored(base64.b64decode(data["image/png"]), "png", made, name)
        title = _title(data.get("application/vnd.plotly.v1+json"))
        return _place(made, name, f'<img class="wb-picture" loading="lazy" alt="{title}" src="{src}">')
    if "text/markdown" in data:
        return f'<div class="wb-said" markdown="1">\n\n{data["text/markdown"]}\n\n</div>'
    if "text/html" in data:
        stored = INLINE.sub(
            lambda found: _stored(base64.b64decode(found[2]), found[1], made, name), HIDES.sub("", data["text/html"])
        )
        return _place(made, name, f'<div class="wb-html">{stored}</div>') if stored.strip() else None
    return _text(data.get("text/plain", ""), made, name)


def _text(text: str, made: Page, name: str) -> str | None:
    if not text.strip():
        return None
    return _place(made, name, f'<pre class="wb-output">{html.escape(text.rstrip())}</pre>')


def _place(made: Page, name: str, piece: str) -> str:
    place = f"{name}-{len(made.pieces)}"
    made.pieces[place] = piece
    return f'<div class="wb-piece" data-place="{place}"></div>'


def _stored(picture: bytes, kind: str, made: Page, name: str) -> str:
    """Keep a picture as a file beside the page; its address from there."""
    file = f"{name}-{hashlib.sha256(picture).hexdigest()[:12]}.{kind}"
    made.pictures[file] = picture
    return f"pictures/{file}"


def _title(plotly: Any) -> str:
    """What a figure is called, for readers who do not see it."""
    layout = plotly.get("layout", {}) if isinstance(plotly, dict) else {}
    title = layout.get("title", {})
    text = title.get("text") if isinstance(title, dict) else title
    return html.escape(re.sub(r"<[^>]*>", "", str(text or "figure")), quote=True)
