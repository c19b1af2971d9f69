"""Documents through the model: tokens, labels, and where every token was routed, as plain arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, Shaped
from torch import Tensor

from workbench.atlases.documents import Content, Document
from workbench.atlases.errors import AtlasError, CorpusError
from workbench.atlases.settings import Settings, width
from workbench.interventions import Context, all_edits
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.text import Chat, HarmonyError, label, render
from workbench.text.harmony.chat import CHANNELS, ROLES

Window = tuple[int, int]  # its first token among all those of the part, and how many


class _Enough(Exception):
    """Everything that was asked for is there: what the model has left to do, nobody reads."""


class Stopped(Exception):
    """The build was cancelled between two passes."""


@dataclass(frozen=True)
class Rows:
    """What a part's documents were and did.

    Attributes:
        lengths: tokens of each document.
        tokens: their ids, of all documents one after the other.
        role, channel: numbers in ROLES and CHANNELS, −1 for none.
        experts, weights: slot 0 the strongest.
        activations: site → a vector for each token.
    """

    lengths: Int[np.ndarray, " document"]
    tokens: Int[np.ndarray, " token"]
    role: Int[np.ndarray, " token"]
    channel: Int[np.ndarray, " token"]
    experts: Integer[np.ndarray, "layer token slot"]
    weights: Float[np.ndarray, "layer token slot"]
    activations: dict[str, Float[np.ndarray, "token value"]]


def rows_of(
    model: HookedGptOss,
    settings: Settings,
    documents: Sequence[Document],
    on_tokens: Callable[[int], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> Rows:
    """Run the model on documents.

    Args:
        on_tokens: called after each pass with the tokens that it read.
        stopped: asked before each pass; true ends it with Stopped.

    Raises:
        CorpusError: for a document that cannot be made tokens, naming it.
    """
    ids = [_tokens(model, document) for document in documents]
    lengths = np.array([len(row) for row in ids], dtype=np.int64)
    tokens = np.concatenate([*ids, np.empty(0, np.int32)]).astype(np.int32)
    role, channel = _labels(model, ids)
    config, store = model.config, np.dtype(settings.store)
    routed = (config.n_layers, len(tokens), config.experts_per_token)
    made = Rows(
        lengths, tokens, role, channel,
        np.zeros(routed, np.uint8 if config.n_experts <= 256 else np.uint16), np.zeros(routed, np.float32),
        {name: np.zeros((len(tokens), width(model, name)), store) for name in settings.sites},
    )  # fmt: skip
    for windows in batches(lengths, settings.max_length, settings.batch_tokens):
        if stopped is not None and stopped():
            raise Stopped
        _run(model, settings, made, windows)
        if on_tokens is not None:
            on_tokens(sum(length for _, length in windows))
    return made


# ---------------------------------------------------------------- tokens
def _tokens(model: HookedGptOss, document: Document) -> Int[np.ndarray, " pos"]:
    try:
        found = np.array(_ids(model, document.content), dtype=np.int64)
    except (ValueError, HarmonyError) as error:
        raise CorpusError(f"document {document.id!r} cannot be made tokens: {error}") from error
    outside = found[(found < 0) | (found >= model.config.d_vocab)]
    if len(outside):
        last = model.config.d_vocab - 1
        raise CorpusError(f"document {document.id!r} holds token id {outside[0]}: expected 0 to {last}")
    return found.astype(np.int32)


def _ids(model: HookedGptOss, content: Content) -> Sequence[int]:
    if isinstance(content, Chat):
        return render(content, model.text, add_generation_prompt=False)
    return model.text.encode(content) if isinstance(content, str) else content


def _labels(model: HookedGptOss, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Role and channel of each token as numbers. A text without a special token has neither, and is not read."""
    names = (ROLES, CHANNELS)
    numbers = [{name: i for i, name in enumerate(each)} for each in names]
    found = [[np.full(len(row), -1, np.int8) for row in ids] for _ in names]
    special = np.array([] if model.tokenizer is None else sorted(model.tokenizer.special.values()), dtype=np.int64)
    for i, row in enumerate(ids):
        if len(special) and np.isin(row, special).any():
            labels = label(row.tolist(), model.text)
            for column, number, words in zip(found, numbers, (labels.role, labels.channel), strict=True):
                column[i] = np.array([-1 if word is None else number.get(word, -1) for word in words], dtype=np.int8)
    role, channel = (np.concatenate([*column, np.empty(0, np.int8)]) for column in found)
    return role, channel


# ---------------------------------------------------------------- passes
def batches(lengths: Int[np.ndarray, " document"], max_length: int, batch_tokens: int) -> Iterator[list[Window]]:
    """Windows of all documents, those of like length together, at most ``batch_tokens`` with their padding."""
    windows: list[Window] = []
    for first, length in zip(np.cumsum(lengths) - lengths, lengths, strict=True):
        windows += [(int(first + at), int(min(max_length, length - at))) for at in range(0, int(length), max_length)]
    windows.sort(key=lambda window: window[1])  # stable: the same corpus makes the same batches
    batch: list[Window] = []
    for window in windows:
        if batch and (len(batch) + 1) * window[1] > batch_tokens:
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch


@without_gradients
def _run(model: HookedGptOss, settings: Settings, made: Rows, windows: Sequence[Window]) -> None:
    """One pass; its numbers go to their tokens' places. The last layer's experts run only if a site needs them."""
    starts, lengths = (np.array(column) for column in zip(*windows, strict=True))
    columns = np.arange(lengths.max())
    real = columns < lengths[:, None]
    place = (starts[:, None] + columns)[real]
    padded = np.zeros(real.shape, np.int64)
    padded[real] = made.tokens[place]
    found = _through(model, settings, padded, real)
    for layer in range(model.config.n_layers):
        for kind, into in (("indices", made.experts), ("weights", made.weights)):
            into[layer, place] = _taken(found[f"blocks.{layer}.mlp.hook_expert_{kind}"], real)
    for name, values in made.activations.items():
        taken = _taken(found[name], real).reshape(len(place), -1)
        with np.errstate(over="ignore"):
            values[place] = taken
        if values.dtype == np.float16 and np.isinf(values[place]).any():
            raise AtlasError(f"{name} holds values up to {np.abs(taken).max():g}, beyond float16: store='float32'")


def _taken(values: Tensor, real: Bool[np.ndarray, "batch pos"]) -> Shaped[np.ndarray, "token ..."]:
    values = values.detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()[real]


def _through(
    model: HookedGptOss, settings: Settings, tokens: Int[np.ndarray, "batch pos"], real: Bool[np.ndarray, "batch pos"]
) -> dict[str, Tensor]:
    wanted = [*routing_sites(model.config.n_layers), *settings.sites]
    found: dict[str, Tensor] = {}

    def keep(values: Tensor, hook: Any) -> None:
        found[str(hook.name)] = values
        if len(found) == len(wanted):
            raise _Enough

    hooks = [*all_edits(settings.interventions, Context(model, settings.sources)), *((name, keep) for name in wanted)]
    device = model.embed.weight.device
    mask = None if real.all() else torch.from_numpy(real).to(device)
    with model.hooks(fwd_hooks=hooks):
        try:
            final = any(name.startswith("ln_final") for name in settings.sites)
            model(torch.from_numpy(tokens).to(device), return_type="logits" if final else None, attention_mask=mask)
        except _Enough:
            pass
    return found


def routing_sites(n_layers: int) -> list[str]:
    """The sites that an atlas reads of every model."""
    return [f"blocks.{layer}.mlp.hook_expert_{kind}" for layer in range(n_layers) for kind in ("indices", "weights")]
