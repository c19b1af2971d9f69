"""Whether an answer is the right one; and if not, how it differs, in words with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from numbers import Number
from typing import Any

import numpy as np

Compare = Callable[[Any, Any], str | None]


def close(rtol: float = 1e-4, atol: float = 1e-5) -> Compare:
    """Numbers, arrays, tensors, and nests of them, up to rounding: |given − expected| ≤ atol + rtol · |expected|."""

    def compare(given: Any, expected: Any) -> str | None:
        return _differ(given, expected, rtol, atol, "")

    return compare


def equal() -> Compare:
    """Exactly the same: token ids, strings, lists of them."""

    def compare(given: Any, expected: Any) -> str | None:
        return _differ(given, expected, 0.0, 0.0, "")

    return compare


def same_set() -> Compare:
    """The same members in any order."""

    def compare(given: Any, expected: Any) -> str | None:
        if not hasattr(given, "__iter__"):
            return f"expected a collection of {len(list(expected))} members, you gave {brief(given)}"
        ours, theirs = set(_members(expected)), set(_members(given))
        missing, extra = sorted(ours - theirs, key=str), sorted(theirs - ours, key=str)
        if not missing and not extra:
            return None
        return "; ".join(
            f"{what}: {', '.join(str(each) for each in some[:5])}{' …' if len(some) > 5 else ''}"
            for what, some in (("missing", missing), ("too many", extra))
            if some
        )

    return compare


def as_array(value: Any) -> np.ndarray | None:
    """A number, tensor, array or labelled array as numpy; None for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().float() if value.is_floating_point() else value.detach()
        return value.cpu().numpy()
    if isinstance(value, (bool, np.ndarray, Number, np.generic)):
        return np.asarray(value)
    if hasattr(value, "dims") and hasattr(value, "values") and not callable(value.values):
        return np.asarray(value.values)
    return None


def _members(values: Any) -> list[Any]:
    return [
        tuple(each) if isinstance(each, list) else getattr(each, "item", lambda each=each: each)() for each in values
    ]


def _differ(given: Any, expected: Any, rtol: float, atol: float, where: str) -> str | None:
    """How they differ; None where they do not."""
    right = as_array(expected)
    if right is not None:
        return _arrays(given, right, rtol, atol, where)
    if isinstance(expected, Mapping):
        return _mappings(given, expected, rtol, atol, where)
    if isinstance(expected, (list, tuple)):
        return _sequences(given, expected, rtol, atol, where)
    if isinstance(expected, (set, frozenset)):
        return same_set()(given, expected)
    if type(given) is not type(expected) and not (isinstance(given, str) and isinstance(expected, str)):
        return f"{where}expected {_kind(expected)}, you gave {_kind(given)}"
    return None if given == expected else f"{where}expected {brief(expected)}, you gave {brief(given)}"


def _arrays(given: Any, right: np.ndarray, rtol: float, atol: float, where: str) -> str | None:
    left = as_array(given)
    if left is None and isinstance(given, (list, tuple)) and right.ndim:
        try:
            left = np.asarray([as_array(each) for each in given], dtype=float)
        except (TypeError, ValueError):
            left = None
    if left is None or left.dtype == object:
        return f"{where}expected {_kind(right)}, you gave {_kind(given)}"
    if left.shape != right.shape:
        return f"{where}expected shape {right.shape}, you gave {left.shape}"
    if right.dtype.kind in "US" or left.dtype.kind in "US":
        same = left == right
    else:
        same = np.isclose(left, right, rtol=rtol, atol=atol, equal_nan=True)
    if np.all(same):
        return None
    if not right.ndim:
        return f"{where}expected {_number(right)}, you gave {_number(left)}"
    first = tuple(int(i) for i in np.argwhere(~same)[0])
    n = int((~np.asarray(same)).sum())
    at = ", ".join(str(i) for i in first)
    return (
        f"{where}{n} of {right.size} numbers differ; first at [{at}]: "
        f"expected {_number(right[first])}, you gave {_number(left[first])}"
    )


def _mappings(given: Any, expected: Mapping[Any, Any], rtol: float, atol: float, where: str) -> str | None:
    if not isinstance(given, Mapping):
        return f"{where}expected {_kind(expected)}, you gave {_kind(given)}"
    if missing := [name for name in expected if name not in given]:
        return f"{where}missing {missing[0]!r}"
    if extra := [name for name in given if name not in expected]:
        return f"{where}{extra[0]!r} is too much"
    parts = (_differ(given[name], value, rtol, atol, f"{where}{name}: ") for name, value in expected.items())
    return next(filter(None, parts), None)


def _sequences(given: Any, expected: Any, rtol: float, atol: float, where: str) -> str | None:
    if (left := as_array(given)) is not None and left.ndim:
        given = left.tolist()
    if not isinstance(given, (list, tuple)):
        return f"{where}expected {_kind(expected)}, you gave {_kind(given)}"
    if len(given) != len(expected):
        return f"{where}expected {len(expected)} members, you gave {len(given)}: {brief(given)}"
    pairs = enumerate(zip(given, expected, strict=True))
    parts = (_differ(mine, value, rtol, atol, f"{where}[{i}] ") for i, (mine, value) in pairs)
    return next(filter(None, parts), None)


def _number(value: Any) -> str:
    value = np.asarray(value)
    if value.dtype.kind == "f":
        return f"{float(value):.5g}"
    return str(value.item())


def brief(value: Any, most: int = 80) -> str:
    """A value in at most so many characters."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 1] + "…"


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"numbers of shape {value.shape}" if value.ndim else f"a number ({_number(value)})"
    if isinstance(value, (list, tuple, dict, set)):
        return f"a {type(value).__name__} of {len(value)}"
    return "nothing (None)" if value is None else f"a {type(value).__name__} ({brief(value, 40)})"
