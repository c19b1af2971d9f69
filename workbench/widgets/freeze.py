"""Notebooks for readers without a kernel: live widgets taken out, their static form left."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat

WIDGET = "application/vnd.jupyter.widget-view+json"


def freeze(source: str | Path, target: str | Path | None = None) -> int:
    """Take the live widgets out of a notebook, so that every viewer shows what is beside them.

    Args:
        target: where it is written; the source itself if None.

    Returns:
        How many widgets were taken out.

    Raises:
        ValueError: for a file that is no notebook.
    """
    source = Path(source)
    try:
        notebook: Any = nbformat.read(source, as_version=4)
    except Exception as error:  # nbformat raises many kinds
        raise ValueError(f"{source} is no notebook: {error}") from None
    n_taken = sum(_freeze_cell(cell) for cell in notebook.cells if cell.cell_type == "code")
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, Path(target or source))
    return n_taken


def _freeze_cell(cell: Any) -> int:
    kept, n_taken = [], 0
    for output in cell.outputs:
        data = output.get("data", {})
        if WIDGET not in data:
            kept.append(output)
            continue
        n_taken += 1
        del data[WIDGET]
        # Its text alone ("Bench(nano, …)") says less than the static form that stands beside it.
        if set(data) - {"text/plain"}:
            kept.append(output)
    if n_taken and not kept and cell.outputs:
        kept = [cell.outputs[0]]
    cell.outputs = kept
    return n_taken
