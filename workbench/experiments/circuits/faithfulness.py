"""How well a circuit stands for the whole model: faithfulness, its curve over sizes, minimality, completeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from tqdm.auto import tqdm

from workbench.activations.run import provenance_of
from workbench.experiments.circuits.circuit import Circuit
from workbench.experiments.circuits.runs import DEFAULT_KINDS, Ablation, Setting, with_one_mean
from workbench.experiments.metrics import Measure, Metric, as_metric, logit_difference, named, of_rows, token_id
from workbench.experiments.prompts import row_of
from workbench.experiments.rows import check_whole, quantity
from workbench.model import HookedGptOss

SIZES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # MIB's, and 0
_MOST = 4096  # tokens in one pass


def faithfulness(
    model: HookedGptOss,
    circuits: Circuit | Sequence[Circuit],
    pairs: Sequence[Any],
    metric: Metric | None = None,
    *,
    ablation: Ablation = "corrupt",
    kinds: Sequence[str] = DEFAULT_KINDS,
    progress: bool = True,
) -> xr.Dataset:
    """f = (m(C) − m(∅)) / (m(N) − m(∅)) of each circuit C, m the mean over pairs (MIB, arXiv 2504.13151).

    Args:
        circuits: one or several, as :func:`run_circuit` runs them.
        pairs: with clean and corrupt of one length each, and right and wrong.
        metric: None: the logit difference of each pair's right and wrong token.
        ablation, kinds: as in :func:`run_circuit`, "mean" over the corrupted texts of all pairs. ∅ is the circuit
            without parts, N the whole model.
        progress: show a progress bar.

    Returns:
        faithfulness (circuit); NaN where m(N) = m(∅). metric (circuit, pair); whole, empty (pair), of N and ∅; size
        (circuit), how many parts.

    Raises:
        ValueError: for no pairs or circuits, circuits of nodes beside circuits of edges, or what does not fit.
    """
    several = [circuits] if isinstance(circuits, Circuit) else list(circuits)
    if not several or len({circuit.of for circuit in several}) != 1:
        raise ValueError(f"{len(several)} circuits: expected at least one, all of nodes or all of edges")
    scored = Scored(model, pairs, metric, ablation, kinds)
    whole, empty = scored.ends(several[0].of)
    table = scored.table(several, progress=progress)
    variables = {
        "faithfulness": ("circuit", scored.share(table, whole, empty), quantity("(m(C) − m(∅)) / (m(N) − m(∅))")),
        "metric": (("circuit", "pair"), table, quantity(scored.said)),
        "whole": ("pair", whole, quantity(f"{scored.said}, whole model")),
        "empty": ("pair", empty, quantity(f"{scored.said}, empty circuit")),
        "size": ("circuit", np.array([len(circuit) for circuit in several]), quantity("parts")),
    }
    names = [circuit.name or f"{i}" for i, circuit in enumerate(several)]
    coords = {"circuit": np.array(names, dtype=str), "pair": np.arange(len(whole))}
    return xr.Dataset(variables, coords, scored.attrs("faithfulness"))


def faithfulness_curve(
    model: HookedGptOss,
    ranking: Mapping[str, float] | Sequence[str],
    pairs: Sequence[Any],
    metric: Metric | None = None,
    *,
    of: str = "nodes",
    sizes: Sequence[float | int] = SIZES,
    absolute: bool = True,
    ablation: Ablation = "corrupt",
    kinds: Sequence[str] = DEFAULT_KINDS,
    progress: bool = True,
) -> xr.Dataset:
    """Faithfulness of the first parts of a ranking, more and more of them, and the areas CPR and CMD.

    CPR = ∫ f dk, the larger the better: a small circuit does the task already. CMD = ∫ |1 − f| dk, the smaller the
    better: it does so as the model does. k is the share of all ranked parts, and areas are by trapezoids, from the
    smallest to the largest size (MIB, arXiv 2504.13151).

    Args:
        ranking: part → score, or all parts, the best first.
        of: "nodes" or "edges".
        sizes: shares of the parts, from 0 to 1; each is rounded to whole parts.
        absolute: rank by |score|, as CMD wants it; False: by score, as CPR does.
        pairs, metric, ablation, kinds, progress: as in :func:`faithfulness`.

    Returns:
        faithfulness, size (share), cpr, cmd ().

    Raises:
        ValueError: for no parts, a size outside of 0 to 1 or fewer than two, and as :func:`faithfulness`.
    """
    if not len(ranking) or isinstance(ranking, str):
        raise ValueError(f"ranking={ranking!r}: expected the parts of a circuit, best first, or their scores")
    if len(set(sizes)) < 2 or min(sizes) < 0 or max(sizes) > 1:
        raise ValueError(f"sizes={tuple(sizes)}: expected at least two shares from 0 to 1")
    parts = _ranked(ranking, absolute)
    shares = sorted(set(sizes))
    counts = [round(share * len(parts)) for share in shares]
    found = {n: Circuit(tuple(parts[:n]), of, f"best {n}") for n in dict.fromkeys(counts)}  # type: ignore[arg-type]
    data = faithfulness(model, list(found.values()), pairs, metric, ablation=ablation, kinds=kinds, progress=progress)
    each = dict(zip(found, data.faithfulness.values, strict=True))
    values = np.array([each[n] for n in counts])
    # At the shares that there are, once rounded: a size is a whole number of parts.
    at, unique = np.unique(np.array(counts) / len(parts), return_index=True)
    areas = {"cpr": (values[unique], "∫ f"), "cmd": (np.abs(1 - values[unique]), "∫ |1 − f|")}
    variables = {
        "faithfulness": ("share", values, quantity("(m(C) − m(∅)) / (m(N) − m(∅))")),
        "size": ("share", np.array(counts), quantity("parts")),
        **{name: ((), float(np.trapezoid(of_it, at)), quantity(said)) for name, (of_it, said) in areas.items()},
    }
    attrs = {**data.attrs, "experiment": "faithfulness_curve", "absolute": int(absolute)}
    return xr.Dataset(variables, {"share": np.array(shares)}, attrs)


def minimality(
    model: HookedGptOss,
    circuit: Circuit,
    pairs: Sequence[Any],
    metric: Metric | None = None,
    *,
    ablation: Ablation = "corrupt",
    kinds: Sequence[str] = DEFAULT_KINDS,
    progress: bool = True,
) -> xr.Dataset:
    """What each part is worth to the circuit: f(C) − f(C without it). Near 0: the circuit does not need it.

    Arguments as in :func:`faithfulness`.

    Returns:
        worth (part), in units of f; faithfulness (), of C.
    """
    fewer = [circuit - Circuit((part,), circuit.of) for part in circuit]
    data = faithfulness(model, [circuit, *fewer], pairs, metric, ablation=ablation, kinds=kinds, progress=progress)
    values = data.faithfulness.values
    variables = {
        "worth": ("part", values[0] - values[1:], quantity("f(C) − f(C without the part)")),
        "faithfulness": ((), values[0], quantity("f(C)")),
    }
    return xr.Dataset(
        variables, {"part": np.array(circuit.parts, dtype=str)}, {**data.attrs, "experiment": "minimality"}
    )


def completeness(
    model: HookedGptOss,
    circuit: Circuit,
    pairs: Sequence[Any],
    metric: Metric | None = None,
    *,
    taken_out: Sequence[Circuit] | None = None,
    n: int = 20,
    seed: int = 0,
    ablation: Ablation = "corrupt",
    kinds: Sequence[str] = DEFAULT_KINDS,
    progress: bool = True,
) -> xr.Dataset:
    """Whether the circuit breaks as the model does: f(C∖K) beside f(N∖K), for parts K of C (arXiv 2211.00593).

    A circuit that misses a backup of its own part K breaks where the model does not, and the gap says so.

    Args:
        taken_out: the sets K, each within C; None: ``n`` drawn by ``seed``, every part with a chance of a half.
        Others as in :func:`faithfulness`.

    Returns:
        circuit, model, gap (taken_out): f(C∖K), f(N∖K) and their difference's size; names of K along the axis.

    Raises:
        ValueError: for a K that is not within C, and as :func:`faithfulness`.
    """
    check_whole(1, n=n)
    sets = _drawn(circuit, n, seed) if taken_out is None else list(taken_out)
    for some in sets:
        if len(some - circuit):
            raise ValueError(f"{(some - circuit).parts[:3]} are taken out and not in the circuit")
    scored = Scored(model, pairs, metric, ablation, kinds)
    whole, empty = scored.ends(circuit.of)
    of_circuit = scored.share(scored.table([circuit - some for some in sets], progress=progress), whole, empty)
    of_model = scored.share(scored.table(sets, without=True, progress=progress), whole, empty)
    variables = {
        "circuit": ("taken_out", of_circuit, quantity("f(C without K)")),
        "model": ("taken_out", of_model, quantity("f(N without K)")),
        "gap": ("taken_out", np.abs(of_circuit - of_model), quantity("|f(C without K) − f(N without K)|")),
    }
    names = [", ".join(some.parts) for some in sets]
    return xr.Dataset(
        variables, {"taken_out": np.array(names, dtype=str)}, scored.attrs("completeness") | {"seed": seed}
    )


def _ranked(ranking: Mapping[str, float] | Sequence[str], absolute: bool) -> list[str]:
    if not isinstance(ranking, Mapping):
        return list(ranking)
    if unknown := [part for part, score in ranking.items() if np.isnan(score)]:
        raise ValueError(f"the scores of {unknown[:3]} are nan; leave out what has none")
    # Stable: equal scores stay in the order in which they were given.
    return sorted(ranking, key=lambda part: -(abs(ranking[part]) if absolute else ranking[part]))


def _drawn(circuit: Circuit, n: int, seed: int) -> list[Circuit]:
    random = np.random.default_rng(seed)
    chosen = random.random((n, len(circuit))) < 0.5
    return [Circuit(tuple(p for p, out in zip(circuit, row, strict=True) if out), circuit.of) for row in chosen]


class Scored:
    """Pairs, in batches of one length, and the metric of circuits on them."""

    def __init__(
        self, model: HookedGptOss, pairs: Sequence[Any], metric: Metric | None, ablation: str, kinds: Sequence[str]
    ) -> None:
        if not len(pairs):
            raise ValueError("no pairs: expected at least one")
        self.model, self.n, self.ablation, self.kinds = model, len(pairs), ablation, tuple(kinds)
        self.said = "logit of each pair's right token − logit of its wrong one"
        self.parts: list[tuple[list[int], Setting, Measure]] = []
        strange = [i for i, pair in enumerate(pairs) if not (hasattr(pair, "clean") and hasattr(pair, "corrupt"))]
        if strange:
            raise ValueError(f"pairs[{strange[0]}] is {type(pairs[strange[0]]).__name__}: expected clean and corrupt")
        both = [(row_of(model, pair.clean), row_of(model, pair.corrupt)) for pair in pairs]
        for i, (clean, corrupt) in enumerate(both):
            if len(clean) != len(corrupt):
                raise ValueError(
                    f"pair {i}: clean has {len(clean)} tokens and corrupt {len(corrupt)}: expected as many"
                )
        for length in sorted({len(clean) for clean, _ in both}):
            of_length = [i for i, (clean, _) in enumerate(both) if len(clean) == length]
            most = max(1, _MOST // length)
            for some in (of_length[i : i + most] for i in range(0, len(of_length), most)):
                self._batch(pairs, both, some, metric)
        if ablation == "mean":
            shared = with_one_mean([setting for _, setting, _ in self.parts])
            self.parts = [(some, new, measure) for (some, _, measure), new in zip(self.parts, shared, strict=True)]

    def _batch(self, pairs: Sequence[Any], both: list, some: list[int], metric: Metric | None) -> None:
        clean, corrupt = (torch.stack([both[i][side] for i in some]) for side in (0, 1))
        if metric is None:
            right, wrong = (
                [token_id(self.model, getattr(pairs[i], name)) for i in some] for name in ("right", "wrong")
            )
            measure, _ = as_metric(self.model, logit_difference(right, wrong))
        else:
            whole = named(metric)
            measure, _ = as_metric(self.model, of_rows(whole, some, self.n))
            self.said = as_metric(self.model, whole)[1]
        self.parts.append((some, Setting.of(self.model, clean, corrupt, self.ablation, self.kinds), measure))

    def table(
        self, circuits: Sequence[Circuit], without: bool = False, progress: bool = False
    ) -> Float[np.ndarray, "circuit pair"]:
        """The metric of each circuit on each pair; ``without``: of all but the circuit."""
        found = np.zeros((len(circuits), self.n))
        with tqdm(total=len(circuits), desc="circuits", unit="circuit", disable=not progress) as bar:
            for i, circuit in enumerate(circuits):
                for some, setting, measure in self.parts:
                    found[i, some] = measure(setting.logits(circuit, without)).double().cpu().numpy()
                bar.update()
        return found

    def ends(self, of: str) -> tuple[Float[np.ndarray, " pair"], Float[np.ndarray, " pair"]]:
        """Of the whole model and of the empty circuit."""
        nothing = [Circuit((), of)]  # type: ignore[arg-type]
        return self.table(nothing, without=True)[0], self.table(nothing)[0]

    @staticmethod
    def share(
        table: Float[np.ndarray, "circuit pair"], whole: Float[np.ndarray, " pair"], empty: Float[np.ndarray, " pair"]
    ) -> Float[np.ndarray, " circuit"]:
        """f, of means over pairs."""
        span = whole.mean() - empty.mean()
        return (table.mean(1) - empty.mean()) / (span if span else float("nan"))

    def attrs(self, experiment: str) -> dict[str, Any]:
        made = {"experiment": experiment, **provenance_of(self.model), "metric": self.said, "n_pairs": self.n}
        return made | {"ablation": self.ablation, "kinds": ", ".join(self.kinds)}
