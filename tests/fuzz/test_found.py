"""What made up and damaged inputs have found: each is one clear error now, and stays one."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from safetensors.torch import save

from tests.checkpoints.small import SMALL, write_raw
from tests.dictionaries.trained import random_weights
from tests.fuzz.of_bench import SPECS, bench, restored, whole
from tests.fuzz.of_data import pickled
from tests.fuzz.tokenizers import tiny_folder
from workbench.checkpoints import CheckpointError, huggingface, openai
from workbench.checkpoints.configs import read_config
from workbench.checkpoints.safetensors_file import SafetensorsFile
from workbench.checkpoints.shards import Shards
from workbench.dictionaries import Dictionary, load_dictionary, save_dictionary
from workbench.interventions import InterventionError, as_dict, from_json
from workbench.prompts import PromptError, load_pairs
from workbench.sweeps.journal import Journal, JournalError, decoded, encoded, framed
from workbench.text import Tokenizer, TokenizerError
from workbench.widgets import chats, recipes, workspace
from workbench.widgets.views.steering_files import from_file

DEEP = "[" * 3000 + "]" * 3000

# ---------------------------------------------------------------- checkpoints

HEADERS = {
    "a list of pairs, which is no object": [["x", [["dtype", "F32"], ["shape", [1]], ["data_offsets", [0, 4]]]]],
    "an empty list": [],
    "a key of a tensor twice": b'{"x": {"dtype": "F32", "dtype": "F16", "shape": [1], "data_offsets": [0, 4]}}',
    "nothing, 2**80 wide": {"x": {"dtype": "F32", "shape": [0, 2**40, 2**40], "data_offsets": [0, 0]}},
    "a number that is none": b'{"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], "y": 1e999}}',
    "a shape that is a word": {"x": {"dtype": "F32", "shape": "", "data_offsets": [0, 4]}},
    "metadata that is no text": {"__metadata__": {"a": [1]}},
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_header_that_the_formats_own_reader_refuses_is_refused(tmp_path: Path, fault: str):
    write_raw(
        tmp_path / "x.safetensors",
        HEADERS[fault],
        b"\0" * 4 if b"F32" in str(HEADERS[fault]).encode() and "2**80" not in fault else b"",
    )
    with pytest.raises(CheckpointError, match=r"x\.safetensors: .*expected"):
        SafetensorsFile(tmp_path / "x.safetensors")


def test_an_error_about_a_long_shape_is_short(tmp_path: Path):
    write_raw(
        tmp_path / "x.safetensors", {"c": {"dtype": "I64", "shape": [0] * 20_000, "data_offsets": [0, 8]}}, b"\0" * 8
    )
    with pytest.raises(CheckpointError) as caught:
        SafetensorsFile(tmp_path / "x.safetensors")
    assert len(str(caught.value)) < 3000


@pytest.mark.parametrize(
    "index",
    [
        DEEP,
        '{"weight_map": ' + DEEP + "}",
        json.dumps({"weight_map": {"a": "a" * 300 + ".safetensors"}}),
        '{"weight_map": {"a": "\\ud800.safetensors"}}',
        json.dumps({"weight_map": {"a": "\0.safetensors"}}),
    ],
    ids=["deep", "a deep map", "too long a name", "half a character", "a NUL"],
)
def test_an_index_that_no_file_can_have_is_refused_in_words_that_can_be_printed(tmp_path: Path, index: str):
    (tmp_path / "a.safetensors").write_bytes(save({"a": torch.ones(1)}))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError) as caught:
        Shards(tmp_path)
    str(caught.value).encode()


def config_of(tmp_path: Path, values: dict[str, Any] | str) -> CheckpointError:
    (tmp_path / "config.json").write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(CheckpointError) as caught:
        read_config(tmp_path, "x")
    str(caught.value).encode()
    return caught.value


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 1.0},
        {"rope_theta": -1.0},
        {"beta_fast": 0.0},
        {"factor": 1e-299},
        {"factor": 1e300, "beta_slow": 1e-320},
    ],
)
def test_a_rope_that_cannot_be_computed_with_is_refused(tmp_path: Path, rope: dict[str, float]):
    values = huggingface.config_json(SMALL, "float32", packed=False)
    config_of(tmp_path, values | {"rope_parameters": values["rope_parameters"] | rope})


def test_other_configs_that_came_through_are_refused(tmp_path: Path):
    real = huggingface.config_json(SMALL, "float32", packed=False)
    assert len(str(config_of(tmp_path, real | {"dtype": "a" * 100_000}))) < 2000
    config_of(tmp_path, json.dumps(real)[:-1] + ', "head_dim": ' + "[" * 480 + "]" * 480 + "}")
    config_of(tmp_path, json.dumps(real | {"rope_parameters": {"rope_type": "yarn", "\ud800": 1}}))
    config_of(tmp_path, openai.config_json(SMALL) | {"rope_scaling_factor": 1e16})
    config_of(tmp_path, real | {"swiglu_limit": 1e300})
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").mkdir()
    with pytest.raises(CheckpointError, match="config"):
        read_config(tmp_path, "x")


# ---------------------------------------------------------------- texts

JSON_FAULTS = {
    "a special token without content": ("tokenizer_config.json", {"eos_token": {"lstrip": True}}),
    "a special token that is a number": ("tokenizer_config.json", {"eos_token": 5}),
    "half a character": ("tokenizer_config.json", {"eos_token": "\ud800"}),
    "an added token that is no text": ("tokenizer_config.json", {"added_tokens_decoder": {"300": {"content": [1]}}}),
    "an added token beyond all": (
        "tokenizer_config.json",
        {"added_tokens_decoder": {"99999999999999999999": {"content": "x"}}},
    ),
    "too deep": ("special_tokens_map.json", DEEP),
}


@pytest.mark.parametrize("fault", JSON_FAULTS)
def test_a_tokenizers_settings_are_refused_where_they_make_no_sense(tmp_path: Path, fault: str):
    name, values = JSON_FAULTS[fault]
    files = tiny_folder() | {name: (values if isinstance(values, str) else json.dumps(values)).encode()}
    for each, data in files.items():
        (tmp_path / each).write_bytes(data)
    with pytest.raises(TokenizerError):
        Tokenizer.from_directory(tmp_path)


def tokenizer_json(tmp_path: Path, **model: Any) -> Path:
    files = dict(tiny_folder())
    made = json.loads(files["tokenizer.json"])
    made["model"] |= model.get("model", {})
    made |= {key: value for key, value in model.items() if key != "model"}
    for each, data in (files | {"tokenizer.json": json.dumps(made).encode()}).items():
        (tmp_path / each).write_bytes(data)
    return tmp_path


def test_an_id_beyond_all_does_not_fill_the_memory_when_the_tokenizer_is_saved(tmp_path: Path):
    """The library goes through all ids up to the greatest: 4,294,967,295 ended the process."""
    with pytest.raises(TokenizerError, match="has the id 4294967295: expected ids below"):
        Tokenizer.from_directory(tokenizer_json(tmp_path, model={"vocab": {"a": 0, "b": 2**32 - 1}, "merges": []}))


def test_two_tokens_of_one_id_are_refused(tmp_path: Path):
    """One of them was lost when the tokenizer was saved, and the added tokens numbered anew."""
    with pytest.raises(TokenizerError, match="expected an id of its own for each"):
        Tokenizer.from_directory(tokenizer_json(tmp_path, model={"vocab": {"a": 0, "b": 0}, "merges": []}))


def test_an_added_token_that_the_library_would_number_anew_is_refused(tmp_path: Path):
    added = json.loads(tiny_folder()["tokenizer.json"])["added_tokens"]
    with pytest.raises(TokenizerError, match=r"gives the added token '<\|call\|>' the id 5000"):
        Tokenizer.from_directory(tokenizer_json(tmp_path, added_tokens=[*added[:-1], added[-1] | {"id": 5000}]))


def test_chat_templates_by_name_that_are_none_are_passed_over(tmp_path: Path):
    for each, data in tiny_folder().items():
        if each != "chat_template.jinja":
            (tmp_path / each).write_bytes(data)
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"chat_template": [1, {"name": ["x"]}, {"name": "default", "template": "a"}]})
    )
    assert Tokenizer.from_directory(tmp_path).chat_template == "a"


# ---------------------------------------------------------------- data


ARRAY = (
    b'[["a", {"v": {"dtype": "<f8", "shape": [1], "at": 0, "dims": ["x"], "coords": {}, "name": null, "attrs": {}}}]]\n'
    b"01234567"
)


@pytest.mark.parametrize("line", ["9" * 5000, '{"clean": ' + "9" * 5000 + "}", DEEP])
def test_a_line_of_prompts_that_json_cannot_read_is_refused_with_its_number(tmp_path: Path, line: str):
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(PromptError, match="line 1: not JSON"):
        load_pairs(tmp_path / "p.jsonl", None)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"x\n",
        b"[1]\n",
        b'[["a", [1]]]\n',
        b'[[1, {"v": 1}]]\n',
        b'[["a", {"v": "x"}]]\n',
        DEEP.encode() + b"\n",
        ARRAY.replace(b"<f8", b"|O"),
        ARRAY.replace(b"<f8", b"0"),
        ARRAY.replace(b"<f8", b"(1,)f8"),
        ARRAY.replace(b"[1]", b"[-1]"),
    ],
    ids=range(11),
)
def test_a_whole_record_that_we_did_not_write_is_refused(tmp_path: Path, payload: bytes):
    journal = Journal(tmp_path, "study")
    (tmp_path / "study" / "x.cells").write_bytes(framed(payload))
    with pytest.raises(JournalError, match="none of ours"):
        list(journal.read())


@pytest.mark.parametrize("dtype", ["?", "i1", "u2", ">i8", "f2", "f8", "c16", "S3", "U7", "M8[ns]", "m8[s]"])
def test_every_dtype_that_an_array_of_a_cell_can_have_is_read_again(dtype: str):
    array = xr.DataArray(np.zeros(2, dtype), dims=["pos"])
    ((_, value),) = decoded(encoded([("a", {"v": array})]))
    assert value["v"].dtype == array.dtype and value["v"].identical(array)


def test_an_error_about_a_long_record_is_short(tmp_path: Path):
    journal = Journal(tmp_path, "study")
    (tmp_path / "study" / "x.cells").write_bytes(framed(ARRAY.replace(b'["x"]', b'["' + b"a" * 100_000 + b'", "y"]')))
    with pytest.raises(JournalError, match="none of ours") as caught:
        list(journal.read())
    assert len(str(caught.value)) < 1000


def test_a_task_that_utf8_cannot_say_is_refused_when_it_is_read_and_not_when_it_is_saved(tmp_path: Path):
    row = {"clean": [1], "corrupt": [2], "right": 3, "wrong": 4, "task": "\ud800"}
    (tmp_path / "p.jsonl").write_text(json.dumps(row))
    with pytest.raises(PromptError, match="task is"):
        load_pairs(tmp_path / "p.jsonl", None)


def test_the_names_of_other_studies_survive_files_that_are_none(tmp_path: Path):
    journal = Journal(tmp_path, "study")
    for name, text in {"a": DEEP, "b": "[1]", "c": "{"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "study.json").write_text(text)
    assert journal.others() == {"a": {}, "b": {}, "c": {}}


def test_dictionaries_of_unknown_dtypes_kinds_and_sites_are_refused(tmp_path: Path):
    save_dictionary(Dictionary(random_weights("relu", 6, 20), "relu"), tmp_path)
    config = json.loads((tmp_path / "cfg.json").read_text())
    for changes in ({"architecture": ["standard"]}, {"architecture": {}}, {"metadata": {"hook_name": ["x"]}}):
        (tmp_path / "cfg.json").write_text(json.dumps(config | changes))
        with pytest.raises(CheckpointError):
            load_dictionary(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    (tmp_path / "sae_weights.safetensors").write_bytes(save({"W_enc": torch.zeros(6, 20, dtype=torch.float8_e4m3fn)}))
    with pytest.raises(CheckpointError, match="floating point, found F8_E4M3"):
        load_dictionary(tmp_path)
    (tmp_path / "cfg.json").unlink()
    (tmp_path / "config.json").write_text('{"trainer": {"dict_class": ["x"]}}')
    with pytest.raises(CheckpointError, match="dict_class"):
        load_dictionary(tmp_path)


# ---------------------------------------------------------------- the Bench


def test_a_position_among_many_that_is_no_number_is_always_seen():
    """One item of a tuple was looked at, at random."""
    for _ in range(30):
        with pytest.raises(InterventionError, match="positions is"):
            from_json('[{"kind": "AblateLayer", "layer": 0, "positions": [0, 1, 2, 3, 4, 5, "x"]}]')
    with pytest.raises(InterventionError) as caught:
        from_json(json.dumps([{"kind": "a" * 100_000}]))
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "text": "x", "name": ["y"]},
        {"role": "system", "identity": ["x"]},
        {"role": "user", "text": "x", "complete": 5},
        {"role": "developer", "text": "x", "tools": [{"name": 1}]},
        {"role": "developer", "text": "", "tools": ["x"]},
        {
            "role": "developer",
            "text": "",
            "tools": [{"name": "a", "typescript": "b", "schema": json.loads("[" * 400 + "]" * 400)}],
        },
        {"role": "developer", "text": "", "tools": [{"name": "a", "typescript": "b", "\ud800": 1}]},
    ],
    ids=range(7),
)
def test_messages_with_fields_of_other_types_are_refused(message: dict[str, Any]):
    with pytest.raises(ValueError, match="message 0: ") as caught:
        chats.from_list([message])
    str(caught.value).encode()


def test_messages_of_a_browser_cannot_make_a_bench_that_its_own_file_refuses():
    """A third prompt came into being, and a label that was a number could not be drawn."""
    live, said = bench(), []
    kept, live.send = live.send, lambda message, buffers=None: said.append(message)
    try:
        for action in (
            {"kind": "prompt", "name": "third", "text": "a"},
            {"kind": "add", "spec": as_dict(SPECS[1]), "label": 5},
        ):
            live._heard(live, {"do": "act", "view": "bench", "action": action}, [])
    finally:
        live.send = kept
    errors = [message["error"] for message in said if message["did"] == "failed"]
    assert errors[0].startswith("there is no prompt 'third'") and errors[1].startswith("label: expected words")


@pytest.mark.parametrize("answer", [[], [1], [1, 2, 3], ["a"] * 100_000], ids=["none", "one", "three", "many"])
def test_an_answer_of_a_workspace_is_two_tokens(answer: list[Any]):
    with pytest.raises(ValueError, match="expected two tokens") as caught:
        workspace.restore(restored().session, json.dumps(whole() | {"study": whole()["study"] | {"answer": answer}}))
    assert len(str(caught.value)) < 1000


def test_an_error_about_an_intervention_of_many_characters_is_short():
    with pytest.raises(InterventionError) as caught:
        from_json(json.dumps([as_dict(SPECS[6]) | {"source": "a" * 100_000}]))[0].check(bench().model.config, 3)
    assert len(str(caught.value)) < 3000


def test_an_error_about_a_subject_that_is_a_long_list_is_short():
    with pytest.raises(ValueError, match="there is no prompt") as caught:
        workspace.restore(
            restored().session, json.dumps(whole() | {"study": whole()["study"] | {"subject": [0] * 20_000}})
        )
    assert len(str(caught.value)) < 1000


def test_a_selection_that_is_no_object_is_refused_in_our_words():
    with pytest.raises(ValueError, match=r"not as bench\.save writes it: TypeError expected an object"):
        workspace.restore(
            restored().session, json.dumps(whole() | {"screen": whole()["screen"] | {"selection": ["a"]}})
        )


def test_a_workspace_is_refused_whole_also_where_its_prompts_are_no_objects():
    for prompts in (5, [5], [["name"]], {"name": "x"}):
        with pytest.raises(ValueError, match=r"not as bench\.save writes it|a prompt is an object"):
            workspace.prompts_of(json.dumps(whole() | {"study": whole()["study"] | {"prompts": prompts}}))


def test_a_recipe_with_a_key_of_half_a_character_is_refused_in_words_that_can_be_printed():
    with pytest.raises(ValueError, match="has values") as caught:
        recipes.check({"kind": "numbers", "values": [1.0], "\ud800": 1}, bench().model)
    str(caught.value).encode()


def test_a_torch_file_in_which_the_system_cannot_seek_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its directory points before its beginning."""
    for name, data in pickled().items():
        (tmp_path / name).write_bytes(data)
    assert load_dictionary(tmp_path).n_features == 20

    def seek(*args: Any, **options: Any) -> None:
        raise OSError(22, "Invalid argument")

    monkeypatch.setattr(torch, "load", seek)
    with pytest.raises(CheckpointError, match="a torch file of tensors alone"):
        load_dictionary(tmp_path)


def test_a_vector_too_large_for_float32_or_for_the_memory_is_refused():
    with pytest.raises(ValueError, match="finite"):
        recipes.check({"kind": "numbers", "values": [10**400]}, bench().model)
    with pytest.raises(ValueError, match="finite numbers of float32"):
        from_file("v.json", base64.b64encode(b"[1e308, 1]").decode(), 2)
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**10,)})
    with pytest.raises(ValueError, match="says it has the shape"):
        from_file("v.npy", base64.b64encode(file.getvalue()).decode(), 2)


@pytest.mark.parametrize(
    "content",
    [
        {"do": "act", "view": "bench", "action": {"kind": "open", "views": 5}},
        {"do": "act", "view": "bench", "action": {"kind": {}}},
        {"do": "act", "view": "bench", "action": 5},
        {"do": "act", "view": [], "action": {}},
        {"do": "ask", "view": {}, "ask": []},
        {"do": "act", "id": json.loads("[" * 400 + "]" * 400), "view": "bench", "action": {"kind": "x"}},
        {"do": "ask", "slot": [1], "view": "tokens", "ask": {"what": {}}},
    ],
    ids=range(7),
)
def test_a_message_of_a_browser_is_answered_in_words_whatever_it_is(content: dict[str, Any]):
    live, said = bench(), []
    kept, live.send = live.send, lambda message, buffers=None: said.append(message)
    try:
        live._heard(live, content, [])
    finally:
        live.send = kept
    assert said and all("id" not in message or not isinstance(message["id"], list) for message in said)
    for message in said:
        assert "Error:" not in message.get("error", "")
