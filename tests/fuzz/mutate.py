"""Valid files, damaged: bytes turned, cut and pasted; JSON trees with other values, keys, types and depths."""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any

# JSON that no Python value is written as: put in by name, and written out at the end.
RAW = {
    "inf": "1e999",
    "nan": "NaN",
    "minus inf": "-Infinity",
    "long": "9" * 5000,
    "deep": "[" * 3000 + "]" * 3000,
    "deeper": "[" * 100_000 + "]" * 100_000,
    "deep objects": '{"a":' * 900 + "1" + "}" * 900,
    "deep enough": "[" * 480 + "]" * 480,
    "half": '"\\ud800"',
    "nul": '"a\\u0000b"',
    "twice": '{"a": 1, "a": 2}',
    "no JSON": "'a'",
    "many": "[" + "0," * 20_000 + "0]",
}
_SIMPLE = (None, True, False, 0.0, -0.0, 0.5, 1.5, 1e-320, 1e16, 1e300, 1e308, -1e308)
_WHOLE = (
    0,
    1,
    -1,
    2,
    3,
    7,
    255,
    2**31 - 1,
    2**31,
    2**32,
    2**53 + 1,
    2**63 - 1,
    2**63,
    -(2**63),
    2**64,
    10**30,
    10**400,
)
_WORDS = ("", " ", "\0", "\n", "\u202e", "\ufeff", "🙂" * 50, "a" * 100_000, "<img src=x onerror=alert(1)>")
_PLAIN = "a 0 1 -1 é ../../x /etc/passwd C:\\x ..\\x con file:///etc/passwd __class__ {0.__class__} %s%n None true nan"
_HOLDERS = ([], {}, [[]], [None], [0, 0], [1, 2, 3], {"a": 1}, ["a"], [True], [-1], [1.0])
SCALARS: tuple[Any, ...] = (*_SIMPLE, *_WHOLE, *_WORDS, *_PLAIN.split(), *_HOLDERS)
NUMBERS = (b"\0" * 8, b"\xff" * 8, (2**31).to_bytes(8, "little"), (2**62).to_bytes(8, "little"), b"\1" + b"\0" * 7)


def bytes_of(rng: Random, data: bytes, times: int | None = None) -> bytes:
    """Some bytes changed."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8)) if times is None else times):
        at, n = rng.randrange(len(made) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(9)
        if kind == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif kind == 1 and made:
            made[at % len(made)] = rng.randrange(256)
        elif kind == 2:
            del made[at:]
        elif kind == 3:
            del made[at : at + n]
        elif kind == 4:
            made[at:at] = rng.randbytes(n)
        elif kind == 5:
            start = rng.randrange(len(made) + 1)
            made[at:at] = made[start : start + n]
        elif kind == 6:
            made[at : at + 8] = rng.choice(NUMBERS)
        elif kind == 7:
            made[at:at] = rng.choice(
                (b"\xff\xfe", b"\0", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"[" * 2000, b'"', b"}", b",")
            )
        else:
            first = rng.randrange(min(16, len(made) + 1))
            made[first : first + 8] = rng.choice(NUMBERS)
    return bytes(made)


def tree_of(rng: Random, value: Any, times: int | None = None) -> str:
    """JSON text of a tree with some of it changed."""
    made = json.loads(json.dumps(value))
    for _ in range(rng.choice((1, 1, 1, 2, 3)) if times is None else times):
        made = _changed(rng, made)
    text = json.dumps(made, ensure_ascii=rng.random() < 0.8)
    text = re.sub(r'"@raw ([a-zJSON ]+)@"', lambda found: RAW.get(found[1], '""'), text)
    if rng.random() < 0.03:
        text = _key_twice(rng, text)
    return text


def value(rng: Random) -> Any:
    """Something that was not expected."""
    return f"@raw {rng.choice(list(RAW))}@" if rng.random() < 0.2 else copy.deepcopy(rng.choice(SCALARS))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    found, left = [], [tree]
    while left:
        node = left.pop()
        entries = (
            list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
        )
        for key, child in entries:
            found.append((node, key))
            left.append(child)
    return found


def _changed(rng: Random, tree: Any) -> Any:
    places = _places(tree)
    if not places or rng.random() < 0.02:
        return value(rng)
    node, key = rng.choice(places)
    kind = rng.randrange(10)
    if kind < 4:
        node[key] = value(rng)
    elif kind == 4:
        del node[key]
    elif kind == 5:
        node[key] = _near(rng, node[key])
    elif kind == 6:
        other, its = rng.choice(places)
        node[key] = json.loads(json.dumps(other[its])) if len(json.dumps(other[its])) < 10_000 else 0
    elif kind == 7 and isinstance(node, dict):
        node[_spelled(rng, key)] = node.pop(key)
    elif kind == 8 and isinstance(node, dict):
        node[rng.choice(("", "x", "\0", "kind", "__class__", "\ud800", "a" * 300))] = value(rng)
    else:
        node[key] = rng.choice(([node[key]], {"a": node[key]}, [node[key]] * 2, str(node[key])[:200]))
    return tree


def _near(rng: Random, given: Any) -> Any:
    if isinstance(given, bool):
        return not given
    if isinstance(given, int):
        return rng.choice((given + 1, given - 1, -given, given * 2, float(given % 2**60), given * 10**9, given + 2**32))
    if isinstance(given, float):
        return rng.choice((-given, given * 1e300, given / 1e300, int(given) if abs(given) < 1e9 else 0, given + 1))
    if isinstance(given, str):
        return rng.choice((given.upper(), given[::-1], given + "x", given[:-1], given * 2, f" {given}", given + "\0"))
    if isinstance(given, list):
        return rng.choice(
            (
                given[::-1],
                given[:-1],
                given + given[:1],
                given * 3 if len(given) < 100 else given,
                dict.fromkeys("ab", given),
            )
        )
    return None


def _spelled(rng: Random, key: str) -> str:
    return rng.choice((key.upper(), key + " ", key[:-1], f"_{key}", key[::-1]))


def _key_twice(rng: Random, text: str) -> str:
    keys = list(re.finditer(r'"[^"\\]{1,40}":', text))
    if not keys:
        return text
    found = rng.choice(keys)
    return (
        text[: found.start()] + found[0] + " " + rng.choice(("1", "null", "[]", '"x"')) + ", " + text[found.start() :]
    )
