"""A small tokenizer with harmony's special tokens, and its files."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

import workbench as wb
from workbench.text import Tokenizer

SPECIAL = "startoftext endoftext return constrain channel start end message call".split()


@cache
def tiny() -> Tokenizer:
    """A token a byte, two merges, special tokens, nano's chat template."""
    letters = {letter: i for i, letter in enumerate(sorted(ByteLevel.alphabet()))}
    backend = Backend(BPE({**letters, "th": 256, "the": 257}, [("t", "h"), ("th", "e")]))
    backend.pre_tokenizer, backend.decoder = ByteLevel(add_prefix_space=False), ByteDecoder()
    backend.add_special_tokens([AddedToken(f"<|{name}|>", special=True) for name in SPECIAL])
    return Tokenizer(backend, {"eos_token": "<|return|>", "pad_token": "<|endoftext|>"}, template())


@cache
def template() -> str:
    """nano's chat template."""
    made = wb.load("nano").tokenizer
    assert made is not None and made.chat_template is not None
    return made.chat_template


@cache
def tiny_folder() -> dict[str, bytes]:
    """Its files."""
    with tempfile.TemporaryDirectory() as place:
        tiny().save(place)
        return {path.name: path.read_bytes() for path in Path(place).iterdir()}
