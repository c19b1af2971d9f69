"""The scores of each method on each planted model, shown as a table when the run ends."""

from __future__ import annotations

COLUMNS = ("patching", "attribution", "integrated", "EAP", "EAP-IG", "graph", "circuit f")


class Scores:
    """planted model → method → the worst value recorded there."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, float]] = {}

    def record(self, row: str, column: str, value: float) -> None:
        """Keep the value if it is the worst in its place: the lowest AUROC, the faithfulness farthest from 1."""
        if column not in COLUMNS:
            raise ValueError(f"column {column!r}: expected one of {COLUMNS}")
        values = self._rows.setdefault(row, {})
        known = values.get(column, 1.0)
        values[column] = value if abs(value - 1) > abs(known - 1) else known

    def lines(self) -> list[str]:
        """The table; no lines if nothing was recorded."""
        if not self._rows:
            return []
        width = max(map(len, self._rows))
        head = f"{'':{width}}" + "".join(f"{column:>13}" for column in COLUMNS)
        return [head, *(f"{row:{width}}" + self._cells(row) for row in self._rows)]

    def _cells(self, row: str) -> str:
        values = self._rows[row]
        return "".join(f"{f'{values[c]:.3f}' if c in values else '':>13}" for c in COLUMNS)
