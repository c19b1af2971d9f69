"""Run on from a recorded run: an edit at layer l and position t computes only the layers ≥ l at the positions ≥ t.

The model is causal: the stream that enters layer l, and the keys and values before position t, are what they were.
``model.record`` keeps those of one run, and ``model.resume`` takes them from there, for many edits at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import Config
from workbench.model.interrupts import without_gradients
from workbench.model.recording import Branch, Recording, branch
from workbench.model.sites import Sites
from workbench.model.state import IndexWeights, KeyValueCache, LayerCache, UnderWay, begin_pass, last_real, listening

LogitsAt = Literal["all", "last"] | int | Sequence[int]
Hooks = Sequence[tuple[str | Callable[[str], bool], Callable]]


class ResumeMethods:
    """``record`` and ``resume``."""

    config: Config
    sites: Sites
    blocks: Any
    embed: nn.Embedding
    ln_final: Any
    unembed: Any
    hook_embed: Any
    hooks: Callable[..., AbstractContextManager]
    as_batch: Callable[..., tuple[Tensor, Tensor | None]]
    _under_way: UnderWay
    _lock: threading.RLock

    @without_gradients
    def record(
        self,
        input: Any,
        attention_mask: Bool[Tensor, "batch pos"] | Int[Tensor, "batch pos"] | None = None,
        layers: Iterable[int] | None = None,
        index_weights: IndexWeights = "keep",
    ) -> Recording:
        """Run the model once and keep what :meth:`resume` needs to run on from any layer and position.

        Hooks that are on take part: what they did before the layer and the position of a resume stays done there.

        Args:
            input: tokens [batch pos] or [pos], text, a Chat, or several texts.
            attention_mask: [batch pos], true (or 1) for real tokens; padding may stand anywhere.
            layers: those to resume from later; None for all. n_layers, the end of the stream, is always among them.
                Streams are kept of these layers only, keys and values of the lowest of them and all above it.

        Raises:
            ValueError: for a layer that is not there, or tokens or a mask that the model does not take.
        """
        _check_index_weights(index_weights)
        tokens, mask = self.as_batch(input, attention_mask)
        wanted = _checked_layers(layers, self.config.n_layers)
        streams, keys, values = {}, {}, {}
        with self._lock:
            # Without a window each layer keeps every column. The cache is this pass's own, so padding may stand right.
            kept = KeyValueCache([LayerCache(None) for _ in self.blocks])
            this = begin_pass((tokens.shape[0], tokens.shape[1]), tokens.device, mask, None, index_weights)
            this, at = replace(this, cache=kept), self._under_way
            before, at.now = at.now, (this.query_positions, this.first_column)
            try:
                stream = self.hook_embed(self.embed(tokens))
                for layer, block in enumerate(self.blocks):
                    # Clones: a hook may have kept the tensor that it was shown, and write into it one day.
                    if layer in wanted:
                        streams[layer] = stream.clone()
                    stream = block(stream, this)
                    if layer >= min(wanted):
                        keys[layer], values[layer] = _cloned(kept.layers[layer])
                    kept.layers[layer] = LayerCache(None)
            finally:
                at.now = before
        streams[self.config.n_layers] = stream.clone()
        return Recording(
            self.config, tokens.clone(), None if mask is None else mask.clone(), streams, keys, values, id(self)
        )

    def resume(
        self,
        recording: Recording,
        from_layer: int = 0,
        from_position: int = 0,
        rows: int | Sequence[int] | None = None,
        fwd_hooks: Hooks = (),
        *,
        stream: Float[Tensor, "batch pos d_model"] | None = None,
        stop_at_layer: int | None = None,
        return_type: Literal["logits", "logprobs"] = "logits",
        logits_at: LogitsAt = "all",
        index_weights: IndexWeights = "keep",
    ) -> Float[Tensor, "batch picked d_vocab"] | Float[Tensor, "batch pos d_model"]:
        """Run on from a recorded run, with hooks on, computing only the layers and positions that an edit can change.

        Sites hold the positions from ``from_position`` on; the key_pos axis of scores and patterns is whole. A hook
        finds where it is in ``model.positions`` [batch pos] and in ``model.first_column``: column c of the row is at
        index c − first_column. A hook that was on during the recording is not live here unless it still is, or is given
        again.

        At every site it equals the whole run with the same hooks, to rounding: products of other shapes are summed in
        another order. It has the very bits where every layer meets the same tokens at once: from_position 0 and the
        rows of the recording as they are, or from layer 0 any rows.

        Beside the recording it needs what a forward pass over rows × (pos − from_position) tokens does, and the keys
        and values of rows × pos tokens for one layer at a time.

        Args:
            recording: from :meth:`record` of this model.
            from_layer: the first layer computed; n_layers is the final norm.
            from_position: the first column computed, padding counted.
            rows: how many rows run, each on its own from the recorded one. Of a recording of several rows: which one
                each runs on from, like ``[0, 0, 1]``. None: every recorded row once.
            fwd_hooks: (site, hook) as in ``run_with_hooks``. An edit of one row is not seen by the others.
            stream: what enters from_layer in each row, in place of what was recorded.
            stop_at_layer: stop before this layer (n_layers: before the final norm), and return the residual stream that
                would enter it.
            return_type: "logits" or "logprobs".
            logits_at: the columns to unembed: "all" of those computed, "last" (of each row, its last real token), one
                column or several. The sites of ln_final hold these alone. Where no site of the last layer is listened
                to, that layer computes no position before them either.

        Returns:
            [batch picked d_vocab], of the columns in logits_at; with stop_at_layer [batch pos d_model].

        Raises:
            ValueError: for a recording of another model, a layer, column or row that is not there, or a hook on a site
                that this run never reaches.
            UnknownSite: for a hook on a site that does not exist.
        """
        if return_type not in ("logits", "logprobs"):
            raise ValueError(f"return_type={return_type!r}: expected 'logits' or 'logprobs'")
        _check_index_weights(index_weights)
        at = branch(recording, from_layer, from_position, rows, stream, self.config, self.embed.weight.dtype)
        if recording.owner not in (None, id(self)):
            # Of the same shape too: its streams would be read by other weights, and nothing would look wrong.
            raise ValueError(f"{recording} is of another model than this one; record the text with this one")
        layers = _checked_stop(from_layer, stop_at_layer, self.config.n_layers)
        unembeds = stop_at_layer is None
        _refuse_unreached(self.sites, [name for name, _ in fwd_hooks], layers, unembeds)
        columns = _columns(at, logits_at)
        with self.hooks(fwd_hooks=list(fwd_hooks)):
            this, under_way = at.begin(layers.stop, index_weights), self._under_way
            before, under_way.now = under_way.now, (this.query_positions, this.first_column)
            try:
                now, skipped = at.stream if stream is None else stream, 0
                for layer in layers:
                    start = _unread(columns, self.blocks[layer]) if unembeds and layer == layers[-1] else 0
                    now = self.blocks[layer](now, this, start)
                    columns, skipped = None if columns is None else columns - start, skipped + start
                if columns is not None and _one_stretch(columns):
                    # Where the first of them stands: hooks on the final norm see these columns alone.
                    under_way.now = (this.query_positions, at.column + skipped + int(columns[0, 0]))
                logits = self.unembed(self.ln_final(_picked(now, columns))) if unembeds else None
            finally:
                under_way.now = before
        if logits is None:
            return now
        wide = torch.promote_types(logits.dtype, torch.float32)
        return logits if return_type == "logits" else logits.to(wide).log_softmax(-1)


def _check_index_weights(index_weights: str) -> None:
    if index_weights not in get_args(IndexWeights):
        raise ValueError(f"index_weights={index_weights!r}: expected one of {get_args(IndexWeights)}")


def _cloned(layer: LayerCache) -> tuple[Tensor, Tensor]:
    assert layer.keys is not None and layer.values is not None
    return layer.keys.clone(), layer.values.clone()


def _checked_layers(layers: Iterable[int] | None, n_layers: int) -> set[int]:
    wanted = set(range(n_layers) if layers is None else layers) | {n_layers}
    if min(wanted) < 0 or max(wanted) > n_layers:
        raise ValueError(f"layers={sorted(wanted - {n_layers})}: this model has layers 0 to {n_layers - 1}")
    return wanted


def _checked_stop(from_layer: int, stop_at_layer: int | None, n_layers: int) -> range:
    """The layers to compute."""
    if stop_at_layer is None:
        return range(from_layer, n_layers)
    if not from_layer < stop_at_layer <= n_layers:
        raise ValueError(
            f"stop_at_layer={stop_at_layer} with from_layer={from_layer}: expected a later layer, at most {n_layers} "
            "(all of them)"
        )
    return range(from_layer, stop_at_layer)


def _refuse_unreached(
    sites: Sites, names: Iterable[str | Callable[[str], bool]], layers: range, unembeds: bool
) -> None:
    """A hook that never fires would look like an edit that does nothing."""
    for site in (sites[chosen] for name in names for chosen in sites.select(name)):
        if site.layer in layers or (unembeds and site.name.startswith("ln_final")):
            continue
        reached = [f"layers {layers.start} to {layers.stop - 1}"] if layers else []
        reached += ["the final norm"] if unembeds else []
        raise ValueError(
            f"a hook on {site.name}, and this run computes only {' and '.join(reached)}, so it would never fire; "
            "start or stop at another layer, or leave it out"
        )


def _columns(at: Branch, logits_at: LogitsAt) -> Int[Tensor, "#batch picked"] | None:
    """Which columns to unembed, counted from the first one computed, in each row or the same in all; None: all."""
    n_columns, mask = at.recording.tokens.shape[1], at.mask
    if isinstance(logits_at, str):
        if logits_at not in ("all", "last"):
            raise ValueError(f"logits_at={logits_at!r}: expected 'all', 'last', a column or several")
        if logits_at == "all" or mask is not None:
            return None if logits_at == "all" or mask is None else _last_columns(mask, at.column)
        logits_at = n_columns - 1
    columns = [logits_at] if isinstance(logits_at, int) else list(logits_at)
    if not columns or not all(at.column <= column < n_columns for column in columns):
        raise ValueError(
            f"logits_at={columns}: expected columns {at.column} (from_position) to {n_columns - 1}; those before are "
            "as they were recorded"
        )
    return torch.tensor([columns], device=at.recording.tokens.device) - at.column


def _last_columns(mask: Bool[Tensor, "batch pos"], first: int) -> Int[Tensor, "batch 1"]:
    last = last_real(mask)[:, None]
    if int(last.min()) < first:
        raise ValueError(
            f"logits_at='last': the rows' last real tokens stand at columns {last[:, 0].tolist()}, and from_position="
            f"{first} computes none before that"
        )
    return last - first


def _unread(columns: Int[Tensor, "#batch picked"] | None, block: nn.Module) -> int:
    """How many of the first queries of the last layer nobody reads, neither a hook nor the unembedding."""
    points = [module for module in block.modules() if isinstance(module, HookPoint)]
    return 0 if columns is None or listening(*points) else int(columns.min())


def _one_stretch(columns: Int[Tensor, "#batch picked"]) -> bool:
    """Whether every row has the same columns, one after the other."""
    return bool((columns == columns[:1, :1] + torch.arange(columns.shape[1], device=columns.device)).all())


def _picked(
    stream: Float[Tensor, "batch pos d_model"], columns: Int[Tensor, "#batch picked"] | None
) -> Float[Tensor, "batch picked d_model"]:
    if columns is None:
        return stream
    rows = torch.arange(stream.shape[0], device=stream.device)[:, None]
    return stream[rows, columns.to(stream.device)]
