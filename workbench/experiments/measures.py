"""What a sweep over a model measures: any experiment, cell by cell, or a metric of many edited prompts at once.

Both are plain data, so that they travel to the workers of a cluster, and a journal can tell them apart.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
import xarray as xr

from workbench.activations import Run, run
from workbench.experiments.metrics import LogitDifference, Metric, Probability
from workbench.experiments.prompts import batches
from workbench.interventions import Context, Intervention, all_edits, check_all
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.prompts import Pair
from workbench.sweeps import Cell

PROMPT, SPEC = "prompt", "spec"  # the two axes that are not arguments of an experiment of runs
SpecOf = Callable[[Cell], Any]
Side = Literal["clean", "corrupt"]


def each(
    experiment: Callable[..., Any],
    *,
    sites: Any = None,
    spec: SpecOf | None = None,
    side: Side = "clean",
    sources: Mapping[str, Any] | None = None,
    **fixed: Any,
) -> Each:
    """Any experiment as a sweep's measure, called once for each cell: ``wb.sweep(each(logit_lens), Grid(…), …)``.

    Args:
        experiment: of a model, or of a run (its first argument then is called "run"). It returns a dataset, an array, a
            number, or a dict of these.
        sites: which sites the run keeps, as ``wb.run`` takes it.
        spec: of an experiment of runs: the interventions of a cell, where they are not an axis of their own:
            ``spec=lambda cell: wb.AblateHead(cell["layer"], cell["head"])``.
        side: which side of a pair runs.
        sources: vectors [d_model] that interventions take, by name; "clean" and "corrupt" are a pair's own two runs.
        fixed: arguments that are the same in every cell.

    An axis of the grid is an argument by its name. For an experiment of a run, the axis ``prompt`` (text, Chat, token
    ids, or a side of a pair) is what runs, and ``spec`` the interventions in it; with a function for ``spec``,
    axes that are no argument of the experiment are for that function. Where a result has an axis of the grid's name
    (the layers of a lens, under ablations by layer), the result's is called "result_layer".

    Raises:
        ValueError: for a fixed argument that the experiment does not take.
    """
    if not callable(experiment):
        raise TypeError(f"experiment={experiment!r:.60}: expected an experiment, or a function of your own")
    takes = _takes(experiment)
    wrong = [name for name in fixed if takes is not None and name not in takes]
    if wrong:
        raise ValueError(f"{_named(experiment)} takes no {wrong[0]!r}; it takes {', '.join(takes or ())}")
    if takes is not None and "progress" in takes:
        fixed = {"progress": False, **fixed}
    return Each(experiment, fixed, sites, spec, side, dict(sources or {}))


def metric_of(
    metric: Metric | None = None,
    *,
    spec: SpecOf | None = None,
    side: Side = "clean",
    sources: Mapping[str, Any] | None = None,
) -> MetricOf:
    """A metric after each prompt's last token, under interventions, as a sweep's measure; prompts run in batches.

    Axes: ``prompt``, and ``spec`` (an intervention, several, or None), or any others with a function for ``spec``. Let
    ``prompt`` be the last axis: neighbouring cells with the same interventions run as one batch.

    Args:
        metric: as ``ablation_sweep`` takes it; None, for pairs: the logit difference of their own two tokens.
        spec: gives the interventions of a cell: ``lambda cell: wb.AblateExpert(cell["layer"], cell["expert"])``.
        side: which side of a pair runs.
        sources: vectors [d_model] that interventions take, by name; "clean" and "corrupt" are a pair's own two runs.
    """
    if not (metric is None or callable(metric) or isinstance(metric, tuple | LogitDifference | Probability)):
        raise ValueError(f"metric={metric!r:.60}: expected what ablation_sweep takes, two tokens or a function")
    return MetricOf(metric, spec, side, dict(sources or {}))


@dataclass(frozen=True)
class Each:
    """See :func:`each`."""

    experiment: Callable[..., Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    sites: Any = None
    spec: SpecOf | None = None
    side: Side = "clean"
    sources: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, model: HookedGptOss, cells: Sequence[Cell]) -> list[Any]:
        """A value for each cell."""
        return [self._value(model, cell) for cell in cells]

    def _value(self, model: HookedGptOss, cell: Cell) -> Any:
        given = cell.as_dict()
        if not self._of_runs():
            return _parts(self.experiment(model, **given, **self.fixed), cell)
        done = self._run(model, cell, given)
        return _parts(self.experiment(done, **given, **self.fixed), cell)

    def _of_runs(self) -> bool:
        return (_takes(self.experiment) or ("",))[0] == "run"

    def _run(self, model: HookedGptOss, cell: Cell, given: dict[str, Any]) -> Run:
        if PROMPT not in given:
            raise ValueError(
                f"{_named(self.experiment)} is of a run, and the grid has no axis {PROMPT!r} to make one of; it has "
                f"{list(given)}"
            )
        prompt = given.pop(PROMPT)
        specs = _specs(cell, self.spec)
        given.pop(SPEC, None)
        if self.spec is not None:  # the other axes may be the function's alone
            takes = _takes(self.experiment) or ()
            for axis in [axis for axis in given if axis not in takes]:
                given.pop(axis)
        sources = _sources(model, prompt, specs, self.sources)
        return run(model, getattr(prompt, self.side, prompt), specs, sites=self.sites, sources=sources)


@dataclass(frozen=True)
class MetricOf:
    """See :func:`metric_of`."""

    metric: Metric | None = None
    spec: SpecOf | None = None
    side: Side = "clean"
    sources: Mapping[str, Any] = field(default_factory=dict)

    def together(self, cell: Cell) -> str:
        """Cells for which this is the same are batched: those with the same interventions."""
        return repr(_specs(cell, self.spec))

    @without_gradients
    def __call__(self, model: HookedGptOss, cells: Sequence[Cell]) -> list[float]:
        """A number for each cell."""
        found = [0.0] * len(cells)
        groups: dict[str, list[int]] = {}
        for i, cell in enumerate(cells):
            self._check(cell)
            groups.setdefault(self.together(cell), []).append(i)
        for group in groups.values():
            for i, value in zip(group, self._group(model, [cells[i] for i in group]), strict=True):
                found[i] = value
        return found

    def _check(self, cell: Cell) -> None:
        known = (PROMPT, SPEC)
        strange = [axis for axis in cell.axes if axis not in known]
        if PROMPT not in cell.axes or (strange and self.spec is None):
            raise ValueError(
                f"metric_of measures cells of {PROMPT!r} and {SPEC!r}, and these have {list(cell.axes)}: expected an "
                f"axis {PROMPT!r}, and for other axes spec=, a function of a cell that gives its interventions"
            )

    def _group(self, model: HookedGptOss, cells: Sequence[Cell]) -> list[float]:
        specs = _specs(cells[0], self.spec)
        prompts = [cell[PROMPT] for cell in cells]
        if _of_the_pair(model, specs, self.sources):  # each prompt by itself, beside its own two runs
            return [self._alone(model, prompt, specs) for prompt in prompts]
        sources, values = dict(self.sources), []
        for part in batches(model, [_side(prompt, self.side) for prompt in prompts], self.metric)[0]:
            check_all(specs, model.config, part.tokens.shape[1], sources, len(part))
            with model._lock, model.hooks(fwd_hooks=[*all_edits(specs, Context(model, sources))]):
                logits = model(part.tokens, attention_mask=part.mask, logits_at="last")
            values += part.measure(logits[:, 0]).double().tolist()
        return values

    def _alone(self, model: HookedGptOss, prompt: Any, specs: tuple[Any, ...]) -> float:
        (part,) = batches(model, [_side(prompt, self.side)], self.metric)[0]
        sources = _sources(model, prompt, specs, self.sources)
        check_all(specs, model.config, part.tokens.shape[1], sources, 1)
        with model._lock, model.hooks(fwd_hooks=[*all_edits(specs, Context(model, sources))]):
            logits = model(part.tokens, logits_at="last")
        return float(part.measure(logits[:, 0]))


def _specs(cell: Cell, spec: SpecOf | None) -> tuple[Any, ...]:
    """The interventions of a cell: of its axis, or of the function."""
    if spec is not None and SPEC in cell.axes:
        raise ValueError(f"the grid has an axis {SPEC!r} and spec= was given too: expected one of them")
    found = spec(cell) if spec is not None else cell[SPEC] if SPEC in cell.axes else None
    if found is None:
        return ()
    return (found,) if isinstance(found, Intervention) else tuple(found)


def _reads(spec: Any, model: HookedGptOss) -> list[Any]:
    return spec.reads(model.config) if hasattr(spec, "reads") else []


def _of_the_pair(model: HookedGptOss, specs: Sequence[Any], sources: Mapping[str, Any]) -> dict[str, list[str]]:
    """Name → sites of what interventions read and was not given."""
    wanted: dict[str, list[str]] = {}
    for name, site in (read for spec in specs for read in _reads(spec, model)):
        if name not in sources:
            wanted.setdefault(name, []).extend([] if site is None else [site])
    return wanted


def _sources(
    model: HookedGptOss, prompt: Any, specs: Sequence[Any], given: Mapping[str, Any]
) -> dict[str, Run | torch.Tensor]:
    """What interventions take something from: what was given, and the pair's own runs with the sites that are read."""
    wanted = _of_the_pair(model, specs, given)
    for name in wanted:
        if name not in ("clean", "corrupt") or not hasattr(prompt, name):
            raise ValueError(
                f"{list(specs)} take from {name!r}: expected 'clean' or 'corrupt' and a pair for the prompt, or a "
                f"vector in sources={{{name!r}: …}}"
            )
    runs = {name: run(model, getattr(prompt, name), sites=sites or None) for name, sites in wanted.items()}
    return {**given, **runs}


def _side(prompt: Any, side: Side) -> Any:
    """A pair whose ``clean`` is the side to run, for ``batches`` runs that; its answers stay what they are."""
    return replace(prompt, clean=prompt.corrupt) if side == "corrupt" and isinstance(prompt, Pair) else prompt


def _takes(experiment: Callable[..., Any]) -> tuple[str, ...] | None:
    """The names of its arguments; None where it takes any."""
    parameters = inspect.signature(experiment).parameters.values()
    if any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return tuple(each.name for each in parameters)


def _named(experiment: Callable[..., Any]) -> str:
    return getattr(experiment, "__name__", type(experiment).__name__)


def _parts(found: Any, cell: Cell) -> Any:
    """What a sweep keeps of a result: a dataset as its arrays. The grid's own axes keep their names to themselves."""
    parts = dict(found.data_vars) if isinstance(found, xr.Dataset) else found
    if isinstance(parts, xr.DataArray):
        return _renamed(parts, cell)
    if not isinstance(parts, Mapping):
        return parts
    return {str(k): _renamed(part, cell) if isinstance(part, xr.DataArray) else part for k, part in parts.items()}


def _renamed(array: xr.DataArray, cell: Cell) -> xr.DataArray:
    clash = [name for name in (*array.dims, *array.coords) if name in cell.axes]
    return array.rename({name: f"result_{name}" for name in clash})
