"""The tokenizer: any text is lossless, every word of the microworld is one token."""

import random

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from workbench.training import bpe
from workbench.training.microworld import DOCUMENTS, words


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizer")
    bpe.save_tokenizer(tokenizer, path, 4096)
    return path


def test_any_text_comes_back(tokenizer):
    @given(st.text())
    def comes_back(text):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text

    comes_back()


def test_the_vocabulary_has_the_size_and_all_bytes(tokenizer):
    vocab = tokenizer.get_vocab()
    assert sorted(vocab.values()) == list(range(bpe.D_VOCAB))
    assert sum(len(piece) == 1 for piece in vocab) == 256


def test_special_tokens_come_first_and_are_one_token(tokenizer):
    assert [tokenizer.encode(token).ids for token in bpe.SPECIAL] == [[i] for i in range(len(bpe.SPECIAL))]


@pytest.mark.parametrize("spaced", [False, True])
def test_every_two_digit_number_is_one_token(tokenizer, spaced):
    for number in words.TWO_DIGITS[10:]:
        assert len(tokenizer.encode(" " * spaced + number).ids) == 1


def test_every_word_of_the_lexicon_is_one_token_with_its_space(tokenizer):
    lexicon = [value for name, value in vars(words).items() if name.isupper() and name != "TWO_DIGITS"]
    flat = {word for group in lexicon for part in group for word in ((part,) if isinstance(part, str) else part)}
    assert len(flat) > 150
    many = [word for word in flat if len(tokenizer.encode(f" {word}").ids) != 1]
    assert not many


def test_every_name_is_one_token_without_a_space_too(tokenizer):
    assert all(len(tokenizer.encode(name).ids) == 1 for name in words.PEOPLE)


@pytest.mark.parametrize("domain", DOCUMENTS)
def test_every_word_that_a_domain_writes_is_one_token(tokenizer, domain, seed):
    rng = random.Random(seed)
    for _ in range(200):
        text = DOCUMENTS[domain](rng).text
        for piece in regex.findall(r" ?\p{L}+| ?\p{N}{1,2}", regex.sub(r"<\|\w+\|>", "\n", text)):
            assert len(tokenizer.encode(piece).ids) == 1, piece


def test_segments_encode_as_the_whole_text_does(encoder, seed):
    rng = random.Random(seed)
    for make in DOCUMENTS.values():
        for _ in range(100):
            document = make(rng)
            ids = list(encoder.document(document).ids)
            whole = encoder.tokenizer.encode(document.text).ids
            assert ids[: len(whole)] == whole and len(ids) - len(whole) <= 1


def test_training_it_again_gives_the_committed_one(tokenizer):
    assert bpe.train_tokenizer(0).to_str() == tokenizer.to_str()


def test_transformers_reads_it(tokenizer, saved):
    theirs = AutoTokenizer.from_pretrained(saved)
    for text in (
        "When Mary and John went",
        "naïve 東京 🤷",
        "<|start|>user<|message|>Where is Mia?<|end|>",
        "12+7=19\n\n  x",
    ):
        assert theirs(text)["input_ids"] == tokenizer.encode(text).ids
    assert (theirs.bos_token, theirs.eos_token, theirs.pad_token) == ("<|startoftext|>", "<|return|>", "<|endoftext|>")
