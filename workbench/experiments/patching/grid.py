"""Activation patching: which parts of a clean run, put into a corrupted one, bring the clean answer back?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import xarray as xr

from workbench.activations import Run
from workbench.experiments.metrics import Metric
from workbench.experiments.patching.cells import SITES, all_cells, expert_cells, head_cells
from workbench.experiments.patching.cells import Cell as Patched
from workbench.experiments.patching.setting import Direction, Setting, checked_list, chosen_layers, set_up
from workbench.experiments.watch import Cancel, Watch
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.sweeps import Cell

Component = Literal["head", "expert"]


@without_gradients
def patching_grid(
    model: HookedGptOss,
    clean: Run | Any,
    corrupted: Run | Any,
    metric: Metric,
    sites: Sequence[str] = ("resid_pre", "attn_out", "mlp_out"),
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    *,
    direction: Direction = "denoising",
    row: int = 0,
    logits_at: int | None = None,
    progress: bool = True,
    cancel: Cancel = None,
    on_result: Callable[[Cell, float], None] | None = None,
    resume: xr.Dataset | None = None,
    order: xr.DataArray | None = None,
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
        direction: "denoising" puts clean activations into the corrupted run (what suffices to bring the answer back);
            "noising" corrupted ones into the clean run (what is necessary to keep it).
        row: of both runs.
        logits_at: the position whose logits the metric reads; None for the last. Later ones cannot be patched.
        progress: show a progress bar.
        cancel: an Event, or a function that gives true, to stop before the next pass; cells not reached are NaN.
        on_result: called with each cell (``cell["layer"]``, ``cell["pos"]`` …) and its metric, as they come.
        resume: what the same call returned when it was cancelled: it goes on from there.
        order: numbers on the grid's own axes, such as ``attribution_patching(…).effect``: the cells where they are
            largest in size come first, in small passes, so that one can watch. None for the cheapest order.

    Returns:
        metric (site, layer, pos), of the patched runs; recovered (site, layer, pos), (metric − corrupted) / (clean −
        corrupted): 0 where the patch does nothing, 1 where it brings back all, NaN if both runs score the same; clean
        and corrupted, the two runs' own. The tokens on pos are the corrupted ones; clean_token, clean_token_id the
        others. Noising has, in place of recovered, lost: (clean − metric) / (clean − corrupted).

    Raises:
        ValueError: for runs of unequal length or of another model, an edited corrupted run, or a site, layer, position,
            row or metric that does not fit.
        KeyError: if a clean run did not keep a site.

    >>> answers = (pair.right, pair.wrong)
    >>> grid = experiments.patching_grid(model, pair.clean, pair.corrupt, answers, progress=False)
    >>> grid.recovered.sel(site="resid_pre", layer=0).argmax("pos").item()  # where the name was changed
    9
    """
    layers, sites = chosen_layers(model, layers), _chosen_sites(sites)
    names = {(site, layer): f"blocks.{layer}.hook_{site}" for site in sites for layer in layers}
    setting = set_up(
        model, clean, corrupted, metric, list(names.values()), layers, positions, direction, row, logits_at
    )
    values = {key: setting.clean_values(name) for key, name in names.items()}
    cells = all_cells(model, setting.recording, values, setting.columns)
    axes = {"site": sites, "layer": layers}
    table = setting.measured(axes, cells, Watch(progress, cancel, on_result, resume), order)
    return setting.dataset("patching_grid", table, axes)


@without_gradients
def component_patching(
    model: HookedGptOss,
    clean: Run | Any,
    corrupted: Run | Any,
    metric: Metric,
    component: Component = "head",
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | None = None,
    *,
    direction: Direction = "denoising",
    row: int = 0,
    logits_at: int | None = None,
    progress: bool = True,
    cancel: Cancel = None,
    on_result: Callable[[Cell, float], None] | None = None,
    resume: xr.Dataset | None = None,
    order: xr.DataArray | None = None,
) -> xr.Dataset:
    """Put what one head, or one expert, wrote in the clean run into the corrupted one, position by position.

    Arguments as in :func:`patching_grid`.

    Args:
        component: "head": its z, and so what it writes. "expert": its routing weight times its output, nothing where it
            was not chosen; the other experts write what they write in the corrupted run, so an expert that neither run
            chose at a position has no effect there.

    Returns:
        metric, and recovered or lost, (layer, head or expert, pos), and the rest as in :func:`patching_grid`.

    Raises:
        ValueError, KeyError: as :func:`patching_grid`.

    >>> answers = (pair.right, pair.wrong)
    >>> done = experiments.component_patching(model, pair.clean, pair.corrupt, answers, progress=False)
    >>> dict(done.recovered.sizes)
    {'layer': 4, 'head': 8, 'pos': 14}
    """
    if component not in get_args(Component):
        raise ValueError(f"component={component!r}: expected one of {get_args(Component)}")
    layers = chosen_layers(model, layers)
    names = component_sites(component, layers)
    setting = set_up(model, clean, corrupted, metric, names, layers, positions, direction, row, logits_at)
    cells = component_cells(setting, component, layers)
    n = model.config.n_heads if component == "head" else model.config.n_experts
    axes = {"layer": layers, component: list(range(n))}
    table = setting.measured(axes, cells, Watch(progress, cancel, on_result, resume), order)
    return setting.dataset(f"{component}_patching", table, axes)


def component_sites(component: Component, layers: Sequence[int]) -> list[str]:
    """The sites of the clean run that its heads, or experts, are patched from."""
    return [f"blocks.{layer}.{kind}" for layer in layers for kind in _KINDS[component]]


def component_cells(setting: Setting, component: Component, layers: Sequence[int]) -> list[Patched]:
    """A cell for each layer, head or expert, and position where a patch can do anything."""
    values = {
        (layer, kind.partition("hook_")[2]): setting.clean_values(f"blocks.{layer}.{kind}")
        for layer in layers
        for kind in _KINDS[component]
    }
    make = head_cells if component == "head" else expert_cells
    return make(setting.model, setting.recording, layers, values, setting.columns)


_KINDS: dict[Component, tuple[str, ...]] = {
    "head": ("attn.hook_z",),
    "expert": ("mlp.hook_expert_indices", "mlp.hook_expert_weights", "mlp.hook_expert_out"),
}


def _chosen_sites(sites: Sequence[str]) -> list[str]:
    wrong = [site for site in sites if site not in SITES]
    if isinstance(sites, str) or wrong:
        raise ValueError(f"sites={sites!r}: expected some of {SITES}, which each position writes to its own stream")
    return checked_list("sites", list(sites))
