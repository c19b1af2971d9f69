"""Records as a table: in a terminal, in a notebook, as a DataFrame. Names and texts of theirs are never trusted."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.provenance.record import Record
    from workbench.provenance.records import Records

ROWS = 20
WIDEST = {"name": 18, "model": 18, "edits": 36, "text": 40}
HEAD = ("id", "when", "kind", "name", "model", "tokens", "edits", "mean KL", "seconds", "text")
COLUMNS = (
    *("id", "kind", "name", "model", "fingerprint", "started", "seconds", "session", "notebook"),
    *("rows", "positions"),
)


def shown(text: Any, most: int = 200) -> str:
    """Text on one line: what would move the cursor, turn the line round or hide is written as its escape."""
    text = "" if text is None else str(text)
    text = text if len(text) <= most else f"{text[: most - 1]}…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def edits(record: Record) -> str:
    """The interventions in short."""
    if "specs" in record.missing:
        return "(many)"
    kinds = [str(spec.get("kind", spec.get("repr", "?"))) for spec in record.specs]
    return ", ".join(f"{n} {kind}" if (n := kinds.count(kind)) > 1 else kind for kind in dict.fromkeys(kinds))


def cells(record: Record) -> list[str]:
    """One record's row, fit for a terminal."""
    kl, seconds = record.summary.get("mean_kl"), record.seconds
    made = {
        "id": ("★" if record.pinned else "") + record.id,
        "when": f"{record.started:%Y-%m-%d %H:%M:%S}",
        "kind": record.kind,
        "name": record.name,
        "model": record.model,
        "tokens": "" if record.shape is None else "×".join(map(str, record.shape)),
        "edits": edits(record) or record.summary.get("status", ""),
        "mean KL": f"{kl:.3g}" if isinstance(kl, float) else "",
        "seconds": "" if seconds is None else f"{seconds:.3g}",
        "text": record.text,
    }
    return [shown(made[name], WIDEST.get(name, 40)) for name in HEAD]


def _rows(records: Records) -> tuple[list[list[str]], int]:
    return [cells(record) for record in records[:ROWS]], len(records)


def _said(records: Records, n: int) -> str:
    if records.path is None:
        return "Records: runs leave none (WORKBENCH_RECORDS=off)"
    return f"Records: {n} in {shown(records.path)}"


def as_text(records: Records) -> str:
    """The newest ones, in columns."""
    rows, n = _rows(records)
    widths = [max(len(row[i]) for row in [list(HEAD), *rows]) for i in range(len(HEAD))]
    lines = [_line(row, widths) for row in [list(HEAD), *rows]] if rows else []
    more = [f"… and {n - len(rows)} older"] if n > len(rows) else []
    return "\n".join([_said(records, n), *lines, *more])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def as_html(records: Records) -> str:
    """The same for a notebook."""
    rows, n = _rows(records)
    more = f"<p>… and {n - len(rows)} older</p>" if n > len(rows) else ""
    body = "".join(f"<tr>{''.join(f'<td>{_escaped(cell)}</td>' for cell in row)}</tr>" for row in rows)
    head = "".join(f"<th scope='col'>{name}</th>" for name in HEAD)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>" if rows else ""
    return f"<div><p>{_escaped(_said(records, n))}</p>{table}{more}</div>"


def _escaped(text: str) -> str:
    # Jupyter typesets what stands between dollars.
    return html.escape(text).replace("$", "<span>$</span>")


def described(record: Record) -> str:
    """One record in a line."""
    what = [f"{name} {cell}" for name, cell in zip(HEAD[3:], cells(record)[3:], strict=True) if cell]
    return f"Record({record.id}, {record.kind}, {record.started:%Y-%m-%d %H:%M:%S}{''.join(f', {w}' for w in what)})"


def flat(record: Record) -> dict[str, Any]:
    """One record as a row of plain values."""
    rows, positions = record.shape if record.shape and len(record.shape) == 2 else (None, None)
    made = {name: getattr(record, name) for name in COLUMNS if name not in ("rows", "positions")}
    made |= {"rows": rows, "positions": positions, "edits": edits(record), "routing": record.routing}
    made |= {"seed": record.seed, "result": record.result, "pinned": record.pinned, "text": record.text}
    made |= {name: value for name, value in record.summary.items() if isinstance(value, str | int | float)}
    made |= {f"{package} version": found for package, found in record.versions.items()}
    # JSON can hold half a character, which no table of pandas does.
    return {_whole(name): _whole(value) if isinstance(value, str) else value for name, value in made.items()}


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
