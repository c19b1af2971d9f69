"""Logit lens: what each layer's residual stream would say if the model stopped there (nostalgebraist, 2020)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.metrics import token_id
from workbench.experiments.rows import is_whole, numpy, provenance, quantity, real_columns, row_coords
from workbench.experiments.texts import token_texts
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

EMBEDDING = -1  # the layer coordinate of the stream before any layer
# The stream after a layer (EMBEDDING: before any) → what the final norm should read in its place, [pos d_model].
Translators = Callable[[int, Tensor], Tensor]
_CHUNK = 128  # positions unembedded at once: 128 × 201,088 float32 logits are 103 MB


def logit_lens(
    run: Run,
    row: int = 0,
    target: int | str | None = None,
    top_k: int = 5,
    translators: Translators | None = None,
) -> xr.Dataset:
    """Read every layer's residual stream through the final norm and the unembedding.

    Args:
        run: with hook_embed and every hook_resid_post kept, as a plain ``wb.run`` does.
        target: the token whose probability and rank are followed: an id, the text of a single token, or None for
            the one that the model predicts in the end at each position.
        top_k: how many of the likeliest tokens to keep.
        translators: change each stream before it is read, (layer, [pos d_model]) → [pos d_model]; see ``tuned_lens``.

    Returns:
        ``layer`` runs from −1, the embedding, to the last; without translators its logits are the run's own. ``rank``
        counts from 1.
        top_token, top_id, top_probability (pos, layer, rank); target_probability, target_rank, entropy (nats), kl
        (pos, layer), the last KL(final ‖ this layer) in nats; target_id and target_token (pos).

    Raises:
        ValueError: for a row, target or top_k that is not there.
        KeyError: if the run did not keep a residual stream; the message says how to.

    >>> lens = experiments.logit_lens(run, target=pair.right)
    >>> lens.target_rank.sel(pos=13).values.tolist()
    [23, 17, 1, 1, 1]
    """
    model, columns = run.model, real_columns(run, row)
    if not is_whole(top_k) or not 1 <= top_k <= model.config.d_vocab:
        raise ValueError(f"top_k={top_k!r}: expected 1 to d_vocab={model.config.d_vocab}")
    final = run.logits[row, columns]
    targets = single_target(model, target, final)
    layers = np.arange(EMBEDDING, model.config.n_layers)
    streams = (lens_logits(run, row, columns, int(layer), translators) for layer in layers)
    by_layer = [lens_numbers(logits, final, targets, top_k) for logits in streams]
    read = {name: np.stack([numpy(layer[name]) for layer in by_layer], axis=1) for name in by_layer[0]}
    stages = ["embedding", *(f"layer {layer}" for layer in layers[1:])]
    coords = row_coords(run, row) | {"layer": layers, "stage": ("layer", stages), "rank": np.arange(1, top_k + 1)}
    variables = {name: (_MEANING[name][0], values, quantity(*_MEANING[name][1:])) for name, values in read.items()}
    top_tokens = token_texts(model, read["top_id"])
    variables["top_token"] = (("pos", "layer", "rank"), top_tokens, quantity("likeliest tokens"))
    variables["target_id"] = ("pos", numpy(targets), quantity("token that is followed"))
    variables["target_token"] = ("pos", token_texts(model, numpy(targets)), quantity("token that is followed"))
    followed = "the final prediction" if target is None else str(target)
    return xr.Dataset(variables, coords, provenance(run, "logit_lens", row, target=followed))


_MEANING = {
    "top_id": (("pos", "layer", "rank"), "likeliest tokens"),
    "top_probability": (("pos", "layer", "rank"), "probability"),
    "target_probability": (("pos", "layer"), "probability of the target"),
    "target_rank": (("pos", "layer"), "rank of the target, 1 the likeliest"),
    "entropy": (("pos", "layer"), "entropy of the next-token distribution", "nats"),
    "kl": (("pos", "layer"), "KL(final ‖ this layer)", "nats"),
}


def single_target(
    model: HookedGptOss, target: int | str | None, final: Float[Tensor, "pos d_vocab"]
) -> Int[Tensor, " pos"]:
    """The token to follow at each position: one for all, or, for None, the model's final prediction there."""
    if target is None:
        return final.argmax(-1)
    return torch.full(final.shape[:1], token_id(model, target), device=final.device)


@without_gradients
def lens_logits(
    run: Run, row: int, columns: Int[Tensor, " pos"], layer: int, translators: Translators | None = None
) -> Float[Tensor, "pos d_vocab"]:
    """The logits of one row's stream after a layer (EMBEDDING: before any), at some columns.

    Holding hooks() keeps another thread's edits out: the final norm has sites of its own.

    Raises:
        KeyError: if the run did not keep that stream; the message says how to.
    """
    model = run.model
    resid = run["hook_embed" if layer == EMBEDDING else f"blocks.{layer}.hook_resid_post"][row, columns]
    if translators is not None:
        resid = translators(layer, resid)
    with model.hooks():
        # With a batch axis, as the sites of the final norm have one.
        parts = [model.unembed(model.ln_final(part[None]))[0] for part in resid.split(_CHUNK)]
    return torch.cat(parts).to(run.logits.device)


@without_gradients
def lens_numbers(
    logits: Float[Tensor, "pos d_vocab"],
    final: Float[Tensor, "pos d_vocab"],
    targets: Int[Tensor, " pos"],
    top_k: int,
) -> dict[str, Tensor]:
    """What is said of each position of one layer: the variables of :func:`logit_lens`, but for texts."""
    logprobs, expected = logits.float().log_softmax(-1), final.float().log_softmax(-1)
    top, of_target = logprobs.topk(top_k, dim=-1), logprobs.gather(-1, targets[:, None])
    return {
        "top_id": top.indices,
        "top_probability": top.values.exp(),
        "target_probability": of_target[:, 0].exp(),
        "target_rank": (logprobs > of_target).sum(-1) + 1,
        "entropy": -(logprobs.exp() * logprobs).sum(-1),
        "kl": (expected.exp() * (expected - logprobs)).sum(-1).clamp(min=0),
    }
