"""What interventions did to one run, in numbers: the distribution at a position, KL, flipped tokens and routes."""

from __future__ import annotations

from typing import Any
from weakref import ref

import numpy as np

from workbench.activations import Run

TOP = 6  # likeliest tokens of each run that have a bar
BARS = 6
LISTED = 2000  # flipped tokens


class Tops:
    """The likeliest next token at each position of a run, worked out once for each run."""

    def __init__(self, most: int = 4) -> None:
        self._known: dict[int, tuple[Any, np.ndarray]] = {}
        self._most = most

    def of(self, run: Run) -> np.ndarray:
        """[pos] ids."""
        known = self._known.get(id(run))
        if known is None or known[0]() is not run:
            known = (ref(run), run.logits[0].argmax(-1).cpu().numpy())
            self._known[id(run)] = known
            for old in list(self._known)[: -self._most]:
                self._known.pop(old, None)
        return known[1]


def bars(before: Run, after: Run, position: int, wanted: tuple[int, ...] = ()) -> list[dict[str, Any]]:
    """The likely next tokens after a position in either run, with their probabilities, the likeliest first.

    Args:
        wanted: tokens that are among them in any case.
    """
    was, now = (probabilities(run, position) for run in (before, after))
    k = min(TOP, len(was))
    found = dict.fromkeys([*was.topk(k).indices.tolist(), *now.topk(k).indices.tolist()])
    best = sorted(found, key=lambda token: -max(float(was[token]), float(now[token])))
    firsts = {int(was.argmax()), int(now.argmax()), *wanted}
    kept = sorted(firsts, key=lambda token: -max(float(was[token]), float(now[token])))
    kept += [token for token in best if token not in firsts][: max(0, BARS - len(firsts))]
    kept.sort(key=lambda token: -max(float(was[token]), float(now[token])))
    return [{"id": token, "before": float(was[token]), "after": float(now[token])} for token in kept]


def probabilities(run: Run, position: int) -> Any:
    """A tensor [d_vocab] of the next token after a position."""
    return run.logits[0, position].detach().float().softmax(-1).cpu()


def flipped_routes(run: Run) -> tuple[np.ndarray, np.ndarray]:
    """[layer] at how many tokens the set of experts changed, and [layer pos] where."""
    assert run.flipped_routes is not None
    where = run.flipped_routes[:, 0].cpu().numpy()
    return where.sum(1), where
