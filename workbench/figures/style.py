"""How our figures look: one quiet template, colours that colour-blind readers can tell apart, and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import xarray as xr
from plotly.colors import hex_to_rgb, sample_colorscale

from workbench.figures.text import escape

SANS = "Inter, 'Segoe UI', 'Helvetica Neue', Arial, 'Liberation Sans', sans-serif"
MONO = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
MONO_WIDTH = 0.603  # of a character, in ems: DejaVu Sans Mono and Menlo; the others are no wider
INK, SOFT, LINE, PAPER, UNSEEN = "#1f2933", "#616b78", "#d9dde3", "#ffffff", "#f1f3f5"
WIDTH = 820  # pixels of a full-width figure

# Okabe and Ito's palette (jfly.uni-koeln.de/color), a little deepened, so that white or black text reads on each.
BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, GREY = (
    "#0072b2", "#e08a00", "#00855f", "#b8578f", "#56b4e9", "#c44e00", "#e8d437", "#7a828e",
)  # fmt: skip
EXPERTS = (BLUE, ORANGE, GREEN, PINK, SKY, RED, YELLOW, "#4b4b9f", "#7fb069", "#8c564b", GREY, "#c9b6e4")
ROLES = {
    "system": GREY,
    "developer": "#6a51a3",
    "user": BLUE,
    "assistant": GREEN,
    "assistant/analysis": ORANGE,
    "assistant/commentary": PINK,
    "assistant/final": GREEN,
    "tool": RED,
}
SEQUENTIAL = ["#ffffff", "#e3eef8", "#bad6ec", "#84b6dc", "#4f92c7", "#24679f"]
DIVERGING = ["#24679f", "#69a4d1", "#c3dcee", "#ffffff", "#f8cfae", "#e28743", "#a8501b"]

TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": SANS, "size": 12, "color": INK},
        "paper_bgcolor": PAPER,
        "plot_bgcolor": PAPER,
        "colorway": list(EXPERTS),
        "title": {
            "font": {"size": 16},
            "x": 0,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 14, "l": 8},
            "subtitle": {"font": {"size": 12, "color": SOFT}},
        },
        "margin": {"l": 64, "r": 24, "t": 76, "b": 48},
        "xaxis": {
            "showgrid": False,
            "zeroline": False,
            "linecolor": LINE,
            "ticks": "",
            "title": {"standoff": 8, "font": {"size": 12, "color": SOFT}},
        },
        "yaxis": {
            "showgrid": False,
            "zeroline": False,
            "linecolor": LINE,
            "ticks": "",
            "title": {"standoff": 8, "font": {"size": 12, "color": SOFT}},
        },
        "hoverlabel": {"bgcolor": PAPER, "bordercolor": LINE, "font": {"family": SANS, "color": INK}, "align": "left"},
        "hovermode": "closest",
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "title": {"text": ""}},
        "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": LINE, "activecolor": SOFT},
    }
)


def figure(title: str, subtitle: str = "", source: xr.Dataset | xr.DataArray | None = None, **layout) -> go.Figure:
    """An empty figure in our style. ``layout.meta`` says which model and experiment it draws."""
    attrs = {} if source is None else source.attrs
    meta = {key: attrs[key] for key in ("experiment", "model", "fingerprint", "interventions") if attrs.get(key)}
    made = go.Figure(layout={"template": TEMPLATE, "meta": meta, "width": WIDTH, **layout})
    return made.update_layout(title={"text": title, "subtitle": {"text": subtitle}})


def add_scale(made: go.Figure, name: str, right: int = 0) -> None:
    """Name the scale of :func:`scale_bar`, above it. (Plotly sets a title of its own on top of a bar this short.)"""
    font, where = {"size": 11, "color": SOFT}, {"x": 1, "xref": "paper", "xanchor": "right", "y": 1, "yref": "paper"}
    lift = {"yanchor": "top", "yshift": made.layout.margin.t - 10, "xshift": -right}
    made.add_annotation(text=escape(name), font=font, showarrow=False, **where, **lift)


def scale_bar(right: int = 0, **ticks: object) -> dict:
    """A small horizontal colour bar in the upper right corner, where the title's line has room.

    Args:
        right: pixels to stay away from the plot's right edge.
    """
    across = {"orientation": "h", "x": 1, "xanchor": "right", "xref": "paper", "xpad": right, "len": 0.24}
    up = {"y": 1, "yanchor": "top", "yref": "container", "ypad": 28}
    look = {
        "thickness": 9,
        "outlinewidth": 0.5,
        "outlinecolor": LINE,
        "tickfont": {"size": 10, "color": SOFT},
        "ticks": "",
    }
    return {**across, **up, **look, **ticks}


def role_name(role: object, channel: object) -> str:
    """Role and channel in one word, as in ROLES: "user", "assistant/analysis"; "" where neither is known."""
    name = f"{role}/{channel}" if role == "assistant" and channel else str(role or channel)
    return name


def role_colour(name: str) -> str:
    """The colour of a role and channel; grey for one that we do not know."""
    return ROLES.get(name) or ROLES.get(name.split("/")[0], GREY)


def tint(colour: str, strength: float) -> str:
    """A colour mixed with white; strength 1 is the colour itself."""
    red, green, blue = (round(255 - (255 - part) * strength) for part in hex_to_rgb(colour))
    return f"#{red:02x}{green:02x}{blue:02x}"


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" or "rgb(r, g, b)", 0 black to 1 white (WCAG 2.2)."""
    parts = hex_to_rgb(colour) if colour.startswith("#") else [float(part) for part in colour[4:-1].split(",")]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in (part / 255 for part in parts)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def ink_on(colour: str) -> str:
    """Dark or white text, whichever has more contrast on a colour."""
    light = luminance(colour)
    return INK if (light + 0.05) / (luminance(INK) + 0.05) >= 1.05 / (light + 0.05) else PAPER


def written_on(text: str, colour: str) -> str:
    """Markup of a cell's text in the ink that reads on its colour (plotly's own choice is grey on mid-blue)."""
    return f'<span style="color:{ink_on(colour)}">{text}</span>'


def colours(values: Sequence[float] | np.ndarray, scale: Sequence[str], low: float, high: float) -> list[str]:
    """Each value's colour on a scale; that of what is not seen for NaN."""
    span = high - low or 1.0
    shares = np.clip((np.asarray(values, dtype=float) - low) / span, 0, 1)
    known = np.isfinite(shares)
    drawn = iter(sample_colorscale(list(scale), shares[known].tolist()) if known.any() else ())
    return [str(next(drawn)) if there else UNSEEN for there in known]


def as_lists(values: np.ndarray) -> list:
    """Numbers as nested lists: NaN and infinities as None, float32 in its own few digits.

    Plotly would send a numpy array as base64, which widgets echo back and some readers of notebooks cannot show.
    """
    if values.ndim > 1:
        return [as_lists(row) for row in values]
    if values.dtype.kind != "f":
        return values.tolist()
    # str of a float32 is the shortest text that gives the same float32 again.
    return [float(str(value)) if np.isfinite(value) else None for value in values]


def need(data: xr.Dataset, drawn_by: str, *names: str) -> None:
    """Refuse a dataset that another experiment made, or one without a single token.

    Raises:
        ValueError: naming what is missing and which experiment makes it.
    """
    missing = [name for name in names if name not in data]
    if missing:
        found = sorted(map(str, data.data_vars))
        raise ValueError(f"this figure draws what experiments.{drawn_by} returns; there is no {missing} among {found}")
    empty = [name for name in names if 0 in data[name].shape]
    if empty:
        raise ValueError(f"{empty[0]!r} has shape {data[empty[0]].shape}: there is nothing to draw")


def need_label(data: xr.Dataset, dim: str, label: int) -> None:
    """Refuse a layer, or an expert, that a dataset does not have.

    Raises:
        ValueError: naming those that it has.
    """
    there = data.coords[dim].values
    if label not in there:
        raise ValueError(f"{dim}={label}: this dataset has {dim}s {there[0]} to {there[-1]}")


def thinned(n: int, cell: float, smallest: float) -> list[int]:
    """Which of n positions get a tick: all where a cell has room for one, else evenly spaced ones, with air between."""
    step = 1 if cell >= smallest else int(np.ceil(2.4 * smallest / cell))
    return list(range(0, n, step))
