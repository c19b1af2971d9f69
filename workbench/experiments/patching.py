"""Activation patching: which parts of a clean run, put into a corrupted one, bring the clean answer back?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.activations import Run, run
from workbench.experiments.cells import SITES, all_cells, patched_logits, sweeps
from workbench.experiments.metrics import Metric, as_metric
from workbench.experiments.rows import check_index, numpy, provenance, quantity, real_columns, token_coords
from workbench.model import HookedGptOss


@torch.no_grad()
def patching_grid(
    model: HookedGptOss,
    clean: Run | Any,
    corrupted: Run | Any,
    metric: Metric,
    sites: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    *,
    row: int = 0,
    logits_at: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Put one activation of the clean run into the corrupted one, for each site, layer and position, and measure.

    Args:
        clean: a run that kept the sites, or tokens or text to run.
        corrupted: an unedited run, or tokens or text: as many tokens as the clean one.
        metric: a function of logits [batch d_vocab] that gives [batch], a number for each row; one of
            ``experiments.metrics``; or two tokens (text or ids), the right one and a wrong one: the difference of their
            logits.
        sites: of ``resid_pre``, ``attn_out``, ``resid_mid``, ``mlp_out``, ``resid_post``.
        layers, positions: those to patch (positions as in the corrupted run); None for all.
        row: of both runs.
        logits_at: the position whose logits the metric reads; None for the last. Later ones cannot be patched.
        progress: show a progress bar.

    Returns:
        metric (site, layer, pos), of the patched runs; recovered (site, layer, pos), (metric − corrupted) / (clean −
        corrupted): 0 where the patch does nothing, 1 where it brings back all, NaN if both runs score the same; clean
        and corrupted, the two runs' own. The tokens on pos are the corrupted ones; clean_token, clean_token_id the
        others.

    Raises:
        ValueError: for runs of unequal length or of another model, an edited corrupted run, or a site, layer, position,
            row or metric that does not fit.
        KeyError: if a clean run did not keep a site.
    """
    layers, sites = _chosen_layers(model, layers), _chosen_sites(sites)
    measure, said = as_metric(model, metric)
    names = {(site, layer): f"blocks.{layer}.hook_{site}" for site in sites for layer in layers}
    good = _clean_run(model, clean, list(names.values()))
    text = _text(model, good, corrupted, row, logits_at)
    pos = _chosen_positions(text.columns, positions)
    values = {key: good[name][row, text.clean_columns] for key, name in names.items()}
    # Without its padding and what comes after the logits that are read, the row is one whole text.
    recording = model.record(text.tokens, layers=range(min(layers), model.config.n_layers))
    ends = [good.logits[row, text.clean_columns[-1:]], model.resume(recording, model.config.n_layers)[0, -1:]]
    before, after = (float(measure(logits)) for logits in ends)
    table = np.full((len(sites), len(layers), len(pos)), after)
    # Before the first token that differs, the clean run is the corrupted one: what is put there is there already.
    first = _first_difference(model, good, text)
    cells = all_cells(model, recording, values, {k: column for k, column in enumerate(pos) if column >= first})
    with tqdm(total=len(cells), desc="patching", unit="cell", disable=not progress) as bar:
        for sweep in sweeps(cells, text.tokens.shape[1], model.config.n_layers):
            found = measure(patched_logits(model, recording, sweep))
            for cell, value in zip(sweep, numpy(found), strict=True):
                table[cell.index] = value
            bar.update(len(sweep))
    return _dataset(good, text, row, (sites, layers, pos), table, (before, after), said)


@dataclass(frozen=True, eq=False)
class Text:
    """The corrupted row without its padding, up to the position whose logits are read, and where its tokens stand."""

    tokens: Int[Tensor, "1 pos"]
    clean_tokens: Int[Tensor, "1 pos"]
    columns: Int[Tensor, " pos"]
    clean_columns: Int[Tensor, " pos"]
    name: str


def _clean_run(model: HookedGptOss, given: Run | Any, sites: list[str]) -> Run:
    if not isinstance(given, Run):
        return run(model, given, sites=sites)
    if given.model is not model:
        raise ValueError(f"clean is a run of another model, {given.model.config.name!r}; give its tokens to run here")
    return given


def _text(model: HookedGptOss, good: Run, corrupted: Run | Any, row: int, logits_at: int | None) -> Text:
    if isinstance(corrupted, Run):
        _check_unedited(model, corrupted)
        tokens, mask, name = corrupted.tokens, corrupted.attention_mask, corrupted.name or ""
    else:
        tokens, mask, name = *model.as_batch(corrupted), ""
    if not 0 <= row < len(tokens):
        raise ValueError(f"row={row}: corrupted has rows 0 to {len(tokens) - 1}")
    real = torch.ones_like(tokens[row]) if mask is None else mask[row]
    columns, clean_columns = real.nonzero()[:, 0], real_columns(good, row)
    if len(columns) != len(clean_columns):
        raise ValueError(
            f"clean has {len(clean_columns)} tokens and corrupted {len(columns)}: expected as many, so that each "
            "position has its counterpart"
        )
    if logits_at is not None:
        if logits_at not in columns.tolist():
            raise ValueError(f"logits_at={logits_at}: the corrupted row has positions {_span(columns)}")
        end = columns.tolist().index(logits_at) + 1
        columns, clean_columns = columns[:end], clean_columns[:end]
    return Text(tokens[row, columns][None], good.tokens[row, clean_columns][None], columns, clean_columns, name)


def _check_unedited(model: HookedGptOss, corrupted: Run) -> None:
    if corrupted.model is not model:
        raise ValueError(
            f"corrupted is a run of another model, {corrupted.model.config.name!r}; give its tokens to run here"
        )
    if corrupted.interventions or corrupted.routing != "live":
        did = "; ".join(map(str, corrupted.interventions)) or f"routing={corrupted.routing!r}"
        raise ValueError(f"corrupted was edited itself ({did}), and its cells would run without that; give it unedited")


def _first_difference(model: HookedGptOss, good: Run, text: Text) -> int:
    """The first position at which a patch can do anything."""
    if good.interventions or good.routing != "live" or model.list_hooks():
        return 0
    differs = (text.tokens[0] != text.clean_tokens[0]).nonzero()[:, 0]
    return int(differs[0]) if len(differs) else text.tokens.shape[1]


def _chosen_layers(model: HookedGptOss, layers: Sequence[int] | None) -> list[int]:
    chosen = list(range(model.config.n_layers) if layers is None else layers)
    for layer in chosen:
        check_index("layer", layer, model.config.n_layers)
    return _checked_list("layers", chosen)


def _chosen_positions(columns: Int[Tensor, " pos"], positions: Sequence[int] | None) -> list[int]:
    """Indices into columns."""
    there = columns.tolist()
    wrong = [position for position in positions or () if position not in there]
    if wrong:
        raise ValueError(f"positions={wrong}: expected some of {_span(columns)}")
    return _checked_list("positions", [there.index(p) for p in (there if positions is None else positions)])


def _chosen_sites(sites: Sequence[str]) -> list[str]:
    wrong = [site for site in sites if site not in SITES]
    if isinstance(sites, str) or wrong:
        raise ValueError(f"sites={sites!r}: expected some of {SITES}, which each position writes to its own stream")
    return _checked_list("sites", list(sites))


def _checked_list(what: str, chosen: list) -> list:
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(f"{what}={chosen}: expected at least one, each once")
    return chosen


def _span(columns: Int[Tensor, " pos"]) -> str:
    return f"{int(columns[0])} to {int(columns[-1])}" if len(columns) else "none"


def _dataset(
    good: Run,
    text: Text,
    row: int,
    axes: tuple[list[str], list[int], list[int]],
    table: np.ndarray,
    ends: tuple[float, float],
    said: str,
) -> xr.Dataset:
    sites, layers, pos = axes
    clean, corrupted = ends
    span = clean - corrupted
    recovered = (table - corrupted) / span if span else np.full_like(table, np.nan)
    dims = ("site", "layer", "pos")
    variables = {
        "metric": (dims, table, quantity(said)),
        "recovered": (dims, recovered, quantity("share of the clean metric that the patch brings back")),
        "clean": ((), clean, quantity(f"{said}, clean run")),
        "corrupted": ((), corrupted, quantity(f"{said}, corrupted run")),
    }
    coords = _coords(good, text.tokens, text.columns, pos)
    theirs = _coords(good, text.clean_tokens, text.clean_columns, pos)
    coords |= {f"clean_{name}": theirs[name] for name in ("token", "token_id")}
    about = {"metric": said, "corrupted_run": text.name, "logits_at": int(text.columns[-1])}
    attrs = provenance(good, "patching_grid", row, **about)
    return xr.Dataset(variables, coords | {"site": sites, "layer": layers}, attrs)


def _coords(good: Run, tokens: Int[Tensor, "1 pos"], columns: Int[Tensor, " pos"], pos: list[int]) -> dict:
    # Of the whole text first, because a token's role and channel come from those before it.
    coords = token_coords(tokens[0].tolist(), good.model.tokenizer, columns.tolist())
    return {name: ("pos", values[pos]) for name, (_, values) in coords.items()}
