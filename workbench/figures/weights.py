"""What the weights say: heads' circuits and compositions, experts' likeness, router rows, strange embeddings."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.grid import Panel, Scale, tables
from workbench.figures.style import BLUE, ORANGE, as_lists, figure, need, need_label
from workbench.figures.text import label, labels


def head_circuits(data: xr.Dataset, title: str = "What the heads' weights do, without any text") -> go.Figure:
    """What ``experiments.head_circuits`` returns: how much each head copies, and matches, from −1 to 1."""
    need(data, "head_circuits", "copying", "matching")
    names = {"copying": "copies what it sees (OV)", "matching": "looks for its own token (QK)"}
    panels = [Panel(said, data[name].transpose("layer", "head").values) for name, said in names.items()]
    return tables(panels, data.layer.values, data["head"].values, Scale("Σ Re λ / Σ |λ|", -1.0, 1.0), title=title,
                  subtitle="eigenvalues of the circuits from token to token", source=data, row_title="layer",
                  column_title="head", across=2)  # fmt: skip


def composition_scores(data: xr.Dataset, kind: str, title: str | None = None) -> go.Figure:
    """What ``experiments.composition_scores`` returns: how much of what a row writes a column reads, above chance.

    Raises:
        ValueError: for a dataset of another kind, or a kind that is not Q, K or V.
    """
    need(data, "composition_scores", "score")
    if kind not in data.coords["kind"].values:
        raise ValueError(f"kind={kind!r}: expected one of {data.coords['kind'].values.tolist()}")
    score = data.score.sel(kind=kind).transpose("layer", "head", "to_layer", "to_head")
    n_layers, n_heads = score.shape[:2]
    names = [f"L{layer}H{head}" for layer in score.layer.values for head in score["head"].values]
    flat = score.values.reshape(n_layers * n_heads, -1) - float(data.attrs.get("chance", 0.0))
    rows, columns = names[: -n_heads or None], names[n_heads:]
    return tables([Panel("", flat[: len(rows), n_heads:])], rows, columns, Scale.of(flat, "score − chance", "+.3f"),
                  title=title or f"{kind}-composition: what each head reads of each earlier one",
                  subtitle="row: the head that writes; column: the later head that reads", source=data)  # fmt: skip


def expert_similarity(data: xr.Dataset, kind: str = "writes", title: str | None = None) -> go.Figure:
    """What ``experiments.expert_similarity`` (or, with kind "router", ``router_geometry``) returns: a table a layer.

    Raises:
        ValueError: for a dataset of another kind, or a kind that it does not have.
    """
    need(data, "expert_similarity", "similarity")
    values = data.similarity
    if "kind" in values.dims:
        if kind not in values.coords["kind"].values:
            raise ValueError(f"kind={kind!r}: expected one of {values.coords['kind'].values.tolist()}")
        values = values.sel(kind=kind)
    elif kind != "router":
        raise ValueError(f"kind={kind!r}: this dataset has the router's rows alone; say kind='router'")
    values = values.transpose("layer", "expert", "other_expert")
    # The diagonal is 1 and says nothing; without it the scale is that of the others.
    off = np.where(np.eye(values.shape[-1], dtype=bool), np.nan, values.values)
    panels = [Panel(f"layer {layer}", off[i]) for i, layer in enumerate(values.layer.values)]
    chance = "" if "chance" not in data else f"random matrices: {float(data.chance.sel(kind=kind)):.2f}"
    experts, title = values.expert.values, title or f"How alike the experts are: {label(kind)}"
    return tables(panels, experts, experts, Scale.of(off, "cosine", ".3f"), title=title,
                  subtitle=chance, source=data, row_title="expert", column_title="other expert")  # fmt: skip


def router_tokens(data: xr.Dataset, layer: int, title: str | None = None) -> go.Figure:
    """What ``experiments.router_geometry`` returns: of each router row, the tokens whose embeddings excite it the most.

    Raises:
        ValueError: for a dataset of another kind, or a layer that it does not have.
    """
    need(data, "router_geometry", "token", "score")
    need_label(data, "layer", layer)
    here = data.sel(layer=layer).transpose("expert", "rank", ...)
    panel = Panel("", here.score.values, here.token.values.tolist())
    return tables([panel], [f"expert {e}" for e in here.expert.values], here["rank"].values,
                  Scale.of(here.score.values, "router logit"),
                  title=title or f"What the router looks for, layer {layer}",
                  subtitle="tokens whose embedding alone gives the expert the largest logit", source=data,
                  column_title="rank", cell=84.0)  # fmt: skip


def embedding_norms(
    data: xr.Dataset, top: int = 12, title: str = "Embeddings that stayed near the mean of all"
) -> go.Figure:
    """What ``experiments.embedding_norms`` returns: every token by its two distances, the strangest ones named."""
    need(data, "embedding_norms", "embed_distance", "unembed_distance", "glitch_score")
    order = np.argsort(data.glitch_score.values, kind="stable")
    x, y = data.embed_distance.values, data.unembed_distance.values
    texts = labels([token or f"id {i}" for token, i in zip(data.token.values, data.vocab.values, strict=True)], 20)
    hover = [f"{text}<br>id {i}" for text, i in zip(texts, data.vocab.values, strict=True)]
    made = figure(
        title,
        "far left: as if training hardly saw the token, candidates for glitch tokens",
        data,
        width=700,
        height=480,
        showlegend=False,
    )
    rest, first = order[top:], order[:top]
    for at, colour, mode in ((rest, BLUE, "markers"), (first, ORANGE, "markers+text")):
        look = {"mode": mode, "marker": {"color": colour, "size": 5}, "textposition": "top center"}
        words = {"text": [texts[i] for i in at], "hovertext": [hover[i] for i in at], "hoverinfo": "text"}
        # Only few are drawn as words: plotly's fast points would show what escapes a token.
        kind = go.Scattergl if mode == "markers" else go.Scatter
        made.add_trace(kind(x=as_lists(x[at]), y=as_lists(y[at]), textfont={"size": 10}, **look, **words))
    made.update_xaxes(type="log").update_yaxes(type="log")
    made.update_xaxes(title="distance of the embedding to the mean").update_yaxes(title="of the unembedding")
    return made.update_layout(margin={"l": 70, "r": 30, "t": 84, "b": 56})
