"""The attention view without scripts, and its large pattern as a dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Float, UInt8
from plotly.colors import hex_to_rgb

from workbench.activations import Run
from workbench.experiments.rows import provenance, quantity, row_coords
from workbench.figures.style import DIVERGING, EXPERTS, INK, PAPER, SEQUENTIAL, colours
from workbench.widgets import static
from workbench.widgets.views.attention_patterns import KINDS, Summary

if TYPE_CHECKING:
    from workbench.widgets.views.attention import Attention

_GAP = 3  # pixels between thumbnails
DEEPEST = 0.78  # of the way from paper over a head's hue to ink
_LATER, _OUTSIDE = 248, 222  # grey of keys that come later, and of those before the window


def html(view: Attention, place: tuple[int, int], found: Summary, pattern: np.ndarray, sink: np.ndarray) -> str:
    """A picture of all heads of the layer, what each does, the large pattern, and where one token looks."""
    layer, head = place
    config, session = view.session.config, view.session
    window = config.window(layer)
    kind = f"sliding window of {window} tokens" if window else "full attention"
    change = ", change from the unedited run" if found.limit is not None else ""
    parts = [
        static.note(f"Layer {layer}, {kind}. All heads: a row for each key-value head{change}."),
        static.picture(mosaic(found, config.n_query_groups), f"patterns of the heads of layer {layer}", 480),
        _scores(found, config.n_query_groups),
        static.note(
            f"Head {head} of layer {layer}: row the token that looks, column where it looks; sink at the left."
        ),
        _large(session.tokens(session.shown), pattern, sink, window or 0, found.limit is not None),
        _top(view, layer, head),
    ]
    return "".join(parts)


def mosaic(found: Summary, per_row: int) -> UInt8[np.ndarray, "row column channel"]:
    """All thumbnails of a layer in one picture: rows are key-value heads, the hue is the head's."""
    n_heads, side, _ = found.thumbs.shape
    step = side + _GAP
    rows = -(-n_heads // per_row)
    made = np.full((rows * step, min(per_row, n_heads) * step, 3), _OUTSIDE, np.uint8)
    for head in range(n_heads):
        top, left = head // per_row * step, head % per_row * step
        made[top : top + side, left : left + side] = thumb(found.thumbs[head], head, found.limit is not None)
    return made


def thumb(values: UInt8[np.ndarray, "row column"], head: int, change: bool) -> UInt8[np.ndarray, "row column channel"]:
    """One thumbnail in colour."""
    if change:
        return _table(DIVERGING)[values]
    return _table([PAPER, EXPERTS[head % len(EXPERTS)], INK])[np.rint(values * DEEPEST).astype(int)]


def _table(scale: list[str]) -> UInt8[np.ndarray, "step channel"]:
    """256 steps of a scale as red, green, blue."""
    parts = [
        hex_to_rgb(each) if each.startswith("#") else [round(float(part)) for part in each[4:-1].split(",")]
        for each in colours(np.linspace(0, 1, 256), scale, 0.0, 1.0)
    ]
    return np.array(parts, np.uint8)


def _scores(found: Summary, per_row: int) -> str:
    headers = ["head", "key-value head", *(f"{kind.replace('_', ' ')}" for kind in KINDS)]
    rows = [
        [
            head,
            head // per_row,
            *("no such place" if np.isnan(value) else static.share(value, 3) for value in found.scores[:, head]),
        ]
        for head in range(found.scores.shape[1])
    ]
    return static.note("Mean attention of a query to each kind of place:") + static.table(headers, rows, most=64)


def _large(tokens: list[str], pattern: np.ndarray, sink: np.ndarray, window: int, change: bool) -> str:
    n, cells = len(tokens), len(pattern)
    block = -(-n // cells)
    scale = DIVERGING if change else SEQUENTIAL
    limit = float(np.nanmax(np.abs(np.append(pattern, sink)))) or 1.0 if change else 1.0
    low = -limit if change else 0.0
    later, outside = unseen(n, block, window)
    if block == 1 and n * (n + 1) <= static.MOST_CELLS:
        values = np.concatenate([sink[:, None], np.where(later | outside, np.nan, pattern)], axis=1)
        written = np.array([[static.share(value) if np.isfinite(value) else "" for value in row] for row in values])
        return static.grid(values, scale, low, limit, tokens, ["sink", *tokens], "attention", written)
    steps = _table(scale)
    index = lambda x: np.rint((np.nan_to_num(x).clip(low, limit) - low) / (limit - low) * 255).astype(int)  # noqa: E731
    rgb = steps[index(pattern)]
    rgb[later], rgb[outside] = _LATER, _OUTSIDE
    wide = max(3, cells // 40)
    column = np.repeat(steps[index(sink)][:, None], wide, axis=1)
    made = np.concatenate([column, np.full((cells, max(1, wide // 2), 3), 255, np.uint8), rgb], axis=1)
    blocks = "" if block == 1 else f", each cell the strongest of {block} by {block} tokens"
    said = f"{n} tokens by the sink and {n} tokens, {low:.3g} to {limit:.3g}{blocks}; darker grey: outside the window"
    return static.picture(made, f"attention pattern, {said}", 480) + static.note(said)


def unseen(n: int, block: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each block, whether all its keys come after all its queries, and whether all are outside the window."""
    starts = np.arange(0, n, block)
    ends = np.minimum(starts + block, n) - 1
    later = ends[:, None] < starts[None]
    outside = (starts[:, None] - ends[None] >= window) if window else np.zeros_like(later)
    return later, outside


def _top(view: Attention, layer: int, head: int) -> str:
    session = view.session
    if not view.patterns.has_head(session.shown, layer, head):
        return ""
    tokens = session.tokens(session.shown)
    at = session.state.selection.position
    at = len(tokens) - 1 if at is None or at >= len(tokens) else at
    found, _ = view.data({"what": "line", "layer": layer, "head": head, "position": at})
    rows: list[list[Any]] = [
        [tokens[each["position"]], each["position"], static.share(each["value"], 4)] for each in found["top"]
    ]
    rows.append(["(sink)", "", static.share(found["sink"], 4)])
    title = f"Where token {at}, “{tokens[at]}”, looks: its strongest keys"
    return static.note(title) + static.table(["key", "position", "attention"], rows)


def blocks(
    run: Run, layer: int, head: int, pattern: Float[np.ndarray, "row col"], sink: Float[np.ndarray, " row"], block: int
) -> xr.Dataset:
    """A pattern in blocks as ``experiments.attention`` gives whole ones, each block under its first token."""
    n, config = run.tokens.shape[1], run.model.config
    window = config.window(layer) or 0
    later, outside = unseen(n, block, window)
    coords: dict[str, Any] = {}
    for name, (_, values) in row_coords(run, 0).items():
        for side in ("query", "key"):
            coords[f"{side}_pos" if name == "pos" else f"{side}_{name}"] = (f"{side}_pos", values[::block])
    square = ("query_pos", "key_pos")
    variables = {
        "pattern": (square, pattern, quantity("attention")),
        "sink": ("query_pos", sink, quantity("attention left on the sink")),
        "visible": (square, ~(later | outside), quantity("whether a query of the block can see a key of it")),
    }
    about = {"layer": layer, "head": head, "kv_head": head // config.n_query_groups, "block": block}
    about["window"] = -(-window // block)
    return xr.Dataset(variables, coords, provenance(run, "attention", 0, **about))
