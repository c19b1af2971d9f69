"""A patching grid without a browser: as a page, as code, as a dataset."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.figures.style import DIVERGING
from workbench.widgets import static
from workbench.widgets.code import variable
from workbench.widgets.session import Session
from workbench.widgets.views.patching_study import STREAM, Study
from workbench.widgets.views.patching_sweep import Sweep


def subject(study: Study) -> str:
    """What is patched, in words."""
    if study.part in STREAM:
        return study.part
    return f"each {study.part}" if study.over == "together" else f"each {study.part} of layer {study.layer}"


def page(session: Session, sweep: Sweep) -> str:
    """HTML: the words that differ, the grid, what it says."""
    study, limit = sweep.study, sweep.limit()
    seen = sweep.exact if sweep.estimate is None else np.where(np.isnan(sweep.exact), sweep.estimate, sweep.exact)
    said = f"{subject(study)} of {study.source}, patched into {study.target}: share of “{sweep.said}” brought back"
    words = session.tokens(session.run(study.target))
    rows, columns = (_names(study, dim, words) for dim in study.dims)
    grid = static.grid(seen, DIVERGING, -limit, limit, rows, columns, said, _written(sweep))
    notes = "".join(map(static.note, _notes(sweep)))
    return static.note(said) + _changed(session, study) + notes + grid + _largest(sweep)


def _notes(sweep: Sweep) -> list[str]:
    study, total, (r, n) = sweep.study, int(sweep.able.sum()), sweep.correlation()
    made = [f"0 is {study.target} as it is ({sweep.ends[1]:.3g}), 1 is {study.source} ({sweep.ends[0]:.3g})"]
    if not sweep.span:
        return [*made, "both score the same: there is nothing to bring back"]
    rest = "not run yet" if sweep.estimate is None else "estimates (≈)"
    made.append(
        f"{total - sweep.left} of {total} cells are run; the others are {rest}"
        if sweep.left
        else f"all {total} cells are run"
    )
    if sweep.floor is not None:
        made.append(
            f"noise floor {sweep.floor:.3g}: 95 % of {sweep.controls} random patches of the same length do no more"
        )
    if r is not None:
        made.append(f"estimates against exact values: r = {r:.2f} over {n} cells")
    return made


def _written(sweep: Sweep) -> np.ndarray:
    """The words of each cell: estimates are marked, and what is inside the noise floor is."""
    if sweep.exact.size > static.MOST_CELLS:
        return sweep.exact
    floor = -1.0 if sweep.floor is None else sweep.floor
    written = np.full(sweep.exact.shape, "", object)
    for at in np.ndindex(sweep.exact.shape):
        value, guess = sweep.exact[at], np.nan if sweep.estimate is None else sweep.estimate[at]
        if np.isfinite(value):
            written[at] = "·" if abs(value) <= max(floor, 0.0) else f"{value:.2g}"
        elif np.isfinite(guess):
            written[at] = f"≈{guess:.2g}"
    return written


def _changed(session: Session, study: Study) -> str:
    """The tokens that differ."""
    pairs = enumerate(zip(study.source_tokens, study.target_tokens, strict=True))
    rows = [(i, session.word(a), session.word(b)) for i, (a, b) in pairs if a != b]
    return static.table(["position", study.source, study.target], rows, 8)


def _largest(sweep: Sweep) -> str:
    """The cells that matter most, in words."""
    sizes = np.nan_to_num(np.abs(sweep.exact))
    chosen = [np.unravel_index(i, sizes.shape) for i in np.argsort(-sizes, axis=None, kind="stable")[:8]]
    rows = [(sweep.study.words(int(r), int(c)), f"{sweep.exact[r, c]:.3g}") for r, c in chosen if sizes[r, c]]
    return static.table(["largest effects", "share"], rows) if rows else ""


def code(session: Session, study: Study) -> str:
    """Python that measures the whole grid."""
    source, target = variable(study.source), variable(study.target)
    kept = set(study.sites()) <= set(session.run(study.source).cache.cache_dict)
    metric = {
        "kl": f"experiments.kl_from({source}.logits[:, -1])",
        "probability": f"experiments.probability({study.right})",
        "logit_difference": f"experiments.logit_difference({study.right}, {study.wrong})",
    }[study.metric]
    given = f"model, {source if kept else f'{source}.tokens'}, {target}.tokens, {metric}"
    lines = {
        "patching_grid": f"grid = experiments.patching_grid({given}, [{study.part!r}])",
        "component_patching": f"grid = experiments.component_patching({given}, {study.part!r}, {study.layers})",
        "joint_patching": f"grid = experiments.joint_patching({given}, {study.part!r})",
    }[study.experiment]
    return f"{lines}\nfigures.patching_heatmap(grid)"


def table(session: Session, sweep: Sweep) -> xr.Dataset:
    """What is known, on the axes that the experiment's own dataset has."""
    study, (good, bad) = sweep.study, sweep.ends
    dims, exact = study.grid_dims, sweep.in_grid(sweep.exact)
    made: dict[str, Any] = {"metric": (dims, bad + exact * sweep.span), "recovered": (dims, exact)}
    if sweep.estimate is not None:
        made["estimate"] = (dims, sweep.in_grid(sweep.estimate))
    made |= {"clean": good, "corrupted": bad, "floor": np.nan if sweep.floor is None else sweep.floor}
    coords = sweep.labels()
    if "pos" in dims:
        runs = {"token": study.target, "clean_token": study.source}
        coords |= {name: ("pos", session.run(of).str_tokens()) for name, of in runs.items()}
    about = {"experiment": study.experiment, "source": study.source, "target": study.target}
    attrs = {"metric": sweep.said, "direction": "denoising", "fingerprint": sweep.fingerprint, **about}
    return xr.Dataset(made, coords, attrs)


def _names(study: Study, dim: str, words: list[str]) -> list[str]:
    size = study.shape[study.dims.index(dim)]
    return words if dim == "pos" else [f"{dim} {i}" for i in range(size)]
