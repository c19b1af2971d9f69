"""Routing as HTML without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from plotly.colors import hex_to_rgb

from workbench.figures.routing import expert_colour
from workbench.figures.style import LINE, MONO, SOFT, ink_on
from workbench.widgets import static
from workbench.widgets.views.base import Payload

MOST_CELLS = 480  # token × layer, written with numbers; more are a picture
MOST_ROWS = 400  # of a picture: of a longer text, several tokens share one
PARTS = 12  # steps into which a picture divides a cell
_CELL = 92  # pixels


def effect(made: Payload | None) -> str:
    """What the edits did, in two lines."""
    if made is None:
        return ""
    about = made[0]
    head = static.note(
        f"against the unedited run: mean KL {about['mean_kl']:.3g} nats, at the last token {about['last_kl']:.3g}; "
        f"{about['n_flipped']} of {about['n_pos']} next tokens and {about['n_routes']} routes changed"
    )
    rows = [(each["position"], each["before"], each["after"], f"{each['kl']:.3g}") for each in about["flipped"]]
    return head + (static.table(("position", "before", "after", "KL, nats"), rows) if rows else "")


def ribbon(tokens: Sequence[str], chosen: np.ndarray, weight: np.ndarray) -> str:
    """Tokens down, layers across; in each cell the experts, as wide as their weights."""
    words = "width: routing weight; colour and number: the expert (each layer has its own)"
    if chosen.shape[0] * chosen.shape[1] <= MOST_CELLS:
        return static.note(words) + _written(tokens, chosen, weight)
    rows = -(-len(tokens) // -(-len(tokens) // MOST_ROWS))
    each = -(-len(tokens) // rows)
    said = f"routes of {len(tokens)} tokens (down) in {chosen.shape[1]} layers (across)"
    more = f"; {each} tokens a row, experts in the order of their numbers" if each > 1 else ""
    return static.picture(_pixels(chosen, weight, each), said) + static.note(f"{said}; {words}{more}")


def _written(tokens: Sequence[str], chosen: np.ndarray, weight: np.ndarray) -> str:
    cell = f"padding:1px 4px;border-bottom:1px solid {LINE};font:11px {MONO.replace(chr(34), chr(39))}"
    head = "".join(f'<th style="{cell};color:{SOFT};font-weight:400">layer {i}</th>' for i in range(chosen.shape[1]))
    lines = []
    for at, token in enumerate(tokens):
        cells = "".join(
            f'<td style="{cell}">{_slots(chosen[at, i], weight[at, i])}</td>' for i in range(chosen.shape[1])
        )
        name = f'<th style="{cell};text-align:right;font-weight:400"><bdi>{static.text(token)}</bdi></th>'
        lines.append(f"<tr>{name}{cells}</tr>")
    return f'<table style="border-collapse:collapse"><tr><th></th>{head}</tr>{"".join(lines)}</table>'


def _slots(experts: np.ndarray, weights: np.ndarray) -> str:
    total = max(float(np.abs(weights).sum()), 1.0)
    spans = []
    for expert, weight in zip(experts.tolist(), weights.tolist(), strict=True):
        fill, width = expert_colour(expert), max(round(_CELL * abs(weight) / total), 14)
        look = f"display:inline-block;width:{width}px;background:{fill};color:{ink_on(fill)};text-align:center"
        spans.append(f'<span style="{look}" title="expert {expert}, weight {weight:.3f}">{expert}</span>')
    return f'<span style="white-space:nowrap">{"".join(spans)}</span>'


def _pixels(chosen: np.ndarray, weight: np.ndarray, each: int) -> np.ndarray:
    """Rows of tokens (``each`` of them together, their weights added), layers of ``PARTS`` steps and a gap."""
    n_pos, n_layers, _ = chosen.shape
    rows, n_experts = -(-n_pos // each), int(chosen.max()) + 1
    palette = np.array([hex_to_rgb(expert_colour(expert)) for expert in range(n_experts)], np.uint8)
    made = np.full((rows, n_layers, PARTS + 1, 3), 255, np.uint8)
    middles = (np.arange(PARTS) + 0.5) / PARTS
    for row in range(rows):
        part = slice(row * each, (row + 1) * each)
        for layer in range(n_layers):
            experts, weights = chosen[part, layer].ravel(), np.abs(weight[part, layer]).ravel()
            if each > 1:
                weights, experts = np.bincount(experts, weights, n_experts), np.arange(n_experts)
            ends = weights.cumsum() / max(weights.sum(), 1e-9)
            made[row, layer, :PARTS] = palette[experts[np.searchsorted(ends, middles).clip(0, len(experts) - 1)]]
    return made.reshape(rows, -1, 3)


def statistics(data: xr.Dataset) -> str:
    """Each layer's busiest experts and its entropies."""
    k, even = 3, float(data.attrs["even_load"])
    rows = []
    for layer in data.layer.values.tolist():
        load = data["load"].sel(layer=layer).values
        busiest = ", ".join(f"E{expert} {load[expert]:.0%}" for expert in np.argsort(-load, kind="stable")[:k].tolist())
        numbers = (float(data[name].sel(layer=layer)) for name in ("token_entropy", "share_entropy"))
        rows.append((layer, busiest, *(f"{value:.2f}" for value in numbers)))
    heads = ("layer", f"busiest experts (an even load is {even:.0%})", "router's entropy", "evenness of the load")
    return static.table(heads, rows, most=128)


def unchosen(data: xr.Dataset, at: tuple[int, int], right: str, wrong: str) -> str:
    """The experts of one token in the router's order."""
    heads = ["rank", "expert", "went to it", "router's probability", "weight (if forced)", "‖w · y‖",
             "adds to the answer", "change if forced"]  # fmt: skip
    names = ["probability", "weight", "written_norm", "direct", "forced"]
    if "total" in data:
        heads, names = [*heads, "… in a forced run"], [*names, "total"]
    rows = [
        (rank + 1, int(data.expert[rank]), "yes" if bool(data.chosen[rank]) else "no",
         *(f"{float(data[name][rank]):.3g}" for name in names))
        for rank in range(data.sizes["rank"])
    ]  # fmt: skip
    words = f"layer {at[0]}, position {at[1]}; the answer: logit of {right} − logit of {wrong}"
    return static.note(words) + static.table(heads, rows)


def contexts(found: Sequence[dict[str, Any]], layer: int, expert: int) -> str:
    """Where an expert fires hardest in the corpus; the token where it does stands in ⟦ ⟧."""
    rows = []
    for each in found:
        tokens = [f"⟦{token}⟧" if i == each["at"] else token for i, token in enumerate(each["tokens"])]
        rows.append((f"{each['weight']:.3f}", each["text"], each["position"], " ".join(tokens)))
    words = f"where expert {expert} of layer {layer} fires hardest in the corpus"
    return static.note(words) + static.table(("weight", "text", "position", "context"), rows)
