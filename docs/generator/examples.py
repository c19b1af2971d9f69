"""Run the Python of a page from top to bottom, and show below each block what it gives."""

from __future__ import annotations

import ast
import html
import io
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A block whose title says so is shown and not run: it needs 13 GB, a GPU, or a package that is not ours. (tests/docs
# runs TransformerLens' side.)
NOT_RUN = ("not run here", 'title="theirs"')
FENCE = re.compile(r"^```python(?P<info>[^\n]*)\n(?P<code>.*?)^```[ ]*$", flags=re.MULTILINE | re.DOTALL)
LONGEST = 40  # lines of text under a block


class ExampleError(RuntimeError):
    """A block of a page that raised: which page, which line, which block."""


@dataclass(frozen=True)
class Block:
    """One block of a page's code."""

    code: str
    line: int
    runs: bool


def blocks(text: str) -> list[Block]:
    """The Python blocks of a page."""
    return [
        Block(found["code"], text[: found.start()].count("\n") + 2, not any(mark in found["info"] for mark in NOT_RUN))
        for found in FENCE.finditer(text)
    ]


def run(text: str, name: str) -> Iterator[tuple[str, Any]]:
    """Each block of a page, run after the others: what it printed, and the value of its last line (or None).

    Raises:
        ExampleError: naming the page and the line where the block begins.
    """
    os.environ.setdefault("WORKBENCH_RECORDS", "off")
    os.environ.setdefault("WORKBENCH_PROGRESS", "off")
    space: dict[str, Any] = {"__name__": "__example__"}
    for block in blocks(text):
        if not block.runs:
            yield "", None
            continue
        printed = io.StringIO()
        try:
            with redirect_stdout(printed):
                value = _run(block, name, space)
        except Exception as error:
            raise ExampleError(f"{name}, line {block.line}: {type(error).__name__}: {error}\n\n{block.code}") from error
        yield printed.getvalue(), value


def _run(block: Block, name: str, space: dict[str, Any]) -> Any:
    """Carry a block out in a page's namespace; the value of its last expression."""
    tree = ast.parse(block.code)
    ast.increment_lineno(tree, block.line - 1)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, name, "exec"), space)
    return eval(compile(ast.Expression(last.value), name, "eval"), space) if isinstance(last, ast.Expr) else None


def shown(text: str, name: str, pieces: dict[str, str]) -> str:
    """The page with what each block gives below it.

    Args:
        pieces: is filled with placeholder → HTML, which must not pass through Markdown.
    """
    given = run(text, name)

    def with_output(found: re.Match[str]) -> str:
        printed, value = next(given)
        return found[0] + "".join(_output(printed, value, name, pieces))

    return FENCE.sub(with_output, text)


def _output(printed: str, value: Any, name: str, pieces: dict[str, str]) -> Iterator[str]:
    if printed.strip():
        yield _kept(_as_text(printed), name, pieces)
    if hasattr(value, "to_plotly_json"):
        yield _kept(_figure(value), name, pieces)
    elif hasattr(value, "to_html") and hasattr(value, "columns"):
        yield _kept(f'<div class="wb-table">{value.to_html(border=0, max_rows=12)}</div>', name, pieces)
    elif value is not None:
        yield _kept(_as_text(repr(value)), name, pieces)


def _as_text(text: str) -> str:
    lines = text.rstrip().expandtabs().split("\n")
    if len(lines) > LONGEST:
        lines = [*lines[:LONGEST], f"… {len(lines) - LONGEST} more lines"]
    # Paths of the machine that built the site are nobody's business.
    said = "\n".join(lines).replace(str(Path.cwd()), "/your/folder")
    return f'<pre class="wb-output">{html.escape(said)}</pre>'


def _kept(piece: str, name: str, pieces: dict[str, str]) -> str:
    """Keep HTML away from Markdown; what stands in its place."""
    place = f"{Path(name).stem}-out-{len(pieces)}"
    pieces[place] = piece
    return f'\n\n<div class="wb-piece" data-place="{place}"></div>\n'


def _figure(figure: Any) -> str:
    """A plotly figure as data: assets/figures.js draws it when it comes into view. With a name for screen readers."""
    title = re.sub(r"<[^>]*>", "", str(figure.layout.title.text or "figure"))
    data = figure.to_json().replace("<", "\\u003c")
    height = int(figure.layout.height or 450)
    return (
        f'<div class="wb-plot" role="img" aria-label="{html.escape(title, quote=True)}" '
        f'style="min-height: {height}px"><script type="application/json">{data}</script></div>'
    )
