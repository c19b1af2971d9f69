"""A clean prompt, its corrupt twin, and the two answers that are weighed against each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

from workbench.text import Chat, Tokenizer, render

Prompt = str | Chat | tuple[int, ...]


@dataclass(frozen=True)
class Pair:
    """Two prompts of one length that differ only in what decides the answer.

    Attributes:
        clean: text, a chat, or token ids; the answer is the token that comes next.
        corrupt: the same with the deciding words changed; as many tokens.
        right: the answer to ``clean``: one token, as text (" Mia", with its space) or as an id.
        wrong: the answer that it is weighed against, where it makes sense the one to ``corrupt``.
        task: what the pair is about.
    """

    clean: Prompt
    corrupt: Prompt
    right: str | int
    wrong: str | int
    task: str = ""


class Stacked(NamedTuple):
    """Pairs of one length as tensors."""

    clean: Int[Tensor, "batch pos"]
    corrupt: Int[Tensor, "batch pos"]
    right: Int[Tensor, " batch"]
    wrong: Int[Tensor, " batch"]


def tokenizer_of(source: Any) -> Tokenizer | None:
    """A tokenizer as it is; a model's own (or none)."""
    return source if source is None or isinstance(source, Tokenizer) else getattr(source, "tokenizer", None)


def token_ids(prompt: str | int | Chat | Sequence[int], tokenizer: Tokenizer | None = None) -> tuple[int, ...]:
    """The ids of a prompt or of an answer; a chat is rendered ready for the assistant's reply.

    Raises:
        ValueError: for text without a tokenizer to read it.
    """
    if isinstance(prompt, int):
        return (prompt,)
    if not isinstance(prompt, str | Chat):
        return tuple(int(token) for token in prompt)
    if tokenizer is None:
        raise ValueError(f"{prompt!r:.60} is text, and there is no tokenizer to read it; pass one, or give token ids")
    return tuple(render(prompt, tokenizer) if isinstance(prompt, Chat) else tokenizer.encode(prompt))


def stack(pairs: Sequence[Pair], source: Any = None) -> Stacked:
    """Pairs as tensors, one row each.

    Args:
        pairs: all of one length in tokens.
        source: a model or tokenizer, for pairs of text.

    Raises:
        ValueError: for no pairs, for pairs of several lengths, or an answer of several tokens.
    """
    tokenizer = tokenizer_of(source)
    clean, corrupt, right, wrong = (
        [token_ids(getattr(pair, field), tokenizer) for pair in pairs]
        for field in ("clean", "corrupt", "right", "wrong")
    )
    lengths = sorted({len(row) for row in (*clean, *corrupt)})
    if len(lengths) != 1:
        raise ValueError(f"{len(pairs)} pairs of {lengths} tokens: expected at least one pair, and all of one length")
    if any(len(answer) != 1 for answer in (*right, *wrong)):
        raise ValueError("an answer of several tokens: right and wrong are one token each; prompts.misfit says which")
    return Stacked(*(torch.tensor(rows) for rows in (clean, corrupt)), *(torch.tensor(a)[:, 0] for a in (right, wrong)))
