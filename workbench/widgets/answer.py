"""The tokens that an answer is weighed by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.figures.text import visible
from workbench.model import HookedGptOss
from workbench.prompts.pair import token_ids


def single_token(model: HookedGptOss, word: Any) -> int:
    """A token by its id or its text.

    Raises:
        ValueError: for text that is not one token, naming those that it is.
    """
    size = model.config.d_vocab
    if type(word) is int and 0 <= word < size:
        return word
    if not isinstance(word, str) or model.tokenizer is None:
        raise ValueError(f"{word!r:.80} is no token; expected the text of one, or an id below {size}")
    ids = token_ids(word, model.tokenizer)
    if len(ids) != 1:
        pieces = " · ".join(visible(piece, 40) for piece in model.tokenizer.str_tokens(list(ids))[:20]) or "nothing"
        hint = "give the text of one, often with a space before it"
        raise ValueError(f"{word!r:.80} is {len(ids)} tokens ({pieces}); {hint}")
    return ids[0]


def two_tokens(model: HookedGptOss, answer: Sequence[Any]) -> tuple[int, int]:
    """The right token and the wrong one.

    Raises:
        ValueError: for anything but two tokens.
    """
    if isinstance(answer, str) or len(answer) != 2:
        raise ValueError(f"answer={answer!r:.80}: expected two tokens, the right one and a wrong one")
    right, wrong = (single_token(model, word) for word in answer)
    return right, wrong
