"""What one token is in bytes, and how those bytes are shown."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from typing import Any

from tokenizers import Tokenizer as Backend

PieceToBytes = Callable[[str], bytes]

_SHOWN_AS_THEY_ARE = "\n\r\t"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def show(data: bytes) -> str:
    r"""The bytes as text; bytes that make no whole UTF-8 character, and control characters, as escapes like ``\xe2``.

    Newlines, carriage returns and tabs stay themselves, so joining the pieces of ordinary text gives that text.
    """
    text = data.decode("utf-8", errors="backslashreplace")
    return "".join(_escape_control(char) for char in text)


def _escape_control(char: str) -> str:
    if char in _SHOWN_AS_THEY_ARE or unicodedata.category(char) != "Cc":
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8"))


def piece_to_bytes(backend: Backend) -> PieceToBytes:
    """How this tokenizer's vocabulary spells bytes, read from its decoder: a function from a piece to its bytes.

    Two families are known: byte-level (GPT-2, gpt-oss: each byte has one printable letter) and byte fallback
    (SentencePiece: ``<0xE2>`` is a byte, ``▁`` a space). A piece of any other tokenizer is taken as plain text.
    """
    steps = list(_decoder_steps(backend))
    if any(step["type"] == "ByteLevel" for step in steps):
        return _byte_level
    replace = {
        step["pattern"]["String"]: step["content"]
        for step in steps
        if step["type"] == "Replace" and "String" in step["pattern"]
    }
    if any(step["type"] == "Metaspace" for step in steps):
        replace["▁"] = " "
    return partial(_byte_fallback, replace=replace)


def _decoder_steps(backend: Backend) -> Iterator[Mapping[str, Any]]:
    if backend.decoder is None:
        return
    state = json.loads(backend.decoder.__getstate__())  # its JSON, without writing out the whole vocabulary
    yield from state["decoders"] if state["type"] == "Sequence" else [state]


def _byte_level(piece: str) -> bytes:
    table = _letter_to_byte()
    if all(char in table for char in piece):
        return bytes(table[char] for char in piece)
    return piece.encode("utf-8")


@cache
def _letter_to_byte() -> dict[str, int]:
    # The byte-level alphabet: printable Latin-1 bytes stand for themselves, the rest are letters from U+0100 on.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + i): byte for i, byte in enumerate(others)}


def _byte_fallback(piece: str, replace: Mapping[str, str]) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    for old, new in replace.items():
        piece = piece.replace(old, new)
    return piece.encode("utf-8")
