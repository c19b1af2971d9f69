"""A stand-in for a tokenizer: each byte of a text is one token, beside gpt-oss' special tokens.

To a random model no id means anything, so any tokenizer serves to try it. This one needs no download, takes every text
and renders harmony chats. A text has more tokens in it than with the real one, about four times as many in English.
"""

from __future__ import annotations

from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend
from tokenizers.decoders import ByteLevel as ByteLevelDecoder
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from workbench.model.config import Config
from workbench.text import Tokenizer
from workbench.text.pieces import piece_to_bytes

# gpt-oss' own ids, for a vocabulary as large as its own.
SPECIAL = {
    "<|startoftext|>": 199_998,
    "<|endoftext|>": 199_999,
    "<|return|>": 200_002,
    "<|constrain|>": 200_003,
    "<|channel|>": 200_005,
    "<|start|>": 200_006,
    "<|end|>": 200_007,
    "<|message|>": 200_008,
    "<|call|>": 200_012,
}
ROLES = {"bos_token": "<|startoftext|>", "eos_token": "<|return|>", "pad_token": "<|endoftext|>"}
ENDS = ("<|return|>", "<|endoftext|>", "<|call|>")


def special_ids(d_vocab: int) -> dict[str, int] | None:
    """The ids of the special tokens: gpt-oss' own where the vocabulary reaches so far, else 0 to 8, with the bytes
    after them; None for a vocabulary too small for 256 bytes and these."""
    if d_vocab > max(SPECIAL.values()):
        return SPECIAL
    return {name: i for i, name in enumerate(SPECIAL)} if d_vocab >= 256 + len(SPECIAL) else None


def with_special_ids(config: Config) -> Config:
    """The shape with the stand-in's ids for the beginning, the end and padding."""
    ids = special_ids(config.d_vocab)
    if ids is None:
        return config
    bos, pad = ids[ROLES["bos_token"]], ids[ROLES["pad_token"]]
    return config.with_(bos_token_id=bos, pad_token_id=pad, eos_token_ids=tuple(ids[name] for name in ENDS))


def stand_in(d_vocab: int) -> Tokenizer | None:
    """The tokenizer, or None where the vocabulary has no room for it."""
    special = special_ids(d_vocab)
    if special is None:
        return None
    first = 0 if special is SPECIAL else len(special)
    speller = Backend(BPE())
    speller.decoder = ByteLevelDecoder()
    to_bytes = piece_to_bytes(speller)
    letters = {letter: first + to_bytes(letter)[0] for letter in ByteLevel.alphabet()}
    # In the vocabulary too, or the special tokens would get the ids after the bytes.
    backend = Backend(BPE(vocab=letters | special, merges=[]))
    backend.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = ByteLevelDecoder()
    backend.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return Tokenizer(backend, ROLES, n_ids=d_vocab)
