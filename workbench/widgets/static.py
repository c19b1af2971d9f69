"""HTML without scripts: what a view looks like where no kernel and no browser script runs. All text is escaped."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import UInt8
from plotly.colors import hex_to_rgb

from workbench.figures.style import INK, LINE, MONO, SANS, SOFT, colours, ink_on, role_colour, tint
from workbench.widgets.names import spelled

MOST_CELLS = 600  # of a grid that is written as a table; larger ones are pictures
_FONT = f"font:12px {SANS.replace(chr(34), chr(39))};color:{INK}"


def document(title: str, body: str) -> str:
    """A whole page, for a file of its own."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{text(title)}</title>'
        f'<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; style-src '
        f"'unsafe-inline'\"></head>"
        f'<body style="margin:24px;background:#fff">{body}</body></html>'
    )


def text(given: object) -> str:
    """Any text as HTML that shows just that text: characters that cannot be seen, or turn others around, by number."""
    return escape(spelled(str(given)), quote=True)


def share(value: float | np.floating, digits: int = 2) -> str:
    """A share or a weight. What is nearly 0 or 1, and would be rounded to it, has a sign that says so."""
    said = f"{value:.{digits}f}"
    for whole in (0, 1):
        if float(said) == whole:
            return str(whole) if value == whole else f"≈{whole}"
    return said


def section(title: str, *parts: str) -> str:
    """A titled part of a page."""
    head = f'<div style="font-weight:600;margin:12px 0 4px">{text(title)}</div>'
    return f'<div style="{_FONT}">{head}{"".join(parts)}</div>'


def note(words: str) -> str:
    """A quiet line."""
    return f'<div style="color:{SOFT};margin:2px 0">{text(words)}</div>'


def table(headers: Sequence[str], rows: Sequence[Sequence[object]], most: int = 50) -> str:
    """A table; rows beyond ``most`` are counted, not shown."""
    style = f"border-bottom:1px solid {LINE};padding:2px 8px;text-align:left"
    head = "".join(f'<th style="{style}">{text(name)}</th>' for name in headers)
    body = "".join(
        "<tr>" + "".join(f'<td style="{style}"><bdi>{text(cell)}</bdi></td>' for cell in row) + "</tr>"
        for row in rows[:most]
    )
    more = note(f"… and {len(rows) - most} more rows") if len(rows) > most else ""
    return f'<table style="border-collapse:collapse;{_FONT}"><tr>{head}</tr>{body}</table>{more}'


def strip(
    tokens: Sequence[str], fills: Sequence[str] | None = None, titles: Sequence[str] = (), most: int = 600
) -> str:
    """Tokens in a row, each on its colour; those beyond ``most`` are counted, not shown."""
    spans = []
    for i, token in enumerate(tokens[:most]):
        fill = fills[i] if fills is not None else "#ffffff"
        hint = f' title="{text(titles[i])}"' if i < len(titles) else ""
        style = f"background:{fill};color:{ink_on(fill)};padding:1px 2px;margin:1px;border-radius:2px"
        spans.append(f'<span style="{style}"{hint}><bdi>{text(token)}</bdi></span>')
    more = note(f"… and {len(tokens) - most} more tokens") if len(tokens) > most else ""
    return f'<div style="font:12px {MONO.replace(chr(34), chr(39))};line-height:1.9">{"".join(spans)}</div>{more}'


def role_fills(roles: Sequence[str]) -> list[str]:
    """The quiet colour of each token's role."""
    return [tint(role_colour(role), 0.22) if role else "#f1f3f5" for role in roles]


def grid(
    values: np.ndarray,
    scale: Sequence[str],
    low: int | float,
    high: int | float,
    rows: Sequence[str],
    columns: Sequence[str],
    name: str,
    written: np.ndarray | None = None,
) -> str:
    """A heat map: a table where it is small, else a picture.

    Args:
        values: (row, column); NaN is left grey.
        scale: colours from ``low`` to ``high``.
        name: what it shows, for those who do not see it.
        written: words in the cells.
    """
    low, high = float(low), float(high)
    fills = colours(np.nan_to_num(values, nan=low).clip(low, high).ravel(), scale, low, high)
    shape = values.shape
    if values.size > MOST_CELLS:
        rgb = np.array([_rgb(fill) for fill in fills], np.uint8).reshape(*shape, 3)
        rgb[~np.isfinite(values)] = 225
        said = f"{name}: {shape[0]} rows by {shape[1]} columns, {low:.3g} to {high:.3g}"
        return picture(rgb, said) + note(said)
    return _small(values, np.array(fills).reshape(shape), rows, columns, name, written)


def _rgb(colour: str) -> tuple[int, ...]:
    parts = hex_to_rgb(colour) if colour.startswith("#") else colour[4:-1].split(",")
    return tuple(round(float(part)) for part in parts)


def _small(
    values: np.ndarray, fills: np.ndarray, rows: Sequence[str], columns: Sequence[str], name: str, written: object
) -> str:
    cell = "padding:2px 5px;text-align:center;max-width:90px;overflow:hidden;white-space:nowrap"
    head = "".join(f'<th style="{cell};color:{SOFT};font-weight:400"><bdi>{text(each)}</bdi></th>' for each in columns)
    lines = []
    for r, label in enumerate(rows):
        cells = []
        for c in range(values.shape[1]):
            fill = str(fills[r, c]) if np.isfinite(values[r, c]) else "#e1e4e8"
            said = written[r, c] if isinstance(written, np.ndarray) else f"{values[r, c]:.2g}"
            cells.append(f'<td style="{cell};background:{fill};color:{ink_on(fill)}"><bdi>{text(said)}</bdi></td>')
        side = f'<th style="{cell};color:{SOFT};font-weight:400"><bdi>{text(label)}</bdi></th>'
        lines.append(f"<tr>{side}{''.join(cells)}</tr>")
    style = f"border-collapse:collapse;{_FONT};font-size:11px"
    caption = f'<caption style="text-align:left">{text(name)}</caption>'
    return f'<table style="{style}">{caption}<tr><th></th>{head}</tr>{"".join(lines)}</table>'


def picture(rgb: UInt8[np.ndarray, "row column channel"], alt: str, width: int = 720) -> str:
    """Pixels as an image in the page, enlarged without smoothing."""
    height = max(round(width * rgb.shape[0] / max(rgb.shape[1], 1)), 1)
    height = min(max(height, 4 * rgb.shape[0]), 480)
    data = base64.b64encode(png(rgb)).decode()
    style = "image-rendering:pixelated;display:block;margin:4px 0"
    return (
        f'<img alt="{text(alt)}" width="{width}" height="{height}" style="{style}" src="data:image/png;base64,{data}">'
    )


def png(rgb: UInt8[np.ndarray, "row column channel"]) -> bytes:
    """Pixels as a PNG file (W3C PNG, third edition: 8 bit, RGB, no filter)."""
    height, width, _ = rgb.shape
    lines = b"".join(b"\0" + line.tobytes() for line in np.ascontiguousarray(rgb, np.uint8))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 6)) + chunk(b"IEND", b"")
