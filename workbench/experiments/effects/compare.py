"""Compare runs of the same tokens: what an intervention did to the predictions and to the routes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.rows import is_whole, numpy, provenance, quantity, real_columns, row_coords
from workbench.experiments.texts import token_texts


def compare(before: Run, *after: Run, top_k: int = 5, row: int = 0) -> xr.Dataset:
    """Next-token distributions and routes of runs over the same tokens, against the first of them.

    Args:
        before: what the others are compared with.
        after: one or more runs of the same tokens.
        top_k: of each run, the likeliest tokens become candidates; together they are at most top_k × runs.

    Returns:
        ``run`` names them: their own names, else "before", "after", "after 2", …
        kl (run, pos), KL(before ‖ run) in nats; top_token, top_id, top_probability (run, pos); flipped (run, pos), the
        likeliest token changed; routes_flipped (run, layer, pos), the set of experts changed (where both runs kept
        their routes). candidate_token, candidate_id (pos, candidate), likeliest in any run first, "" and −1 where
        there are fewer; probability (run, pos, candidate).

    Raises:
        ValueError: if a run has other tokens, or two have one name; nothing to compare with; a row that is not there.

    >>> without = wb.run(model, pair.clean, [wb.AblateExpert(0, 6, "zero")], name="without")
    >>> experiments.compare(run, without).run.values.tolist()
    ['before', 'without']
    """
    runs = (before, *after)
    names = _names(runs)
    if not after:
        raise ValueError("compare needs a second run: compare(before, after)")
    columns = real_columns(before, row)
    for name, other in zip(names[1:], after, strict=True):
        _check_same_tokens(before, other, row, name)
    logprobs = torch.stack([_logprobs(run, row, columns, before) for run in runs])
    candidates = _candidates(logprobs, top_k)
    top = logprobs.max(-1)
    texts, candidate_texts = (token_texts(before.model, numpy(ids)) for ids in (top.indices, candidates))
    variables = {
        "kl": (("run", "pos"), numpy(_kl(logprobs)), quantity("KL(before ‖ run)", "nats")),
        "top_id": (("run", "pos"), numpy(top.indices), quantity("likeliest token")),
        "top_token": (("run", "pos"), texts, quantity("likeliest token")),
        "top_probability": (("run", "pos"), numpy(top.values.exp()), quantity("probability of the likeliest token")),
        "flipped": (("run", "pos"), numpy(top.indices != top.indices[0]), quantity("the likeliest token changed")),
        "candidate_id": (("pos", "candidate"), numpy(candidates), quantity("likely tokens")),
        "candidate_token": (("pos", "candidate"), candidate_texts, quantity("likely tokens")),
        "probability": (("run", "pos", "candidate"), numpy(_of(logprobs, candidates)), quantity("probability")),
    }
    coords = row_coords(before, row) | {"run": list(names), "candidate": np.arange(candidates.shape[-1])}
    flips = _routes_flipped(runs, row, columns)
    if flips is not None:
        variables["routes_flipped"] = (("run", "layer", "pos"), numpy(flips), quantity("the set of experts changed"))
        coords["layer"] = np.arange(len(flips[0]))
    edits = " | ".join(
        f"{name}: {'; '.join(map(str, run.interventions))}" for name, run in zip(names, runs, strict=True)
    )
    return xr.Dataset(variables, coords, provenance(before, "compare", row) | {"interventions": edits})


def _names(runs: Sequence[Run]) -> tuple[str, ...]:
    default = ("before", "after", *(f"after {i}" for i in range(2, len(runs))))
    names = tuple(run.name or name for run, name in zip(runs, default, strict=False))
    if len(set(names)) < len(names):
        raise ValueError(
            f"runs need different names to be told apart, and these are {list(names)}; give wb.run a name="
        )
    return names


def _check_same_tokens(before: Run, after: Run, row: int, name: str) -> None:
    if before.model.config.d_vocab != after.model.config.d_vocab:
        raise ValueError(f"{name!r} ran on a model with another vocabulary, so its predictions cannot be compared")
    one, other = (run.tokens[row, real_columns(run, row)].tolist() for run in (before, after))
    if one == other:
        return
    first = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    raise ValueError(
        f"{name!r} has other tokens than the run it is compared with ({len(other)} and {len(one)}; the first "
        f"difference is at position {first}); compare runs of the same tokens, with and without interventions"
    )


def _logprobs(run: Run, row: int, columns: Int[Tensor, " pos"], before: Run) -> Float[Tensor, "pos d_vocab"]:
    # Padding may stand elsewhere in the other run: its own real columns are read.
    own = columns if run is before else real_columns(run, row)
    return run.logits[row, own].to(before.logits.device).float().log_softmax(-1)


def _kl(logprobs: Float[Tensor, "run pos d_vocab"]) -> Float[Tensor, "run pos"]:
    return (logprobs[0].exp() * (logprobs[0] - logprobs)).sum(-1).clamp(min=0)


def _candidates(logprobs: Float[Tensor, "run pos d_vocab"], top_k: int) -> Int[Tensor, "pos candidate"]:
    """The union of each run's top k, by their highest probability in any run; −1 fills up."""
    if not is_whole(top_k) or not 1 <= top_k <= logprobs.shape[-1]:
        raise ValueError(f"top_k={top_k!r}: expected 1 to d_vocab={logprobs.shape[-1]}")
    chosen = torch.zeros_like(logprobs[0], dtype=torch.bool)
    for of_run in logprobs:
        chosen.scatter_(-1, of_run.topk(top_k, dim=-1).indices, True)
    most = min(len(logprobs) * top_k, logprobs.shape[-1])
    best = logprobs.max(0).values.masked_fill(~chosen, float("-inf")).topk(most, dim=-1)
    found = best.indices.masked_fill(best.values.isneginf(), -1)
    return found[:, : int((found >= 0).sum(-1).max())] if len(found) else found


def _of(
    logprobs: Float[Tensor, "run pos d_vocab"], candidates: Int[Tensor, "pos candidate"]
) -> Float[Tensor, "run pos candidate"]:
    index = candidates.clamp(min=0).expand(len(logprobs), -1, -1)
    return logprobs.gather(-1, index).exp().masked_fill(candidates < 0, float("nan"))


def _routes_flipped(
    runs: Sequence[Run], row: int, columns: Int[Tensor, " pos"]
) -> Bool[Tensor, "run layer pos"] | None:
    sites = [f"blocks.{layer}.mlp.hook_expert_indices" for layer in range(runs[0].model.config.n_layers)]
    if any(site not in run.cache.cache_dict for run in runs for site in sites):
        return None
    shapes = {(run.model.config.n_layers, run.model.config.experts_per_token) for run in runs}
    if len(shapes) > 1:
        return None
    own = [columns if run is runs[0] else real_columns(run, row) for run in runs]
    sets = [
        torch.stack([run[site][row, cols] for site in sites]).sort(-1).values.cpu()
        for run, cols in zip(runs, own, strict=True)
    ]
    return torch.stack([(other != sets[0]).any(-1) for other in sets])
