"""The text of a run, token by token: what each is, whose message it is in, and how surprising it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.rows import numpy, provenance, quantity, real_columns, row_coords, token_coords
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients


def tokens(source: Run | HookedGptOss, input: Any = None, row: int = 0) -> xr.Dataset:
    """The tokens of a run's row, or, from a model, those of any input (text, Chat, ids) without running it.

    Returns:
        Coordinates on ``pos``: token, token_id, message, role, channel, part (marker, header or body). Of a run also
        ``surprise`` (pos) = −ln p(token | those before it) in nats; NaN for the first token, which nothing foretold.

    Raises:
        ValueError: for a row that is not there, or an input given together with a run.

    >>> experiments.tokens(run).token.values[:3].tolist()
    ['When', ' Ben', ' and']
    """
    if isinstance(source, Run):
        if input is not None:
            raise ValueError("an input was given with a run, which has its own; leave it out, or pass run.model")
        surprise = {"surprise": ("pos", numpy(_surprise(source, row)), quantity("−ln p(token | before)", "nats"))}
        return xr.Dataset(surprise, row_coords(source, row), provenance(source, "tokens", row))
    if not isinstance(source, HookedGptOss):
        raise TypeError(f"source={source!r:.60}: expected a run, or a model with an input")
    ids, mask = source.as_batch(input)
    if not 0 <= row < len(ids):
        raise ValueError(f"row={row}: this input has rows 0 to {len(ids) - 1}")
    columns = np.arange(ids.shape[1]) if mask is None else mask[row].nonzero()[:, 0].cpu().numpy()
    coords = token_coords(ids[row].cpu().numpy()[columns].tolist(), source.tokenizer, columns.tolist())
    return xr.Dataset(coords=coords, attrs={"experiment": "tokens", "model": source.config.name, "row": row})


@without_gradients
def _surprise(run: Run, row: int) -> Float[Tensor, " pos"]:
    columns = real_columns(run, row)
    ids = run.tokens[row, columns]
    logprobs = run.logits[row, columns[:-1]].float().log_softmax(-1)
    surprise = -logprobs.gather(-1, ids[1:, None])[:, 0]
    return torch.cat((surprise.new_full((min(1, len(ids)),), float("nan")), surprise))
