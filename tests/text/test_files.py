"""A checkpoint's tokenizer files: found, or refused in one clear message."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from workbench.text import Tokenizer, TokenizerError


@pytest.fixture
def folder(root: Path, tmp_path: Path) -> Path:
    """A copy of nano's tokenizer files, to be damaged."""
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(root / "data" / "nano" / name, tmp_path)
    return tmp_path


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")


def test_a_folder_without_a_tokenizer_is_not_found(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer\.json in"):
        Tokenizer.from_directory(tmp_path)
    with pytest.raises(FileNotFoundError, match="the folder does not exist"):
        Tokenizer.from_directory(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"{", "not a tokenizer"),
        (b"{}", "not a tokenizer"),
        (b"\xff\xfe", "not UTF-8 text: byte 0"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
    ],
)
def test_a_broken_tokenizer_file_is_named(folder: Path, content: bytes, says: str):
    (folder / "tokenizer.json").write_bytes(content)
    with pytest.raises(TokenizerError, match=rf"tokenizer\.json.*{says}"):
        Tokenizer.from_directory(folder)


def test_a_truncated_tokenizer_file_is_named(folder: Path):
    whole = (folder / "tokenizer.json").read_bytes()
    (folder / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(TokenizerError, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.from_directory(folder)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"])
@pytest.mark.parametrize(("content", "says"), [("{", "is not JSON"), ("[1]", "holds a list")])
def test_a_broken_side_file_is_named(folder: Path, name: str, content: str, says: str):
    (folder / name).write_text(content)
    with pytest.raises(TokenizerError, match=f"{name} {says}"):
        Tokenizer.from_directory(folder)


def test_padding_and_truncation_stored_in_the_file_do_not_touch_a_text(folder: Path):
    truncation = {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0}
    edit(folder / "tokenizer.json", truncation=truncation)
    text = "Mia went to the park, and Tom went to the park, too."
    tokenizer = Tokenizer.from_directory(folder)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_special_token_listed_only_in_the_config_is_added(folder: Path):
    before = Tokenizer.from_directory(folder)
    extra = {"content": "<|extra|>", "special": True}
    edit(folder / "tokenizer_config.json", added_tokens_decoder={str(before.vocab_size): extra})
    after = Tokenizer.from_directory(folder)
    assert after.encode("a<|extra|>") == [*before.encode("a"), before.vocab_size]
    assert after.special["<|extra|>"] == before.vocab_size


def test_a_special_token_with_two_ids_is_refused(folder: Path):
    edit(folder / "tokenizer_config.json", added_tokens_decoder={"77": {"content": "<|end|>", "special": True}})
    with pytest.raises(TokenizerError, match=r"gives '<\|end\|>' the id 77, but in tokenizer.json it is"):
        Tokenizer.from_directory(folder)


def test_a_malformed_table_of_added_tokens_is_refused(folder: Path):
    edit(folder / "tokenizer_config.json", added_tokens_decoder={"x": {"content": "y"}})
    with pytest.raises(TokenizerError, match="added_tokens_decoder"):
        Tokenizer.from_directory(folder)


def test_special_names_come_from_the_config_or_else_from_the_map(folder: Path):
    edit(folder / "tokenizer_config.json", pad_token=None, eos_token={"content": "<|call|>"})
    (folder / "special_tokens_map.json").write_text('{"pad_token": {"content": "<|end|>"}, "eos_token": "<|end|>"}')
    tokenizer = Tokenizer.from_directory(folder)
    assert tokenizer.pad_token_id == tokenizer.special["<|end|>"]
    assert tokenizer.eos_token_id == tokenizer.special["<|call|>"]


def test_the_template_file_goes_before_the_configs_key(folder: Path):
    edit(folder / "tokenizer_config.json", chat_template="from the config")
    assert Tokenizer.from_directory(folder).chat_template.startswith("{#- nano's chat template")
    (folder / "chat_template.jinja").unlink()
    assert Tokenizer.from_directory(folder).chat_template == "from the config"
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    edit(folder / "tokenizer_config.json", chat_template=named)
    assert Tokenizer.from_directory(folder).chat_template == "d"


def test_the_models_configuration_says_how_many_ids_there_are(folder: Path):
    (folder / "config.json").write_text('{"vocab_size": 5000}')
    tokenizer = Tokenizer.from_directory(folder)
    assert (tokenizer.n_ids, tokenizer.vocab_size) == (5000, 1024)
    assert tokenizer.str_tokens([4999]) == ["<|unused_4999|>"]
