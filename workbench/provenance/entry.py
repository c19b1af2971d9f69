"""One record before it is written: what was at hand when the run ended. What takes longer is done by the writer."""

from __future__ import annotations

import hashlib
import json
import uuid
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LARGEST_VECTOR = 64 * 2**10  # bytes of one vector
LARGEST_PART = 256 * 2**10  # bytes of tokens (compressed), or characters of specs, that are kept
TEXT = 2000  # characters of the prompt that are kept to find a record by
ID_DIGITS = 12


def new_id() -> str:
    """12 random hex digits."""
    return uuid.uuid4().hex[:ID_DIGITS]


@dataclass
class Vector:
    """A vector that a run was given: its bytes, and how to read them."""

    data: bytes
    dtype: str
    shape: tuple[int, ...]

    @property
    def digest(self) -> str:
        """Of the dtype, the shape and the bytes."""
        return hashlib.sha256(f"{self.dtype} {list(self.shape)} ".encode() + self.data).hexdigest()


@dataclass
class Result:
    """Logits as float32 bytes, to be digested.

    ``positions``: None where these are all of them, else how many of ``shape``'s [batch pos] they are.
    """

    data: bytes
    shape: tuple[int, ...]
    positions: int | None = None

    @property
    def digest(self) -> str:
        """SHA-256 of the bytes; says so where they are only part of the logits."""
        found = hashlib.sha256(self.data).hexdigest()
        return found if self.positions is None else f"{found}:{self.positions}"


@dataclass
class Part:
    """One source of a run: another run, by the id of its record, or a vector. Neither: ``why`` says so."""

    record: str | None = None
    vector: Vector | None = None
    why: str | None = None


@dataclass
class Entry:
    """A record that is to be written. Fields are those of :class:`workbench.provenance.record.Record`.

    Attributes:
        decode: gives the prompt's text; called by the writer.
        said: the provenance of the run, which learns the id once the record is on its way.
        values: what :meth:`settle` made of it: the columns of the row.
    """

    kind: str
    started: float
    seconds: float | None = None
    name: str | None = None
    model: str | None = None
    fingerprint: str | None = None
    recipe: Mapping[str, Any] | None = None
    session: str | None = None
    tokens: np.ndarray | None = None
    mask: np.ndarray | None = None
    specs: list[dict[str, Any]] | None = None
    routing: str | None = None
    sources: dict[str, Part] = field(default_factory=dict)
    sites: Any = None
    seed: int | None = None
    result: Result | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    decode: Callable[[], str] | None = None
    said: dict[str, Any] | None = None
    id: str = field(default_factory=new_id)
    values: dict[str, Any] | None = None
    vectors: dict[str, Vector] = field(default_factory=dict)

    @property
    def weight(self) -> int:
        """Bytes that it holds until it is settled."""
        return len(self.result.data) if self.result is not None else 0

    def settle(self) -> dict[str, Any]:
        """Digest, compress and encode; what was large is let go of. The columns of the row."""
        if self.values is None:
            facts = as_json(self.environment)
            self.values = {
                **{name: getattr(self, name) for name in ("id", "kind", "started", "seconds", "name", "model")},
                **{name: getattr(self, name) for name in ("fingerprint", "session", "routing")},
                **self._tokens(),
                "recipe": None if self.recipe is None else as_json(self.recipe),
                "text": self._text(),
                "sources": as_json(self._sources()),
                "specs": self._specs(),
                "sites": as_json(self.sites),
                "seed": None if self.seed is None else str(self.seed),
                "result": None if self.result is None else self.result.digest,
                "summary": as_json(self.summary),
                "about": as_json(self.about),
                "environment": hashlib.sha256(facts.encode()).hexdigest()[:16],
                "facts": facts,
            }
            self.values["missing"] = as_json(self.missing)
            self.result = self.decode = self.tokens = self.mask = None
        return self.values

    def _specs(self) -> str | None:
        if self.specs is None:
            return None
        text = as_json(self.specs)
        if len(text) <= LARGEST_PART:
            return text
        self.missing["specs"] = f"{len(text)} characters of JSON; up to {LARGEST_PART} are kept"
        return None

    def _tokens(self) -> dict[str, Any]:
        if self.tokens is None:
            return dict.fromkeys(("tokens", "shape", "tokens_digest", "mask", "mask_digest"))
        raw = np.ascontiguousarray(self.tokens, "<i4").tobytes()
        packed = zlib.compress(raw, 6 if len(raw) < LARGEST_PART else 1)
        bits = None if self.mask is None else np.packbits(self.mask.astype(bool)).tobytes()
        if len(packed) > LARGEST_PART:
            self.missing["tokens"] = f"{len(packed)} bytes; up to {LARGEST_PART} are kept"
            packed = None
        return {
            "tokens": packed,
            "shape": as_json(list(self.tokens.shape)),
            "tokens_digest": hashlib.sha256(raw).hexdigest(),
            "mask": None if bits is None or packed is None else zlib.compress(bits),
            "mask_digest": None if bits is None else hashlib.sha256(bits).hexdigest(),
        }

    def _sources(self) -> dict[str, Any]:
        made = {}
        for name, part in self.sources.items():
            if part.vector is None:
                made[name] = {"record": part.record} if part.record else {"why": part.why}
                continue
            vector = part.vector
            made[name] = {"vector": vector.digest, "dtype": vector.dtype, "shape": list(vector.shape)}
            if len(vector.data) <= LARGEST_VECTOR:
                self.vectors[vector.digest] = vector
            else:
                self.missing[f"source {name!r}"] = f"{len(vector.data)} bytes; up to {LARGEST_VECTOR} are kept"
        self.sources = {}
        return made

    def _text(self) -> str | None:
        if self.decode is None:
            return None
        return self.decode()[:TEXT].encode("utf-8", "backslashreplace").decode()  # half a surrogate pair is no UTF-8


def as_json(value: Any) -> str:
    """Compact JSON; what JSON does not know, by its ``str``."""
    return json.dumps(value, separators=(",", ":"), default=_plain)


def _plain(value: Any) -> Any:
    try:
        return value.item()  # one number of numpy or torch
    except (AttributeError, ValueError, RuntimeError):
        return str(value)
