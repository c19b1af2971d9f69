"""What is kept of one run so that others can run on from the middle of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.model.config import Config
from workbench.model.state import IndexWeights, Pass, Prefix, Prefixes, of_rows


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """What of one run is needed to run on from any of its layers and positions.

    Made by ``model.record``. Resuming reads it and never writes into it, so one recording serves any number of runs.

    Attributes:
        config: of the model that was recorded.
        tokens: [batch pos].
        attention_mask: [batch pos], or None where every token is real.
        streams: layer → [batch pos d_model], the residual stream as it entered the layer, before any edit there;
            ``n_layers`` → the last one, which the final norm reads.
        keys: layer → [batch pos kv_head d_head], rotated to their positions; every column, on sliding layers too.
        values: layer → [batch pos kv_head d_head].
        owner: id of the model that was recorded, which alone can go on from it; None where that is not known (a
            recording that came from another process).
    """

    config: Config
    tokens: Int[Tensor, "batch pos"]
    attention_mask: Bool[Tensor, "batch pos"] | None
    streams: Mapping[int, Float[Tensor, "batch pos d_model"]]
    keys: Mapping[int, Float[Tensor, "batch pos kv_head d_head"]]
    values: Mapping[int, Float[Tensor, "batch pos kv_head d_head"]]
    owner: int | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "owner": None}  # an id means nothing elsewhere

    @property
    def n_bytes(self) -> int:
        """Bytes of all that it holds."""
        held = [self.tokens, *self.streams.values(), *self.keys.values(), *self.values.values()]
        held += [] if self.attention_mask is None else [self.attention_mask]
        return sum(t.numel() * t.element_size() for t in held)

    @cached_property
    def positions(self) -> Int[Tensor, "#batch pos"]:
        """The position of each token, counting real tokens only, as the run had them."""
        if self.attention_mask is None:
            return torch.arange(self.tokens.shape[1], device=self.tokens.device)[None]
        return self.attention_mask.long().cumsum(1) - 1

    def __repr__(self) -> str:
        layers = sorted(self.streams)
        return (
            f"Recording({self.config.name}, tokens {tuple(self.tokens.shape)}, to resume from {len(layers)} layers, "
            f"{layers[0]} to {layers[-1]}; {self.n_bytes:,} bytes)"
        )


@dataclass(frozen=True)
class Branch:
    """Where a run leaves a recording: at a layer and a column; ``rows`` are the recorded rows that it goes on from."""

    recording: Recording
    layer: int
    column: int
    rows: tuple[int, ...]

    @property
    def stream(self) -> Float[Tensor, "batch pos d_model"]:
        """What entered the layer, from the column on."""
        return of_rows(self.recording.streams[self.layer][:, self.column :], self.rows)

    @property
    def mask(self) -> Bool[Tensor, "batch pos"] | None:
        """Real tokens of each row, from its start."""
        mask = self.recording.attention_mask
        return None if mask is None else of_rows(mask, self.rows)

    def begin(self, stop: int, index_weights: IndexWeights) -> Pass:
        """The pass through the layers before ``stop``: queries from this column on, keys from before it too."""
        positions, mask = self.recording.positions, self.mask
        if mask is not None:
            positions = of_rows(positions, self.rows)
        here = slice(self.column, None)
        this = Pass(positions[:, here], positions, None if mask is None else mask[:, here], mask, None, index_weights)
        if not self.column:
            return this
        return replace(this, cache=Prefixes({layer: self._prefix(layer) for layer in range(self.layer, stop)}))

    def _prefix(self, layer: int) -> Prefix:
        # All columns on a sliding layer too: an edit of its scores or pattern may reach beyond the window.
        keys, values = self.recording.keys[layer], self.recording.values[layer]
        return Prefix(keys[:, : self.column], values[:, : self.column], self.rows)


def branch(
    recording: Recording,
    layer: int,
    column: int,
    rows: int | Sequence[int] | None,
    stream: Float[Tensor, "batch pos d_model"] | None,
    config: Config,
    dtype: torch.dtype,
) -> Branch:
    """Where a run of a model (its config and dtype) starts, checked against what was recorded.

    Raises:
        ValueError: for a recording of another model, or a layer, column, row or stream that does not fit it.
    """
    _check_model(recording, config, dtype)
    n_rows, n_columns = recording.tokens.shape
    if not 0 <= column < n_columns:
        raise ValueError(f"from_position={column}: the recording has positions 0 to {n_columns - 1}")
    if layer not in (recording.streams if stream is None else {*recording.keys, config.n_layers}):
        raise ValueError(
            f"from_layer={layer}: this recording can be resumed from layers {sorted(recording.streams)}, of which "
            f"{config.n_layers} is the final norm; record(…, layers=…) says which"
        )
    if rows is None and stream is not None and n_rows == 1:
        rows = stream.shape[0]
    at = Branch(recording, layer, column, _checked_rows(rows, n_rows))
    expected = (len(at.rows), n_columns - column, config.d_model)
    if stream is not None and tuple(stream.shape) != expected:
        raise ValueError(f"stream has shape {tuple(stream.shape)}, expected {expected} [batch pos d_model]")
    return at


def _check_model(recording: Recording, config: Config, dtype: torch.dtype) -> None:
    if recording.config != config:
        raise ValueError(
            f"the recording is of {recording.config.name!r}, a model of another shape than this one, {config.name!r}"
        )
    if (held := recording.streams[config.n_layers].dtype) != dtype:
        raise ValueError(f"the recording is in {held}, and the model is in {dtype} now; record it again")


def _checked_rows(rows: int | Sequence[int] | None, n_recorded: int) -> tuple[int, ...]:
    if isinstance(rows, int) and n_recorded > 1:
        raise ValueError(
            f"rows={rows}, and the recording has {n_recorded} rows: say which of them each row runs on from, like "
            "rows=[0, 0, 1]"
        )
    given = [0] * rows if isinstance(rows, int) else rows
    which = tuple(range(n_recorded)) if given is None else tuple(given)
    if not which or not all(0 <= row < n_recorded for row in which):
        raise ValueError(f"rows={rows}: expected at least one, of the recorded rows 0 to {n_recorded - 1}")
    return which
