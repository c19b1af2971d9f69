"""A text, token by token: coloured by role and channel, or by a number."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.figures.style import (
    DIVERGING,
    INK,
    LINE,
    MONO,
    MONO_WIDTH,
    SEQUENTIAL,
    SOFT,
    UNSEEN,
    WIDTH,
    add_scale,
    as_lists,
    colours,
    figure,
    ink_on,
    need,
    role_colour,
    role_name,
    scale_bar,
    tint,
)
from workbench.figures.text import columns_of, label, visible

_SIZE, _MARKER_SIZE = 13, 10  # font sizes, in pixels
_ROW, _GUTTER, _RIGHT, _LONGEST = 32, 126.0, 34, 40
_TOP, _BOTTOM = 76, 14


@dataclass(frozen=True)
class Cell:
    """Where one token stands: its row, and its left edge and width in pixels."""

    row: int
    left: float
    width: float
    text: str
    size: int


@dataclass
class Layout:
    """A text broken into rows; where messages begin, and who speaks in them."""

    cells: list[Cell] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # role and channel of each token
    starts: list[tuple[int, str]] = field(default_factory=list)  # (row, name) of each message
    left: float = 0.0

    @property
    def n_rows(self) -> int:
        return self.cells[-1].row + 1


def tokens(data: xr.Dataset, title: str = "Tokens by role and channel", subtitle: str | None = None) -> go.Figure:
    """The text of any dataset with tokens along ``pos``, each message on a row of its own, coloured by who speaks.

    Special tokens are there, in small grey print. Hovering tells position, id, role and channel.
    """
    _need_tokens(data)
    layout = _lay_out(data, quiet_marks=True)
    if subtitle is None:
        n = data.sizes["pos"]
        subtitle = f"{n} token{'s' * (n != 1)}; ␣ is a leading space, ¶ a newline; special tokens in small print"
    made = _canvas(layout, title, subtitle, data)
    for name in dict.fromkeys(layout.names):
        chosen = [i for i, other in enumerate(layout.names) if other == name]
        colour = tint(role_colour(name), 0.2) if name else UNSEEN
        fills = [colour if layout.cells[i].size == _SIZE else "#ffffff" for i in chosen]
        inks = [INK if layout.cells[i].size == _SIZE else SOFT for i in chosen]
        made.add_trace(_bars(layout, chosen, fills, inks, _hover(data, chosen), name or "text"))
    return made


def token_values(
    values: xr.DataArray,
    title: str | None = None,
    subtitle: str = "",
    limit: float | None = None,
    scale: list[str] | None = None,
) -> go.Figure:
    """The text with each token shaded by a number along ``pos``.

    Negative values bring a scale that diverges round 0, else it runs from 0. A token without a value (NaN) is grey.

    Args:
        limit: the value of the strongest colour; the largest absolute value if None.
        scale: colours instead of ours, from the lowest to the highest.
    """
    if values.dims != ("pos",):
        raise ValueError(f"token_values takes one number a token, dims ('pos',), and these values have {values.dims}")
    _need_tokens(values)
    numbers, layout = values.values.astype(float), _lay_out(values, quiet_marks=False)
    known = np.isfinite(numbers)
    high = limit if limit is not None else float(np.abs(numbers[known]).max(initial=0.0)) or 1.0
    low = -high if bool((numbers[known] < 0).any()) else 0.0
    scale = scale or (DIVERGING if low < 0 else SEQUENTIAL)
    units = f" ({values.attrs['units']})" if values.attrs.get("units") else ""
    name = str(values.attrs.get("long_name") or values.name or "value")
    made = _canvas(layout, title or name, subtitle, values)
    for chosen in (np.flatnonzero(known).tolist(), np.flatnonzero(~known).tolist()):
        fills = colours(numbers[chosen], scale, low, high) if chosen and known[chosen[0]] else [UNSEEN] * len(chosen)
        written = [f"{name} {numbers[i]:.4g}{units}" if known[i] else f"{name}: none" for i in chosen]
        hover = [f"{text}<br>{label(line, None)}" for text, line in zip(_hover(values, chosen), written, strict=True)]
        bars = _bars(layout, chosen, fills, [ink_on(fill) for fill in fills], hover, name)
        made.add_trace(bars.update(meta=as_lists(values.values[chosen])))
    axis = {"colorscale": scale, "cmin": low, "cmax": high, "showscale": True, "colorbar": scale_bar(right=_RIGHT)}
    add_scale(made, name + units, right=_RIGHT)
    made.add_trace(go.Scatter(x=[None], y=[None], mode="markers", marker=axis, hoverinfo="skip", showlegend=False))
    return made


def _need_tokens(data: xr.Dataset | xr.DataArray) -> None:
    if "pos" not in data.dims or "token" not in data.coords:
        raise ValueError(
            f"a text figure needs tokens along 'pos', as every experiment's dataset has them, and this has the dims "
            f"{tuple(data.dims)} and coordinates {sorted(map(str, data.coords))}"
        )
    need(data.coords.to_dataset(), "tokens", "token")


def _column(data: xr.Dataset | xr.DataArray, name: str) -> list[str]:
    return [str(v) for v in data.coords[name].values] if name in data.coords else [""] * data.sizes["pos"]


def _lay_out(data: xr.Dataset | xr.DataArray, quiet_marks: bool) -> Layout:
    """Break the text into rows: a new one for each message, after each newline, and where a row is full."""
    texts, parts, messages = (_column(data, name) for name in ("token", "part", "message"))
    names = [role_name(*pair) for pair in zip(_column(data, "role"), _column(data, "channel"), strict=True)]
    made = Layout(names=names, left=_GUTTER if any(names) else 8.0)
    row, left, room = 0, made.left, WIDTH - _RIGHT
    for i, (token, part) in enumerate(zip(texts, parts, strict=True)):
        size = _MARKER_SIZE if part == "marker" else _SIZE
        text = visible(token, _LONGEST)
        width = columns_of(text) * MONO_WIDTH * size + 8
        new_message = i > 0 and messages[i] != messages[i - 1]
        after_newline = i > 0 and texts[i - 1].endswith("\n")
        if left > made.left and (new_message or after_newline or left + width > room):
            row, left = row + 1, made.left
        if names[i] and (i == 0 or new_message):
            made.starts.append((row, names[i]))
        made.cells.append(Cell(row, left, width, label(token, _LONGEST, quiet_marks), size))
        left += width + 2
    return made


def _canvas(layout: Layout, title: str, subtitle: str, data: xr.Dataset | xr.DataArray) -> go.Figure:
    """An empty sheet whose axes count pixels and rows; bands and names of the speakers."""
    made = figure(
        title, subtitle, data, height=_TOP + _BOTTOM + layout.n_rows * _ROW, showlegend=False, barmode="overlay"
    )
    made.update_layout(margin={"l": 0, "r": 0, "t": _TOP, "b": _BOTTOM}, bargap=0, shapes=list(_bands(layout)))
    hidden = {"visible": False, "fixedrange": True}
    made.update_xaxes(range=[0, WIDTH], **hidden)
    made.update_yaxes(range=[layout.n_rows - 0.5, -0.5], **hidden)
    for row, name in layout.starts:
        shown = label(name.replace("/", " · "), 22)
        font = {"size": 11, "color": SOFT}
        made.add_annotation(x=6, y=row, text=shown, font=font, xanchor="left", yanchor="middle", showarrow=False)
    return made


def _bands(layout: Layout) -> Iterator[dict]:
    """A thin line over each row, in the colour of who speaks."""
    edges: dict[tuple[int, str], list[float]] = {}
    for cell, name in zip(layout.cells, layout.names, strict=True):
        span = edges.setdefault((cell.row, name), [cell.left, 0.0])
        span[1] = cell.left + cell.width
    for (row, name), (left, right) in edges.items():
        line = {"color": role_colour(name), "width": 2.5}
        if name:
            yield {"type": "line", "x0": left, "x1": right, "y0": row - 0.38, "y1": row - 0.38, "line": line}


def _bars(layout: Layout, chosen: list[int], fills: list[str], inks: list[str], hover: list[str], name: str) -> go.Bar:
    """The cells of some tokens, as horizontal bars with their text inside."""
    cells = [layout.cells[i] for i in chosen]
    return go.Bar(
        orientation="h",
        base=[cell.left for cell in cells],
        x=[cell.width for cell in cells],
        y=[cell.row for cell in cells],
        width=[0.62] * len(cells),
        text=[cell.text for cell in cells],
        customdata=chosen,
        textfont={"family": MONO, "size": [cell.size for cell in cells], "color": inks},
        textposition="inside",
        insidetextanchor="middle",
        constraintext="none",
        textangle=0,
        marker={"color": fills, "line": {"color": LINE, "width": 0.5}},
        hovertext=hover,
        hoverinfo="text",
        name=name,
    )


def _hover(data: xr.Dataset | xr.DataArray, chosen: list[int]) -> list[str]:
    texts, ids, roles, channels = (_column(data, name) for name in ("token", "token_id", "role", "channel"))
    parts, positions = _column(data, "part"), _column(data, "pos")
    lines = []
    for i in chosen:
        said = [f"<b>{label(texts[i], 120)}</b>", f"position {positions[i]}"]
        said[1] += f" · id {ids[i]}" if ids[i] else ""
        if who := role_name(roles[i], channels[i]):
            said.append(label(f"{who.replace('/', ' · ')}{' · ' + parts[i] if parts[i] else ''}", None))
        lines.append("<br>".join(said))
    return lines
