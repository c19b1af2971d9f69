"""The logit lens of two runs, and what differs: at which layer do two prompts, or a run and its edit, come apart?"""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.lenses.logit_lens import EMBEDDING, lens_logits, single_target
from workbench.experiments.rows import numpy, provenance, quantity, real_columns, row_coords
from workbench.experiments.texts import token_texts
from workbench.model.interrupts import without_gradients

_MIDDLE = 4_000_000  # pairs of tokens that may be compared to align what stands between a common beginning and end


def lens_difference(run: Run, other: Run, target: int | str | None = None, row: int = 0) -> xr.Dataset:
    """What each layer of a run would say next, less what the same layer of another run would say.

    Positions are compared one by one where the texts are as long as each other; else runs of the same tokens are, and
    as many others in the same place; a position without a counterpart has none (NaN).

    Args:
        run, other: of one vocabulary and as many layers, with their residual streams kept, as a plain ``wb.run`` does.
        target: the token that is followed: an id, the text of a single token, or None for the one that ``run``
            predicts in the end at each position.
        row: of both runs.

    Returns:
        ``layer`` runs from −1, the embedding. top_token, top_id, top_probability, other_token, other_id (pos, layer):
        the likeliest token in either run. word_change (pos, layer): probability of top_token, run less other;
        target_change: of the target; rank_change: log10 of the target's rank, run less other; entropy_change, nats;
        kl: KL(run ‖ other) of the two distributions, nats. other_pos (pos): the partner, −1 where there is none.

    Raises:
        ValueError: for runs of models that cannot be compared, or a row or target that is not there.
        KeyError: if a run did not keep a residual stream.

    >>> other = wb.run(model, pair.corrupt)
    >>> sorted(experiments.lens_difference(run, other, target=pair.right).data_vars)[:3]
    ['entropy_change', 'kl', 'other_id']
    """
    _check_alike(run, other)
    columns, others = real_columns(run, row), real_columns(other, row)
    partner = partners(run.tokens[row, columns].tolist(), other.tokens[row, others].tolist())
    paired = torch.from_numpy(partner >= 0)
    mine, theirs = columns[paired], others[torch.from_numpy(partner[partner >= 0])]
    target_ids = single_target(run.model, target, run.logits[row, columns])
    layers = np.arange(EMBEDDING, run.model.config.n_layers)
    read = [
        numbers_apart(lens_logits(run, row, mine, layer), lens_logits(other, row, theirs, layer), target_ids[paired])
        for layer in layers.tolist()
    ]
    stages = ["embedding", *(f"layer {layer}" for layer in layers[1:])]
    coords = row_coords(run, row) | {"layer": layers, "stage": ("layer", stages)}
    variables = {name: _spread([numpy(part[name]) for part in read], partner, name) for name in MEANING}
    model = run.model
    variables["top_token"] = (("pos", "layer"), token_texts(model, variables["top_id"][1]), quantity("likeliest token"))
    variables["other_token"] = (("pos", "layer"), token_texts(model, variables["other_id"][1]), quantity("the other's"))
    at = np.where(partner >= 0, others.cpu().numpy()[partner], -1)  # columns, as those of pos
    variables["other_pos"] = ("pos", at, quantity("position in the other run, −1 without"))
    variables["target_token"] = ("pos", token_texts(model, numpy(target_ids)), quantity("token that is followed"))
    followed = "the final prediction" if target is None else str(target)
    about = {"target": followed, "other": other.name or "other"}
    return xr.Dataset(variables, coords, provenance(run, "lens_difference", row, **about))


MEANING = {
    "top_id": ("likeliest token",),
    "other_id": ("likeliest token of the other run",),
    "top_probability": ("probability of the likeliest token",),
    "word_change": ("change of the likeliest token's probability",),
    "target_change": ("change of the target's probability",),
    "rank_change": ("change of the log10 of the target's rank",),
    "entropy_change": ("change of the entropy", "nats"),
    "kl": ("KL(run ‖ other) at this layer", "nats"),
}


def partners(tokens: Sequence[int], other: Sequence[int]) -> Int[np.ndarray, " pos"]:
    """For each token, the index of the one that it is compared with in the other text; −1 for none."""
    n, m = len(tokens), len(other)
    if n == m:
        return np.arange(n)
    shorter = min(n, m)
    begin = next((i for i in range(shorter) if tokens[i] != other[i]), shorter)
    end = next((i for i in range(shorter - begin) if tokens[n - 1 - i] != other[m - 1 - i]), shorter - begin)
    made = np.full(n, -1)
    made[:begin] = np.arange(begin)
    made[n - end :] = np.arange(m - end, m)
    if (n - begin - end) * (m - begin - end) <= _MIDDLE:
        middle = SequenceMatcher(None, tokens[begin : n - end], other[begin : m - end], autojunk=False)
        for _, i, i_end, j, j_end in middle.get_opcodes():
            if i_end - i == j_end - j:  # equal, or as many others in their place
                made[begin + i : begin + i_end] = np.arange(begin + j, begin + j_end)
    return made


@without_gradients
def numbers_apart(
    logits: Float[Tensor, "pos d_vocab"], other: Float[Tensor, "pos d_vocab"], targets: Int[Tensor, " pos"]
) -> dict[str, Tensor]:
    """What differs at each position of one layer: the variables of :func:`lens_difference`, but for texts."""
    logprobs, others = logits.float().log_softmax(-1), other.to(logits.device).float().log_softmax(-1)
    top = logprobs.max(-1)
    of_top = others.gather(-1, top.indices[:, None])[:, 0]
    of_target = [values.gather(-1, targets[:, None]) for values in (logprobs, others)]
    ranks = [(v > t).sum(-1) + 1 for v, t in zip((logprobs, others), of_target, strict=True)]
    entropies = [-(values.exp() * values).sum(-1) for values in (logprobs, others)]
    return {
        "top_id": top.indices,
        "other_id": others.argmax(-1),
        "top_probability": top.values.exp(),
        "word_change": top.values.exp() - of_top.exp(),
        "target_change": (of_target[0].exp() - of_target[1].exp())[:, 0],
        "rank_change": ranks[0].log10() - ranks[1].log10(),
        "entropy_change": entropies[0] - entropies[1],
        "kl": (logprobs.exp() * (logprobs - others)).sum(-1).clamp(min=0),
    }


def _check_alike(run: Run, other: Run) -> None:
    for size in ("n_layers", "d_vocab"):
        mine, theirs = getattr(run.model.config, size), getattr(other.model.config, size)
        if mine != theirs:
            raise ValueError(f"runs of models with {size}={mine} and {theirs} cannot be compared layer by layer")


def _spread(parts: list[np.ndarray], partner: np.ndarray, name: str) -> tuple:
    """Every position's values: NaN (−1 for ids) where there is no partner."""
    values = np.stack(parts, axis=1)
    empty = -1 if values.dtype.kind in "iu" else np.nan
    whole = np.full((len(partner), values.shape[1]), empty, values.dtype)
    whole[partner >= 0] = values
    return ("pos", "layer"), whole, quantity(*MEANING[name])
