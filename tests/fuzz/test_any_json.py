"""Any JSON and any bytes in the place of each file (hypothesis makes them, and finds the smallest that fails)."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.case import Case, put
from tests.fuzz.kinds import KINDS
from tests.fuzz.of_bench import SPECS
from workbench.interventions import InterventionError, as_dict, from_dict

BY_NAME = {kind.name: kind for kind in KINDS}
FILES = {
    "config.json": "config.json",
    "shard index": "model.safetensors.index.json",
    "tokenizer files": "tokenizer_config.json",
    "interventions in JSON": "specs.json",
    "workspace file": "work.json",
    "prompt file": "p.jsonl",
    "dictionary folder": "cfg.json",
    "chat in JSON": "chat.json",
}
numbers = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
trees = st.recursive(
    numbers,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def verdict(name: str, data: bytes) -> None:
    """The kind's valid case with this file in place: read and sound, or refused well."""
    kind = BY_NAME[name]
    valid = kind.make(None)
    case = Case({**valid.files, FILES[name]: data}, valid.links, valid.about)
    with TemporaryDirectory() as place:
        put(Path(place), case)
        try:
            value = kind.read(Path(place), case)
        except Exception as error:
            assert kind.complaint(error) is None, kind.complaint(error)
        else:
            kind.check(value, Path(place), case)


@pytest.mark.parametrize("name", FILES)
@settings(max_examples=40)
@given(tree=trees, raw=st.binary(max_size=40) | st.none())
def test_any_json_and_any_bytes_in_a_files_place_are_sound_or_refused(name: str, tree: Any, raw: bytes | None):
    verdict(name, json.dumps(tree).encode() if raw is None else raw)


@settings(max_examples=200)
@given(spec=st.sampled_from(SPECS), at=st.integers(0, 9), value=trees)
def test_any_value_in_any_field_of_an_intervention_is_refused_by_name_or_kept(spec: Any, at: int, value: Any):
    entry = as_dict(spec)
    name = sorted(entry)[at % len(entry)]
    try:
        made = from_dict({**entry, name: value})
    except InterventionError as error:
        assert len(str(error)) < 3000
    else:
        assert from_dict(as_dict(made)) == made or "nan" in repr(made)


@settings(max_examples=20)  # of every kind
@given(st.integers(0, 2**32))
def test_an_input_follows_from_its_seed_alone(seed: int):
    for kind in KINDS:
        made, again = (kind.make(Random(f"{seed} {kind.name} 0")) for _ in range(2))
        assert made.files == again.files and made.links == again.links and repr(made.about) == repr(again.about)
