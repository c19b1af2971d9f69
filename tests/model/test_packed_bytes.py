"""What the packed experts hold: the bytes themselves, shared by copies, untouched by a change of type."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from torch import Tensor

from tests.forms import EAGER, MATRICES, held, packable
from tests.small import SMALL, rows
from workbench.model import HookedGptOss, random_weights
from workbench.model.fingerprint import fingerprint
from workbench.model.moe import Experts
from workbench.model.mxfp4 import NanScaleError
from workbench.model.packed import PackedExperts

SHAPE = SMALL.with_(d_model=64, d_mlp=32, dtype="float32")


@pytest.fixture(scope="module")
def dense(seed: int) -> HookedGptOss:
    return packable(random_weights(HookedGptOss(SHAPE), seed))


@pytest.fixture
def packed(dense: HookedGptOss) -> HookedGptOss:
    return held(dense, EAGER)


@pytest.fixture(scope="module")
def tokens(seed: int) -> Tensor:
    return rows(SHAPE, seed)


def addresses(model: HookedGptOss) -> list[int]:
    return [buffer.data_ptr() for buffer in model.buffers()]


def test_a_weight_is_indexed_as_a_dense_one(dense: HookedGptOss, packed: HookedGptOss) -> None:
    for name in MATRICES:
        whole, matrix = (getattr(model.blocks[1].mlp.experts, name) for model in (dense, packed))
        assert matrix.shape == tuple(whole.shape) and len(matrix) == len(whole)
        assert torch.equal(matrix[3], whole[3]) and torch.equal(matrix[1:4], whole[1:4])
        assert matrix.nbytes == whole.numel() * 17 // 32


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_another_type_leaves_the_bytes_alone_and_is_the_type_of_all_else(
    dense: HookedGptOss, packed: HookedGptOss, tokens: Tensor, dtype: torch.dtype
) -> None:
    before, bytes_before = addresses(packed), [buffer.clone() for buffer in packed.buffers()]
    packed.to(dtype)
    assert addresses(packed) == before
    assert all(torch.equal(now, then) for now, then in zip(packed.buffers(), bytes_before, strict=True))
    assert {parameter.dtype for parameter in packed.parameters()} == {dtype}
    assert packed.blocks[0].mlp.experts.W_down[3].dtype == dtype
    if dtype in (torch.float64, torch.float32):
        torch.testing.assert_close(packed(tokens).float(), dense(tokens))
    else:
        assert torch.isfinite(packed(tokens)).all()


def test_a_deep_copy_shares_the_bytes_and_nothing_else(packed: HookedGptOss, tokens: Tensor) -> None:
    plain, twin = packed(tokens), copy.deepcopy(packed)
    assert addresses(twin) == addresses(packed)
    owned = {parameter.data_ptr() for parameter in packed.parameters()}
    assert not owned & {parameter.data_ptr() for parameter in twin.parameters()}
    with torch.no_grad():
        twin.blocks[1].mlp.experts.b_down.add_(1)
        twin.blocks[1].mlp.experts.W_down_scales = torch.zeros_like(twin.blocks[1].mlp.experts.W_down_scales)
    assert torch.equal(packed(tokens), plain) and not torch.equal(twin(tokens), plain)


def test_a_pickle_holds_the_bytes_and_comes_back_the_same_model(packed: HookedGptOss, tokens: Tensor) -> None:
    again = pickle.loads(pickle.dumps(packed))
    assert not set(addresses(again)) & set(addresses(packed))
    assert torch.equal(again(tokens), packed(tokens)) and fingerprint(again) == fingerprint(packed)


def test_a_state_dict_goes_round_and_names_the_bytes(packed: HookedGptOss, tokens: Tensor) -> None:
    state = packed.state_dict()
    assert [name for name, value in state.items() if value.dtype == torch.uint8] == [
        f"blocks.{layer}.mlp.experts.{name}_{part}"
        for layer in range(3) for name in MATRICES for part in ("blocks", "scales")
    ]  # fmt: skip
    fresh = HookedGptOss(SHAPE, experts="packed")
    fresh.load_state_dict(state)
    assert torch.equal(fresh(tokens), packed(tokens)) and fingerprint(fresh) == fingerprint(packed)
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*W_gate_up_blocks.*Unexpected key.*W_gate_up\""):
        fresh.load_state_dict(HookedGptOss(SHAPE).state_dict())


def test_experts_pack_themselves_without_loss_where_mxfp4_can_hold_them(
    dense: HookedGptOss, packed: HookedGptOss
) -> None:
    made = PackedExperts.from_dense(dense.blocks[1].mlp.experts, SHAPE).state_dict()
    expected = packed.blocks[1].mlp.experts.state_dict()
    assert made.keys() == expected.keys() and all(torch.equal(made[name], expected[name]) for name in made)


def test_other_numbers_are_packed_to_within_a_quarter_of_their_blocks_largest(seed: int) -> None:
    experts = Experts(SHAPE, torch.float32)
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in experts.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draw))
    made = PackedExperts.from_dense(experts, SHAPE)
    for name in MATRICES:
        weight = getattr(experts, name).unflatten(-1, (-1, 32))
        error = (getattr(made, name)[:].unflatten(-1, (-1, 32)) - weight).abs().amax(-1)
        assert (error <= weight.abs().amax(-1) / 4).all() and error.any()


def test_a_fingerprint_sees_one_changed_byte(packed: HookedGptOss) -> None:
    before = fingerprint(packed)
    packed.blocks[2].mlp.experts.W_down_blocks[5, 3, 0, 15] ^= 1
    assert fingerprint(packed) != before


def test_a_nan_scale_is_refused_where_a_matrix_is_looked_at_and_shows_in_a_run(
    packed: HookedGptOss, tokens: Tensor
) -> None:
    experts = packed.blocks[1].mlp.experts
    experts.W_gate_up_scales[:, 7, 0] = 255
    with pytest.raises(NanScaleError, match=r"experts\.W_gate_up: 6 of 768 scales are 255 \(NaN\), .* \[0, 7, 0\]"):
        experts.W_gate_up[0]
    assert packed(tokens).isnan().all()


def test_sizes_that_are_no_whole_blocks_are_refused_by_name() -> None:
    for sizes in ({"d_model": 48}, {"d_mlp": 40}):
        shape = SHAPE.with_(**sizes)
        with pytest.raises(ValueError, match=rf"d_model={shape.d_model}, d_mlp={shape.d_mlp}\. Take experts='dense'"):
            HookedGptOss(shape, experts="packed")


def test_read_only_bytes_serve_as_well(packed: HookedGptOss, tokens: Tensor) -> None:
    """As of a checkpoint that is mapped from a file which nobody may write."""
    plain, experts = packed(tokens), packed.blocks[0].mlp.experts
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the array, and we only read it
        for name, buffer in list(experts.named_buffers()):
            raw = buffer.numpy().tobytes()
            setattr(experts, name, torch.frombuffer(raw, dtype=torch.uint8).view(buffer.shape))
    assert torch.equal(packed(tokens), plain)


def test_on_the_meta_device_there_are_no_bytes() -> None:
    model = HookedGptOss(SHAPE, device="meta", experts="packed")
    assert all(tensor.is_meta for tensor in (*model.buffers(), *model.parameters()))
