"""model.edited: interventions that hold for whatever runs in a block, generation step by step too."""

import pytest
import torch
from torch import Tensor

from workbench.activations import run
from workbench.interventions import (
    AblateExpert,
    AblateHead,
    EditSink,
    ForceExpert,
    KnockOut,
    Patch,
    PatchExpert,
    Steer,
)
from workbench.model import HookedGptOss

# So many that, whatever the weights, an expert is chosen at some of them and not at others.
MANY = (0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11)
SPECS = [
    AblateHead(1, 2, positions=(3, 9, 10)),
    AblateExpert(0, 1, "zero", positions=MANY),
    AblateExpert(1, 2, positions=MANY),
    EditSink(1, 0, "set", 0.5, positions=(10,)),
    KnockOut(0, ((10, 8), (None, 3), (11, None))),
    KnockOut(1, ((10, 8), (None, 3)), freed="drop"),
    ForceExpert(1, 4, positions=MANY),
    Steer("blocks.0.hook_resid_post", "v", 0.5, positions=(4, 9, 10)),
    Patch("blocks.0.hook_attn_out", "clean", positions=(2, 5)),
    Patch("blocks.0.hook_attn_out", "clean", positions=(9, 10), source_positions=(1, 2)),
    PatchExpert(1, 0, "clean"),
]


@pytest.fixture
def sources(model: HookedGptOss, tokens: Tensor) -> dict:
    draw = torch.Generator().manual_seed(3)
    return {"v": torch.randn(model.config.d_model, generator=draw), "clean": run(model, tokens.flip(1), sites="all")}


def test_a_pass_in_the_block_is_the_run_and_afterwards_nothing_is_left(
    model: HookedGptOss, tokens: Tensor, sources: dict
):
    few = [AblateHead(1, 2), AblateExpert(0, 1, "zero"), Steer("blocks.0.hook_resid_post", "v"), SPECS[8]]
    plain = model(tokens)
    with model.edited(few, sources):
        inside = model(tokens)
    assert torch.equal(inside, run(model, tokens, few, sources=sources).logits)
    assert torch.equal(model(tokens), plain) and not torch.equal(inside, plain)


@pytest.mark.parametrize("spec", SPECS, ids=repr)
def test_positions_mean_the_same_columns_with_a_cache_and_without(
    model: HookedGptOss, tokens: Tensor, sources: dict, spec
):
    with model.edited([spec], sources):
        steps = model.generate(tokens, max_new_tokens=4, stop_at_eos=False).finish()
        whole = model(steps.tokens)
        again = model.generate(tokens, max_new_tokens=4, stop_at_eos=False, use_cache=False).finish()
        cache = model.new_cache()
        parts = [model(steps.tokens[:, i:j], past_kv_cache=cache) for i, j in ((0, 7), (7, 10), (10, 11), (11, 13))]
    assert torch.equal(steps.tokens, again.tokens)
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
    assert (whole - model(steps.tokens)).abs().max() > 1e-5  # so the spec did something


def test_an_error_in_the_block_leaves_the_model_as_it_was(model: HookedGptOss, tokens: Tensor):
    plain = model(tokens)
    with pytest.raises(RuntimeError, match="mine"), model.edited([AblateHead(0, 0)]):
        raise RuntimeError("mine")
    assert torch.equal(model(tokens), plain) and not model.list_hooks()


def test_gradients_pass_through_edits(model: HookedGptOss, tokens: Tensor, sources: dict):
    scale = torch.ones(model.config.d_model, requires_grad=True)
    with torch.enable_grad(), model.edited([SPECS[0], Steer("hook_embed", "v")], {"v": scale}):
        model(tokens).logsumexp(-1).sum().backward()
    assert scale.grad is not None and scale.grad.abs().sum() > 0


def test_what_cannot_be_is_refused_before_a_hook_is_on(model: HookedGptOss):
    with pytest.raises(ValueError, match="there is no head 9"), model.edited([AblateHead(0, 9)]):
        pass
    three = [AblateExpert(1, expert) for expert in (0, 2, 4)]
    with pytest.raises(ValueError, match="leaves 2 at position 0"), model.edited(three):
        pass
    assert not model.list_hooks()


@pytest.mark.parametrize("position", [0, 8])
def test_an_edit_of_the_final_norm_finds_its_column_where_only_the_last_is_unembedded(
    model: HookedGptOss, tokens: Tensor, sources: dict, position: int
):
    for spec in (
        Steer("ln_final.hook_normalized", "v", positions=(position,)),
        Patch("ln_final.hook_normalized", "clean", positions=(position,)),
    ):
        recording = model.record(tokens)
        with model.edited([spec], sources):
            whole = model(tokens)
            for layer in (0, model.config.n_layers):
                last = model.resume(recording, layer, logits_at="last")
                two = model.resume(recording, layer, from_position=3, logits_at=[7, 8])
                torch.testing.assert_close(last, whole[:, -1:], rtol=0, atol=1e-5)
                torch.testing.assert_close(two, whole[:, 7:], rtol=0, atol=1e-5)
