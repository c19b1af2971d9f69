"""Vectors out of files that a user gives."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from safetensors.numpy import load

from workbench.figures.text import visible

LARGEST = 4_000_000  # bytes of a file
LONGEST_NAME = 60


def from_file(name: str, content: str, d_model: int) -> list[float]:
    """The vector in a file that a user gives: .safetensors, .npy or .json.

    Args:
        content: the file, in base64.

    Raises:
        ValueError: for a file that is too large, of another kind, or holds anything else than one vector of d_model
            finite numbers. Nothing in it is executed.
    """
    shown, ending = visible(name, LONGEST_NAME), name.rsplit(".", 1)[-1].lower()
    readers = {"safetensors": _safetensors, "npy": _npy, "json": _json}
    if ending not in readers:
        raise ValueError(f"{shown}: expected a .safetensors, .npy or .json file")
    if not isinstance(content, str) or len(content) > LARGEST * 4 / 3 + 4:
        raise ValueError(f"{shown} is larger than {LARGEST:,} bytes, too large for a vector of {d_model} numbers")
    try:
        found = readers[ending](base64.b64decode(content, validate=True), d_model)
        values = np.asarray(found, np.float64).reshape(-1)
    except binascii.Error:
        raise ValueError(f"{shown} did not arrive whole; open it again") from None
    except Exception as error:  # whatever a reader meets in a file that is not what its name says
        raise ValueError(f"{shown} holds no vector that can be read: {visible(str(error), 300)}") from None
    if values.size != d_model:
        raise ValueError(f"{shown} holds {values.size} numbers: this model's d_model is {d_model}")
    with np.errstate(over="ignore"):
        values = values.astype(np.float32)
    if not np.isfinite(values).all() or not values.any():
        raise ValueError(f"{shown}: expected finite numbers of float32, not all of them 0")
    return [float(f"{value:.9g}") for value in values]


def _npy(content: bytes, d_model: int) -> Any:
    file = io.BytesIO(content)
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > len(content):  # before room is made for it
        raise ValueError(f"the array says it has the shape {shape}, and the file has {len(content)} bytes")
    return _real(np.load(io.BytesIO(content), allow_pickle=False), "the array")


def _safetensors(content: bytes, d_model: int) -> Any:
    tensors = load(content)
    if "vector" in tensors:  # as SteeringVector.save writes it
        return _real(tensors["vector"], "'vector'")
    fitting = [name for name, array in tensors.items() if array.size == d_model]
    if len(fitting) != 1:
        there = ", ".join(f"{visible(name, 40)} {array.shape}" for name, array in list(tensors.items())[:8])
        raise ValueError(
            f"expected one tensor of {d_model} numbers, or one named 'vector'; there are {there or 'none'}"
        )
    return _real(tensors[fitting[0]], repr(fitting[0]))


def _real(array: np.ndarray, name: str) -> np.ndarray:
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} holds {array.dtype}, expected real numbers")
    return array


def _json(content: bytes, d_model: int) -> Any:
    found = json.loads(content.decode("utf-8"))
    if isinstance(found, Mapping):
        found = found.get("vector", found.get("values"))
    if not isinstance(found, list) or not all(type(value) in (int, float) for value in found):
        raise ValueError("expected a list of numbers, or an object with one under 'vector'")
    return found
