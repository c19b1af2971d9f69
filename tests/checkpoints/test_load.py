"""What can be named, where it is looked for, and what loading costs in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import save_file

from tests.checkpoints.small import SMALL, checkpoint, same_state, small_model
from workbench.checkpoints import CheckpointError, embedded, embedded_path, huggingface, load
from workbench.checkpoints.safetensors_file import TORCH_DTYPES
from workbench.checkpoints.tables import Table, sizes_of

# What openai/gpt-oss-20b holds on the hub.
HUB_FILES = [
    *(".gitattributes", "LICENSE", "README.md", "USAGE_POLICY", "chat_template.jinja", "config.json"),
    *("generation_config.json", "model-00000-of-00002.safetensors", "model-00001-of-00002.safetensors"),
    *("model-00002-of-00002.safetensors", "model.safetensors.index.json", "special_tokens_map.json"),
    *("tokenizer.json", "tokenizer_config.json", "metal/model.bin", "original/config.json", "original/dtypes.json"),
    "original/model.safetensors",
]


def test_a_path_may_be_a_string_or_a_path_with_a_home_in_it(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert load(folder).config.name == load(str(folder)).config.name == load("~/model").config.name == "model"


def test_of_a_folder_with_both_forms_the_top_one_is_taken(tmp_path):
    top = checkpoint(tmp_path / "gpt", config=SMALL.with_(n_experts=3))
    checkpoint(top / "original", "openai", config=SMALL.with_(n_experts=2))
    assert load(top).config.n_experts == 3
    original = load(top / "original")
    assert (original.config.n_experts, original.config.name) == (2, "gpt")


def test_a_folder_that_only_has_an_original_inside_is_taken_too(tmp_path):
    checkpoint(tmp_path / "gpt" / "original", "openai")
    assert load(tmp_path / "gpt").config.n_experts == SMALL.n_experts


def test_without_a_tokenizer_the_model_has_none_and_runs(tmp_path):
    model = load(checkpoint(tmp_path / "model"))
    assert model.tokenizer is None
    assert model(torch.tensor([[1, 2, 3]])).shape == (1, 3, SMALL.d_vocab)


def write_tokenizer(folder: Path, n_tokens: int) -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import models

    vocabulary = {f"t{i}": i for i in range(n_tokens)}
    Backend(models.WordLevel(vocabulary, unk_token="t0")).save(str(folder / "tokenizer.json"))


def test_the_original_folder_finds_the_tokenizer_above_it(tmp_path):
    folder = checkpoint(tmp_path / "gpt" / "original", "openai")
    write_tokenizer(folder.parent, 50)
    tokenizer = load(folder).tokenizer
    assert tokenizer is not None and tokenizer.vocab_size == 50
    assert tokenizer.n_ids == SMALL.d_vocab, "the model may write ids that no text has"


def test_a_tokenizer_with_more_ids_than_the_embedding_is_refused(tmp_path):
    folder = checkpoint(tmp_path / "model")
    write_tokenizer(folder, SMALL.d_vocab + 1)
    with pytest.raises(CheckpointError) as caught:
        load(folder)
    assert str(caught.value) == f"{folder / 'tokenizer.json'}: expected ids below the embedding's 96 rows, found 97 ids"


def test_a_broken_tokenizer_is_refused_by_name(tmp_path):
    folder = checkpoint(tmp_path / "model")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        load(folder)


def test_nano_is_found_in_a_wheel_first_and_in_the_checkout_else(tmp_path, monkeypatch):
    package = tmp_path / "site" / "workbench"
    package.mkdir(parents=True)
    monkeypatch.setattr(embedded, "files", lambda _: package)
    with pytest.raises(CheckpointError, match=r"'nano' is in neither of .*_data.nano, .*data.nano"):
        load("nano")
    checkpoint(tmp_path / "site" / "data" / "nano")
    assert embedded_path("nano") == tmp_path / "site" / "data" / "nano"
    checkpoint(package / "_data" / "nano")
    assert embedded_path("nano") == package / "_data" / "nano"
    assert load("nano").config.name == "nano"


@pytest.mark.parametrize("name", ["nan0", "no/such/folder", "a b/c", "../up", Path("org/name")])
def test_an_unknown_name_lists_what_was_tried(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError) as caught:
        load(name)
    message = str(caught.value)
    assert f"no checkpoint {str(name)!r}" in message and "an embedded model" in message
    assert str(tmp_path) in message and "hub id" in message
    assert ("closest is 'nano'" in message) == (name == "nan0")


def test_a_file_is_answered_with_its_folder(tmp_path):
    folder = checkpoint(tmp_path / "model")
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a file: give the checkpoint's folder, '.*model'"):
        load(folder / "model.safetensors")


def test_hidden_files_that_macos_leaves_are_not_read(tmp_path):
    folder = checkpoint(tmp_path / "model")
    (folder / "._model.safetensors").write_bytes(b"Mac OS X")
    assert same_state(load(folder), small_model(packable=True))


def test_a_folder_without_config_says_what_is_there(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(CheckpointError, match=r"expected config\.json, found notes\.txt"):
        load(tmp_path)


def test_a_hub_id_is_fetched_top_files_only_and_keeps_its_name(tmp_path, monkeypatch):
    folder, asked = checkpoint(tmp_path / "model"), {}

    def snapshot_download(hub_id, **options):
        asked.update(options, hub_id=hub_id)
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert load("openai/gpt-oss-20b").config.name == "openai/gpt-oss-20b"
    assert asked.pop("hub_id") == "openai/gpt-oss-20b"
    wanted = set(filter_repo_objects(HUB_FILES, **asked))
    unwanted = {".gitattributes", "LICENSE", "README.md", "USAGE_POLICY"}
    assert wanted == {file for file in HUB_FILES if "/" not in file} - unwanted


def test_a_folder_of_a_hub_ids_spelling_wins(tmp_path, monkeypatch):
    checkpoint(tmp_path / "openai" / "gpt")
    monkeypatch.chdir(tmp_path)
    assert load("openai/gpt").config.name == "gpt"


def test_a_hub_that_cannot_answer_is_one_error_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))  # the tests run with HF_HUB_OFFLINE
    with pytest.raises(CheckpointError) as caught:
        load("nobody/nothing-at-all")
    message = str(caught.value)
    assert "no checkpoint 'nobody/nothing-at-all'" in message and "Hugging Face hub, which said" in message


@pytest.mark.skipif(sys.platform == "win32", reason="links need a privilege there; the hub's cache has none there")
def test_a_hub_cache_of_links_loads(tmp_path):
    folder, links = checkpoint(tmp_path / "blobs", max_shard_bytes=60_000), tmp_path / "snapshot"
    links.mkdir()
    for number, file in enumerate(sorted(folder.iterdir())):
        target = file.rename(folder / f"{number:064d}")
        (links / file.name).symlink_to(target)
    assert same_state(load(links), small_model(packable=True))


@pytest.mark.parametrize("wrong", [{"dtype": "int8"}, {"dtype": torch.int64}, {"dtype": "nonsense"}, {"check": "none"}])
def test_a_wrong_option_is_refused_before_anything_is_read(tmp_path, wrong):
    option = next(iter(wrong))
    kind = Exception if option == "check" else ValueError  # the type checker of the tests refuses it first
    with pytest.raises(kind, match=option):
        load(tmp_path / "nothing", **wrong)


def test_the_default_device_is_torchs(tmp_path):
    folder = checkpoint(tmp_path / "model")
    assert load(folder).cfg.device == load(folder, device="cpu").cfg.device == torch.device("cpu")
    with torch.device("meta"):
        assert load(folder).cfg.device.type == "meta"


# ------------------------------------------------------------------ memory

# The kernel's own peak of the process, set back before each load. (getrusage's would count the parent of a fork.)
MEASURE = """
import sys
import torch
from workbench.checkpoints import load

def memory(field):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))

torch.set_num_threads(1)
for folder, dtype, experts in zip(sys.argv[1::3], sys.argv[2::3], sys.argv[3::3]):
    open("/proc/self/clear_refs", "w").write("5")
    before = memory("VmRSS")
    model = load(folder, dtype=dtype, experts=experts)
    print(sum(weight.nbytes for weight in model.state_dict().values()), memory("VmHWM") - before)
    del model
"""
BIG = SMALL.with_(n_layers=8, d_model=512, d_mlp=512, n_experts=16, d_vocab=8192, dtype="bfloat16")


def write_zeros(folder: Path, table: Table) -> str:
    """A sound checkpoint of zeros in two files, made from the name table alone."""
    folder.mkdir()
    packed = table is huggingface.PACKED
    (folder / "config.json").write_text(json.dumps(huggingface.config_json(BIG, "bfloat16", packed)))
    stored = list(table.stored(BIG.n_layers).values())
    for half in (0, 1):
        tensors = {
            tensor.name: torch.zeros(tensor.shape(sizes_of(BIG)), dtype=TORCH_DTYPES[tensor.dtypes[0]])
            for tensor in stored[half::2]
        }
        save_file(tensors, folder / f"{half}.safetensors")
    return str(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc, which only Linux has")
def test_loading_peaks_below_one_and_a_half_times_the_model_and_mapping_takes_next_to_nothing(root):
    with tempfile.TemporaryDirectory() as scratch:  # not tmp_path, which pytest keeps: these are 300 MB
        dense = write_zeros(Path(scratch) / "dense", huggingface.DENSE)
        packed = write_zeros(Path(scratch) / "packed", huggingface.PACKED)
        # The dense form keeps the experts' matrices the other way round, so they are read and not mapped.
        copied = [*(dense, "bfloat16", "auto"), *(packed, "bfloat16", "dense"), *(dense, "float32", "auto")]
        mapped = [packed, "bfloat16", "auto"]
        loads = copied + mapped
        done = subprocess.run([sys.executable, "-c", MEASURE, *loads], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    measured = [[int(number) for number in line.split()] for line in done.stdout.splitlines()]
    assert len(measured) == 4
    for size, peak in measured[:3]:
        assert size > 200e6 and 0.9 * size < peak < 1.5 * size, measured
    # Pages of the file come in when they are looked at: of the packed one the scales, 1/17.
    for size, peak in measured[3:]:
        assert size > 60e6 and peak < 0.3 * size, measured
