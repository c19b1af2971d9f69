"""One record, as it is read."""

from __future__ import annotations

import hashlib
import math
import sqlite3
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from workbench.provenance.row import blob, checked, named, sizes_of
from workbench.provenance.schema import RecordsError

if TYPE_CHECKING:
    from workbench.provenance.records import Records


@runtime_checkable
class Maker(Protocol):
    """Who makes runs again from records. It knows torch; what reads records does not."""

    def reload(self, record: Record, model: Any, sources: Mapping[str, Any]) -> Any:
        """The run once more."""
        ...

    def code(self, record: Record) -> str:
        """The Python that makes it."""
        ...

    def vector(self, data: bytes, dtype: str, shape: tuple[int, ...]) -> Any:
        """A kept vector as a tensor."""
        ...

    def divergence(self, one: Any, other: Any) -> tuple[np.ndarray | None, str]:
        """KL(one ‖ other) [batch pos] of two runs in nats; or None, and why there is none."""
        ...


@dataclass(frozen=True, repr=False)
class Record:
    """What a run, a sweep or an atlas left behind.

    Attributes:
        id: 12 hex digits; ``run.provenance["record"]`` of the run that left it.
        kind: "run", "sweep", "atlas", …
        name: as it was given to the run.
        model: the model's name.
        fingerprint: of its weights.
        recipe: what ``wb.load`` loads it by: path, dtype, device, experts; None for one made by hand.
        started: when.
        seconds: how long it took; None for one that is under way or was killed.
        session: the process: runs of one notebook session have it in common.
        versions: of Python, workbench, torch and others.
        machine: system, processor, cores, memory in bytes, and threads, engine, device of the run.
        notebook: the file, if a kernel said which.
        shape: of the tokens, [batch pos].
        tokens_digest: SHA-256 of the tokens as little-endian int32.
        mask_digest: SHA-256 of the attention mask's packed bits; None without one.
        text: the beginning of the prompt.
        specs: the interventions as plain data.
        routing: "live", or what was taken from the source "routing_from".
        sources: by name, ``{"record": id}`` or ``{"vector": digest, …}``.
        sites: what was asked to be kept: None, "all", a name or several.
        seed: torch's, when the run began (a run itself draws no numbers).
        result: SHA-256 of the logits as float32; with ``:n`` at the end, of n positions evenly spaced of more than
            8 MB of them.
        summary: mean KL, share of routes flipped, likeliest next tokens; of a sweep, what it noted.
        about: more of what it was given.
        missing: what was too large to be kept, and how large it was.
        pinned: whether it is kept whatever its age.
    """

    id: str
    kind: str
    name: str | None
    model: str | None
    fingerprint: str | None
    recipe: dict[str, Any] | None
    started: datetime
    seconds: float | None
    session: str | None
    versions: dict[str, str]
    machine: dict[str, Any]
    notebook: str | None
    shape: tuple[int, ...] | None
    tokens_digest: str | None
    mask_digest: str | None
    text: str | None
    specs: list[dict[str, Any]]
    routing: str | None
    sources: dict[str, dict[str, Any]]
    sites: Any
    seed: int | None
    result: str | None
    summary: dict[str, Any]
    about: dict[str, Any]
    missing: dict[str, str]
    pinned: bool
    _tokens: bytes | None = field(default=None, compare=False)
    _mask: bytes | None = field(default=None, compare=False)
    _records: Records | None = field(default=None, compare=False)

    @property
    def tokens(self) -> np.ndarray:
        """[batch pos], int64.

        Raises:
            RecordsError: they were too many to be kept, or are not those that the digest is of.
        """
        if self.shape is None or self._tokens is None:
            why = self.missing.get("tokens", f"a {self.kind} has none of its own")
            raise RecordsError(f"record {self.id} has no tokens: {why}")
        raw = self._unpacked(self._tokens, 4 * math.prod(self.shape))
        if hashlib.sha256(raw).hexdigest() != self.tokens_digest:
            raise RecordsError(f"the tokens of record {self.id} are damaged: they are not those of its digest")
        return np.frombuffer(raw, "<i4").reshape(self.shape).astype(np.int64)

    @property
    def attention_mask(self) -> np.ndarray | None:
        """[batch pos], true for real tokens; None where all are."""
        if self._mask is None or self.shape is None:
            return None
        n = math.prod(self.shape)
        bits = np.frombuffer(self._unpacked(self._mask, -(-n // 8)), np.uint8)
        return np.unpackbits(bits, count=n).reshape(self.shape).astype(bool)

    def _unpacked(self, packed: bytes, n: int) -> bytes:
        """At most as much as there should be: what is in a file need not be what we put there."""
        try:
            raw = zlib.decompressobj().decompress(packed, n + 1)
        except zlib.error as error:
            raise RecordsError(f"record {self.id} is damaged: {error}") from None
        if len(raw) != n:
            raise RecordsError(f"record {self.id} is damaged: {len(raw)} bytes where {n} belong")
        return raw

    def vector(self, name: str) -> Any:
        """A vector that the run was given, as a tensor.

        Raises:
            RecordsError: there is none of this name, or it was too large to be kept.
        """
        found = self.sources.get(name, {})
        if "vector" not in found:
            vectors = sorted(each for each, source in self.sources.items() if "vector" in source)
            raise RecordsError(f"record {self.id} has no vector {name!r}; it has {vectors}")
        records = self._from()
        if not isinstance(found["vector"], str):
            raise RecordsError(f"the vector {name!r} of record {self.id} has no digest: the file is damaged")
        row = records._one("SELECT data, dtype, shape FROM vectors WHERE digest=?", (found["vector"],))
        if row is None:
            why = self.missing.get(f"source {name!r}", "it is no longer there")
            raise RecordsError(
                f"the vector {name!r} of record {self.id} was not kept: {why}. Give it yourself: "
                f"record.reload(sources={{{name!r}: vector}})"
            )
        data, dtype, shape = row
        sizes = sizes_of(shape)
        if not isinstance(data, bytes) or not isinstance(dtype, str) or sizes is None:
            raise RecordsError(f"the vector {name!r} of record {self.id} is damaged: {dtype!r:.40} of {shape!r:.40}")
        return records.maker.vector(data, dtype, sizes)

    def code(self) -> str:
        """The Python that makes the run again, with its model and its sources.

        Raises:
            RecordsError: for what is no run, or has parts that were too large to be kept.
        """
        return self._from().maker.code(self)

    def reload(self, model: Any = None, sources: Mapping[str, Any] | None = None) -> Any:
        """The run, made again: its model is loaded by its recipe, its source runs are made again from their records.

        ``run.provenance["reproduced"]`` is 1 if the logits are the very bits of the record, else 0, and a warning says
        which versions and which of the machine's facts are others now. (A number, for datasets are stored with it.)

        Args:
            model: the model, if it is at hand, or was not loaded by ``wb.load``.
            sources: in the place of those recorded, as for a vector that was too large to be kept.

        Raises:
            RecordsError: for what is no run, a part that was not kept, a source that is no longer there, or a model
                with another fingerprint than the record's.
        """
        return self._from().maker.reload(self, model, dict(sources or {}))

    def _from(self) -> Records:
        if self._records is None:
            raise RecordsError(f"record {self.id} comes from no store; take it from wb.records()")
        return self._records

    def __repr__(self) -> str:
        from workbench.provenance.table import described

        return described(self)


def read(row: sqlite3.Row, records: Records) -> Record:
    """A row of the file as a record. Each column is of the type that we write, or the record is refused: what is in a
    file need not be what we put there, and parts of it become Python in ``code``.

    Raises:
        RecordsError: it is damaged.
    """
    try:
        return Record(**checked(row), _tokens=blob(row, "tokens"), _mask=blob(row, "mask"), _records=records)
    except (ValueError, TypeError, AttributeError, OverflowError, OSError, IndexError, RecursionError) as error:
        why = str(error)[:300].encode("utf-8", "backslashreplace").decode()
        raise RecordsError(f"record {named(row)} is damaged: {type(error).__name__} {why}") from None
