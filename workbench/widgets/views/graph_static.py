"""A traced graph without a browser: a picture of its strongest edges, and tables."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import xarray as xr

from workbench.figures.graph import ADDS, TAKES
from workbench.figures.style import INK, LINE, MONO, SANS, SOFT
from workbench.widgets import static
from workbench.widgets.session import Session
from workbench.widgets.views.graph_arrays import KINDS, Arrays, summary
from workbench.widgets.views.graph_study import Study

DRAWN = 150  # edges
_LEFT, _ROW, _TOP, _BOTTOM = 70, 26, 14, 84
_EMBED, _HEAD, _EXPERT, _LOGITS, _ERROR = range(len(KINDS))


def warning(cost: dict[str, Any]) -> str:
    """What tracing will take, in words."""
    seconds = cost["seconds"]
    took = (
        f"{seconds:.0f} s"
        if seconds < 90
        else f"{seconds / 60:.0f} min"
        if seconds < 5400
        else f"{seconds / 3600:.0f} h"
    )
    free = f" of the {cost['free']} that are free" if cost["free"] else ""
    said = f"about {took} and {cost['memory']}{free} for {cost['edges']:,} edges between {cost['nodes']:,} nodes"
    return said if cost["fits"] else f"{said}: it does not fit"


def page(session: Session, study: Study, data: xr.Dataset, arrays: Arrays, n_edges: int) -> str:
    """What was traced, how far it can be believed, the picture, the strongest nodes and edges."""
    said, words = summary(data), [session.word(token) for token in study.tokens]
    starts = f"tokens {said['embed']:.0%}, biases {said['bias']:.0%}, what is not linear in experts {said['error']:.0%}"
    head = f"{study.words(session)} after position {study.position} of {study.prompt}: {said['value']:+.3g} logits"
    kept = f"the {len(data.source)} nodes that are kept have {said['kept']:.0%} of the influence of heads and experts"
    lines = [head, said["verdict"], f"The flow starts in: {starts}; {kept}.", _legend(n_edges, arrays)]
    picture = _picture(arrays, words, session.config.n_layers, min(n_edges, DRAWN))
    return "".join(map(static.note, lines)) + picture + _nodes(arrays, words) + _edges(data, arrays)


def _legend(n_edges: int, arrays: Arrays) -> str:
    return (
        f"The {min(n_edges, DRAWN)} strongest of {arrays.n_edges} edges. Green adds to the target, purple and dashed "
        "takes from it; wider is a larger share of the flow. ■ embedding or logits, ● head, ⬡ expert, ◆ error."
    )


def _nodes(arrays: Arrays, words: list[str]) -> str:
    order = np.argsort(-np.nan_to_num(arrays.number[:, 1]), kind="stable")
    rows = [
        (arrays.names[i], words[arrays.node[i, 3]], f"{arrays.number[i, 0]:+.3f}", f"{arrays.number[i, 1]:.1%}")
        for i in order.tolist()
        if arrays.node[i, 0] != _LOGITS
    ]
    return static.table(["strongest nodes", "token", "effect, logits", "influence"], rows[:15])


def _edges(data: xr.Dataset, arrays: Arrays) -> str:
    found: dict[str, tuple[float, float]] = {}
    if data.sizes.get("edge"):
        pairs = zip(data.frozen_effect.values.tolist(), data.live_effect.values.tolist(), strict=True)
        found = dict(zip(map(str, data.edge.values), pairs, strict=True))
    rows = []
    for (source, target), (effect, flow, *_) in zip(arrays.ends[:15].tolist(), arrays.edge.tolist(), strict=False):
        name = f"{arrays.names[source]} → {arrays.names[target]}"
        measured = [f"{value:+.3f}" for value in found.get(name, ())] or ["–", "–"]
        rows.append((name, f"{effect:+.3f}", f"{flow:.1%}", *measured))
    return static.table(["strongest edges", "effect, logits", "share of the flow", "held model", "live model"], rows)


# ---------------------------------------------------------------- the picture


def _picture(arrays: Arrays, words: list[str], n_layers: int, n_edges: int) -> str:
    """An SVG as an image: nothing in it can run."""
    ends = arrays.ends[:n_edges]
    seen = sorted({*ends.ravel().tolist(), arrays.names.index("logits")})
    columns = sorted({int(arrays.node[i, 3]) for i in seen})
    cell = float(np.clip(700 / max(1, len(columns)), 12, 64))
    width, height = round(_LEFT + cell * len(columns) + 16), _TOP + _ROW * (2 * n_layers + 2) + _BOTTOM
    places = _places(arrays, seen, columns, cell, n_layers)
    parts = [_rows(n_layers, width), *_tokens(words, columns, cell, n_layers)]
    parts += [
        _line(places, pair, *numbers)
        for pair, numbers in zip(ends.tolist()[::-1], arrays.edge[:n_edges, :2].tolist()[::-1], strict=True)
    ]
    parts += [_mark(*places[i], int(arrays.node[i, 0]), *arrays.number[i, :2].tolist()) for i in seen]
    font = SANS.replace('"', "'")
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
        f'font-family="{font}"><rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
    )
    said = f"route graph: {len(seen)} nodes, {len(ends)} edges; tokens from left to right, layers from below"
    data = base64.b64encode(svg.encode()).decode()
    style = f"max-width:100%;height:auto;display:block;margin:6px 0;border:1px solid {LINE}"
    look = f'alt="{static.text(said)}" width="{width}" height="{height}" style="{style}"'
    return f'<img {look} src="data:image/svg+xml;base64,{data}">'


def _y(row: int | float, n_layers: int) -> float:
    return _TOP + _ROW * (2 * n_layers + 1 - row + 0.5)


def _row(kind: int, layer: int, n_layers: int) -> int:
    return {_EMBED: 0, _HEAD: 2 * layer + 1, _LOGITS: 2 * n_layers + 1}.get(kind, 2 * layer + 2)


def _places(
    arrays: Arrays, seen: list[int], columns: list[int], cell: float, n_layers: int
) -> dict[int, tuple[float, float]]:
    """Nodes of one token and row stand side by side; an error stands below its expert."""
    shared: dict[tuple[int, int], list[int]] = {}
    for i in seen:
        kind, layer, _, position = arrays.node[i].tolist()
        shared.setdefault((columns.index(position), _row(kind, layer, n_layers)), []).append(i)
    made = {}
    for (column, row), members in shared.items():
        for at, i in enumerate(members):
            x = _LEFT + cell * (column + (at + 0.5) / len(members))
            made[i] = x, _y(row, n_layers) + (8 if arrays.node[i, 0] == _ERROR else 0)
    return made


def _rows(n_layers: int, width: int) -> str:
    names = ["embed", *(f"L{i} {part}" for i in range(n_layers) for part in ("attn", "experts")), "logits"]
    lines = []
    for row, name in enumerate(names):
        y = _y(row, n_layers)
        lines.append(f'<line x1="{_LEFT}" x2="{width}" y1="{y}" y2="{y}" stroke="{LINE}" stroke-width="0.5"/>')
        lines.append(
            f'<text x="{_LEFT - 8}" y="{y + 3.5}" text-anchor="end" font-size="10" fill="{SOFT}">{name}</text>'
        )
    return "".join(lines)


def _tokens(words: list[str], columns: list[int], cell: float, n_layers: int) -> list[str]:
    made, y = [], _y(-0.6, n_layers)
    for i, position in enumerate(columns):
        x, word = _LEFT + cell * (i + 0.5) + 3, words[position]
        word = word if len(word) <= 10 else f"{word[:9]}…"
        look = f'font-size="10" font-family="{MONO.replace(chr(34), chr(39))}" fill="{INK}" text-anchor="end"'
        turned = f'direction="ltr" transform="translate({x:.1f} {y:.1f}) rotate(-90)"'
        made.append(f"<text {look} {turned}>{static.text(word)} {position}</text>")
    return made


def _line(places: dict[int, tuple[float, float]], pair: list[int], effect: float, flow: float) -> str:
    (x, y), (to_x, to_y) = places[pair[0]], places[pair[1]]
    half = (y + to_y) / 2
    colour, dash = (ADDS, "") if effect > 0 else (TAKES, ' stroke-dasharray="4 2"')
    width = 0.4 + 6 * flow**0.5
    return (
        f'<path d="M{x:.1f} {y:.1f}C{x:.1f} {half:.1f} {to_x:.1f} {half:.1f} {to_x:.1f} {to_y:.1f}" fill="none" '
        f'stroke="{colour}" stroke-width="{width:.2f}" stroke-opacity="0.55"{dash}/>'
    )


def _mark(x: float, y: float, kind: int, effect: float, influence: float) -> str:
    r = 2.5 + 6 * float(np.sqrt(min(max(np.nan_to_num(influence), 0), 1)))
    fill = INK if kind == _LOGITS else ADDS if effect > 0 else TAKES
    look = f'fill="{fill}" stroke="#ffffff" stroke-width="0.8"'
    if kind == _HEAD:
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}" {look}/>'
    turns = {_EXPERT: 6, _ERROR: 4}.get(kind)
    if turns is None:
        return f'<rect x="{x - r:.1f}" y="{y - r:.1f}" width="{2 * r:.1f}" height="{2 * r:.1f}" {look}/>'
    angles = np.arange(turns) * 2 * np.pi / turns + (np.pi / 2 if turns == 4 else 0)
    points = " ".join(f"{x + r * np.cos(a):.1f},{y + r * np.sin(a):.1f}" for a in angles)
    return f'<polygon points="{points}" {look}/>'
