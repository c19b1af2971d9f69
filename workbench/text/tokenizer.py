"""Strings ↔ token ids, with the tokenizer that comes with a checkpoint."""

from __future__ import annotations

import hashlib
import json
import operator
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import date as Date
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np
from jaxtyping import Int
from tokenizers import AddedToken
from tokenizers import Tokenizer as Backend

from workbench.text.bounds import check_bounds, may_search_long, try_pieces
from workbench.text.files import (
    TokenizerError,
    TokenizerFiles,
    of_the_library,
    read_backend,
    read_directory,
    write_directory,
)
from workbench.text.padding import pad
from workbench.text.pieces import piece_to_bytes, show
from workbench.text.template import TemplateError, render_template

# `encode_special_tokens` is a switch on the shared backend: it is set and used under this lock.
_ENCODING = threading.Lock()

_PROBE = "The 12 cats' naïve café – 東京, Ω≈3.14…\n\tdef f(x): return x+1  # ok 👩‍🚀"


class Tokenizer:
    """A checkpoint's tokenizer: its vocabulary, special tokens and chat template.

    Make one with `Tokenizer.from_directory(path)`, or around a `tokenizers.Tokenizer` of your own:
    `Tokenizer(backend, special_names={"pad_token": "<|endoftext|>"}, chat_template=…)`.

    Args:
        backend: the tokenizer itself. Truncation and padding that it carries are switched off.
        special_names: which special token plays which part ("bos_token", "eos_token", "pad_token", …).
        chat_template: Jinja source, or None.
        n_ids: how many ids the model has. gpt-oss has 201,088 and only 200,019 tokens; the rest are unused rows.
    """

    def __init__(
        self,
        backend: Backend,
        special_names: Mapping[str, str] | None = None,
        chat_template: str | None = None,
        n_ids: int | None = None,
    ) -> None:
        backend.no_truncation()  # some tokenizer.json files would silently cut long texts
        backend.no_padding()
        self.backend = backend
        self.special_names = dict(special_names or {})
        self.chat_template = chat_template
        added = backend.get_added_tokens_decoder()
        self._added = {i: token.content for i, token in added.items()}
        self.special = {token.content: i for i, token in sorted(added.items()) if token.special}
        self.vocab_size = 1 + max(backend.get_vocab(with_added_tokens=True).values(), default=-1)
        self.n_ids = max(n_ids or 0, self.vocab_size)
        self._try_pieces = may_search_long(backend)

    @classmethod
    def from_directory(cls, path: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint's folder: tokenizer.json, and, where present, tokenizer_config.json,
        special_tokens_map.json, chat_template.jinja and config.json (for n_ids).

        Raises:
            FileNotFoundError: there is no tokenizer.json.
            TokenizerError: a file is there and cannot be read; the message names it.
        """
        files = read_directory(Path(path))
        backend = read_backend(files)
        check_bounds(backend, files.path / "tokenizer.json")
        for index, token in files.added_tokens.items():
            _add_token(backend, index, token, files)
        return cls(backend, files.special_names, files.chat_template, files.n_ids)

    def save(self, path: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and chat_template.jinja; `transformers` reads them too."""
        write_directory(Path(path), self.backend, self.special_names, self.chat_template)

    def __repr__(self) -> str:
        template = "a chat template" if self.chat_template else "no chat template"
        return f"Tokenizer({self.vocab_size:,} tokens, {len(self.special)} special, {template})"

    # strings to ids

    def encode(self, text: str, allow_special: bool = True) -> list[int]:
        """The ids of a text; nothing is added around it.

        Args:
            text: any string.
            allow_special: True reads "<|end|>" in the text as that special token, as transformers does. False reads
                it as seven plain characters, so a quoted text cannot pretend to be a message.

        Raises:
            TypeError: `text` is no string.
            ValueError: it holds half of a surrogate pair, which no UTF-8 text can.
            TokenizerError: the tokenizer's own patterns would take too long for it; see bounds.py.
        """
        if not isinstance(text, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"encode takes a str and got {type(text).__name__}; for many texts use encode_batch")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            bad = text[error.start]
            raise ValueError(f"character {error.start} of the text, {bad!r}, is half of a surrogate pair") from None
        with _ENCODING, of_the_library("encode"):
            self.backend.encode_special_tokens = not allow_special
            if self._try_pieces:
                try_pieces(self.backend, text)
            return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_batch(
        self, texts: Sequence[str], side: str = "right", pad_id: int | None = None, allow_special: bool = True
    ) -> tuple[Int[np.ndarray, "batch pos"], Int[np.ndarray, "batch pos"]]:
        """ids and mask of several texts, filled up with the pad token; see `pad`."""
        if pad_id is None:
            pad_id = self.pad_token_id
        if pad_id is None:
            raise ValueError("this tokenizer names no pad token; pass pad_id=")
        return pad([self.encode(text, allow_special) for text in texts], side, pad_id)

    # ids to strings

    def decode(self, ids: Iterable[SupportsIndex], skip_special: bool = False) -> str:
        """The text of the ids. Bytes that are no UTF-8 become U+FFFD; unused ids are shown as `str_tokens` does.

        Args:
            ids: token ids, in [0, n_ids).
            skip_special: leave the special tokens out.

        Raises:
            ValueError: an id is out of range.
        """
        text: list[str] = []
        run: list[int] = []
        for i in self._checked(ids):
            if self.backend.id_to_token(i) is not None:
                run.append(i)
                continue
            text += [self._decode_known(run, skip_special), _unused(i)]
            run = []
        return "".join([*text, self._decode_known(run, skip_special)])

    def _decode_known(self, ids: list[int], skip_special: bool) -> str:
        with of_the_library("decode"):
            return str(self.backend.decode(ids, skip_special_tokens=skip_special)) if ids else ""

    def str_tokens(self, ids: Iterable[SupportsIndex]) -> list[str]:
        r"""One printable string for each id.

        A token that is only a part of a UTF-8 character is shown by its bytes, ``\xe2\x82``, and an id that the model
        has and the tokenizer has not as ``<|unused_200500|>``. `token_bytes` is exact where this could be ambiguous.

        Raises:
            ValueError: an id is out of range.
        """
        return [show(self.token_bytes(i)) for i in self._checked(ids)]

    def token_bytes(self, token: SupportsIndex) -> bytes:
        """The bytes of one token; the bytes of a text's tokens joined are the text in UTF-8."""
        (i,) = self._checked([token])
        if i in self._added:
            return self._added[i].encode("utf-8")
        piece = self.backend.id_to_token(i)
        return _unused(i).encode() if piece is None else self._piece_bytes(piece)

    @cached_property
    def _piece_bytes(self) -> Any:
        return piece_to_bytes(self.backend)

    def _checked(self, ids: Iterable[SupportsIndex]) -> list[int]:
        try:
            numbers = [operator.index(i) for i in ids]
        except TypeError:
            raise TypeError(f"token ids are whole numbers in one flat row, not {ids!r:.80}") from None
        for i in numbers:
            if not 0 <= i < self.n_ids:
                raise ValueError(f"token id {i} is out of range: this tokenizer has ids 0 to {self.n_ids - 1}")
        return numbers

    # special tokens and chats

    def _named(self, role: str) -> int | None:
        name = self.special_names.get(role)
        return None if name is None else self.backend.token_to_id(name)

    @property
    def bos_token_id(self) -> int | None:
        return self._named("bos_token")

    @property
    def eos_token_id(self) -> int | None:
        return self._named("eos_token")

    @property
    def pad_token_id(self) -> int | None:
        return self._named("pad_token")

    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = False,
        date: Date | str | None = None,
        **variables: Any,
    ) -> str:
        """The checkpoint's own rendering of messages in transformers' form, as text.

        The same text as `transformers`' `apply_chat_template(…, tokenize=False)`, but for the date, which is never
        today's unasked. `variables` are the template's own, such as `reasoning_effort="low"`.

        Raises:
            TemplateError: there is no template, or it refuses; DateNeeded: it prints a date and none was given.
        """
        if self.chat_template is None:
            raise TemplateError("this checkpoint has no chat template; render a wb.Chat instead, or set one")
        given = {"messages": [_with_reasoning(message) for message in messages], "tools": tools, "documents": None}
        given |= {"add_generation_prompt": add_generation_prompt, **self.special_names}
        return render_template(self.chat_template, {**given, **variables}, date)

    @cached_property
    def fingerprint(self) -> str:
        """A short name for what this tokenizer does: its vocabulary, special tokens, cuts and chat template."""
        parts = [sorted(self.backend.get_vocab(with_added_tokens=True).items()), sorted(self.special.items())]
        parts += [sorted(self.special_names.items()), self.chat_template, self.encode(_PROBE)]
        return hashlib.sha256(json.dumps(parts, ensure_ascii=False).encode("utf-8")).hexdigest()[:16]


def _unused(i: int) -> str:
    return f"<|unused_{i}|>"


def _with_reasoning(message: Mapping[str, Any]) -> dict[str, Any]:
    # Templates read an assistant's thinking under one of two names; transformers fills both.
    names = ("reasoning_content", "thinking", "reasoning")
    reasoning = next((message[name] for name in names if message.get(name) is not None), None)
    if reasoning is None:
        return dict(message)
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _add_token(backend: Backend, index: int, token: Mapping[str, Any], files: TokenizerFiles) -> None:
    """Add a token that only tokenizer_config.json lists. Its id is not ours to choose, so it must come out right."""
    content = token["content"]
    if backend.token_to_id(content) is None:
        flags = ("lstrip", "rstrip", "normalized", "single_word")
        added = AddedToken(content, special=bool(token.get("special")), **{k: bool(token.get(k)) for k in flags})
        backend.add_tokens([added])  # pyright: ignore[reportUnknownMemberType]
    if backend.token_to_id(content) != index:
        raise TokenizerError(
            f"{files.path / 'tokenizer_config.json'} gives {content!r:.100} the id {index}, "
            f"but in tokenizer.json it is {backend.token_to_id(content)}"
        )
