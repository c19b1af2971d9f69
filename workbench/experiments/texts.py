"""Many texts through a model: one by one, keeping only what an experiment asks for, without unembedding any."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm.auto import tqdm

from workbench.activations import provenance_of
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients


def rows_of(model: HookedGptOss, texts: Sequence[Any]) -> list[Int[Tensor, " _"]]:
    """Each text (a string, a Chat, or token ids) as a row of ids; a tensor [batch pos] as its rows.

    Raises:
        ValueError: for no text, an empty one, or one text given alone where several were expected.
    """
    if isinstance(texts, str) or not len(texts):
        raise ValueError(f"texts={texts!r}: expected a list of at least one text, Chat or row of token ids")
    made = [model.as_batch(text)[0] for text in texts]
    several = [i for i, row in enumerate(made) if len(row) != 1]
    if several:
        raise ValueError(f"texts[{several[0]}] has {len(made[several[0]])} rows of tokens: expected one row a text")
    return [row[0] for row in made]


@torch.no_grad()  # torch's own knows generators
def activations(
    model: HookedGptOss, rows: Sequence[Int[Tensor, " _"]], sites: Sequence[str], progress: bool = True
) -> Iterator[dict[str, Tensor]]:
    """For each row, the sites' values without the batch axis. Nothing is unembedded, and nothing outlives the row."""
    for row in tqdm(rows, desc="texts", unit="text", disable=not progress):
        yield _of_row(model, row, sites)


@without_gradients
def _of_row(model: HookedGptOss, row: Int[Tensor, " _"], sites: Sequence[str]) -> dict[str, Tensor]:
    cache, keep, _ = model.get_caching_hooks(list(sites))
    with model.hooks(fwd_hooks=keep):
        model(row[None], return_type=None if not any(site.startswith("ln_final") for site in sites) else "logits")
    return {site: cache[site][0] for site in sites}


def about(model: HookedGptOss, experiment: str, **more: Any) -> dict[str, Any]:
    """Attributes of a dataset that comes from a model and not from one run: plain text and numbers."""
    return {"experiment": experiment, **provenance_of(model), **more}


def token_texts(model: HookedGptOss, ids: np.ndarray) -> np.ndarray:
    """Printable strings of ids of any shape, "" for one below 0; the ids themselves where there is no tokenizer."""
    flat = ids.reshape(-1).tolist()
    known = [i for i in flat if i >= 0]
    shown = iter(map(str, known) if model.tokenizer is None else model.tokenizer.str_tokens(known))
    return np.array([next(shown) if i >= 0 else "" for i in flat], dtype=str).reshape(ids.shape)


@without_gradients
def read_out(model: HookedGptOss, vectors: Float[Tensor, "row d_model"], top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``top_k`` tokens that directions raise the most, [row rank] ids and what they add to their logits.

    The final norm's gain counts; its division does not: a token's number is the dot product with γ ⊙ W_U[:, token].
    """
    gain, found = model.ln_final.w.float(), []
    for part in vectors.split(64):
        logits = model.unembed((part.float() * gain.to(part.device)).to(model.unembed.weight)).float()
        found.append(logits.topk(top_k, dim=-1))
    ids, values = (torch.cat([getattr(top, kind) for top in found]).cpu().numpy() for kind in ("indices", "values"))
    return ids, values
