"""Which head and expert of nano a task cannot do without: `python -m tests.planted.carriers` prints it for each."""

from __future__ import annotations

from typing import NamedTuple

import workbench as wb
from workbench import experiments, prompts


class Carrier(NamedTuple):
    """The spec whose ablation costs most, and what it costs: the change of the mean logit difference."""

    spec: str
    effect: float


def carriers(task: str, n: int = 16) -> dict[str, Carrier]:
    """The strongest of all heads and of all experts, set to zero one at a time, over fixed pairs."""
    model = wb.load("nano")
    pairs = prompts.pairs(model, task, n, seed=7)
    found = {}
    for kind in ("heads", "experts"):
        data = experiments.ablation_sweep(model, pairs, components=kind, progress=False)
        strongest = data.isel(component=int(data.mean_effect.values.argmin()))
        found[kind] = Carrier(str(strongest.spec.values), round(float(strongest.mean_effect), 2))
    return found


if __name__ == "__main__":
    for task in prompts.tasks():
        print(f"    {task!r}: { ({kind: tuple(each) for kind, each in carriers(task).items()})!r},")
