"""The attention view as code, as a dataset and as a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.activations import Run
from workbench.widgets import code
from workbench.widgets.views.attention_patterns import KINDS, names
from workbench.widgets.views.attention_reduce import ZOOM, block_size
from workbench.widgets.views.attention_static import blocks

if TYPE_CHECKING:
    from workbench.widgets.views.attention import Attention


def code_of(view: Attention) -> str:
    """Lines that draw the large pattern, or its change."""
    layer, head = view.place
    session, (_, before) = view.session, view.runs({})
    lines, seen = _pattern_of(view, "seen", code.shown(session), session.shown)
    parts = [*lines, f"pattern = experiments.attention({seen}, layer={layer}, head={head})"]
    if before is None:
        return "\n".join([*parts, "figures.attention_pattern(pattern)"])
    lines, earlier = _pattern_of(view, "earlier", code.variable(session.state.subject), before)
    parts += [*lines, f"before = experiments.attention({earlier}, layer={layer}, head={head})"]
    return "\n".join([*parts, "figures.attention_pattern(pattern, minus=before)"])


def _pattern_of(view: Attention, name: str, variable: str, run: Run) -> tuple[list[str], str]:
    """The variable of a run that has the layer's pattern: of a long text one more run, of this layer alone."""
    sites = names(view.place[0])
    if sites[0] in run.cache.cache_dict:
        return [], variable
    return [f"{name} = {code.again(view.session, variable, sites)}"], name


def table(view: Attention) -> xr.Dataset:
    """The large pattern (of a long text in blocks), and what each head of its layer does."""
    layer, head = view.place
    run, before = view.runs({})
    made = dataset(view, run, layer, head)
    if before is not None:
        earlier = dataset(view, before, layer, head)
        made = made.assign(pattern_change=made.pattern - earlier.pattern, sink_change=made.sink - earlier.sink)
    scores = view.patterns.summary(run, layer).scores
    heads = {"kind": list(KINDS), "head": np.arange(view.session.config.n_heads)}
    return made.assign_coords(heads).assign(score=(("kind", "head"), scores))


def figure(view: Attention) -> go.Figure:
    """The large pattern, or its change, by ``figures.attention_pattern``."""
    layer, head = view.place
    run, before = view.runs({})
    block = block_size(run.tokens.shape[1], ZOOM)
    many = f"each cell is the largest of {block} × {block} tokens, named by the first of them"
    minus = None if before is None else dataset(view, before, layer, head)
    made = dataset(view, run, layer, head)
    return figures.attention_pattern(made, subtitle=None if block == 1 else many, minus=minus)


def dataset(view: Attention, run: Run, layer: int, head: int) -> xr.Dataset:
    """As experiments.attention gives it; of a long text its blocks, named by the first token of each."""
    block = block_size(run.tokens.shape[1], ZOOM)
    if block == 1 and names(layer)[0] in run.cache.cache_dict:
        return experiments.attention(run, layer, head)
    pattern, sink = view.cells(run, None, layer, head)
    return blocks(run, layer, head, pattern, sink, block)
