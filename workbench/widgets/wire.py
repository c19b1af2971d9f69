"""Messages between Python and the browser: JSON for words, binary buffers for numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

Arrays = Mapping[str, np.ndarray]
_KINDS = {"f": np.float32, "i": np.int32, "b": np.uint8}


def packed(arrays: Arrays) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """Arrays as the browser reads them: a description of each, and its bytes, row-major, little-endian.

    Floats go as float32, whole numbers as int32 (uint8 and uint16 as they are), truth values as uint8.

    Raises:
        TypeError: for anything else.
    """
    described, buffers = [], []
    for name, values in arrays.items():
        made = _plain(name, np.asarray(values))
        described.append({"name": name, "dtype": made.dtype.name, "shape": list(made.shape)})
        buffers.append(made.data.cast("B") if made.size else memoryview(b""))
    return described, buffers


def _plain(name: str, values: np.ndarray) -> np.ndarray:
    if values.dtype.kind == "u" and values.dtype.itemsize <= 2:
        kind = values.dtype
    elif values.dtype.kind == "u":
        kind = np.dtype(np.int32)
    elif values.dtype.kind in _KINDS:
        kind = np.dtype(_KINDS[values.dtype.kind])
    else:
        raise TypeError(f"array {name!r} has dtype {values.dtype}: expected numbers")
    return np.ascontiguousarray(values, dtype=kind.newbyteorder("<"))


def clean(value: Any) -> Any:
    """JSON without NaN or infinities (null in their place), numpy's own numbers, or halves of a surrogate pair."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, np.ndarray):
        return clean(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, str) and not value.isascii():
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value
