"""The tokenizer's files in a checkpoint folder: read, checked, written."""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard, cast

from tokenizers import Tokenizer as Backend

MOST_IDS = 10_000_000  # gpt-oss has 201,088; the library goes through all numbers up to the greatest id
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerError(ValueError):
    """A tokenizer's files are broken, contradict each other, or lack what was asked for."""


@dataclass(frozen=True)
class TokenizerFiles:
    """What a folder says about its tokenizer."""

    path: Path
    definition: str
    special_names: Mapping[str, str]
    added_tokens: Mapping[int, Mapping[str, Any]]
    chat_template: str | None
    n_ids: int | None


def read_directory(path: Path) -> TokenizerFiles:
    """Read the files. Raises FileNotFoundError without a tokenizer.json, TokenizerError for one that is broken."""
    main = path / "tokenizer.json"
    if not main.is_file():
        where = "the folder does not exist" if not path.is_dir() else "a checkpoint's tokenizer is one JSON file"
        raise FileNotFoundError(f"no tokenizer.json in {path}: {where}")
    config = _read_json(path / "tokenizer_config.json")
    names = _read_json(path / "special_tokens_map.json") | {k: v for k, v in config.items() if v is not None}
    n_ids = _read_json(path / "config.json").get("vocab_size")
    special = {role: _content(path, role, names[role]) for role in _ROLES if names.get(role)}
    return TokenizerFiles(
        path=path,
        definition=_read_text(main),
        special_names={role: content for role, content in special.items() if content},
        added_tokens=_added_tokens(path, config),
        chat_template=_chat_template(path, config),
        n_ids=n_ids if type(n_ids) is int and 0 <= n_ids < MOST_IDS else None,
    )


def read_backend(files: TokenizerFiles) -> Backend:
    """The tokenizer of tokenizer.json. Raises TokenizerError when it cannot be read."""
    main = files.path / "tokenizer.json"
    if files.definition.startswith("version https://git-lfs"):
        raise TokenizerError(f"{main} is a Git LFS pointer, not the file itself; run `git lfs pull` there")
    try:
        backend = Backend.from_str(files.definition)
        vocabulary = backend.get_vocab(with_added_tokens=True)
    except BaseException as error:  # the library raises a bare Exception, and what stops it inside is not even that
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        why = str(error)[:500]
        raise TokenizerError(f"{main} is not a tokenizer ({len(files.definition):,} characters): {why}") from None
    ids = set(vocabulary.values())
    if max(ids, default=0) >= MOST_IDS:
        raise TokenizerError(f"{main} has the id {max(ids)}: expected ids below {MOST_IDS:,}")
    if len(ids) < len(vocabulary):
        raise TokenizerError(
            f"{main} has {len(vocabulary):,} tokens and {len(ids):,} ids: expected an id of its own for each"
        )
    for content, index in _declared(files.definition):
        if backend.token_to_id(content) != index:  # the library numbers them anew, and says nothing
            found = f"and the vocabulary's next is {backend.token_to_id(content)}"
            raise TokenizerError(f"{main} gives the added token {content!r:.80} the id {index!r:.40}, {found}")
    return backend


def _declared(definition: str) -> list[tuple[str, Any]]:
    """The added tokens of a tokenizer.json that could be read, without reading its vocabulary a second time."""
    found = re.search(r'(?<!\\)"added_tokens"\s*:\s*', definition)
    listed: Any = json.JSONDecoder().raw_decode(definition, found.end())[0] if found else []
    return [(token["content"], token["id"]) for token in listed]


@contextmanager
def of_the_library(what: str) -> Generator[None, None, None]:
    """What stops the library inside (a panic is no Exception) as an error of ours."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        why = str(error)[:300]
        raise TokenizerError(f"this tokenizer is broken: its library cannot {what} with it ({why})") from None


def write_directory(path: Path, backend: Backend, names: Mapping[str, str], chat_template: str | None) -> None:
    """Write the three files that transformers and this package read."""
    path.mkdir(parents=True, exist_ok=True)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    _write(path / "tokenizer.json", backend.to_str(pretty=True))
    _write(path / "tokenizer_config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    if chat_template is not None:
        _write(path / "chat_template.jinja", chat_template)


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))  # not write_text: on Windows it would change every newline


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path} is not UTF-8 text: byte {error.start} is wrong") from None
    except OSError as error:
        raise TokenizerError(f"{path} cannot be read: {error.strerror}") from None


def _read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or {} where there is no such file."""
    if not path.is_file():
        return {}
    try:
        value = json.loads(_read_text(path))
    except TokenizerError:
        raise
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} holds a {type(value).__name__}, and a JSON object was expected")
    return cast("dict[str, Any]", value)


def _content(path: Path, role: str, token: Any) -> str:
    content: Any = cast("dict[str, Any]", token).get("content") if isinstance(token, dict) else token
    if not _is_text(content):
        shown = str(content)[:80]
        raise TokenizerError(f"{path}: {role} is {shown!r}, expected the text of a token")
    return content


def _is_text(value: Any) -> TypeGuard[str]:
    """A string that UTF-8 can say: JSON can hold half of a surrogate pair."""
    return isinstance(value, str) and not any("\ud800" <= letter <= "\udfff" for letter in value)


def _added_tokens(path: Path, config: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    try:
        listed: Mapping[str, Mapping[str, Any]] = config.get("added_tokens_decoder") or {}
        added: dict[int, Mapping[str, Any]] = {}
        for index, token in listed.items():
            if not _is_text(token["content"]) or not 0 <= int(index) < MOST_IDS:
                raise ValueError
            added[int(index)] = {**token, "content": token["content"]}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise TokenizerError(
            f"{path / 'tokenizer_config.json'}: added_tokens_decoder is not a table id → token"
        ) from None
    return dict(sorted(added.items()))


def _chat_template(path: Path, config: Mapping[str, Any]) -> str | None:
    if (path / "chat_template.jinja").is_file():
        return _read_text(path / "chat_template.jinja").replace("\r\n", "\n")
    template = config.get("chat_template")
    if isinstance(template, list):  # several by name: [{"name": "default", "template": "…"}, …]
        entries = [
            cast("Mapping[str, Any]", entry) for entry in cast("list[Any]", template) if isinstance(entry, Mapping)
        ]
        template = next((entry.get("template") for entry in entries if entry.get("name") == "default"), None)
    return template if _is_text(template) else None
