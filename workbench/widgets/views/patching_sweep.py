"""The numbers of one patching grid, and the work that finds them: estimates, random controls, then cell by cell."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import xarray as xr

from workbench import experiments
from workbench.activations import Run
from workbench.experiments.metrics import as_metric
from workbench.experiments.patching.controls import patching_controls
from workbench.experiments.patching.joint import joint_patching
from workbench.figures.text import visible
from workbench.widgets.session import Session
from workbench.widgets.streams import INTERVAL
from workbench.widgets.views.patching_study import STREAM, Study
from workbench.widgets.worker import Cancelled, Job, in_words

CONTROLS = 20
LEAST = 0.01  # the smallest limit of the colour scale, as a share of what there is to bring back
_numbers = itertools.count(1)


class Sweep:
    """What is known of a grid so far. All numbers are shares: 0 is the target as it is, 1 the source.

    Attributes:
        exact: (row, column), NaN where not run yet.
        estimate: the same from gradients; None before there are any.
        floor: the noise floor; None before the controls have run.
        ends: the metric of the source, of the target.
        able: cells that can do anything at all; the others are 0 without being run.
        why_no_estimate: in words, where there can be none.
    """

    def __init__(self, study: Study, source: Run, target: Run, able: np.ndarray) -> None:
        measure, said = as_metric(source.model, study.measure(source))
        self.id, self.study, self.said, self.able = next(_numbers), study, said, able
        self.ends = float(measure(source.logits[:, -1])[0]), float(measure(target.logits[:, -1])[0])
        self.fingerprint = source.provenance["fingerprint"]
        self.exact = np.where(able, np.nan, 0.0) if self.span else np.full(study.shape, np.nan)
        self.estimate: np.ndarray | None = None
        self.floor: float | None = None
        self.controls = 0
        self.why_no_estimate: str | None = None
        self._pushed = 0.0

    @property
    def span(self) -> float:
        """What there is to bring back, in the metric's own units; 0 where both runs score the same."""
        return self.ends[0] - self.ends[1]

    @property
    def left(self) -> int:
        """Cells that are not run yet."""
        return int(np.isnan(self.exact).sum()) if self.span else 0

    def share(self, metric: float | np.ndarray) -> Any:
        """A value of the metric as a share of what there is to bring back."""
        return (metric - self.ends[1]) / self.span

    def correlation(self) -> tuple[float | None, int]:
        """Pearson's r of estimates and exact values, over the cells that have both; None where it means nothing."""
        if self.estimate is None:
            return None, 0
        both = self.able & np.isfinite(self.exact) & np.isfinite(self.estimate)
        exact, guess = self.exact[both], self.estimate[both]
        if len(exact) < 3 or not exact.std() or not guess.std():
            return None, len(exact)
        return float(np.corrcoef(guess, exact)[0, 1]), len(exact)

    def limit(self) -> float:
        """Where the colours end, on both sides of 0: the 99th percentile of what is seen."""
        seen = self.exact if self.estimate is None else np.where(np.isfinite(self.exact), self.exact, self.estimate)
        sizes = np.abs(seen[np.isfinite(seen) & self.able])
        return max(float(np.quantile(sizes, 0.99)), LEAST) if sizes.size else 1.0

    def payload(self) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """All of it, for the screen."""
        r, n = self.correlation()
        about = {
            "id": self.id,
            "said": visible(self.said, 200),
            "ends": list(self.ends),
            "total": int(self.able.sum()),
            "left": self.left,
            "floor": self.floor,
            "controls": self.controls,
            "r": r,
            "n": n,
            "limit": self.limit(),
            "why_no_estimate": None if self.why_no_estimate is None else visible(self.why_no_estimate, 500),
        }
        arrays = {"exact": self.exact.astype(np.float32)}
        return about, arrays if self.estimate is None else arrays | {"estimate": self.estimate.astype(np.float32)}

    # ------------------------------------------------------------ as the experiments have it

    def in_grid(self, values: np.ndarray) -> np.ndarray:
        """A table on the axes of the experiment."""
        return values if self.study.experiment == "joint_patching" else values[None]

    def labels(self) -> dict[str, Any]:
        """The coordinates of those axes."""
        study, (n_rows, n_columns) = self.study, self.study.shape
        rows, columns = study.dims
        made: dict[str, Any] = {"site": [study.part]} if study.part in STREAM else {"layer": study.layers}
        return made | {rows: np.arange(n_rows), columns: np.arange(n_columns)}

    def before(self) -> xr.Dataset:
        """What is done, as the experiment takes it to go on from."""
        good, bad = self.ends
        metric = self.in_grid(np.where(self.able, bad + self.exact * self.span, np.nan))
        attrs = {"metric": self.said, "direction": "denoising", "fingerprint": self.fingerprint}
        if "pos" not in self.study.grid_dims:
            attrs["positions"] = ", ".join(map(str, range(len(self.study.target_tokens))))
        values = {"metric": (self.study.grid_dims, metric), "clean": good, "corrupted": bad}
        return xr.Dataset(values, self.labels(), attrs)

    def order(self) -> xr.DataArray:
        """The estimates, for cells of the largest size to come first; any order without them."""
        guess = np.zeros(self.study.shape) if self.estimate is None else self.estimate
        return xr.DataArray(self.in_grid(guess), self.labels(), self.study.grid_dims)


# ---------------------------------------------------------------- the work


def work(sweep: Sweep, session: Session, exact: bool = True) -> Callable[[Job], None]:
    """What a job does: estimates and floor where they are missing, then the cells that are left."""

    def run(job: Job) -> None:
        source, target = session.run(sweep.study.source), session.run(sweep.study.target)
        if sweep.estimate is None:
            with source.model.hooks(fwd_hooks=stopping(job, sweep.study.config.n_layers)):
                estimate(sweep, source, target)
            push(sweep, session, now=True)
        job.breathe()
        job.stop_if_cancelled()
        if exact:
            if sweep.floor is None:
                find_floor(sweep, source, target, job)
                push(sweep, session, now=True)
                job.breathe()
                job.stop_if_cancelled()
            measure_cells(sweep, session, source, target, job)
            push(sweep, session, now=True)

    return run


def push(sweep: Sweep, session: Session, now: bool = False) -> None:
    """Show what is known, if it is time to."""
    moment = time.monotonic()
    if not now and moment - sweep._pushed < INTERVAL / 2:  # the stream itself keeps to the pace
        return
    sweep._pushed = moment
    about, arrays = sweep.payload()
    session.stream("patching", "grid", about, arrays)
    if now:
        session.flush("patching", "grid")


def stopping(job: Job, n_layers: int) -> list[tuple[Any, Callable]]:
    """Hooks that end a pass, forward or backward, at the next layer when its job is cancelled: gradients take several
    passes, and nobody should wait for all of them."""

    def look(x: Any, hook: object = None) -> None:
        job.stop_if_cancelled()
        if hook is not None and x.requires_grad:
            x.register_hook(look)

    return [(f"blocks.{layer}.hook_resid_pre", look) for layer in range(n_layers)]


def estimate(sweep: Sweep, source: Run, target: Run) -> None:
    """Attribution patching, in the grid's shares. A model that has no gradients has no estimates, and says why."""
    study, part = sweep.study, sweep.study.part
    try:
        measure = study.measure(source)
        found = experiments.attribution_patching(source.model, source, target, measure, [part])
    except Cancelled:
        raise
    except Exception as error:  # packed weights, too little memory: exact cells can be had all the same
        sweep.why_no_estimate = in_words(error)
        return
    if part in STREAM:
        effect = found.effect.sel(site=part).transpose("layer", "pos")
    elif study.over == "together":
        effect = found[f"{part}_effect"].sum("pos").transpose("layer", part)
    else:
        effect = found[f"{part}_effect"].sel(layer=study.layer).transpose(part, "pos")
    values = effect.values / (sweep.span or np.nan)
    sweep.estimate = np.where(sweep.able, values, 0.0)


def find_floor(sweep: Sweep, source: Run, target: Run, job: Job) -> None:
    """The noise floor; left out where the job is cancelled before all controls have run."""
    study = sweep.study
    found = patching_controls(
        source.model,
        given(study, source),
        target,
        study.measure(source),
        study.part,
        study.layers,
        together=study.experiment == "joint_patching",
        n=CONTROLS,
        cancel=job.cancel_event,
    )
    if not job.cancelled:
        sweep.floor, sweep.controls = float(found.floor), found.sizes["control"]


def measure_cells(sweep: Sweep, session: Session, source: Run, target: Run, job: Job) -> None:
    """The exact cells that are left, largest estimate first."""
    study, left = sweep.study, sweep.left
    (row, column), done = study.dims, itertools.count(1)
    job.report(0, left)

    def heard(cell: Any, value: float) -> None:
        sweep.exact[cell[row], cell[column]] = sweep.share(float(value))
        job.report(next(done))
        push(sweep, session)
        job.breathe()

    how: dict[str, Any] = {
        "progress": False,
        "cancel": job.cancel_event,
        "on_result": heard,
        "resume": sweep.before(),
        "order": sweep.order(),
    }
    model, clean, metric = source.model, given(study, source), study.measure(source)
    if study.part == "head" or study.part == "expert":
        make = joint_patching if study.over == "together" else experiments.component_patching
        make(model, clean, target, metric, study.part, study.layers, **how)
    else:
        experiments.patching_grid(model, clean, target, metric, [study.part], **how)


def given(study: Study, source: Run) -> Any:
    """The source's run where it kept what is patched, else its tokens, to be run again."""
    return source if all(site in source.cache.cache_dict for site in study.sites()) else source.tokens
