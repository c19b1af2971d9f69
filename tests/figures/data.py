"""Small hand-made datasets of every kind that the figures draw, with any tokens one likes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import xarray as xr

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "<b>",
    "</b><br>",
    '<a href="javascript:alert(1)">x</a>',
    "&lt;script&gt;",
    "$\\int x$",
    "%{x}",
    "%{customdata[0]}",
    "\n\n",
    " a  b ",
    "",
    "مرحبا",
    "\u202eevil",
    "\u200b",
    "\u0301",
    "\\xe2",
    "東京",
    "🧑‍🚀",
    "x" * 10_000,
    "same",
    "same",
)


def words(n: int) -> list[str]:
    """n tokens, hostile ones first, then ordinary ones that repeat."""
    return [HOSTILE[i] if i < len(HOSTILE) else f" word{i % 7}" for i in range(n)]


def coords(tokens: Sequence[str], dim: str = "pos") -> dict:
    """What the experiments put along a dim of positions: a chat of four messages, or of one where there are few."""
    n = len(tokens)
    message = np.minimum(np.arange(n) * 4 // max(n, 1), 3)
    roles = np.array(["system", "user", "assistant", "assistant"])[message]
    channels = np.array(["", "", "analysis", "final"])[message]
    parts = np.where(np.arange(n) % 5 == 0, "marker", "body")
    side = "" if dim == "pos" else dim.removesuffix("pos")
    made = {"token": np.array(tokens, dtype=str), "role": roles, "channel": channels, "part": parts}
    made |= {"token_id": np.arange(n) + 100, "message": message}
    return {dim: np.arange(n) + 7} | {f"{side}{name}": (dim, values) for name, values in made.items()}


def values(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def text(tokens: Sequence[str]) -> xr.Dataset:
    surprise = values(len(tokens)) * 5
    surprise[0] = np.nan
    return xr.Dataset({"surprise": ("pos", surprise, {"units": "nats"})}, coords(tokens))


def lens(tokens: Sequence[str], n_layers: int = 4, top_k: int = 3) -> xr.Dataset:
    n, layers = len(tokens), np.arange(-1, n_layers)
    top = np.array([[[tokens[(i + j + k) % n] for k in range(top_k)] for j in layers] for i in range(n)], dtype=str)
    per_layer = ("pos", "layer")
    made = {
        "top_token": ((*per_layer, "rank"), top),
        "top_probability": ((*per_layer, "rank"), values(n, n_layers + 1, top_k)),
        "target_probability": (per_layer, values(n, n_layers + 1, seed=1)),
        "target_rank": (per_layer, np.random.default_rng(2).integers(1, 1000, (n, n_layers + 1))),
        "entropy": (per_layer, values(n, n_layers + 1, seed=3)),
        "kl": (per_layer, values(n, n_layers + 1, seed=4)),
        "target_token": ("pos", np.array(tokens, dtype=str)),
    }
    stages = ["embedding", *(f"layer {i}" for i in range(n_layers))]
    return xr.Dataset(made, coords(tokens) | {"layer": layers, "stage": ("layer", stages), "rank": [1, 2, 3][:top_k]})


def lens_apart(tokens: Sequence[str], n_layers: int = 4) -> xr.Dataset:
    """A lens difference; every third position has no partner in the other run."""
    n, layers = len(tokens), np.arange(-1, n_layers)
    gone = (np.arange(n) % 3 == 2)[:, None]
    names = ("top_probability", "word_change", "target_change", "rank_change", "entropy_change", "kl")
    numbers = {name: values(n, n_layers + 1, seed=i) - 0.5 * (i in (1, 2, 3, 4)) for i, name in enumerate(names)}
    made = {name: (("pos", "layer"), np.where(gone, np.nan, given)) for name, given in numbers.items()}
    for name, shift in (("top_token", 0), ("other_token", 1)):
        words_of = [[tokens[(i + j * shift) % n] for j in range(n_layers + 1)] for i in range(n)]
        made[name] = (("pos", "layer"), np.where(gone, "", np.array(words_of, dtype=str)))
    stages = ["embedding", *(f"layer {i}" for i in range(n_layers))]
    where = coords(tokens) | {"layer": layers, "stage": ("layer", stages)}
    return xr.Dataset(made, where, {"other": tokens[0]})


def attention(tokens: Sequence[str], window: int = 0) -> xr.Dataset:
    n = len(tokens)
    back = np.arange(n)[:, None] - np.arange(n)
    visible = (back >= 0) & (back < (window or n))
    both = np.concatenate([values(n, n) * visible, values(n, 1, seed=1)], axis=1)
    both /= both.sum(1, keepdims=True)
    square = ("query_pos", "key_pos")
    made = {"pattern": (square, both[:, :n]), "sink": ("query_pos", both[:, n]), "visible": (square, visible)}
    about = {"layer": 2, "head": 3, "window": window}
    return xr.Dataset(made, coords(tokens, "query_pos") | coords(tokens, "key_pos"), about)


def head_scores(n_layers: int = 4, n_heads: int = 8) -> xr.Dataset:
    score = values(3, n_layers, n_heads)
    score[1:, ::2] = np.nan
    kinds = ["previous_token", "duplicate_token", "induction"]
    return xr.Dataset({"score": (("kind", "layer", "head"), score)}, {"kind": kinds, "layer": np.arange(n_layers)})


def routing(tokens: Sequence[str], n_layers: int = 4, n_slots: int = 2, n_experts: int = 8) -> xr.Dataset:
    n, rng = len(tokens), np.random.default_rng(0)
    chosen = np.array([[rng.permutation(n_experts)[:n_slots] for _ in range(n_layers)] for _ in range(n)])
    weight = -np.sort(-values(n, n_layers, n_slots))
    weight /= weight.sum(-1, keepdims=True)
    load = np.array([[(chosen[:, layer] == e).any(-1).mean() for e in range(n_experts)] for layer in range(n_layers)])
    dims = ("pos", "layer", "slot")
    made = {"chosen": (dims, chosen), "weight": (dims, weight), "load": (("layer", "expert"), load)}
    axes = {"layer": np.arange(n_layers), "slot": np.arange(n_slots), "expert": np.arange(n_experts)}
    return xr.Dataset(made, coords(tokens) | axes, {"even_load": n_slots / n_experts})


def comparison(tokens: Sequence[str], runs: Sequence[str] = ("before", "after")) -> xr.Dataset:
    n, k = len(tokens), 5
    probability = values(len(runs), n, k)
    probability /= probability.sum(-1, keepdims=True)
    ids = np.tile(np.arange(k), (n, 1))
    ids[:, -1] = -1
    probability[..., -1] = np.nan
    named = np.array([[tokens[(i + c) % n] for c in range(k)] for i in range(n)], dtype=str)
    made = {
        "kl": (("run", "pos"), values(len(runs), n, seed=1), {"units": "nats"}),
        "top_id": (("run", "pos"), np.zeros((len(runs), n), dtype=int)),
        "candidate_id": (("pos", "candidate"), ids),
        "candidate_token": (("pos", "candidate"), named),
        "probability": (("run", "pos", "candidate"), probability),
    }
    return xr.Dataset(made, coords(tokens) | {"run": list(runs), "candidate": np.arange(k)})


def loads(kinds: Sequence[str]) -> xr.Dataset:
    made = {"load": (("kind", "layer", "expert"), values(len(kinds), 3, 8))}
    return xr.Dataset(made, {"kind": list(kinds), "layer": np.arange(3), "expert": np.arange(8)}, {"even_load": 0.25})


# What plotly makes of a text: these tags and no others, a formula between dollars, a break for each <br>.
TAG = re.compile(r"<(/?)(\w*)([^<>]*)>")
OURS = {("b", ""), ("br", ""), ("span", ""), ("extra", "")}


def strings(part: object) -> Iterator[str]:
    """Every text in a figure's JSON but for font names."""
    if isinstance(part, str):
        yield part
    elif isinstance(part, dict):
        for key, value in part.items():
            if key not in ("family", "template"):
                yield from strings(value)
    elif isinstance(part, list | tuple):
        for value in part:
            yield from strings(value)
