r"""A tokenizer.json is a program of somebody else's: how long its patterns may search, and how far a text may grow.

Its regular expressions are run by Oniguruma, inside the library and with the GIL held, so that nothing here can stop
one. What holds:

- A pattern that backtracks exponentially, ``(a+)+$``, ends by itself: Oniguruma gives up one match after 10 million
  steps, in about 0.2 s, and ``encode`` raises a TokenizerError.
- One that is only polynomial, ``[ab]*[^ab]``, never meets that limit, and would take hours for a million letters. So a
  text is first tried in pieces of 16 characters, then 32, and so on, each size within a time that grows with the text
  alone. gpt-oss' own pattern and nano's are known to take linear time, and are not tried.
- Replacements that make each other's texts longer, or change what ``decode`` reads by a pattern, are refused at once.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer as Backend

from workbench.text.files import TokenizerError

MOST_GROWTH = 256  # characters that one character may become; NFKC alone makes up to 18 of one
FIRST = 16  # characters of the pieces that are tried first
SECONDS, EACH = 1.0, 5e-6  # of computing that the pieces of one size may take, and for each character; 3e-7 is usual
# gpt-oss' and nano's: after any match or failure the next one starts where this one ended, whatever the text.
LINEAR = frozenset(
    {
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
        r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        r' ?"""| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]|\s*[\r\n]+|\s+(?!\S)|\s+',
    }
)
ONCE = {"NFC": 4, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "BertNormalizer": 3, "Metaspace": 2}


def check_bounds(backend: Backend, file: Path) -> None:
    """Refuse a tokenizer whose texts could grow without end.

    Raises:
        TokenizerError: says which part, and what was expected.
    """
    reading, writing = [*_parts(backend.normalizer), *_parts(backend.pre_tokenizer)], list(_parts(backend.decoder))
    for said, parts in (("normalizer and pre_tokenizer", reading), ("decoder", writing)):
        if (grows := _growth(parts)) > MOST_GROWTH:
            raise TokenizerError(
                f"{file}: its {said} can make {grows:.4g} characters of one: expected at most {MOST_GROWTH}; take out "
                "replacements by longer texts"
            )
    if any(_pattern(part) is not None for part in writing):
        raise TokenizerError(
            f"{file}: its decoder replaces what a regular expression finds: expected plain texts there"
        )


def may_search_long(backend: Backend) -> bool:
    """Whether its time for a text need not grow as the text does: with patterns that are not known, and models that
    look for the longest piece at every place."""
    try:
        parts = [*_parts(backend.normalizer), *_parts(backend.pre_tokenizer)]
    except Exception:  # a step written in Python has no JSON, and the library's own error for it is a bare Exception
        return True
    unknown = any((found := _pattern(part)) is not None and found not in LINEAR for part in parts)
    return unknown or type(backend.model).__name__ not in ("BPE", "WordLevel")


def try_pieces(backend: Backend, text: str) -> None:
    """Encode ever longer pieces of a text, to see that the whole of it will not take too long.

    Twice as long a piece takes about four times as long where the time is quadratic, never a thousand times.

    Raises:
        TokenizerError: the pieces of one size took more than 1 s and 5 µs a character.
    """
    size, most = FIRST, SECONDS + EACH * len(text)
    while size < len(text):
        began = time.thread_time()
        for start in range(0, len(text), size):
            backend.encode(text[start : start + size], add_special_tokens=False)
            if (took := time.thread_time() - began) > most:
                raise TokenizerError(
                    f"this tokenizer takes too long: {took:.1f} s for pieces of {size} characters of a text of "
                    f"{len(text):,}; its regular expression or its model takes more than linear time. Give shorter "
                    "texts, or another tokenizer"
                )
        size *= 2


# ---------------------------------------------------------------- the parts of it


def _parts(whole: Any) -> Iterator[Mapping[str, Any]]:
    """The steps of a normalizer, pre-tokenizer or decoder, in order, as its JSON has them."""
    left = [] if whole is None else [json.loads(whole.__getstate__())]
    while left:
        part = left.pop()
        inner = [part[name] for name in ("normalizers", "pretokenizers", "decoders") if name in part]
        if inner:
            left += reversed(inner[0])
        else:
            yield part


def _pattern(part: Mapping[str, Any]) -> str | None:
    pattern: Any = part.get("pattern")
    return cast("dict[str, str]", pattern).get("Regex") if isinstance(pattern, dict) else None


def _growth(parts: list[Mapping[str, Any]]) -> float:
    """The most characters that one can become."""
    grows = 1.0
    for name in {part["type"] for part in parts}:
        grows *= ONCE.get(name, 1)  # done twice, these change nothing more
    for part in parts:
        if part["type"] == "Replace":
            found = part["pattern"].get("String") or ""
            grows *= max(1.0, len(part["content"]) / len(found)) if found else 1 + len(part["content"])
        elif part["type"] == "Precompiled":
            grows *= _longest(part["precompiled_charsmap"])
        else:
            grows *= {"ByteLevel": 4, "Prepend": 1 + len(part.get("prepend", ""))}.get(part["type"], 1)
    return grows


def _longest(charsmap: Any) -> int:
    """The longest text that a map of SentencePiece puts for a character: after its trie, texts that end with a zero."""
    raw = base64.b64decode(charsmap) if isinstance(charsmap, str) else bytes(charsmap)
    texts = raw[4 + int.from_bytes(raw[:4], "little") :]
    return max((len(text) for text in texts.split(b"\0")), default=1) or 1
