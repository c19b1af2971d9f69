"""Tables of what the tests measure, shown when the run ends, however many processes shared the tests."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Table:
    """row → column → the value farthest from what would be perfect.

    It is plain data, so that one process can send it to another; ``Table(**vars(table))`` is the same table.
    """

    title: str
    columns: list[str]
    perfect: float
    form: str  # of a number, as in format()
    rows: dict[str, dict[str, float]] = field(default_factory=dict)

    def record(self, row: str, column: str, value: float) -> None:
        """Keep the value if it is the worst in its place.

        Raises:
            ValueError: if the table has no such column.
        """
        if column not in self.columns:
            raise ValueError(f"column {column!r}: expected one of {self.columns}")
        values = self.rows.setdefault(row, {})
        known = values.get(column, value)
        values[column] = max(value, known, key=lambda each: abs(each - self.perfect))

    def add(self, other: Table) -> None:
        """Record all that another table of these columns holds."""
        for row, values in other.rows.items():
            for column, value in values.items():
                self.record(row, column, value)

    def lines(self) -> list[str]:
        """The table as text, its rows in alphabetical order (which process ran a test first is chance)."""
        width = max(map(len, self.rows), default=0)
        head = f"{'':{width}}" + "".join(f"{column:>14}" for column in self.columns)
        return [head, *(f"{row:{width}}" + self._cells(row) for row in sorted(self.rows))]

    def _cells(self, row: str) -> str:
        values = self.rows[row]
        return "".join(f"{self._shown(row, values[c]) if c in values else '':>14}" for c in self.columns)

    def _shown(self, row: str, value: float) -> str:
        return f"{value:.2%}" if row.endswith("share") else f"{value:{self.form}}"
