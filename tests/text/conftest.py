"""The tokenizers of the text tests, and the outside truths they are compared with."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tests.fetch import gpt_oss_directory, harmony_vocabulary_directory
from workbench.text import Tokenizer

DATE = "2025-06-28"


@pytest.fixture(scope="session")
def gpt_oss() -> Tokenizer:
    """gpt-oss' own tokenizer, with the public chat template."""
    return Tokenizer.from_directory(gpt_oss_directory())


@pytest.fixture(scope="session")
def nano(root: Path) -> Tokenizer:
    return Tokenizer.from_directory(root / "data" / "nano")


@pytest.fixture(scope="session")
def without_template(gpt_oss: Tokenizer) -> Tokenizer:
    """gpt-oss' tokenizer as OpenAI's original checkpoint has it: every message is written by the workbench."""
    return Tokenizer(gpt_oss.backend, gpt_oss.special_names)


@pytest.fixture(scope="session")
def transformers_tokenizers(root: Path) -> dict[str, Any]:
    """The same two, loaded by transformers."""
    from transformers import PreTrainedTokenizerFast

    folders = {"gpt_oss": gpt_oss_directory(), "nano": root / "data" / "nano"}
    return {name: PreTrainedTokenizerFast.from_pretrained(folder) for name, folder in folders.items()}


@pytest.fixture
def pinned_date(monkeypatch: pytest.MonkeyPatch) -> str:
    """transformers asks the clock for the date; here the clock says DATE."""
    from transformers.utils import chat_template_utils

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return datetime.fromisoformat(DATE)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    return DATE


@pytest.fixture(scope="session")
def harmony_library() -> ModuleType:
    """OpenAI's own harmony library, in Rust; its vocabulary comes from a local file."""
    os.environ["TIKTOKEN_ENCODINGS_BASE"] = str(harmony_vocabulary_directory())
    import openai_harmony

    return openai_harmony


@pytest.fixture(scope="session")
def harmony_encoding(harmony_library: ModuleType) -> Any:
    return harmony_library.load_harmony_encoding(harmony_library.HarmonyEncodingName.HARMONY_GPT_OSS)


@pytest.fixture(params=["gpt_oss", "nano"])
def checkpoint(request: pytest.FixtureRequest) -> str:
    """The name of each of the two in turn."""
    return request.param


@pytest.fixture
def tokenizer(checkpoint: str, request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(checkpoint)


@pytest.fixture
def reference(checkpoint: str, transformers_tokenizers: dict[str, Any]) -> Any:
    return transformers_tokenizers[checkpoint]
