"""Statistics of routing: balance, specialists, company, contrasts and paths."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, curves, tables
from workbench.figures.style import need, need_label
from workbench.figures.text import label


def routing_balance(data: xr.Dataset, title: str = "How evenly each layer spreads its tokens") -> go.Figure:
    """What ``experiments.routing_statistics`` returns, by layer: two entropies and the loads' CV."""
    need(data, "routing_statistics", "load_cv", "share_entropy", "token_entropy")
    lines = {
        "entropy of the experts' shares": data.share_entropy.values,
        "entropy of a token's router": data.token_entropy.values,
        "variation of the loads (CV)": data.load_cv.values,
    }
    said = "entropies as shares of log E: 1 is even; CV: 0 is even"
    return curves(data.layer.values, lines, title=title, subtitle=said, source=data, x_title="layer")


def routing_information(data: xr.Dataset, title: str = "What the route tells of the token") -> go.Figure:
    """What ``experiments.routing_statistics`` returns: each mutual information, and the band of its shuffled null."""
    need(data, "routing_statistics", "token_information", "token_information_null")
    names = [name for name in ("token", "domain") if f"{name}_information" in data]
    lines = {f"{name} and expert": data[f"{name}_information"].values for name in names}
    bands = {}
    for name in names:
        mean, spread = (data[f"{name}_information_{part}"].values for part in ("null", "spread"))
        bands[f"{name}s shuffled (± 2 deviations)"] = (mean - 2 * spread, mean + 2 * spread)
    return curves(data.layer.values, lines, title=title, subtitle="what lies above its band is not chance",
                  source=data, bands=bands, x_title="layer", y_title="bits")  # fmt: skip


def expert_specialisation(data: xr.Dataset, by: str = "domain", title: str | None = None) -> go.Figure:
    """What ``experiments.routing_statistics`` returns: a table for each layer of the loads by domain, or by speaker.

    Raises:
        ValueError: for another ``by``, or a dataset without it.
    """
    if by not in ("domain", "speaker"):
        raise ValueError(f"by={by!r}: expected 'domain' or 'speaker'")
    need(data, "routing_statistics", f"{by}_load")
    load = data[f"{by}_load"].transpose("layer", by, "expert")
    panels = [Panel(f"layer {layer}", load.sel(layer=layer).values) for layer in load.layer.values]
    names = [str(name) or "no message" for name in load[by].values]
    even = data.attrs.get("even_load")
    return tables(
        panels,
        names,
        load.expert.values,
        Scale.of(load.values, "share of the tokens"),
        title=title or f"Which experts serve which {by}",
        subtitle=f"an even spread would be {even:.3g} everywhere" if even else "",
        source=data,
        column_title="expert",
    )


def expert_coactivation(data: xr.Dataset, title: str = "Which experts serve the same tokens") -> go.Figure:
    """What ``experiments.routing_statistics`` returns: in each layer, of a row's tokens the share that a column has."""
    need(data, "routing_statistics", "coactivation")
    values = data.coactivation.transpose("layer", "expert", "other_expert")
    panels = [Panel(f"layer {layer}", values.sel(layer=layer).values) for layer in values.layer.values]
    experts = values.expert.values
    return tables(panels, experts, experts, Scale.of(values.values, "share of the row's tokens"), title=title,
                  subtitle="row: the expert whose tokens are counted; column: the other that they also go to",
                  source=data, row_title="expert", column_title="other expert")  # fmt: skip


def vocabulary_table(data: xr.Dataset, layer: int, top: int = 6, title: str | None = None) -> go.Figure:
    """What ``experiments.vocabulary_specialisation`` returns: of each expert, the tokens that go to it the most.

    Raises:
        ValueError: for a dataset of another kind, or a layer that it does not have.
    """
    need(data, "vocabulary_specialisation", "share", "count")
    need_label(data, "layer", layer)
    share = data.share.sel(layer=layer).transpose("expert", "vocab").values
    # Of equal shares the more frequent token first: the vocabulary is in that order.
    best = np.argsort(-share, axis=1, kind="stable")[:, :top]
    words = data.token.values[best].tolist()
    panel = Panel("", np.take_along_axis(share, best, axis=1), words)
    return tables([panel], [f"expert {e}" for e in data.expert.values], list(range(1, best.shape[1] + 1)),
                  Scale("share that goes to the expert", 0.0, 1.0), title=title or f"Whose tokens? Layer {layer}",
                  subtitle=f"tokens seen at least {data.attrs.get('min_count', '?')} times", source=data,
                  column_title="rank", cell=100.0)  # fmt: skip


def routing_saturation(data: xr.Dataset, title: str = "How much of the later routing is there already") -> go.Figure:
    """What ``experiments.routing_saturation`` returns, by layer, with chance."""
    need(data, "routing_saturation", "saturation", "chance")
    lines = {
        "all slots": data.saturation.values,
        "strongest expert": data.first_slot.values,
        "chance": data.chance.values,
    }
    return curves(data.layer.values, lines, title=title, source=data, x_title="layer", y_title="share of experts")


def routing_contrast(data: xr.Dataset, title: str = "Which experts the first texts use more") -> go.Figure:
    """What ``experiments.routing_contrast`` returns: a row for each layer, a column for each expert."""
    need(data, "routing_contrast", "contrast", "noise")
    values = data.contrast.transpose("layer", "expert").values
    floor = float(data.largest_noise)
    return tables([Panel("", values)], [f"layer {layer}" for layer in data.layer.values], data.expert.values,
                  Scale.of(values, "load in the first − in the second", "+.2f", signed=True), title=title,
                  subtitle=f"texts dealt out at random give up to {floor:.2f} somewhere (95 %)", source=data,
                  column_title="expert")  # fmt: skip


def expert_transitions(data: xr.Dataset, title: str = "From expert to expert, layer by layer") -> go.Figure:
    """What ``experiments.expert_paths`` returns: how much more often than by chance tokens go from row to column."""
    need(data, "expert_paths", "transitions", "expected")
    dims = ("layer", "expert", "next_expert")
    count, expected = (data[name].transpose(*dims).values for name in ("transitions", "expected"))
    ratio = np.log2((count + 0.5) / (expected + 0.5))
    panels = [Panel(f"layer {i} → {i + 1}", ratio[n]) for n, i in enumerate(data.layer.values)]
    experts = data.expert.values
    return tables(panels, experts, experts, Scale.of(ratio, "log2 of count / chance", "+.2f", signed=True), title=title,
                  subtitle="both counts with half a token added", source=data,
                  row_title="expert", column_title="expert in the next layer")  # fmt: skip


def expert_paths(data: xr.Dataset, title: str = "The most frequent ways through the layers") -> go.Figure:
    """What ``experiments.expert_paths`` returns: a line for each path, its strongest expert in each layer."""
    need(data, "expert_paths", "path_expert", "path_count")
    experts = data.path_expert.transpose("path", "path_layer").values
    total = data.attrs.get("n_tokens")
    shares = [f"{c / total:.1%}" if total else str(c) for c in data.path_count.values.tolist()]
    said = f"{label(str(int(data.n_different)))} different paths; share of the tokens that take each"
    written = [[str(e) for e in row] for row in experts.tolist()]
    panel = Panel("", experts.astype(float), written)
    return tables([panel], [f"{i + 1}: {s}" for i, s in enumerate(shares)],
                  [f"layer {layer}" for layer in data.path_layer.values],
                  Scale("number of the expert", 0.0, float(max(experts.max(), 1)), ".0f"), title=title, subtitle=said,
                  source=data)  # fmt: skip
