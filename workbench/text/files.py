"""The tokenizer's files in a checkpoint folder: read, checked, written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from tokenizers import Tokenizer as Backend

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
    return TokenizerFiles(
        path=path,
        definition=_read_text(main),
        special_names={role: _content(names[role]) for role in _ROLES if names.get(role)},
        added_tokens=_added_tokens(path, config),
        chat_template=_chat_template(path, config),
        n_ids=n_ids if isinstance(n_ids, int) else None,
    )


def read_backend(files: TokenizerFiles) -> Backend:
    """The tokenizer of tokenizer.json. Raises TokenizerError when it cannot be read."""
    main = files.path / "tokenizer.json"
    if files.definition.startswith("version https://git-lfs"):
        raise TokenizerError(f"{main} is a Git LFS pointer, not the file itself; run `git lfs pull` there")
    try:
        return Backend.from_str(files.definition)
    except Exception as error:  # the library raises a bare Exception
        raise TokenizerError(f"{main} is not a tokenizer ({len(files.definition):,} characters): {error}") from None


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
    except json.JSONDecodeError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} holds a {type(value).__name__}, and a JSON object was expected")
    return cast("dict[str, Any]", value)


def _content(token: Any) -> str:
    return str(cast("Mapping[str, Any]", token)["content"] if isinstance(token, Mapping) else token)


def _added_tokens(path: Path, config: Mapping[str, Any]) -> dict[int, Mapping[str, Any]]:
    try:
        listed: Mapping[str, Mapping[str, Any]] = config.get("added_tokens_decoder") or {}
        added: dict[int, Mapping[str, Any]] = {}
        for index, token in listed.items():
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
        entries = cast("list[Mapping[str, Any]]", template)
        template = {entry.get("name"): entry.get("template") for entry in entries}.get("default")
    return template if isinstance(template, str) else None
