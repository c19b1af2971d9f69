"""What a notebook's figures hold: found in its outputs, and looked at for numbers."""

import base64
from collections.abc import Iterator
from typing import Any

import numpy as np

PLOTLY, PNG = "application/vnd.plotly.v1+json", "image/png"
COORDINATES = ("x", "y", "z", "values", "r", "theta", "a", "b")


def figures(notebook: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each plotly figure that a notebook shows, after the place where it stands."""
    for i, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            drawn = output.get("data", {}).get(PLOTLY)
            if drawn is not None:
                title = drawn.get("layout", {}).get("title", {})
                yield f"cell {i + 1}: {title.get('text', '') if isinstance(title, dict) else title}", drawn


def is_empty(figure: dict[str, Any]) -> bool:
    """Whether no trace of a figure draws a number."""
    return not any(draws(trace) for trace in figure.get("data", []))


def is_infinite(figure: dict[str, Any]) -> bool:
    """Whether a trace holds ±∞, which no axis can show. (NaN is a gap, which may be meant.)"""
    return any(np.isinf(values).any() for trace in figure.get("data", []) for values in numbers(trace))


def draws(trace: dict[str, Any]) -> bool:
    """Whether a trace has a finite number; a legend's stand-in has none."""
    return any(np.isfinite(values).any() for values in numbers(trace))


def numbers(trace: dict[str, Any]) -> Iterator[np.ndarray]:
    """The numbers along each of a trace's axes; words are numbered, as plotly does."""
    for name in COORDINATES:
        values = decoded(trace.get(name))
        if values is not None and values.size:
            yield values


def decoded(values: Any) -> np.ndarray | None:
    """Numbers as plotly stores them: a list, a nest of lists, or bytes."""
    if isinstance(values, dict) and "bdata" in values:
        return np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"]).astype(float)
    if not isinstance(values, (list, tuple)):
        return None
    flat = list(flattened(values))
    return np.array([np.nan if each is None else each if isinstance(each, (int, float)) else 0.0 for each in flat])


def flattened(values: Any) -> Iterator[Any]:
    for each in values:
        if isinstance(each, (list, tuple)):
            yield from flattened(each)
        else:
            yield each
