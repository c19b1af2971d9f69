"""Circuits as objects: a set of nodes, or of edges, that can be saved, compared and run alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr

from workbench.experiments.nodes import Node, Receiver
from workbench.experiments.rows import quantity
from workbench.model import Config

Of = Literal["nodes", "edges"]
ARROW = "->"
_FORMAT = "workbench circuit 1"


@dataclass(frozen=True)
class Circuit:
    """Some nodes ("L1H7", "L2E5@12", "embed"), or some edges ("L0H1->L1H7.q"), in the order of their names.

    A node without a position is in the circuit at all positions. Edges lead from a ``Node`` to a ``Receiver``, at all
    positions. Circuits of a kind are sets: ``a | b``, ``a & b``, ``a - b``, ``name in a``, ``len(a)``.

    Attributes:
        parts: given in any form that names them; kept as names, sorted, each once.
        of: "nodes" or "edges".
        name: what to call it.
        about: where it came from, plain text by name.

    Raises:
        ValueError: for a part that names no node or edge, or an edge that cannot be.

    >>> Circuit(("L1H7", "L0H1")).parts
    ('L0H1', 'L1H7')
    >>> "L1H7" in Circuit(("L1H7",)) | Circuit(("L0H1",))
    True
    """

    parts: tuple[Any, ...] = ()
    of: Of = "nodes"
    name: str = field(default="", compare=False)
    about: Mapping[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.of not in ("nodes", "edges"):
            raise ValueError(f"of={self.of!r}: expected 'nodes' or 'edges'")
        if isinstance(self.parts, str):
            raise ValueError(f"parts={self.parts!r}: expected several names, in a list or tuple")
        read = _edge_name if self.of == "edges" else _node_name
        object.__setattr__(self, "parts", tuple(sorted({read(part) for part in self.parts})))
        object.__setattr__(self, "about", dict(self.about))

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __contains__(self, part: object) -> bool:
        return str(part) in self.parts

    def __hash__(self) -> int:
        return hash((self.of, self.parts))

    def __or__(self, other: Circuit) -> Circuit:
        return Circuit((*self.parts, *self._like(other)), self.of)

    def __and__(self, other: Circuit) -> Circuit:
        return Circuit(tuple(set(self.parts) & set(self._like(other))), self.of)

    def __sub__(self, other: Circuit) -> Circuit:
        return Circuit(tuple(set(self.parts) - set(self._like(other))), self.of)

    def _like(self, other: Circuit) -> tuple[str, ...]:
        if self.of != other.of:
            raise ValueError(f"one circuit is of {self.of} and the other of {other.of}: they share no kind of part")
        return other.parts

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Its nodes; of edges, the nodes that they start from."""
        if self.of == "nodes":
            return tuple(map(Node.parse, self.parts))
        return tuple(dict.fromkeys(source for source, _ in self.edges))

    @property
    def edges(self) -> tuple[tuple[Node, Receiver], ...]:
        """Its edges; none where it is of nodes."""
        return tuple(map(_edge, self.parts)) if self.of == "edges" else ()

    def check(self, config: Config, n_pos: int | None = None) -> None:
        """Refuse layers, heads, experts and positions that the model or the text does not have.

        Raises:
            ValueError: naming the nearest that there is.
        """
        for part in self.nodes if self.of == "nodes" else [item for edge in self.edges for item in edge]:
            part.check(config, n_pos)

    def to_json(self) -> str:
        """As text; :meth:`from_json` reads it."""
        made = {"format": _FORMAT, "of": self.of, "name": self.name, "about": dict(self.about), "parts": self.parts}
        return json.dumps(made, indent=2)

    @classmethod
    def from_json(cls, text: str | bytes) -> Circuit:
        """What :meth:`to_json` wrote.

        Raises:
            ValueError: for text that is not that.
        """
        try:
            made = json.loads(text)
        except ValueError as error:
            raise ValueError(f"this is no circuit: not JSON ({error})") from None
        if not isinstance(made, dict) or made.get("format") != _FORMAT or not isinstance(made.get("parts"), list):
            raise ValueError(f"this is no circuit: expected an object with format {_FORMAT!r} and a list of parts")
        about = {str(key): str(value) for key, value in dict(made.get("about") or {}).items()}
        return cls(tuple(map(str, made["parts"])), made.get("of", "nodes"), str(made.get("name", "")), about)

    def save(self, path: str | Path) -> None:
        """Write it as JSON."""
        Path(path).write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Circuit:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: for another file; the message names it.
        """
        try:
            return cls.from_json(Path(path).read_bytes())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def __repr__(self) -> str:
        shown = ", ".join(self.parts[:6]) + (", …" if len(self.parts) > 6 else "")
        return f"Circuit({self.name + ': ' if self.name else ''}{len(self)} {self.of}: {shown})"


def _node_name(part: Any) -> str:
    return (part if isinstance(part, Node) else Node.parse(str(part))).name


def _edge(part: Any) -> tuple[Node, Receiver]:
    ends = part.split(ARROW) if isinstance(part, str) else part
    if isinstance(ends, str) or not isinstance(ends, Sequence) or len(ends) != 2:
        raise ValueError(f"{part!r} names no edge: expected one like 'L0H1{ARROW}L1H7.q', or its two ends")
    source = ends[0] if isinstance(ends[0], Node) else Node.parse(str(ends[0]).strip())
    reader = ends[1] if isinstance(ends[1], Receiver) else Receiver.parse(str(ends[1]).strip())
    if source.kind not in ("embed", "head", "expert") or reader.part == "experts":
        raise ValueError(f"{source}{ARROW}{reader}: edges lead from embed, a head or an expert, to one reader")
    if source.pos is not None or reader.pos is not None:
        raise ValueError(f"{source}{ARROW}{reader}: an edge holds at all positions; leave them out")
    if not reader.reads(source):
        raise ValueError(f"{source}{ARROW}{reader}: {reader} reads before {source} writes, so there is no such edge")
    return source, reader


def _edge_name(part: Any) -> str:
    source, reader = _edge(part)
    return f"{source.name}{ARROW}{reader.name}"


def compare_circuits(first: Circuit, second: Circuit) -> xr.Dataset:
    """What two circuits share.

    Returns:
        in_first, in_second (part), over the parts of both; jaccard (), shared ÷ all; precision, recall (), of the first
        taken as a guess at the second; NaN where there is nothing to divide by.

    Raises:
        ValueError: for one of nodes and one of edges.

    >>> first, second = Circuit(("L0H1", "L1H7")), Circuit(("L1H7",))
    >>> float(experiments.compare_circuits(first, second).jaccard)
    0.5
    """
    parts = (first | second).parts
    shared = len(first & second)
    ratios = {"jaccard": (len(parts), "shared ÷ all"), "precision": (len(first), "shared ÷ the first's")}
    ratios["recall"] = (len(second), "shared ÷ the second's")
    made = {
        "in_first": ("part", np.array([part in first for part in parts], dtype=bool), quantity("in the first")),
        "in_second": ("part", np.array([part in second for part in parts], dtype=bool), quantity("in the second")),
    }
    made |= {name: ((), shared / n if n else float("nan"), quantity(said)) for name, (n, said) in ratios.items()}
    attrs = {"experiment": "compare_circuits", "first": first.name, "second": second.name}
    return xr.Dataset(made, {"part": np.array(parts, dtype=str)}, attrs)


def auroc(scores: Mapping[str, float] | Sequence[float] | np.ndarray, truth: Iterable[Any]) -> float:
    """Area under the ROC curve: how often a true part scores above a false one, ties counted half.

    Args:
        scores: by name, with ``truth`` the names that are true; or in order, with ``truth`` as many truth values.

    Returns:
        1.0 where every true one comes first, 0.5 for chance. Scores count as they are: take their size, where sign does
        not matter.

    Raises:
        ValueError: without a true and a false one, for a true name that has no score, for lengths that differ, or NaN.

    >>> experiments.auroc({"L0H1": 3.0, "L1H7": 2.0, "L0E2": 1.0}, truth=["L0H1", "L0E2"])
    0.5
    """
    if isinstance(scores, Mapping):
        names = set(map(str, truth))
        missing = sorted(names - set(scores))
        if missing:
            raise ValueError(f"no score for {missing[:3]}, which {'is' if len(missing) == 1 else 'are'} true")
        values, true = np.array(list(scores.values()), dtype=float), np.array([name in names for name in scores])
    else:
        values, true = np.asarray(scores, dtype=float).ravel(), np.array(list(truth), dtype=bool)
    if values.shape != true.shape:
        raise ValueError(f"{len(values)} scores and {len(true)} truth values: expected as many")
    if np.isnan(values).any() or true.all() or not true.any():
        held = "NaN among the scores" if np.isnan(values).any() else f"{int(true.sum())} of {len(true)} true"
        raise ValueError(f"{held}: expected numbers, at least one true part and one that is not")
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[group]
    n_true = int(true.sum())
    return float((ranks[true].sum() - n_true * (n_true + 1) / 2) / (n_true * (len(true) - n_true)))
