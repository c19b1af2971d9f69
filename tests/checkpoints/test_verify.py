"""`verify` agrees with what is right, and names the layer and the part of every mistake that is planted."""

from __future__ import annotations

import gc
import json
import math
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import workbench as wb
from tests.checkpoints.small import SMALL, checkpoint, edit_tensors, small_model
from workbench import certificate, load, verify
from workbench.checkpoints import Certificate, CheckpointError, save_pretrained
from workbench.checkpoints.verify.errors import error_of, explained_flips
from workbench.checkpoints.verify.reference import NoReference, Reference
from workbench.cli import main
from workbench.model import engines, mxfp4

PARTS, ENDS = ("attention", "router", "mlp", "block"), ("embedding", "logits")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Certificates of the tests go nowhere else."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("packed") / "small", "huggingface-mxfp4", dtype="bfloat16")


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("dense") / "small", "huggingface")


# ------------------------------------------------------------------------------------------------ what is right
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("experts", ["packed", "dense"])
def test_a_sound_checkpoint_agrees_in_every_form_far_within_its_bounds(packed, dtype, experts):
    found = verify(packed, dtype=dtype, experts=experts, progress=False)
    assert found.verdict == "agrees", found.reasons
    assert (found.dtype, found.engine["experts"]) == (dtype, experts)
    assert [layer.layer for layer in found.layers] == [0, 1]
    for layer in found.layers:
        for error in (getattr(layer, part) for part in PARTS):
            assert 0 <= error.rms < error.rms_bound / 1.5
            assert (error.exact is None) == (dtype == "float32")
    assert found.routes_agreed > 0.95


def test_random_shapes_agree(tmp_path, seed):
    for n, changes in enumerate(({"n_experts": 7, "experts_per_token": 3}, {"n_heads": 6, "sliding_window": 3})):
        path = save_pretrained(small_model(SMALL.with_(n_layers=3, **changes), seed + n), tmp_path / str(n))
        assert verify(path, progress=False).agrees
        assert verify(path, dtype="bfloat16", progress=False).agrees


def test_nano_is_verified_on_text():
    found = verify("nano", progress=False)
    assert found.agrees, found.reasons
    assert found.tokens["source"] == "text"
    assert found.tokens["count"] == wb.NANO.sliding_window + 96
    assert len(found.layers) == wb.NANO.n_layers


# ------------------------------------------------------------------------------------------------ planted mistakes
def swap_gate_and_up(model: Any) -> None:
    experts = model.blocks[1].mlp.experts
    for name in ("W_gate_up_blocks", "W_gate_up_scales"):
        part = getattr(experts, name)
        part.copy_(part.unflatten(1, (-1, 2)).flip(2).flatten(1, 2).clone())


def next_scale_byte(model: Any) -> None:
    model.blocks[1].mlp.experts.W_down_scales[2, 5, 0] += 1


def scale_a_sink(model: Any) -> None:
    model.blocks[0].attn.sinks[3] *= 1.5


def narrow_the_window(model: Any) -> None:
    model.blocks[0].attn.window -= 1


def forget_the_window(model: Any) -> None:
    model.blocks[0].attn.window = None


def limit_less(model: Any) -> None:
    model.blocks[1].mlp.config = model.config.with_(swiglu_limit=1.0)


def take_one_expert_less(model: Any) -> None:
    model.blocks[1].mlp.config = model.config.with_(experts_per_token=1)


def rank_by_size(model: Any) -> None:
    mlp = model.blocks[1].mlp
    router = mlp.route
    mlp.route = lambda logits, index_weights="keep": router(logits.abs(), index_weights)


def other_epsilon(model: Any) -> None:
    model.blocks[1].ln2.eps = 0.1


def turn_twice_as_far(model: Any) -> None:
    attention = model.blocks[1].attn
    turns = attention.turns
    attention.turns = lambda this, dtype: turns(replace(this, query_positions=2 * this.query_positions, memo={}), dtype)


def drop_the_mlp(model: Any) -> None:
    model.blocks[0].hook_mlp_out.forward = torch.zeros_like


# What is planted → its layer, the parts that must be named in any dtype, and those that rounding in bfloat16 may hide.
MISTAKES: dict[Callable[[Any], None], tuple[int, set[str], set[str]]] = {
    swap_gate_and_up: (1, {"weights mlp.experts.W_gate_up", "mlp", "block"}, set()),
    next_scale_byte: (1, {"weights mlp.experts.W_down"}, {"mlp", "block"}),
    scale_a_sink: (0, {"weights attn.sinks"}, {"attention", "block"}),
    narrow_the_window: (0, {"attention", "block"}, set()),
    forget_the_window: (0, {"attention", "block"}, set()),
    limit_less: (1, {"mlp", "block"}, set()),
    take_one_expert_less: (1, {"routes"}, set()),
    rank_by_size: (1, {"routes"}, set()),
    other_epsilon: (1, {"router", "mlp"}, {"block"}),
    turn_twice_as_far: (1, {"attention", "block"}, set()),
    drop_the_mlp: (0, {"mlp", "block"}, set()),
}


def named(found: Certificate) -> dict[int, set[str]]:
    """Layer → the parts that the reasons name; −1 for what is before and after the layers."""
    parts: dict[int, set[str]] = {}
    for reason in found.reasons:
        named_part = reason.split(":")[0]
        layer, part = named_part.split(" ", 2)[1:] if named_part.startswith("layer") else (-1, named_part)
        parts.setdefault(int(layer), set()).add(part)
    return parts


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("plant", MISTAKES, ids=lambda plant: plant.__name__)
def test_a_planted_mistake_differs_in_its_layer_and_part_and_in_no_other_layer(packed, plant, dtype):
    model = load(packed, dtype=dtype)
    with torch.no_grad():
        plant(model)
    found = verify(packed, model=model, progress=False)
    layer, always, in_float32 = MISTAKES[plant]
    assert found.verdict == "differs"
    assert named(found).keys() == {layer}, found.reasons
    expected = always if dtype == "bfloat16" else always | in_float32
    assert named(found)[layer] >= expected, found.reasons


def test_weights_that_differ_are_counted_and_the_expert_is_named(packed):
    model = load(packed)
    before = model.blocks[1].mlp.experts.W_down[2].clone()
    next_scale_byte(model)
    n = int((model.blocks[1].mlp.experts.W_down[2] != before).sum())
    assert 0 < n <= 32, "a block of numbers, those that are 0 stay 0"
    found = verify(packed, model=model, progress=False)
    assert dict(found.layers[1].weights) == {
        "mlp.experts.W_down": f"{n} of {4 * 64 * 32:,} numbers differ, first in expert 2"
    }


def test_a_wrong_table_of_the_packed_format_is_found_for_the_other_side_has_its_own(packed, monkeypatch):
    monkeypatch.setattr(mxfp4, "MAGNITUDES", (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0))
    mxfp4._table.cache_clear()
    try:
        with engines.use("eager"):
            found = verify(packed, progress=False)
    finally:
        mxfp4._table.cache_clear()
    assert {part for parts in named(found).values() for part in parts} >= {"weights mlp.experts.W_down", "mlp"}


def test_weights_before_and_after_the_layers_are_compared_too(dense):
    model = load(dense)
    with torch.no_grad():
        model.embed.weight[5] += 1
        model.unembed.weight[7] *= 2
        model.ln_final.w[3] = 0
    found = verify(dense, model=model, tokens=torch.arange(96)[None], progress=False)
    assert named(found) == {-1: {*(f"weights {x}" for x in ("embed.weight", "ln_final.w", "unembed.weight")), *ENDS}}


def test_a_number_that_is_no_number_differs_and_is_still_valid_json(dense):
    model = load(dense)
    with torch.no_grad():
        model.blocks[1].mlp.experts.b_down.fill_(math.nan)
    found = verify(dense, model=model, progress=False)
    assert named(found)[1] >= {"weights mlp.experts.b_down", "mlp", "block"}
    json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert Certificate.from_json(found.to_json()).reasons == found.reasons


def test_a_checkpoint_damaged_after_it_was_loaded_differs(tmp_path):
    path = checkpoint(tmp_path / "small")
    model = load(path, dtype="bfloat16")  # cast, so that nothing of it is a page of the file

    def damage(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.self_attn.o_proj.bias"][0] += 1

    edit_tensors(path / "model.safetensors", damage)
    assert named(verify(path, model=model, progress=False))[0] >= {"weights attn.o.bias"}


# ------------------------------------------------------------------------------------------------ how it judges
def test_the_bound_in_half_precision_is_the_rounding_of_transformers_itself():
    torch.manual_seed(0)
    exact = torch.randn(50, 40)
    theirs, ours = exact + 0.01 * torch.randn(50, 40), exact + 0.01 * torch.randn(50, 40)
    error = error_of(ours, theirs, exact)
    assert error.agrees
    size = exact.pow(2).mean().sqrt()
    assert error.rms == pytest.approx(float((ours - theirs).pow(2).mean().sqrt() / size), rel=1e-5)
    assert error.rms_bound == pytest.approx(2 * float((theirs - exact).pow(2).mean().sqrt() / size), rel=1e-5)
    assert not error_of(exact + 0.03 * torch.randn(50, 40), theirs, exact).agrees
    one_far = ours.clone()
    one_far[7, 7] += 0.5
    assert error_of(one_far, theirs, exact).max > error.max_bound, "one number among two thousand"
    assert not error_of(ours, theirs).agrees, "in float32 the same distance is far beyond rounding"


def test_a_flipped_route_is_excused_only_by_a_near_tie():
    theirs = torch.tensor([[3.0, 2.0, 1.9, 0.0], [3.0, 2.0, 1.0, 0.0]])
    ours = theirs + 0.06
    assert explained_flips(ours, theirs, 2).tolist() == [True, False]
    assert explained_flips(ours, theirs, 4).tolist() == [False, False], "where all are taken there is no choice"


def test_one_layer_of_transformers_is_in_memory_at_a_time(dense, monkeypatch):
    made, alive = [], []
    make = Reference.layer

    def counted(self: Reference, index: int) -> torch.nn.Module:
        gc.collect()
        alive.append(sum(layer() is not None for layer in made))
        layer = make(self, index)
        made.append(weakref.ref(layer))
        return layer

    monkeypatch.setattr(Reference, "layer", counted)
    verify(dense, progress=False)
    assert alive == [0, 0]


def test_reading_for_the_other_side_goes_through_none_of_our_code(packed):
    stored = load_file(packed / "model.safetensors")
    layer: Any = Reference(packed, torch.float32, torch.device("cpu")).layer(1)
    blocks = stored["model.layers.1.mlp.experts.down_proj_blocks"].long()
    codes = torch.stack((blocks & 15, blocks >> 4), -1).flatten(-2)
    values = torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6])
    scales = stored["model.layers.1.mlp.experts.down_proj_scales"].float() - 127
    numbers = torch.cat((values, -values))[codes] * torch.exp2(scales)[..., None]
    assert torch.equal(layer.mlp.experts.down_proj, numbers.flatten(-2).transpose(1, 2))


# ------------------------------------------------------------------------------------------------ the certificate
def test_a_certificate_is_found_for_exactly_the_model_that_was_verified(packed, cache):
    written = verify(packed, progress=False)
    model = load(packed)
    found = certificate(model)
    assert found == written
    assert certificate(load(packed, dtype="float32")) is None
    with torch.no_grad():
        model.blocks[0].attn.sinks[0] += 1
    assert certificate(model) is None
    (file,) = (cache / "certificates").iterdir()
    with pytest.raises(
        ValueError, match=r"is of small [0-9a-f]{16}, and this model is small .* Verify it as it is now"
    ):
        certificate(model, file)


def test_a_certificate_says_what_was_compared_with_what(packed, tmp_path):
    before = sorted(packed.iterdir())
    verify(packed, out=tmp_path / "here" / "parity.json", progress=False)
    said = json.loads((tmp_path / "here" / "parity.json").read_text())
    assert sorted(packed.iterdir()) == before, "the checkpoint's folder is left as it was"
    assert said["schema"] == 1 and said["verdict"] == "agrees" and said["reasons"] == []
    sizes = {file["name"]: file["bytes"] for file in said["files"]}
    assert sizes == {path.name: path.stat().st_size for path in before if path.suffix in (".json", ".safetensors")}
    assert {"workbench", "torch", "transformers", "python"} == said["versions"].keys()
    assert said["engine"]["engine"] == engines.engine_name("cpu", torch.bfloat16)
    assert "2 × " in said["bounds"] and "float32 result on the same input" in said["bounds"]
    assert said["tokens"]["source"] == "random" and said["tokens"]["count"] == SMALL.sliding_window + 96
    assert certificate(load(packed), tmp_path / "here" / "parity.json") is not None


def test_a_changed_file_has_another_sample(tmp_path):
    path = checkpoint(tmp_path / "small")
    first = {file["name"]: file["sampled_sha256"] for file in verify(path, progress=False).files}
    edit_tensors(path / "model.safetensors", lambda tensors: tensors["lm_head.weight"].add_(1))
    second = {file["name"]: file["sampled_sha256"] for file in verify(path, progress=False).files}
    assert {name for name in first if first[name] != second[name]} == {"model.safetensors"}


def test_the_badge_says_it_in_one_line(packed, dense):
    right = verify(packed, progress=False)
    assert right.badge.startswith("✓ verified against transformers 5.") and right.badge.endswith("routes 100 %")
    model = load(dense)
    drop_the_mlp(model)
    wrong = verify(dense, model=model, progress=False)
    assert wrong.badge.endswith("float32 · layer 0 mlp and 1 more")
    assert "<li>layer 0 mlp" in wrong._repr_html_() and "<li>" not in right._repr_html_()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}', '{"schema": 1, "verdict": "agrees"}'])
def test_a_file_that_is_no_certificate_is_refused(packed, tmp_path, text):
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(ValueError, match=r"wrong\.json: not a certificate.*Run `workbench verify` again"):
        certificate(load(packed), tmp_path / "wrong.json")


# ------------------------------------------------------------------------------------------------ what it refuses
def test_without_transformers_one_error_says_what_to_install(packed, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NoReference, match=r"pip install 'gpt-oss-workbench\[verify\]'"):
        verify(packed)
    assert main(["verify", str(packed)]) == 1
    assert "pip install" in capsys.readouterr().err


def test_openais_own_form_is_refused_for_transformers_does_not_read_it(tmp_path):
    path = save_pretrained(small_model(packable=True), tmp_path / "original", "openai", dtype="bfloat16")
    with pytest.raises(CheckpointError, match=r"transformers, which is the other side here, reads no other"):
        verify(path)


def test_options_of_loading_beside_a_loaded_model_are_refused(packed):
    with pytest.raises(ValueError, match=r"\['dtype'\] would do nothing"):
        verify(packed, model=load(packed), dtype="float32")


# ------------------------------------------------------------------------------------------------ the command
def test_the_command_prints_a_line_a_layer_and_ends_0_or_1(packed, tmp_path, capsys, monkeypatch):
    assert main(["verify", str(packed), "--quiet", "--out", str(tmp_path / "c.json")]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown if "100.00%" in line] == ["0", "1"]
    assert shown[-2].startswith("agrees, in ") and shown[-1] == f"certificate: {tmp_path / 'c.json'}"
    monkeypatch.setattr(mxfp4, "MAGNITUDES", (0.0,) * 8)
    mxfp4._table.cache_clear()
    try:
        with engines.use("eager"):
            assert main(["verify", str(packed), "--quiet", "--dtype", "float32"]) == 1
    finally:
        mxfp4._table.cache_clear()
    assert "DIFFERS" in capsys.readouterr().out


def test_a_model_spread_over_disk_verifies_as_well(packed):
    found = verify(packed, device_map={"": "cpu", "blocks.1": "disk"}, progress=False)
    assert found.agrees
