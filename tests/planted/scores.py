"""The scores of each method on each planted model, shown as a table when the run ends."""

from __future__ import annotations

from tests.tables import Table


class Scores(Table):
    """planted model → method → the worst value recorded there: the lowest AUROC, the faithfulness farthest from 1."""

    def __init__(self) -> None:
        columns = ["patching", "attribution", "integrated", "EAP", "EAP-IG", "graph", "circuit f"]
        super().__init__(
            "planted truth: AUROC of each method (worst prompt), faithfulness of the circuit", columns, 1.0, ".3f"
        )
