"""A checkpoint appears whole or not at all, and never over something else unasked."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from tests.checkpoints.small import ROPE, SMALL, same_state, small_model
from workbench.checkpoints import CheckpointError, load, save, save_pretrained
from workbench.model.config import Rope


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_saving_makes_the_folders_above_and_returns_the_path(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "a" / "b")
    assert saved == tmp_path / "a" / "b"
    assert sorted(contents(tmp_path)) == [
        os.path.join("a", "b", name) for name in ("config.json", "generation_config.json", "model.safetensors")
    ]


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "model").mkdir()
    assert same_state(load(save_pretrained(small_model(), tmp_path / "model")), small_model())


def test_saving_the_same_again_changes_nothing(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "model")
    before = contents(tmp_path)
    save_pretrained(small_model(), saved)
    assert contents(tmp_path) == before


def test_another_checkpoint_is_not_overwritten_unless_asked_and_then_replaced_whole(tmp_path):
    saved = save_pretrained(small_model(), tmp_path / "model", max_shard_bytes=60_000)
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match=r"model holds another checkpoint: .* overwrite=True"):
        save_pretrained(small_model(seed=1), saved)
    assert contents(tmp_path) == before
    save_pretrained(small_model(seed=1), saved, overwrite=True)
    assert same_state(load(saved), small_model(seed=1))
    assert len(contents(tmp_path)) == 3, "no shard of the old one is left, nor any temporary folder"


def test_what_is_no_checkpoint_is_never_overwritten(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "file").write_text("x")
    before = contents(tmp_path)
    with pytest.raises(CheckpointError, match="thesis holds something that is no checkpoint"):
        save_pretrained(small_model(), tmp_path / "thesis", overwrite=True)
    with pytest.raises(CheckpointError, match="file is a file"):
        save_pretrained(small_model(), tmp_path / "file", overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("failing", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("existing", [False, True])
def test_a_save_that_fails_halfway_leaves_what_was_there(tmp_path, monkeypatch, failing, existing):
    if existing:
        save_pretrained(small_model(), tmp_path / "model")
    before, writes = contents(tmp_path), []

    def failing_save(tensors, file, **options):
        writes.append(file)
        if len(writes) == 2:
            raise failing
        file.write_bytes(b"half")

    monkeypatch.setattr(save, "save_file", failing_save)
    with pytest.raises(type(failing)):
        save_pretrained(small_model(seed=1), tmp_path / "model", max_shard_bytes=60_000, overwrite=True)
    assert contents(tmp_path) == before and len(writes) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == (["model"] if existing else [])


def test_a_swap_that_fails_puts_the_old_one_back(tmp_path, monkeypatch):
    saved, rename = save_pretrained(small_model(), tmp_path / "model"), os.rename
    before = contents(tmp_path)

    def failing_rename(source, target):
        if Path(target) == saved and str(source).endswith(".partial"):
            raise OSError("a virus scanner holds it open")
        rename(source, target)

    monkeypatch.setattr(save.os, "rename", failing_rename)
    with pytest.raises(OSError, match="virus scanner"):
        save_pretrained(small_model(seed=1), saved, overwrite=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("form", ["huggingface-mxfp4", "openai"])
@pytest.mark.parametrize("field", ["d_model", "d_mlp"])
def test_sizes_that_mxfp4_cannot_pack_are_refused_before_anything_is_written(tmp_path, form, field):
    model = small_model(SMALL.with_(**{field: 48}))
    with pytest.raises(CheckpointError, match=rf"form='{form}' packs blocks of 32 .* {field}=48"):
        save_pretrained(model, tmp_path / "model", form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer_types": ("full_attention", "full_attention")}, "layer_types"),
        ({"rms_eps": 1e-6}, "rms_eps=1e-06: its code fixes 1e-05"),
        ({"swiglu_alpha": 1.0}, "swiglu_alpha=1.0: its code fixes 1.702"),
        ({"d_head": 64, "rope": Rope(10_000.0, 16.0, 256, beta_fast=16.0, truncate=True)}, "rope.truncate=True"),
    ],
)
def test_a_shape_that_openais_code_does_not_have_is_refused(tmp_path, change, said):
    with pytest.raises(CheckpointError) as caught:
        save_pretrained(small_model(SMALL.with_(**change)), tmp_path / "model", "openai")
    assert "form='openai' cannot say" in str(caught.value) and said in str(caught.value)


def test_nan_experts_cannot_be_packed_and_the_tensor_is_named(tmp_path):
    model = small_model()
    with torch.no_grad():
        model.blocks[1].mlp.experts.W_down[2, 3, 4] = float("nan")
    with pytest.raises(CheckpointError, match=r"tensor 'block\.1\.mlp\.mlp2_weight\.blocks': .* NaN or infinite"):
        save_pretrained(model, tmp_path / "model", "openai")
    assert not list(tmp_path.iterdir())


def test_an_unknown_form_or_dtype_is_refused(tmp_path):
    with pytest.raises(Exception, match="form"):
        save_pretrained(small_model(), tmp_path / "model", "gguf")
    with pytest.raises(ValueError, match=r"dtype='int4': expected torch\.bfloat16"):
        save_pretrained(small_model(), tmp_path / "model", dtype="int4")


def test_plain_rope_is_written_and_read_as_transformers_spells_it(tmp_path):
    config = SMALL.with_(rope=Rope(theta=500.0, factor=1.0, original_context=SMALL.n_ctx))
    saved = save_pretrained(small_model(config), tmp_path / "model")
    values = json.loads((saved / "config.json").read_text())
    assert values["rope_parameters"] == {"rope_type": "default", "rope_theta": 500.0}
    assert load(saved).config.rope == config.rope != ROPE


def test_weights_on_the_model_are_not_changed_by_saving(tmp_path):
    model, before = small_model(), small_model()
    for form in ("huggingface", "huggingface-mxfp4", "openai"):
        save_pretrained(model, tmp_path / form, form, dtype="bfloat16")
    assert same_state(model, before)
