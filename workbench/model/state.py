"""What one forward pass carries beside the residual stream: positions, masks, the KV cache, how edits are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor
from transformer_lens.hook_points import HookPoint

IndexWeights = Literal["keep", "recompute"]


def listening(*points: HookPoint) -> bool:
    """Whether any of these sites has a hook, forward or backward. What nobody reads is not materialised."""
    return any(point._forward_hooks or point._backward_hooks or point._forward_pre_hooks for point in points)


def shown_apart(point: HookPoint, x: Tensor) -> Tensor:
    """Run a site on x, which others read too: a listener gets a copy, so that an edit in place stays at this site."""
    return point(x.clone()) if listening(point) else point(x)


def last_real(mask: Bool[Tensor, "batch pos"]) -> Int[Tensor, " batch"]:
    """The column of each row's last real token; −1 in a row of padding alone."""
    return torch.where(mask, torch.arange(mask.shape[1], device=mask.device), -1).amax(1)


@dataclass(slots=True)
class UnderWay:
    """Where the pass that is under way is: its tokens' positions [batch pos] and its first column; None between passes.

    Apart from the model, and one thing to set: a module's own attributes are set by code that an interrupt can stop.
    """

    now: tuple[Tensor, int] | None = None


@dataclass
class LayerCache:
    """The rotated keys and the values that one layer still needs.

    A sliding layer keeps the last ``window − 1`` columns: the next query sees those and itself.
    """

    window: int | None
    keys: Float[Tensor, "batch key_pos kv_head d_head"] | None = None
    values: Float[Tensor, "batch key_pos kv_head d_head"] | None = None
    first_column: int = 0

    def extend(
        self, keys: Float[Tensor, "batch pos kv_head d_head"], values: Float[Tensor, "batch pos kv_head d_head"]
    ) -> tuple[Tensor, Tensor, int]:
        """Old and new keys and values for this pass, and the column (absolute position in the row) of the first."""
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat((self.keys, keys), 1), torch.cat((self.values, values), 1)
        first = self.first_column
        drop = 0 if self.window is None else max(0, keys.shape[1] - (self.window - 1))
        # A slice would keep the dropped columns alive, so copy what stays.
        self.keys, self.values = (keys[:, drop:].clone(), values[:, drop:].clone()) if drop else (keys, values)
        self.first_column = first + drop
        return keys, values, first


@dataclass
class KeyValueCache:
    """Keys and values of the tokens seen so far; give it to ``model(…, past_kv_cache=cache)``, which extends it.

    ``mask`` [batch key_pos] says which columns hold real tokens (left padding only).
    """

    layers: list[LayerCache]
    mask: Bool[Tensor, "batch key_pos"] | None = None

    def snapshot(self) -> KeyValueCache:
        """What is in it now, to go back to; a pass replaces tensors and writes into none, so nothing is copied."""
        return KeyValueCache([replace(layer) for layer in self.layers], self.mask)

    def restore(self, snapshot: KeyValueCache) -> None:
        """Go back to a snapshot, as after a pass that a hook's error or an interrupt ended half-way."""
        self.layers, self.mask = [replace(layer) for layer in snapshot.layers], snapshot.mask

    @property
    def n_tokens(self) -> int:
        """Columns seen so far, padding included."""
        return 0 if self.mask is None else self.mask.shape[1]

    @property
    def n_bytes(self) -> int:
        """Bytes held by keys and values."""
        tensors = (t for layer in self.layers for t in (layer.keys, layer.values) if t is not None)
        return sum(t.numel() * t.element_size() for t in tensors)


def of_rows(recorded: Shaped[Tensor, "recorded ..."], rows: tuple[int, ...]) -> Shaped[Tensor, "batch ..."]:
    """The recorded row of each row of a run; a view where they are all the same one, or every one once."""
    if rows == tuple(range(recorded.shape[0])):
        return recorded
    if len(set(rows)) == 1:
        return recorded[rows[0] :][:1].expand(len(rows), *recorded.shape[1:])
    return recorded[list(rows)]


@dataclass(frozen=True)
class Prefix:
    """One layer's recorded keys and values from before the column at which a run is resumed.

    ``rows`` says which recorded row each row of the run goes on from. They are laid out by row only when the layer asks
    for them, and kept by nobody: many rows then share one recorded prefix.
    """

    keys: Float[Tensor, "recorded key_pos kv_head d_head"]
    values: Float[Tensor, "recorded key_pos kv_head d_head"]
    rows: tuple[int, ...]

    def extend(
        self, keys: Float[Tensor, "batch pos kv_head d_head"], values: Float[Tensor, "batch pos kv_head d_head"]
    ) -> tuple[Tensor, Tensor, int]:
        """Recorded and new keys and values for this pass, and the column of the first, which is 0."""
        keys = torch.cat((of_rows(self.keys, self.rows), keys), 1)
        values = torch.cat((of_rows(self.values, self.rows), values), 1)
        return keys, values, 0


@dataclass(frozen=True)
class Prefixes:
    """The :class:`Prefix` of each layer that a resumed run computes again."""

    layers: Mapping[int, Prefix]


@dataclass
class Pass:
    """One forward pass: which columns are queries and keys, and what each query may see."""

    query_positions: Int[Tensor, "#batch query_pos"]
    key_positions: Int[Tensor, "#batch key_pos"]
    query_mask: Bool[Tensor, "batch query_pos"] | None
    key_mask: Bool[Tensor, "batch key_pos"] | None
    cache: KeyValueCache | Prefixes | None = None
    index_weights: IndexWeights = "keep"
    memo: dict[Any, Any] = field(default_factory=dict)  # what the layers of the pass share

    @property
    def first_column(self) -> int:
        """The column, counted from the start of the row, of the first query."""
        return self.key_positions.shape[1] - self.query_positions.shape[1]

    def to(self, device: torch.device | str | int, **_: Any) -> Pass:
        """This pass for layers on another device; accelerate moves it along with the stream, as it would a tensor.

        The cache stays: what is in it lives with its layer.
        """
        device = torch.device(device)
        if self.key_positions.device == device:
            return self
        if device not in self.memo:
            mine = {part.name: getattr(self, part.name) for part in fields(self)}
            moved = {name: part.to(device) for name, part in mine.items() if isinstance(part, Tensor)}
            self.memo[device] = replace(self, **moved, memo={})
        return self.memo[device]

    def without_first_queries(
        self,
        n: int,
        layer: int,
        keys: Float[Tensor, "batch pos kv_head d_head"],
        values: Float[Tensor, "batch pos kv_head d_head"],
    ) -> Pass:
        """The pass through one layer without its first n queries, of whose columns the keys and values are given."""
        if self.cache is not None:
            keys, values, _ = self.cache.layers[layer].extend(keys, values)
        end = self.first_column + n
        before = Prefix(keys[:, :end], values[:, :end], tuple(range(keys.shape[0])))
        mask = None if self.query_mask is None else self.query_mask[:, n:]
        cache = Prefixes({layer: before})
        return Pass(self.query_positions[:, n:], self.key_positions, mask, self.key_mask, cache, self.index_weights)


def begin_pass(
    shape: tuple[int, int],
    device: torch.device,
    attention_mask: Bool[Tensor, "batch pos"] | None,
    cache: KeyValueCache | None,
    index_weights: IndexWeights,
) -> Pass:
    """Positions and masks of a pass over ``shape`` = (batch, pos) new tokens after those in the cache.

    Positions count real tokens only, so a padded row gets the positions (and logits) that it has without padding.
    """
    batch, length = shape
    past = cache.n_tokens if cache is not None else 0
    if attention_mask is None and (cache is None or cache.mask is None or bool(cache.mask.all())):
        keys = torch.arange(past + length, device=device)[None]
        if cache is not None:
            cache.mask = torch.ones(batch, past + length, dtype=torch.bool, device=device)
        return Pass(keys[:, past:], keys, None, None, cache, index_weights)
    new = torch.ones(shape, dtype=torch.bool, device=device) if attention_mask is None else attention_mask
    mask = new if cache is None or cache.mask is None else torch.cat((cache.mask, new), 1)
    if cache is not None:
        _refuse_right_padding(mask)
        cache.mask = mask
    # Left padding stands at −1: no key is at or before it, so a pad query sees nothing at all.
    positions = mask.long().cumsum(1) - 1
    return Pass(positions[:, past:], positions, mask[:, past:], mask, cache, index_weights)


def _refuse_right_padding(mask: Bool[Tensor, "batch pos"]) -> None:
    if bool((mask[:, :-1] & ~mask[:, 1:]).any()):
        raise ValueError(
            "attention_mask has padding after a real token, and a KV cache was given: the sliding layers drop "
            "old columns, so "
            "a cached batch must be padded on the left. Use to_tokens(…, padding_side='left', return_mask=True)"
        )
