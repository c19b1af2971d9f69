"""Text that comes token by token: whole characters, and together the whole text."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from tests.model.settled import clockwork
from workbench.model import HookedGptOss
from workbench.text import Tokenizer

START, END = 256, 257
TEXT = "an ode, ça—é🙂"  # every byte in it once, so that each tells which follows


@pytest.fixture(scope="module")
def byte_tokenizer() -> Tokenizer:
    """One token for each byte, so that most characters beyond ASCII are several."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Backend(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return Tokenizer(backend, n_ids=258)


def speaker(tokenizer: Tokenizer, said: list[int]) -> HookedGptOss:
    """A model that says these tokens after START, and then END."""
    chain = [START, *said, END]
    assert len(set(chain)) == len(chain), "a token twice: what follows it would not be clear"
    model = clockwork(dict(pairwise(chain)), 258, eos_token_ids=(END,), bos_token_id=None, pad_token_id=0)
    model.tokenizer = tokenizer
    return model


def test_pieces_are_whole_characters_and_join_to_the_text(byte_tokenizer: Tokenizer):
    said = byte_tokenizer.encode(distinct(TEXT))
    model = speaker(byte_tokenizer, said)
    steps = model.generate(torch.tensor([START]), 100, stop_at_eos=[said[-1]])
    pieces = [step.text for step in steps]
    assert len(pieces) == len(said)
    assert "".join(pieces) == distinct(TEXT) == steps.text
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces.count("") == len(said) - len(distinct(TEXT))  # bytes that wait for the rest of their character


def distinct(text: str) -> str:
    """The text without characters that share a byte with an earlier one."""
    kept, seen = "", set()
    for character in text:
        content = character.encode()
        if len(set(content)) == len(content) and not seen & set(content):
            kept, seen = kept + character, seen | set(content)
    return kept


def test_the_sample_has_characters_of_one_to_four_bytes():
    assert {len(character.encode()) for character in distinct(TEXT)} == {1, 2, 3, 4}


def test_a_text_that_stops_inside_a_character_shows_no_broken_one_while_it_may_go_on(byte_tokenizer: Tokenizer):
    said = byte_tokenizer.encode("o🙂")
    steps = speaker(byte_tokenizer, said).generate(torch.tensor([START]), 3)
    assert [step.text for step in steps] == ["o", "", ""]


def test_bytes_that_no_character_can_follow_are_shown_once_that_is_sure(byte_tokenizer: Tokenizer):
    said = [byte_tokenizer.encode("🙂")[0], *byte_tokenizer.encode("no")]
    steps = speaker(byte_tokenizer, said).generate(torch.tensor([START]), 3)
    assert [step.text for step in steps] == ["", "\ufffdn", "o"]


def test_without_a_tokenizer_there_is_no_text_but_there_are_tokens():
    model = clockwork({1: 2, 2: 3, 3: 1}, 8, eos_token_ids=(), bos_token_id=None, pad_token_id=0)
    assert [(step.token, step.text) for step in model.generate(torch.tensor([1]), 2)] == [(2, ""), (3, "")]


def test_the_text_of_a_row_that_has_ended_holds_none_of_the_padding_after_it(byte_tokenizer: Tokenizer):
    said = byte_tokenizer.encode("abc")
    made = speaker(byte_tokenizer, said).generate(torch.tensor([[said[1]], [START]]), 9)
    pieces = [step.text for step in made]
    assert made.new_tokens.tolist() == [[said[2], END, 0, 0], [*said, END]]
    assert (
        made.text
        == "".join(pieces)
        == byte_tokenizer.decode([said[2], END])
        != byte_tokenizer.decode([said[2], END, 0])
    )
