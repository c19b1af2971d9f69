"""Refuse a run that cannot fit, before anything runs, and say what would."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor
from transformer_lens.utilities.slice import Slice

from workbench.model.memory.asked import Asked, at_most
from workbench.model.memory.estimate import by_kind
from workbench.model.memory.free import Free, free_memory, heap_room
from workbench.model.memory.live import shape_of, wants_graph
from workbench.model.memory.sizes import readable
from workbench.model.memory.suggest import Suggestion, suggestions

if TYPE_CHECKING:
    from workbench.model.transformer import HookedGptOss

TINY = 256_000_000  # bytes that any machine with torch on it has; smaller runs are not looked at


class NotEnoughMemory(MemoryError):
    """A run that cannot fit, refused before it began. The message says what it needs, what is free and what would fit.

    Attributes:
        device: the one that is too small.
        needed: bytes that the run adds there at its fullest moment.
        free: bytes that are free there.
        sites: site → bytes that were to be kept.
        suggestions: what to ask for instead, each with the bytes that it needs.
    """

    def __init__(self, asked: Asked, device: str, free: Free, what: str, filter_name: str = "names_filter") -> None:
        self.device, self.free, self.sites = device, free.n_bytes, dict(asked.kept)
        self.needed = asked.peaks[device].n_bytes
        self.suggestions: tuple[Suggestion, ...] = tuple(suggestions(asked, device, free.n_bytes, filter_name))
        super().__init__("\n".join(_message(asked, self, free, what)))


def check_memory(
    model: HookedGptOss,
    shape: tuple[int, int],
    names: list[str],
    *,
    what: str = "run_with_cache",
    heard: tuple[str, ...] = (),
    pos_slice: Any = None,
    keep_on: Any = None,
    backward: bool = False,
    returns: str | None = "logits",
    last_logits: bool = False,
    past_kv_cache: Any = None,
    compared: bool = False,
    filter_name: str = "names_filter",
) -> None:
    """Refuse a run over tokens of this shape, [batch pos], that cannot fit. Small runs pass without a look.

    Only what the run adds is compared with what is free: weights are there already, or are pages of a file that the
    system drops when it needs the room.

    Raises:
        NotEnoughMemory: if it needs more on some device than is free there.
    """
    if keep_on is None and hasattr(model, "hf_device_map"):
        keep_on = model.embed.weight.device  # a model that is spread over devices keeps everything in one place
    past = 0 if past_kv_cache is None else past_kv_cache.n_tokens
    dtype = str(model.embed.weight.dtype).removeprefix("torch.")
    if at_most(model.config, *shape, past, dtype) <= TINY:
        return
    asked = Asked(
        batch=shape[0],
        length=shape[1],
        names=tuple(names),
        heard=heard,
        positions=positions_kept(pos_slice, shape[1]),
        keep_on=None if keep_on is None else str(keep_on),
        graph=backward or wants_graph(model),
        backward=backward,
        returns=returns,
        last_logits=last_logits,
        past=past,
        cache=past_kv_cache is not None,
        compared=compared,
        **shape_of(model),
    )
    for device, peak in asked.peaks.items():
        free = free_memory(device)
        if free is not None and peak.n_bytes > free.n_bytes and device == "cpu":
            free = replace(free, n_bytes=free.n_bytes + heap_room())
        if free is not None and peak.n_bytes > free.n_bytes:
            raise NotEnoughMemory(asked, device, free, what, filter_name)


def check_call(model: HookedGptOss, names: list[str], args: tuple, kwargs: dict[str, Any]) -> None:
    """:func:`check_memory` of a call of ``run_with_cache``."""
    given = dict(zip(("input", "return_type", "attention_mask", "past_kv_cache"), args, strict=False)) | kwargs
    tokens = given.get("input")
    if tokens is None:
        return  # the forward itself says what is missing
    if not isinstance(tokens, Tensor) or tokens.ndim != 2:
        tokens, _ = model.as_batch(tokens)
    check_memory(
        model,
        (tokens.shape[0], tokens.shape[1]),
        names,
        pos_slice=given.get("pos_slice"),
        keep_on=given.get("device"),
        backward=bool(given.get("incl_bwd")),
        returns=given.get("return_type", "logits"),
        last_logits=given.get("logits_at") == "last",
        past_kv_cache=given.get("past_kv_cache"),
    )


def positions_kept(pos_slice: Any, length: int) -> int | None:
    """How many of the positions TransformerLens' pos_slice keeps; None for all."""
    if pos_slice is None:
        return None
    chosen = Slice.unwrap(pos_slice)
    return None if chosen.mode == "identity" else int(np.size(chosen.indices(length)))


def _message(asked: Asked, error: NotEnoughMemory, free: Free, what: str) -> Iterator[str]:
    where = "" if error.device == "cpu" else f" on {error.device}"
    tokens = f"{asked.batch:,} × {asked.length:,} tokens"
    yield (
        f"{what} of {tokens} needs {readable(error.needed)}{where}, and {readable(free.n_bytes)} are free there "
        f"(says {free.source}). Nothing was run."
    )
    kept, walk = sum(asked.kept.values()), asked.walk
    if kept and asked.keep_on in (None, error.device):
        largest = ", ".join(f"{kind} {readable(n)}" for kind, n in list(by_kind(asked.kept).items())[:3])
        yield f"- kept sites {readable(kept)}, the largest: {largest}"
    if asked.gradients:
        yield f"- gradients of kept sites {readable(sum(asked.gradients.values()))}"
    if walk.weight_gradients:
        yield f"- gradients of weights {readable(walk.weight_gradients)}"
    if walk.saved:
        yield f"- saved for backward {readable(walk.saved)}"
    yield f"- fullest moment: {asked.peaks[error.device].moment}"
    if error.suggestions:
        yield "What would fit instead:"
        yield from (f"- {each.code}  # needs {readable(each.needed)}{each.remark}" for each in error.suggestions)
    else:
        yield "Nothing that is asked of this model in one go would fit: free some memory first."
    yield "check_memory=False runs it all the same."
