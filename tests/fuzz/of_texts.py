"""Tokenizer files, chat templates, chats and rows of tokens."""

from __future__ import annotations

import json
import re
from pathlib import Path
from random import Random
from typing import Any

from tests.fuzz import mutate, templates
from tests.fuzz.case import Case, Kind
from tests.fuzz.tokenizers import template, tiny, tiny_folder
from workbench.text import (
    Chat,
    HarmonyError,
    TemplateError,
    Tokenizer,
    TokenizerError,
    label,
    parse,
    render,
    render_template,
)
from workbench.text.meter import MAX_CHARS
from workbench.widgets import chats

# ---------------------------------------------------------------- tokenizers

SAID = "The cats' naïve café – 東京 <|start|>user<|end|> \t\n 👩‍🚀 the"
SETTINGS = {
    "eos_token": "<|return|>",
    "bos_token": {"content": "<|startoftext|>", "lstrip": False},
    "pad_token": None,
    "added_tokens_decoder": {
        "256": {"content": "th", "special": False},
        "267": {"content": "<|new|>", "special": True},
    },
    "chat_template": [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": "x"}],
}


def make_tokenizer(rng: Random | None) -> Case:
    files = dict(tiny_folder())
    if rng is None:
        return Case(files)
    if rng.random() < 0.4:
        files["tokenizer_config.json"] = json.dumps(SETTINGS).encode()
        files["config.json"] = b'{"vocab_size": 300}'
        files["special_tokens_map.json"] = b'{"unk_token": {"content": "a"}}'
        if rng.random() < 0.7:
            del files["chat_template.jinja"]
    for name in rng.sample([*sorted(files), "tokenizer.json"], 1):
        if name.endswith(".json") and rng.random() < 0.85:
            tree = json.loads(files[name])
            if name == "tokenizer.json" and rng.random() < 0.7:  # most of the file is its vocabulary
                part = rng.choice([key for key in tree if key not in ("version",)])
                tree[part] = _changed(rng, tree[part])
                files[name] = json.dumps(tree).encode()
            else:
                files[name] = mutate.tree_of(rng, tree).encode("utf-8", "surrogatepass")
        else:
            files[name] = mutate.bytes_of(rng, files[name])
    return Case(files)


PARTS = (
    {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False},
    {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
    {"type": "Replace", "pattern": {"String": ""}, "content": "a" * 1000},
    {"type": "Precompiled", "precompiled_charsmap": "AAAA"},
    {"type": "Sequence", "pretokenizers": []},
    {"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}},
    {"type": "BPE", "vocab": {"a": 4294967295}, "merges": []},
    {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": [["a", "b"]]},
    {"type": "Unigram", "vocab": [["a", -1.0]], "unk_id": 5},
    {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "zzz"},
    {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 5},
    {
        "strategy": {"Fixed": 10**12},
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "a",
    },
    [
        {
            "id": 10**9,
            "content": "far",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    [
        {
            "id": 5,
            "content": "",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
)


def _changed(rng: Random, part: Any) -> Any:
    if rng.random() < 0.3:
        return rng.choice(PARTS)
    text = mutate.tree_of(rng, part, 1)
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def read_tokenizer(folder: Path, case: Case) -> Tokenizer:
    return Tokenizer.from_directory(folder)


def check_tokenizer(found: Tokenizer, folder: Path, case: Case) -> None:
    """It takes any text and shows any id; saved and read, it does the same. It may refuse a text, in our words."""
    try:
        ids = found.encode(SAID)
        assert all(0 <= i < found.n_ids for i in ids)
        shown = found.str_tokens(ids)
        assert len(shown) == len(ids) and all(isinstance(text, str) for text in shown)
        found.decode(ids)
        name = found.fingerprint
        found.save(folder / "again")
        assert Tokenizer.from_directory(folder / "again").fingerprint == name
    except (TokenizerError, ValueError) as error:
        assert type(error).__module__.startswith("workbench"), f"{type(error)} {error}"


# ---------------------------------------------------------------- templates

MESSAGES = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is Mia? <b>é"},
    {
        "role": "assistant",
        "content": "In the park.",
        "thinking": "Hm.",
        "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1]}}}],
    },
]


def make_template(rng: Random | None) -> Case:
    if rng is None:
        return Case({"chat_template.jinja": template().encode()})
    kind = rng.random()
    if kind < 0.7:
        text = templates.made(rng)
    elif kind < 0.72:  # they take long, and test_templates.py has each of them
        text = rng.choice(templates.HOSTILE)
    elif kind < 0.8:
        text = template()[: rng.randrange(5000)] + templates.made(rng)
    else:
        text = mutate.bytes_of(
            rng, rng.choice([template(), rng.choice(templates.HOSTILE)]).encode("utf-8", "replace")
        ).decode("utf-8", "replace")
    return Case({"chat_template.jinja": text.encode("utf-8", "surrogatepass")})


def read_template(folder: Path, case: Case) -> str:
    text = case.files["chat_template.jinja"].decode("utf-8", "surrogatepass")
    return render_template(text, {"messages": MESSAGES, "tools": None, "eos_token": "</s>", "go": True}, "2025-08-05")


def check_template(found: str, folder: Path, case: Case) -> None:
    """Text within the bound, in which nothing of Python's inside stands (what Jinja's own helpers are called may)."""
    assert isinstance(found, str) and len(found) <= MAX_CHARS
    said = re.sub(r"<(class ')?jinja2[^>]*>|<generator object[^>]*>", "", found)
    assert "<class '" not in said and "<module" not in said


# ---------------------------------------------------------------- chats and tokens

WEATHER = {
    "name": "get_weather",
    "typescript": "type get_weather = (_: {city: string}) => any;",
    "schema": {"name": "get_weather", "parameters": {"type": "object"}},
}
CHAT = [
    {
        "role": "system",
        "identity": "You are nano.",
        "reasoning": "low",
        "date": "2025-01-01",
        "cutoff": None,
        "channels": ["final"],
        "tools": [],
    },
    {"role": "developer", "text": "Be brief.", "tools": [WEATHER]},
    {"role": "user", "text": "Where is Mia?"},
    {"role": "assistant", "text": "Hm.", "channel": "analysis", "complete": True},
    {
        "role": "assistant",
        "text": '{"city": "x"}',
        "channel": "commentary",
        "recipient": "functions.get_weather",
        "content_type": "json",
    },
    {
        "role": "tool",
        "text": "[1, 2]",
        "channel": "commentary",
        "recipient": "assistant",
        "name": "functions.get_weather",
    },
    {"role": "assistant", "text": "In the park.", "channel": "final"},
]


def make_chat(rng: Random | None) -> Case:
    text = json.dumps(CHAT) if rng is None else mutate.tree_of(rng, CHAT[: rng.randrange(1, 8)])
    return Case({"chat.json": text.encode("utf-8", "surrogatepass")})


def read_chat(folder: Path, case: Case) -> tuple[Chat, list[int]]:
    try:
        given = json.loads(case.files["chat.json"].decode("utf-8", "surrogatepass"))
    except (ValueError, RecursionError):
        raise HarmonyError("no JSON, which whoever calls has read already") from None
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise HarmonyError("no list of objects, which whoever calls has seen already")
    chat = chats.from_list(given)
    return chat, render(chat, tiny())


def check_chat(found: tuple[Chat, list[int]], folder: Path, case: Case) -> None:
    chat, ids = found
    assert len(label(ids, tiny())) == len(ids)
    assert chats.from_list(chats.as_list(chat)) == chat


def make_tokens(rng: Random | None) -> Case:
    ids = render(Chat().user("Where is Mia?").assistant("Here.", "final").user("Yes?"), tiny())
    for _ in range(0 if rng is None else rng.choice((1, 2, 5, 20))):
        assert rng is not None
        at = rng.randrange(len(ids) + 1)
        rng.choice(
            (
                lambda at=at: ids.insert(at, rng.randrange(tiny().n_ids)),
                lambda at=at: ids.insert(at, rng.randrange(258, 267)),
                lambda at=at: ids.__delitem__(slice(at, at + rng.randrange(5))),
                lambda at=at: ids.extend(ids[at : at + 9]),
            )
        )()
    return Case({}, about=ids)


def read_ids(folder: Path, case: Case) -> Chat:
    labels = label(case.about, tiny())  # total: any integers
    assert len(labels) == len(case.about)
    return parse(case.about, tiny())


def check_parsed(chat: Chat, folder: Path, case: Case) -> None:
    """What is understood is said again as something that is understood the same."""
    again = parse(render(chat, tiny(), add_generation_prompt=False), tiny())
    assert len(again.all_messages) == len(chat.all_messages)


KINDS = [
    Kind("tokenizer files", 12, (TokenizerError, FileNotFoundError), make_tokenizer, read_tokenizer, check_tokenizer),
    Kind(
        "chat template",
        12,
        (TemplateError,),
        make_template,
        read_template,
        check_template,
        seconds=4.5,
        code_of=("<template>", "<unknown>"),
    ),
    Kind("chat in JSON", 6, (ValueError,), make_chat, read_chat, check_chat, code_of=("<template>", "<unknown>")),
    Kind("row of tokens", 8, (HarmonyError,), make_tokens, read_ids, check_parsed, code_of=("<template>", "<unknown>")),
]
