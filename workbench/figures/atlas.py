"""What an atlas knows of one expert: contexts, specialisation, neighbours, and what is lost without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import (
    BLUE,
    GREY,
    INK,
    LINE,
    MONO,
    SEQUENTIAL,
    add_scale,
    as_lists,
    colours,
    figure,
    need,
    need_label,
    scale_bar,
    written_on,
)
from workbench.figures.text import label, labels

if TYPE_CHECKING:
    from workbench.atlases.contexts import Context

_ROW, _TOP = 22, 96
MOST = 40  # rows
LEAST_LIFT = 1 / 64  # where a bar of 0 ends on the logarithmic axis


def atlas_load(data: xr.Dataset, title: str = "Load of each expert over the corpus") -> go.Figure:
    """What ``atlas.load()`` returns: the share of tokens that go to each expert, a row for each layer.

    Raises:
        ValueError: for a dataset without loads.
    """
    if "load" not in data or data["load"].dims != ("layer", "expert"):
        raise ValueError("this figure draws what atlas.load() returns")
    load = data["load"].values
    layers, experts = (data.coords[name].values.tolist() for name in ("layer", "expert"))
    even = data.attrs.get("even_load")
    subtitle = f"share of tokens; an even spread would be {even:.0%} everywhere" if even else "share of tokens"
    high = float(np.nanmax(load)) or 1.0
    made = figure(title, subtitle, data, height=_TOP + 60 + max(14, min(26, 700 // len(layers))) * len(layers))
    written = {}
    if 720 / len(experts) >= 34:
        rows = [
            [written_on(f"{v:.0%}", c) for v, c in zip(row, colours(row, SEQUENTIAL, 0.0, high), strict=True)]
            for row in load
        ]
        written = {"text": rows, "texttemplate": "%{text}", "textfont": {"size": 11}}
    hover = [[f"layer {i}, expert {e}<br>load {v:.2%}" for e, v in zip(experts, row, strict=True)]
             for i, row in zip(layers, load, strict=True)]  # fmt: skip
    look = {"hovertext": hover, "hoverinfo": "text", "xgap": 1, "ygap": 1, "coloraxis": "coloraxis"}
    made.add_trace(go.Heatmap(z=as_lists(load), x=experts, y=layers, **look, **written))
    made.update_xaxes(title="expert", tickvals=experts[:: 1 + len(experts) // 33]).update_yaxes(
        title="layer", autorange="reversed", tickvals=layers[:: 1 + len(layers) // 33]
    )
    made.update_layout(
        coloraxis={"colorscale": SEQUENTIAL, "cmin": 0, "cmax": high, "colorbar": scale_bar(tickformat=".0%")},
        margin={"t": _TOP},
    )
    add_scale(made, "load")
    return made


def atlas_contexts(contexts: Sequence[Context], title: str | None = None, most: int = MOST) -> go.Figure:
    """What ``atlas.contexts`` returns: a line for each context, its tokens on the expert's weight; the token that it
    was found by stands in the frame.

    Args:
        most: how many are drawn.

    Raises:
        ValueError: for no context.
    """
    if not contexts:
        raise ValueError("there is no context to draw: no token of the corpus goes to this expert")
    shown = list(contexts[:most])
    before = max(each.centre for each in shown)
    after = max(len(each.tokens) - each.centre - 1 for each in shown)
    wide = before + 1 + after
    weights, texts, hover = np.full((len(shown), wide), np.nan), [], []
    limit = max(3, int(640 / wide / 6.2))
    for row, each in zip(weights, shown, strict=True):
        first = before - each.centre
        row[first : first + len(each.tokens)] = each.weights
        fills = colours(each.weights, SEQUENTIAL, 0.0, 1.0)
        words = [written_on(label(token, limit), fill) for token, fill in zip(each.tokens, fills, strict=True)]
        said = [
            f"{label(token, 40)}<br>weight {weight:.3f}"
            for token, weight in zip(each.tokens, each.weights, strict=True)
        ]
        pad = [""] * first, [""] * (wide - first - len(words))
        texts.append([*pad[0], *words, *pad[1]])
        hover.append([*pad[0], *said, *pad[1]])
    first = shown[0]
    title = title or f"Where expert {first.expert} of layer {first.layer} fires"
    more = f", {len(shown)} of {len(contexts)}" if len(contexts) > len(shown) else ""
    made = figure(title, f"in the frame the token that it was found by{more}", height=_TOP + 40 + _ROW * len(shown))
    offsets, rows = list(range(-before, after + 1)), list(range(len(shown)))
    look = {"hovertext": hover, "hoverinfo": "text", "coloraxis": "coloraxis", "xgap": 1, "ygap": 2}
    font = {"size": 10, "family": MONO}
    made.add_trace(
        go.Heatmap(z=as_lists(weights), x=offsets, y=rows, text=texts, texttemplate="%{text}", textfont=font, **look)
    )
    made.add_shape(type="rect", x0=-0.5, x1=0.5, y0=-0.5, y1=len(shown) - 0.5, line={"color": INK, "width": 1.5})
    names = [f"{label(each.domain or '', 14)} {each.document}·{each.position}".strip() for each in shown]
    made.update_yaxes(
        tickvals=rows, ticktext=names, range=[len(shown) - 0.5, -0.5], showline=False, tickfont={"size": 10}
    )
    made.update_xaxes(title="tokens from it", range=[-before - 0.5, after + 0.5], showline=False)
    axis = {"colorscale": SEQUENTIAL, "cmin": 0, "cmax": 1, "colorbar": scale_bar()}
    made.update_layout(coloraxis=axis, margin={"t": _TOP, "l": 150, "b": 40})
    add_scale(made, "weight")
    return made


def atlas_specialisation(
    data: xr.Dataset, layer: int, expert: int, title: str | None = None, most: int = MOST
) -> go.Figure:
    """What ``atlas.specialisation`` returns, for one expert: how much more often its tokens are of each group than any
    tokens are, on a logarithmic axis, with intervals.

    Args:
        most: how many groups are drawn, the largest lifts first.

    Raises:
        ValueError: for another dataset, or one without this expert.
    """
    by = _by(data)
    for dim, chosen in (("layer", layer), ("expert", expert)):
        need_label(data, dim, chosen)
    some = data.sel(layer=layer, expert=expert)
    order = np.argsort(-np.nan_to_num(some["lift"].values, nan=-1.0), kind="stable")[:most][::-1]
    some = some.isel({by: order})
    lift, low, high = (np.maximum(some[name].values, LEAST_LIFT) for name in ("lift", "lift_low", "lift_high"))
    names = labels([str(name) or "(none said)" for name in some.coords[by].values], 30)
    load = float(data["count"].sel(layer=layer, expert=expert).sum() / max(float(data["tokens"].sum()), 1))
    subtitle = (
        f"lift: P({by} | expert) / P({by}), with {float(data.attrs.get('level', 0.95)):.0%} intervals; load {load:.1%}"
    )
    made = figure(
        title or f"What expert {expert} of layer {layer} serves", subtitle, data, height=130 + 24 * len(order)
    )
    hover = [
        f"{name}<br>lift {float(some['lift'][i]):.2f}<br>{int(some['count'][i])} of {int(some['tokens'][i])} tokens, "
        f"{int(some['documents'][i])} documents"
        for i, name in enumerate(names)
    ]
    y = list(range(len(order)))
    spans = np.nan_to_num(np.stack([high - lift, lift - low]), nan=0.0).clip(0)
    bars = {"type": "data", "symmetric": False, "array": as_lists(spans[0]), "arrayminus": as_lists(spans[1]),
            "color": INK, "thickness": 1, "width": 4}  # fmt: skip
    marker = {"color": [BLUE if value >= 1 else GREY for value in lift], "size": 9}
    made.add_trace(
        go.Scatter(
            x=as_lists(lift), y=y, mode="markers", marker=marker, error_x=bars, hovertext=hover, hoverinfo="text"
        )
    )
    made.add_vline(x=1, line={"color": LINE, "width": 1})
    made.update_xaxes(type="log", title="lift (1: as often as anywhere)").update_yaxes(
        tickvals=y, ticktext=names, range=[-0.5, len(order) - 0.5]
    )
    return made.update_layout(margin={"l": 200}, showlegend=False)


def _by(data: xr.Dataset) -> str:
    missing = [name for name in ("lift", "lift_low", "lift_high", "count", "tokens", "documents") if name not in data]
    others = [str(dim) for dim in data["lift"].dims if dim not in ("layer", "expert")] if "lift" in data else []
    if missing or len(others) != 1 or not data.sizes[others[0]]:
        raise ValueError(
            f"this figure draws what atlas.specialisation returns; there is no {missing} among "
            f"{sorted(map(str, data.data_vars))}"
        )
    return others[0]


def atlas_neighbours(data: xr.Dataset, expert: int, title: str | None = None, most: int = 12) -> go.Figure:
    """What ``atlas.coactivation`` returns, for one expert: the others that serve its tokens, by lift.

    Raises:
        ValueError: for another dataset, or one without this expert.
    """
    if "lift" not in data or set(data["lift"].dims) != {"expert", "other"}:
        raise ValueError("this figure draws what atlas.coactivation returns")
    need_label(data, "expert", expert)
    row = data.sel(expert=expert)
    order = [int(i) for i in np.argsort(-np.nan_to_num(row["lift"].values, nan=-1.0), kind="stable") if i != expert][
        :most
    ][::-1]
    layer = int(data.coords["layer"]) if "layer" in data.coords else None
    where = f" of layer {layer}" if layer is not None else ""
    made = figure(
        title or f"Experts that share tokens with expert {expert}{where}",
        "lift: tokens that go to both, over what independent experts of their loads would have",
        data,
        height=130 + 24 * max(len(order), 1),
    )
    lift = np.nan_to_num(row["lift"].values[order])
    names = [f"expert {other}" for other in order]
    hover = [
        f"expert {o}<br>lift {v:.2f}<br>{int(row['count'][o])} tokens"
        for o, v in zip(order, lift.tolist(), strict=True)
    ]
    y = list(range(len(order)))
    made.add_trace(
        go.Bar(x=as_lists(lift), y=y, orientation="h", marker={"color": BLUE}, hovertext=hover, hoverinfo="text")
    )
    made.add_vline(x=1, line={"color": GREY, "width": 1, "dash": "dot"})
    made.update_yaxes(tickvals=y, ticktext=names).update_xaxes(title="lift (1: no more than chance)")
    return made.update_layout(margin={"l": 100}, showlegend=False)


def atlas_effects(data: xr.Dataset, value: str = "kl", title: str | None = None) -> go.Figure:
    """What ``experiments.expert_effects`` returns: each context a dot, the mean with its interval a diamond.

    Args:
        value: "kl" or "loss_change".

    Raises:
        ValueError: for another dataset, or one of no context.
    """
    need(data, "expert_effects", "kl", "loss_change")
    if value not in ("kl", "loss_change"):
        raise ValueError(f"value={value!r}: expected 'kl' or 'loss_change'")
    layer, expert, control = (int(data.attrs[name]) for name in ("layer", "expert", "control"))
    named = {"expert": f"expert {expert}", "control": f"expert {control} (control)"}
    words = {"kl": "KL(whole ‖ ablated) of the next token, nats", "loss_change": "rise of the next token's loss, nats"}[
        value
    ]
    subtitle = f"{data.sizes['context']} contexts, measured at their last token; diamond: mean with its 95% interval"
    made = figure(title or f"Without an expert of layer {layer}", subtitle, data, height=300)
    for y, name in enumerate(data.ablated.values.tolist()):
        x = data[value].sel(ablated=name).values
        lanes = (y + 0.28 * np.sin(np.arange(len(x)) * 2.4)).tolist()  # apart, and the same each time
        hover = [f"context {i}<br>{v:.4g} nats" for i, v in enumerate(x.tolist())]
        look = {"color": BLUE if y == 0 else GREY, "size": 7, "opacity": 0.6}
        made.add_trace(
            go.Scatter(x=as_lists(x), y=lanes, mode="markers", marker=look, hovertext=hover, hoverinfo="text")
        )
        mean, low, high = (np.float64(data[f"{value}_{end}"].sel(ablated=name)) for end in ("mean", "low", "high"))
        spans = np.nan_to_num(np.array([[high - mean], [mean - low]]))
        bars = {
            "type": "data",
            "symmetric": False,
            "array": as_lists(spans[0]),
            "arrayminus": as_lists(spans[1]),
            "color": INK,
        }
        made.add_trace(go.Scatter(x=as_lists(np.array([mean])), y=[y], mode="markers", error_x=bars,
                                  marker={"color": INK, "size": 10, "symbol": "diamond"},
                                  hovertext=[f"mean {mean:.4g} nats"], hoverinfo="text"))  # fmt: skip
    n = data.sizes["ablated"]
    made.update_yaxes(
        tickvals=list(range(n)), ticktext=[named[str(name)] for name in data.ablated.values], range=[n - 0.5, -0.5]
    )
    return made.update_xaxes(title=words).update_layout(showlegend=False, margin={"l": 150, "t": _TOP})
