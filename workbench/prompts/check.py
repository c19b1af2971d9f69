"""What makes a pair unfit, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from workbench.prompts.pair import Pair, token_ids
from workbench.text import Tokenizer


@dataclass(frozen=True)
class Refused:
    """An entry of a file that is no usable pair.

    Attributes:
        line: where it starts in the file, from 1.
        reason: what is wrong with it, in words.
        entry: the entry as it was read, cut at 200 characters.
    """

    line: int
    reason: str
    entry: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


class PromptError(ValueError):
    """A file of prompts that cannot be used as it is; ``refused`` lists every unfit entry."""

    def __init__(self, message: str, refused: Sequence[Refused] = ()) -> None:
        super().__init__(message)
        self.refused = tuple(refused)


def misfit(pair: Pair, tokenizer: Tokenizer | None) -> str | None:
    """Why a pair cannot be used, or None: its sides must be as many tokens, differ, and its answers be one token each,
    not the same.

    >>> prompts.misfit(prompts.Pair("in the park", "in the old park", " a", " b"), model.tokenizer)
    'clean is 3 tokens and corrupt 4; they must be as many'
    """
    try:
        clean, corrupt = token_ids(pair.clean, tokenizer), token_ids(pair.corrupt, tokenizer)
        answers = {name: token_ids(getattr(pair, name), tokenizer) for name in ("right", "wrong")}
    except ValueError as error:
        return str(error)
    wrong_ids = _outside((*clean, *corrupt, *answers["right"], *answers["wrong"]), tokenizer)
    if wrong_ids is not None:
        return wrong_ids
    if len(clean) != len(corrupt):
        return f"clean is {len(clean)} tokens and corrupt {len(corrupt)}; they must be as many"
    if not clean:
        return "clean and corrupt are empty"
    if clean == corrupt:
        return "clean and corrupt are the same tokens"
    for name, ids in answers.items():
        if len(ids) != 1:
            found = f"{len(ids)} tokens{_pieces(ids, tokenizer)}"
            return f"{name} {getattr(pair, name)!r:.80} is {found}, expected exactly one"
    return "right and wrong are the same token" if answers["right"] == answers["wrong"] else None


def _outside(ids: Sequence[int], tokenizer: Tokenizer | None) -> str | None:
    outside = [i for i in ids if i < 0 or (tokenizer is not None and i >= tokenizer.n_ids)]
    if not outside:
        return None
    last = f"0 to {tokenizer.n_ids - 1}" if tokenizer is not None else "0 and up"
    return f"token id {outside[0]} is out of range: there are {last}"


def _pieces(ids: Sequence[int], tokenizer: Tokenizer | None) -> str:
    if tokenizer is None or not ids:
        return ""
    return f" {tokenizer.str_tokens(ids[:20])}" + (", …" if len(ids) > 20 else "")
