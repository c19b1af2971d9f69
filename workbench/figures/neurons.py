"""Neurons of an expert: a row for each, with what excites it, where it fires and what it writes."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import BLUE, INK, LINE, MONO, PAPER, figure, need
from workbench.figures.text import label, labels

_LINE, _TOP, _WORDS = 30, 84, 5


def neuron_table(data: xr.Dataset, title: str | None = None, subtitle: str | None = None) -> go.Figure:
    """What ``experiments.neurons`` returns: for each neuron its size, the tokens it fires on, reads and writes.

    Raises:
        ValueError: for a dataset of another experiment.
    """
    need(data, "neurons", "size", "raises_token", "gate_token", "example_token", "example_activation")
    layer, expert, target = (data.attrs.get(name, "?") for name in ("layer", "expert", "target"))
    by, said = ("direct_effect", f"on {label(str(target))}") if "direct_effect" in data else ("size", "size")
    if subtitle is None:
        subtitle = f"{data.attrs.get('n_routed', '?')} of {data.attrs.get('n_tokens', '?')} tokens go to this expert"
    columns = {
        "neuron": [f"<b>{n}</b>" for n in data.neuron.values],
        said: [f"{value:+.3f}" if by == "direct_effect" else f"{value:.3f}" for value in data[by].values],
        "fires on": [_fires(data, i) for i in range(data.sizes["neuron"])],
        "gate likes": _words(data.gate_token.values),
        "up likes": _words(data.up_token.values),
        "raises": _words(data.raises_token.values),
        "lowers": _words(data.lowers_token.values),
    }
    height = _TOP + 34 + (_LINE + 26) * data.sizes["neuron"] + 20
    made = figure(title or f"Neurons of expert {expert} in layer {layer}", subtitle, data, height=height, width=900)
    look = {"align": "left", "line": {"color": LINE}}
    header = {"values": list(columns), "fill": {"color": BLUE}, "font": {"color": PAPER, "size": 11}, **look}
    cells = {"values": list(columns.values()), "fill": {"color": PAPER}, "height": _LINE, **look}
    cells["font"] = {"family": MONO, "size": 10, "color": INK}
    made.add_trace(go.Table(header=header, cells=cells, columnwidth=[34, 44, 110, 85, 85, 85, 85]))
    return made.update_layout(margin={"l": 12, "r": 12, "t": _TOP, "b": 8})


def _words(tokens: np.ndarray) -> list[str]:
    return [" ".join(labels(row[:_WORDS], 12)) for row in tokens]


def _fires(data: xr.Dataset, i: int) -> str:
    words, values = data.example_token.values[i], data.example_activation.values[i]
    pairs = [(w, v) for w, v in zip(words, values, strict=True) if np.isfinite(v)][:_WORDS]
    return " ".join(f"{label(str(word), 12)} {value:.1f}" for word, value in pairs)
