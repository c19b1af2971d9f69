"""The figures that the golden tests measure, shown as a table when the run ends."""

from __future__ import annotations

from tests.forms import DENSE
from tests.tables import Table


class Measured(Table):
    """row → column → the largest value recorded there. Columns: what we are compared with, or "between them",
    the distance of the two references from each other."""

    def __init__(self) -> None:
        columns = ["transformers", "openai", "between them"]
        super().__init__("parity, as measured in this run (largest over all trials)", columns, 0.0, ".1e")

    def record_in(self, form: str, row: str, column: str, value: float) -> None:
        """Keep the value in the row of this form of our model: dense experts have the plain row."""
        self.record(row if form == DENSE else f"{form}: {row}", column, value)
