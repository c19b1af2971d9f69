"""The figures that the golden tests measure, shown as a table when the run ends."""

from __future__ import annotations

from tests.forms import DENSE

COLUMNS = ("transformers", "openai", "between them")


class Measured:
    """row → column → the largest value recorded there."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, float]] = {}

    def record(self, row: str, column: str, value: float) -> None:
        """Keep the value if it is the largest in its place. Columns: what we are compared with, or "between them",
        the distance of the two references from each other."""
        if column not in COLUMNS:
            raise ValueError(f"column {column!r}: expected one of {COLUMNS}")
        values = self._rows.setdefault(row, {})
        values[column] = max(value, values.get(column, 0.0))

    def record_in(self, form: str, row: str, column: str, value: float) -> None:
        """Keep the value in the row of this form of our model: dense experts have the plain row."""
        self.record(row if form == DENSE else f"{form}: {row}", column, value)

    def lines(self) -> list[str]:
        """The table; no lines if nothing was recorded."""
        if not self._rows:
            return []
        width = max(map(len, self._rows))
        head = f"{'':{width}}" + "".join(f"{column:>14}" for column in COLUMNS)
        return [head, *(f"{row:{width}}" + self._cells(row) for row in self._rows)]

    def _cells(self, row: str) -> str:
        values = self._rows[row]
        return "".join(f"{_shown(row, values[c]) if c in values else '':>14}" for c in COLUMNS)


def _shown(row: str, value: float) -> str:
    return f"{value:.2%}" if row.endswith("share") else f"{value:.1e}"
