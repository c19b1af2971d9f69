"""Tokenizer: against the tokenizers library, transformers, and OpenAI's own tiktoken in Rust."""

from __future__ import annotations

import base64
import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers

from tests.fetch import gpt_oss_directory, harmony_vocabulary_directory
from tests.text.samples import MULTILINGUAL
from workbench.text import Tokenizer

# The ids of the model card and of openai/gpt-oss.
GPT_OSS_SPECIAL = {
    "<|startoftext|>": 199998,
    "<|endoftext|>": 199999,
    "<|return|>": 200002,
    "<|constrain|>": 200003,
    "<|channel|>": 200005,
    "<|start|>": 200006,
    "<|end|>": 200007,
    "<|message|>": 200008,
    "<|call|>": 200012,
}
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def test_gpt_oss_special_tokens_have_their_published_ids(gpt_oss: Tokenizer):
    assert {name: gpt_oss.special[name] for name in GPT_OSS_SPECIAL} == GPT_OSS_SPECIAL
    assert (gpt_oss.bos_token_id, gpt_oss.eos_token_id, gpt_oss.pad_token_id) == (199998, 200002, 199999)
    assert gpt_oss.vocab_size == 200_019


def test_ids_equal_the_tokenizers_library(gpt_oss: Tokenizer):
    backend = Backend.from_file(str(gpt_oss_directory() / "tokenizer.json"))
    for text in MULTILINGUAL:
        assert gpt_oss.encode(text) == backend.encode(text, add_special_tokens=False).ids, text


def test_ids_equal_openais_own_tokenizer(gpt_oss: Tokenizer, harmony_encoding: Any):
    for text in MULTILINGUAL:
        assert gpt_oss.encode(text) == harmony_encoding.encode(text, allowed_special="all"), text


def test_ids_equal_transformers(tokenizer: Tokenizer, reference: Any):
    for text in [*MULTILINGUAL, "<|start|>user<|message|>Hi<|end|>"]:
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False), text


def test_decoding_gives_the_text_back(tokenizer: Tokenizer):
    for text in MULTILINGUAL:
        assert tokenizer.decode(tokenizer.encode(text)) == text


@given(text=ANY_TEXT)
def test_any_text_survives_encoding_and_its_tokens_bytes_are_its_bytes(nano: Tokenizer, text: str):
    ids = nano.encode(text)
    assert nano.decode(ids) == text
    assert b"".join(map(nano.token_bytes, ids)) == text.encode("utf-8")


def test_every_gpt_oss_token_has_the_bytes_of_openais_own_vocabulary_file(gpt_oss: Tokenizer):
    lines = (harmony_vocabulary_directory() / "o200k_base.tiktoken").read_text().splitlines()
    assert len(lines) == 199_998
    for line in lines:
        data, rank = line.split()
        assert gpt_oss.token_bytes(int(rank)) == base64.b64decode(data)


def test_the_bytes_of_gpt_oss_tokens_join_to_the_text(gpt_oss: Tokenizer):
    for text in MULTILINGUAL:
        assert b"".join(map(gpt_oss.token_bytes, gpt_oss.encode(text))) == text.encode("utf-8")


def test_special_spellings_are_special_only_when_allowed(gpt_oss: Tokenizer, harmony_encoding: Any):
    text = "He wrote <|end|> there."
    assert 200007 in gpt_oss.encode(text)
    plain = gpt_oss.encode(text, allow_special=False)
    assert plain == harmony_encoding.encode(text, disallowed_special=())
    assert 200007 not in plain and gpt_oss.decode(plain) == text
    assert 200007 in gpt_oss.encode(text), "the choice does not outlast its call"


def test_threads_do_not_mix_their_choice_of_special_tokens(nano: Tokenizer):
    allowed = [i % 2 == 0 for i in range(200)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda allow: nano.special["<|end|>"] in nano.encode("a<|end|>", allow), allowed))
    assert found == allowed


def test_a_part_of_a_character_is_shown_by_its_bytes(nano: Tokenizer):
    ids = nano.encode("東")
    assert nano.str_tokens(ids) == ["\\xe6", "\\x9d", "\\xb1"]
    assert nano.decode(ids) == "東"
    assert nano.decode(ids[:2]) == "\ufffd"


def test_every_token_has_a_string_that_can_be_printed_and_written(gpt_oss: Tokenizer, nano: Tokenizer):
    for tokenizer, step in ((nano, 1), (gpt_oss, 97)):
        ids = range(0, tokenizer.vocab_size, step)
        for piece in tokenizer.str_tokens(ids):
            assert piece and piece.encode("utf-8")
            assert all(char.isprintable() or char.isspace() or ord(char) > 127 for char in piece)


def test_the_strings_of_plain_text_join_to_the_text(gpt_oss: Tokenizer):
    text = "Mia went to the park.\n\tShe didn't."
    assert "".join(gpt_oss.str_tokens(gpt_oss.encode(text))) == text


def test_rows_of_the_model_that_are_no_tokens_are_shown_and_not_dropped(gpt_oss: Tokenizer):
    model_wide = Tokenizer(gpt_oss.backend, n_ids=201_088)
    assert model_wide.str_tokens([200_500, 64]) == ["<|unused_200500|>", "a"]
    assert model_wide.decode([64, 200_500, 65]) == "a<|unused_200500|>b"


@pytest.mark.parametrize("wrong", [-1, 201_088])
def test_an_id_out_of_range_is_refused_with_the_range(gpt_oss: Tokenizer, wrong: int):
    model_wide = Tokenizer(gpt_oss.backend, n_ids=201_088)
    for method in (model_wide.decode, model_wide.str_tokens):
        with pytest.raises(ValueError, match=f"token id {wrong} is out of range.*0 to 201087"):
            method([5, wrong])


def test_a_half_surrogate_is_refused_with_its_place(nano: Tokenizer):
    with pytest.raises(ValueError, match=r"character 2 .*half of a surrogate pair"):
        nano.encode("ab\ud800")


def test_special_tokens_can_be_left_out_of_the_text(nano: Tokenizer):
    assert nano.decode(nano.encode("<|start|>Mia<|end|>"), skip_special=True) == "Mia"


def test_a_batch_is_padded_on_the_side_asked_for_and_its_mask_says_where(nano: Tokenizer):
    texts = ["Mia", "Mia is here.", ""]
    rows = [nano.encode(text) for text in texts]
    for side in ("left", "right"):
        ids, mask = nano.encode_batch(texts, side=side)
        assert ids.shape == mask.shape == (3, len(rows[1]))
        for row, found, real in zip(rows, ids, mask, strict=True):
            assert found[real == 1].tolist() == row
            assert (found[real == 0] == nano.pad_token_id).all()
            if row:
                assert real[-1 if side == "left" else 0] == 1
    with pytest.raises(ValueError, match=r"'top'.*'left' or 'right'"):
        nano.encode_batch(texts, side="top")


def test_fingerprints_tell_tokenizers_apart_and_survive_saving(nano: Tokenizer, gpt_oss: Tokenizer, tmp_path):
    nano.save(tmp_path)
    assert Tokenizer.from_directory(tmp_path).fingerprint == nano.fingerprint
    other_template = Tokenizer(nano.backend, nano.special_names, "{{ messages }}")
    assert len({nano.fingerprint, gpt_oss.fingerprint, other_template.fingerprint}) == 3


def test_a_saved_tokenizer_is_the_same_here_and_in_transformers(nano: Tokenizer, tmp_path):
    from transformers import AutoTokenizer

    nano.save(tmp_path / "deep" / "er")
    again = Tokenizer.from_directory(tmp_path / "deep" / "er")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "deep" / "er")
    assert again.special == nano.special and again.special_names == nano.special_names
    assert again.chat_template == nano.chat_template == theirs.chat_template
    assert theirs.eos_token_id == nano.eos_token_id and theirs.pad_token_id == nano.pad_token_id
    for text in MULTILINGUAL:
        assert again.encode(text) == theirs.encode(text, add_special_tokens=False) == nano.encode(text)


def test_a_tokenizer_can_be_copied_and_sent_to_another_process(nano: Tokenizer):
    for twin in (copy.deepcopy(nano), pickle.loads(pickle.dumps(nano))):
        assert twin.encode("Where is Mia?") == nano.encode("Where is Mia?")
        assert twin.fingerprint == nano.fingerprint


def test_text_of_a_byte_fallback_tokenizer_is_shown_by_its_bytes_too():
    """The other family of byte tokenizers: SentencePiece's, as Llama has it."""
    vocab = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁": 256, "a": 257, "▁a": 258, "<unk>": 259}
    backend = Backend(models.BPE(vocab=vocab, merges=[("▁", "a")], byte_fallback=True, unk_token="<unk>"))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = Tokenizer(backend)
    for text in ("a a", "a 東 a", "é"):
        ids = tokenizer.encode(text)
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode("utf-8")
        assert tokenizer.decode(ids) == text
    assert tokenizer.str_tokens(tokenizer.encode(" aé")) == [" a", "\\xc3", "\\xa9"]
