"""A traced graph that can be asked more: other numbers of nodes, more edges taken away, what its nodes promote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from torch import Tensor

from workbench.activations import run
from workbench.experiments.contrast import at_least_float32, real_row
from workbench.experiments.graphs.cost import graph_cost
from workbench.experiments.graphs.edge_checks import EdgeChecks, edge_variables
from workbench.experiments.graphs.frozen import Frozen, frozen_sites
from workbench.experiments.graphs.graph_nodes import Kept, Step, influence_of, row_of
from workbench.experiments.metrics import Token, token_id
from workbench.experiments.nodes import Node
from workbench.experiments.rows import provenance, token_coords
from workbench.experiments.texts import read_out, token_texts
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.model.memory import readable


class Trace:
    """What ``attribution_graph`` finds, kept so that it can be asked more.

    Its arguments are those of ``attribution_graph``, which says what the numbers are.

    Raises:
        ValueError: for an edited run, or a row, position or token that is not there.
        MemoryError: for a text that cannot fit, before anything runs.
    """

    @without_gradients
    def __init__(
        self,
        model: HookedGptOss,
        tokens: Any,
        target: tuple[Token, Token] | Token,
        n_nodes: int = 200,
        *,
        row: int = 0,
        logits_at: int | None = None,
        on_step: Step | None = None,
    ) -> None:
        self.model, self.row = model, row
        self._ids, self._said = _target(model, target)
        self._read, self._columns = _read(model, tokens, row, logits_at)
        self.cost = graph_cost(model, len(self._columns))
        if self.cost.free is not None and not self.cost.fits:
            needed, free = readable(self.cost.n_bytes), readable(self.cost.free.n_bytes)
            raise MemoryError(
                f"a graph of {len(self._columns):,} tokens needs {needed}, and {free} are free (says "
                f"{self.cost.free.source}). Nothing was run. Choose an earlier position or a shorter text."
            )
        self._frozen: Frozen | None = None
        self._checks: EdgeChecks | None = None
        self._checked: dict[tuple[Node, Node], tuple[float, float]] = {}
        self._influence, self._shares = influence_of(self.frozen, on_step)
        self._attrs = provenance(self.frozen.done, "attribution_graph", row, target=self._said)
        self.prune(n_nodes)

    @property
    def frozen(self) -> Frozen:
        """The held run; made again if it was let go."""
        if self._frozen is None:
            done = run(self.model, self._read[None], sites=frozen_sites(self.model.config.n_layers))
            unembedded = [at_least_float32(self.model.unembed.weight[i]) for i in self._ids]
            self._frozen = Frozen(done, unembedded[0] - unembedded[1] if len(self._ids) == 2 else unembedded[0])
        return self._frozen

    @without_gradients
    def prune(self, n_nodes: int) -> None:
        """Keep another number of nodes, those of largest influence."""
        self.kept = Kept(self.frozen, self._influence, self._shares, n_nodes, self._columns)
        self._order = [pair for pair in self._checked if self.kept.has(*pair)]

    def release(self) -> None:
        """Let go of what is large. Asked for more later, the run is made again."""
        self._frozen = self._checks = None

    @without_gradients
    def confirm(self, edges: int | Sequence[tuple[str, str]], on_step: Step | None = None) -> None:
        """Take edges away, one at a time, in the held model and in the live one; those taken away before are known.

        Args:
            edges: how many of the largest between kept nodes, without those into the logits, which are exact; or
                (source, target) names.
            on_step: called with how many are done and of how many; what it raises stops the work, and what is done is
                kept.

        Raises:
            ValueError: for an edge that is not between kept nodes, or leads to the logits.
        """
        pairs = self.kept.strongest(edges) if isinstance(edges, int) else [self.kept.edge(*pair) for pair in edges]
        self._order = list(dict.fromkeys([*self._order, *pairs])) if self._order else pairs
        left = [pair for pair in pairs if pair not in self._checked]
        if not left:
            return
        if self._checks is None:
            self._checks = EdgeChecks(self.frozen)
        sources, targets = ([pair[i] for pair in left] for i in (0, 1))
        done = len(pairs) - len(left)
        for some in self._checks.parts(targets):
            found = self._checks.effects([sources[i] for i in some], [targets[i] for i in some]).tolist()
            self._checked |= {left[i]: (held, live) for i, held, live in zip(some, *found, strict=True)}
            done += len(some)
            if on_step is not None:
                on_step(done, len(pairs))

    def dataset(self) -> xr.Dataset:
        """As ``attribution_graph`` returns it."""
        variables = self.kept.variables()
        known = [pair for pair in self._order if pair in self._checked]
        if known:
            found = np.array([self._checked[pair] for pair in known]).T
            predicted = np.array([self.kept.effect(*pair) for pair in known])
            names = [" → ".join(self._name(node) for node in pair) for pair in known]
            variables |= edge_variables(names, predicted, *found)
        coords = token_coords(self._read.tolist(), self.model.tokenizer, self._columns)
        attrs = self._attrs | {"logits_at": self._columns[-1], "n_nodes": len(self.kept.nodes)}
        return xr.Dataset(variables, coords | self.kept.coords(), attrs)

    @without_gradients
    def promoted(self, source: str, n: int = 5) -> xr.Dataset:
        """What a kept node says by itself: the tokens whose logits its write raises and lowers most at its position.

        The write is read through the final norm, held at its scale there, and the unembedding: the direct effect.

        Raises:
            ValueError: for a node that is not kept.
        """
        write = self.kept.direct_write(self.kept.node(source))
        found = [read_out(self.model, sign * write[None], n) for sign in (1, -1)]
        ids, logits = (np.stack([part[i][0] for part in found]) for i in (0, 1))
        logits[1] *= -1
        dims, coords = ("direction", "rank"), {"direction": ["raised", "lowered"], "rank": np.arange(1, n + 1)}
        made = {"token_id": (dims, ids), "logit": (dims, logits), "token": (dims, token_texts(self.model, ids))}
        return xr.Dataset(made, coords, {"experiment": "promoted", "node": source})

    def _name(self, node: Node) -> str:
        return row_of(node, self._columns)[0]


def _target(model: HookedGptOss, target: tuple[Token, Token] | Token) -> tuple[tuple[int, ...], str]:
    named = target if isinstance(target, tuple) else (target,)
    if len(named) not in (1, 2):
        raise ValueError(f"target={target!r}: expected one token, or (right, wrong)")
    return tuple(token_id(model, token) for token in named), " − ".join(f"logit of {name!r}" for name in named)


def _read(model: HookedGptOss, given: Any, row: int, logits_at: int | None) -> tuple[Tensor, list[int]]:
    """The real tokens of a row up to the position that is read, and their columns."""
    tokens, columns = real_row(model, given, row, "the text")
    if logits_at is None:
        return tokens, columns
    if logits_at not in columns:
        raise ValueError(f"logits_at={logits_at}: the text has positions {columns[0]} to {columns[-1]}")
    end = columns.index(logits_at) + 1
    return tokens[:end], columns[:end]
