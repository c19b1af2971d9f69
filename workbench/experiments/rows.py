"""What every experiment needs of a run: the real positions of one row, their coordinates, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens import ActivationCache

from workbench.activations import Run
from workbench.text import Tokenizer, label


def real_columns(run: Run, row: int) -> Int[Tensor, " pos"]:
    """The columns of a row that hold real tokens, in order: all of them where the run has no mask.

    Raises:
        ValueError: for a row that the run does not have.
    """
    n_rows, n_columns = run.tokens.shape
    if not 0 <= row < n_rows:
        raise ValueError(f"row={row}: this run has rows 0 to {n_rows - 1}")
    if run.attention_mask is None:
        return torch.arange(n_columns, device=run.tokens.device)
    return run.attention_mask[row].nonzero()[:, 0]


def token_coords(ids: Sequence[int], tokenizer: Tokenizer | None, columns: Sequence[int] | None = None) -> dict:
    """Coordinates along ``pos``: pos itself (the column in the run), token, token_id, message, role, channel, part.

    What is unknown is "" and −1: without a tokenizer, a token is its id and nothing is known of its message.
    """
    if tokenizer is None:
        texts, unknown = [str(i) for i in ids], [""] * len(ids)
        message, role, channel, part = [-1] * len(ids), unknown, unknown, ["body"] * len(ids)
    else:
        texts, labels = tokenizer.str_tokens(ids), label(ids, tokenizer)
        message, part = list(labels.message), list(labels.part)
        role, channel = [name or "" for name in labels.role], [name or "" for name in labels.channel]
    pos = range(len(ids)) if columns is None else columns
    texts_of = {"token": texts, "role": role, "channel": channel, "part": part}
    numbers = {"pos": list(pos), "token_id": list(ids), "message": message}
    # dtype=str keeps an empty row a row of strings.
    strings = {name: ("pos", np.array(values, dtype=str)) for name, values in texts_of.items()}
    return {name: ("pos", np.array(values, dtype=np.int64)) for name, values in numbers.items()} | strings


def row_coords(run: Run, row: int) -> dict:
    """:func:`token_coords` of the real tokens of one row of a run."""
    columns = real_columns(run, row)
    return token_coords(run.tokens[row, columns].tolist(), run.model.tokenizer, columns.tolist())


def provenance(run: Run, experiment: str, row: int | None = None, **more: Any) -> dict[str, Any]:
    """Attributes that say where numbers came from: plain text and numbers, so that a dataset can be stored."""
    made = {"experiment": experiment, **run.provenance, "routing": run.routing}
    made |= {"interventions": "; ".join(map(str, run.interventions)), "run": run.name or ""}
    if row is not None:
        made["row"] = row
    return made | more


def quantity(meaning: str, units: str = "") -> dict[str, str]:
    """A variable's attributes, under xarray's own names."""
    return {"long_name": meaning} | ({"units": units} if units else {})


def numpy(values: Tensor) -> np.ndarray:
    """A tensor as numpy: floats as float32 at least, integers and truth values as they are."""
    values = values.detach().cpu()
    return values.float().numpy() if values.dtype in (torch.bfloat16, torch.float16) else values.numpy()


def check_index(what: str, value: int, size: int) -> None:
    """Refuse a layer, head or expert that the model does not have."""
    if not is_whole(value):
        raise ValueError(f"{what}={value!r}: expected a whole number, 0 to {size - 1}")
    if not 0 <= value < size:
        nearest = min(max(value, 0), size - 1)
        raise ValueError(f"{what}={value}: the model has {what}s 0 to {size - 1}, the nearest is {nearest}")


def is_whole(value: Any) -> bool:
    """Whether it is a whole number, of any library."""
    try:
        return index(value) is not None
    except TypeError:
        return False


def check_whole(least: int, **named: Any) -> None:
    """Refuse what is no whole number, or smaller than it can be."""
    for what, value in named.items():
        if not is_whole(value):
            raise ValueError(f"{what}={value!r}: expected a whole number, at least {least}")
        if value < least:
            raise ValueError(f"{what}={value}: expected at least {least}")


def with_sites(run: Run, sites: Mapping[str, np.ndarray]) -> Run:
    """A run as if it had kept these sites, and no others: for what reads a run, where numbers come from elsewhere.

    Args:
        sites: each with its batch axis.
    """
    kept = {name: torch.from_numpy(np.ascontiguousarray(values)) for name, values in sites.items()}
    return replace(run, cache=ActivationCache(kept, run.model))
