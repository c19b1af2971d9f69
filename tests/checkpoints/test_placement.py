"""A model spread over devices, CPU and disk by accelerate gives the numbers of the same model in one place."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.small import SMALL, checkpoint, same_state, small_model
from workbench import GPT_OSS_120B, AblateExpert, HookedGptOss, load, run
from workbench.checkpoints import save_pretrained
from workbench.model.fingerprint import fingerprint
from workbench.model.placement import infer, plan, unit_names

DISK = {"": "disk"}
MIXED = {"": "cpu", "blocks.1": "disk", "unembed": "disk"}
TOKENS = torch.randint(0, 96, (2, 30), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint(tmp_path_factory.mktemp("packed") / "small", "huggingface-mxfp4", dtype="bfloat16")


@pytest.fixture(scope="module")
def plain(packed: Path) -> HookedGptOss:
    return load(packed)


@pytest.fixture(scope="module", params=[DISK, MIXED], ids=["disk", "cpu and disk"])
def spread(request: pytest.FixtureRequest, packed: Path) -> HookedGptOss:
    return load(packed, device_map=request.param)


# ------------------------------------------------------------------------------------------------ the same model
def test_logits_and_every_site_are_the_same_bit_for_bit(plain, spread):
    expected, theirs = plain.run_with_cache(TOKENS)
    logits, cache = spread.run_with_cache(TOKENS)
    assert torch.equal(logits, expected)
    assert list(cache) == list(theirs) == list(plain.sites)
    assert all(torch.equal(cache[name], theirs[name]) for name in cache)


def test_an_edit_acts_in_an_offloaded_block_and_leaves_nothing_behind(plain, spread):
    expert = AblateExpert(layer=1, expert=2)
    edited, expected = run(spread, TOKENS, [expert]), run(plain, TOKENS, [expert])
    assert torch.equal(edited.logits, expected.logits)
    assert not torch.equal(edited.logits, plain(TOKENS))
    assert torch.equal(spread(TOKENS), plain(TOKENS))
    assert not any(point._forward_hooks or point._backward_hooks for point in spread.hook_dict.values())


def test_generation_with_the_cache_and_resuming_give_the_same(plain, spread):
    assert spread.generate(TOKENS, 6).finish().tokens.tolist() == plain.generate(TOKENS, 6).finish().tokens.tolist()
    resumed = [model.resume(model.record(TOKENS), from_layer=1, from_position=9) for model in (plain, spread)]
    assert torch.equal(*resumed)


def test_gradients_reach_activations_through_offloaded_blocks(plain, spread):
    gradients = []
    for model in (plain, spread):
        model.zero_grad()
        _, cache = model.run_with_cache(TOKENS, return_type="loss", incl_bwd=True)
        gradients.append(cache["blocks.0.hook_resid_pre_grad"])
    assert gradients[0].abs().max() > 0
    assert torch.equal(*gradients)


def test_between_passes_every_weight_can_be_read_and_has_the_same_fingerprint(plain, spread):
    spread(TOKENS)
    assert same_state(spread, plain)
    assert fingerprint(spread) == fingerprint(plain)
    assert torch.equal(spread.blocks[1].mlp.experts.W_down[3], plain.blocks[1].mlp.experts.W_down[3])


def test_an_edit_of_an_offloaded_weight_counts_in_the_next_pass(packed, plain):
    model, changed = load(packed, device_map=DISK), load(packed)
    for each in (model, changed):
        with torch.no_grad():
            each.blocks[1].attn.o.weight.mul_(0.5)
    assert torch.equal(model(TOKENS), changed(TOKENS))
    assert not torch.equal(model(TOKENS), plain(TOKENS))


def test_a_hook_that_raises_leaves_the_next_pass_right(plain, spread):
    def fail(x: torch.Tensor, hook: object) -> None:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        spread.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.mlp.hook_expert_in", fail)])
    assert torch.equal(spread(TOKENS), plain(TOKENS))


# ------------------------------------------------------------------------------------------------ memory
def test_the_pages_of_the_checkpoint_are_used_as_they_lie_and_never_copied(packed):
    model = load(packed, device_map=DISK)
    experts = model.blocks[1].mlp.experts
    weights = {"W_down_blocks": experts, "W_gate_up_scales": experts, "weight": model.blocks[1].attn.o}
    stored = {name: getattr(module, name) for name, module in weights.items()}
    during: dict[str, torch.Tensor] = {}

    def look(x: torch.Tensor, hook: object) -> None:
        during.update({name: getattr(module, name) for name, module in weights.items()})

    model.run_with_hooks(TOKENS, fwd_hooks=[("blocks.1.mlp.hook_expert_in", look)])
    for name, tensor in stored.items():
        assert during[name].data_ptr() == tensor.data_ptr()
        assert getattr(weights[name], name) is tensor
    assert during["weight"] is not stored["weight"], "accelerate's hook put its own parameter there for the pass"


def private_bytes() -> int:
    """Memory of this process that no file holds."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells private memory from pages of files")
def test_a_model_on_disk_needs_less_private_memory_than_its_size_even_where_nothing_can_be_mapped(tmp_path):
    big = SMALL.with_(n_layers=3, d_model=256, d_mlp=384, n_experts=16)
    path = save_pretrained(small_model(big), tmp_path / "dense", "huggingface")  # transposed on disk: must be read
    gc.collect()
    before, most = private_bytes(), 0
    model = load(path, device_map=DISK, offload_folder=tmp_path / "offload")

    def look(x: torch.Tensor, hook: object) -> None:
        nonlocal most
        most = max(most, private_bytes() - before)

    logits = model.run_with_hooks(TOKENS, fwd_hooks=[(lambda name: name.endswith(("hook_mlp_out", "hook_z")), look)])
    size = sum(x.numel() * x.element_size() for x in model.state_dict().values())
    assert size > 50e6
    assert 0 <= most < size / 4
    assert torch.equal(logits, load(path)(TOKENS))
    if os.name == "posix":
        assert not list((tmp_path / "offload").iterdir()), "no file outlives the process, even a killed one"


def test_what_cannot_stay_in_the_checkpoints_files_asks_for_a_folder(tmp_path):
    path = checkpoint(tmp_path / "dense", "huggingface")
    with pytest.raises(ValueError, match=r"W_gate_up is to stay on disk.*give offload_folder="):
        load(path, device_map=DISK)


# ------------------------------------------------------------------------------------------------ a second device
@pytest.fixture(scope="module")
def over_two_devices(packed: Path, root: Path) -> dict[str, dict[str, Any]]:
    """What spread_out.py found."""
    command = [sys.executable, "-m", "tests.checkpoints.spread_out", str(packed)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_over_two_devices_everything_a_user_asks_for_is_the_same_bit_for_bit(over_two_devices):
    wrong = {name: found["wrong"] for name, found in over_two_devices.items()}
    assert wrong == {name: [] for name in over_two_devices}
    assert all(found["the same questions"] for found in over_two_devices.values())


def test_blocks_compute_where_their_map_says(over_two_devices):
    there, here = "elsewhere", "cpu"
    expected = {
        "all on disk but the end": [there, there],
        "all on the CPU, offloaded": [there, there],
        "the ends offloaded": [there, there],
        "a block on the CPU, computed there": [there, here],
        "a block on disk, computed on the CPU": [here, there],
        "only the end there": [here, here],
    }
    assert {name: found["computes on"] for name, found in over_two_devices.items()} == expected


def test_over_two_devices_a_cache_is_in_one_place_and_no_hook_or_empty_weight_is_left(over_two_devices):
    for name, found in over_two_devices.items():
        assert len(found["devices of sites"]) == 1, name
        assert found["hooks left"] == found["empty weights"] == [], name


# ------------------------------------------------------------------------------------------------ maps
def test_auto_fills_devices_in_order_and_never_splits_a_block():
    model = HookedGptOss(GPT_OSS_120B, device="meta", experts="packed")
    sizes = {name: size_of(model.get_submodule(name)) for name in unit_names(model)}
    limits = {0: 24_000_000_000, 1: 24_000_000_000, "cpu": 40_000_000_000}
    found = infer(model, "auto", limits)
    assert list(found) == list(sizes), "every unit, blocks as a whole"
    for device, limit in limits.items():
        assert 0 < sum(size for unit, size in sizes.items() if found[unit] == device) <= limit
    assert [found[unit] for unit in found] == sorted(found.values(), key=[0, 1, "cpu", "disk"].index)


def size_of(module: torch.nn.Module) -> int:
    return sum(x.numel() * x.element_size() for x in module.state_dict().values())


def test_auto_puts_on_disk_what_memory_does_not_hold(packed, plain):
    model: Any = load(packed, device_map="auto", max_memory={"cpu": size_of(plain) * 6 // 10})
    assert set(model.hf_device_map.values()) == {"cpu", "disk"}
    assert torch.equal(model(TOKENS), plain(TOKENS))


def test_a_map_of_one_device_is_a_plain_load(packed, plain):
    model = load(packed, device_map={"": "cpu"})
    assert not hasattr(model, "hf_device_map") and "forward" not in vars(model.blocks[0])
    assert torch.equal(model(TOKENS), plain(TOKENS))


def test_the_longest_name_decides():
    model = small_model()
    placement = plan(model, {"": "disk", "blocks": "cpu", "blocks.1": "disk"})
    expected = {"embed": "disk", "blocks.0": "cpu", "blocks.1": "disk", "ln_final": "disk", "unembed": "disk"}
    assert placement.units == expected


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"": "cpu", "blocks.1.mlp": "disk"}, r"'blocks\.1\.mlp'\] is a part of 'blocks\.1', which stays whole"),
        ({"": "cpu", "embed.weight": "disk"}, r"a part of 'embed', which stays whole"),
        ({"": "cpu", "block.1": "disk"}, r"no such module; closest is 'blocks\.1'.*embed, blocks\.0 to blocks\.1"),
        ({"embed": "cpu", "blocks": "cpu"}, r"says nothing of ln_final, unembed"),
        ({"": "gpu"}, r"device_map\['embed'\]='gpu': expected a GPU's number, 'cpu', 'disk'"),
        ({"": 99}, r"=99: this machine has"),
        ({"": "meta"}, r"='meta': this machine has"),
        ("automatic", r"'automatic': expected one of .*closest is 'auto'"),
    ],
)
def test_a_map_that_cannot_be_is_refused_with_what_was_expected(wrong, message):
    with pytest.raises(ValueError, match=message):
        plan(small_model(), wrong)


def test_options_that_would_do_nothing_are_refused(packed):
    with pytest.raises(ValueError, match="offload_folder was given without a device_map"):
        load(packed, offload_folder="somewhere")
    with pytest.raises(ValueError, match="max_memory is for a device_map that is worked out"):
        load(packed, device_map=DISK, max_memory={"cpu": 1})
    with pytest.raises(ValueError, match="nothing can be computed there"):
        load(packed, device_map=DISK, device="disk")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("device_map", [{"": 0, "blocks.1": "cpu"}, {"": "disk", "unembed": 0}, "auto"])
def test_on_a_gpu_offloaded_blocks_give_what_the_whole_model_there_gives(packed, device_map):
    whole, spread = load(packed, device="cuda"), load(packed, device_map=device_map)
    expected, theirs = whole.run_with_cache(TOKENS)
    logits, cache = spread.run_with_cache(TOKENS)
    assert torch.equal(logits.cpu(), expected.cpu())
    assert all(torch.equal(cache[name].cpu(), theirs[name].cpu()) for name in theirs)
