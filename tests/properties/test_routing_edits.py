"""What an edit of the router's logits, of the experts' numbers or of their weights means."""

import pytest
import torch
from torch import Tensor

from workbench.model import HookedGptOss

LAYER = "blocks.1.mlp"
INDICES, WEIGHTS, OUT = f"{LAYER}.hook_expert_indices", f"{LAYER}.hook_expert_weights", "blocks.1.hook_mlp_out"


def unused(indices: Tensor) -> Tensor:
    """For each token two experts that it was not routed to, the highest numbers first."""
    free = torch.ones(*indices.shape[:2], 6).scatter(-1, indices, 0)
    return free.topk(2, dim=-1).indices


def written_by_hand(model: HookedGptOss, x: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """The experts one token and one slot at a time, from the model card's formula."""
    experts, out = model.blocks[1].mlp.experts, torch.zeros_like(x)
    for batch, pos in torch.cartesian_prod(*map(torch.arange, x.shape[:2])).tolist():
        for expert, weight in zip(indices[batch, pos].tolist(), weights[batch, pos], strict=True):
            both = experts.W_gate_up[expert] @ x[batch, pos] + experts.b_gate_up[expert]
            gate, up = both[0::2].clamp(max=7), both[1::2].clamp(-7, 7)
            act = (up + 1) * gate * torch.sigmoid(1.702 * gate)
            out[batch, pos] += weight * (experts.W_down[expert] @ act + experts.b_down[expert])
    return out


@pytest.mark.parametrize("index_weights", ["keep", "recompute"])
def test_other_experts_in_the_slots_write_with_the_weights_that_the_run_asks_for(
    model: HookedGptOss, tokens: Tensor, index_weights: str
) -> None:
    before = model.run_with_cache(tokens)[1]
    chosen = unused(before[INDICES])
    with model.hooks(fwd_hooks=[(INDICES, lambda indices, hook: chosen)]):
        after = model.run_with_cache(tokens, index_weights=index_weights)[1]
    logits = before[f"{LAYER}.hook_router_logits"]
    weights = before[WEIGHTS] if index_weights == "keep" else logits.gather(-1, chosen).softmax(-1)
    assert torch.equal(after[INDICES], chosen)
    torch.testing.assert_close(after[WEIGHTS], weights)
    by_hand = written_by_hand(model, before[f"{LAYER}.hook_expert_in"], chosen, weights)
    torch.testing.assert_close(after[OUT], by_hand)


def test_without_an_edit_both_ways_to_weigh_are_the_same(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    for index_weights in ("keep", "recompute"):
        assert torch.equal(model(tokens, index_weights=index_weights), plain)
        with model.hooks(fwd_hooks=[(INDICES, lambda indices, hook: indices)]):
            assert torch.equal(model(tokens, index_weights=index_weights), plain)


def test_swapped_slots_keep_their_weights_or_take_them_along(model: HookedGptOss, tokens: Tensor) -> None:
    before = model.run_with_cache(tokens)[1]
    with model.hooks(fwd_hooks=[(INDICES, lambda indices, hook: indices.flip(-1))]):
        kept = model.run_with_cache(tokens)[1]
        recomputed = model.run_with_cache(tokens, index_weights="recompute")[1]
    torch.testing.assert_close(recomputed[OUT], before[OUT])  # a permutation of slots is nothing
    assert torch.equal(recomputed[WEIGHTS], before[WEIGHTS].flip(-1))
    assert torch.equal(kept[WEIGHTS], before[WEIGHTS])
    assert (kept[OUT] - before[OUT]).abs().max() > 1e-3


def test_an_edit_of_the_logits_routes_to_the_strongest_of_the_edited(model: HookedGptOss, tokens: Tensor) -> None:
    def favour(logits: Tensor, hook: object) -> Tensor:
        return logits + torch.tensor([0.0, 0, 0, 9, 0, 7])

    before = model.run_with_cache(tokens)[1]
    with model.hooks(fwd_hooks=[(f"{LAYER}.hook_router_logits", favour)]):
        after = model.run_with_cache(tokens)[1]
    expected = (before[f"{LAYER}.hook_router_logits"] + torch.tensor([0.0, 0, 0, 9, 0, 7])).sort(-1, descending=True)
    assert torch.equal(after[INDICES], expected.indices[..., :2])
    torch.testing.assert_close(after[WEIGHTS], expected.values[..., :2].softmax(-1))


def test_edited_weights_are_taken_as_they_stand(model: HookedGptOss, tokens: Tensor) -> None:
    before = model.run_with_cache(tokens)[1]
    new = torch.tensor([3.0, -0.5], dtype=before[WEIGHTS].dtype).expand_as(before[WEIGHTS])
    with model.hooks(fwd_hooks=[(WEIGHTS, lambda weights, hook: new)]):
        after = model.run_with_cache(tokens)[1]
    out = before[f"{LAYER}.hook_expert_out"]
    torch.testing.assert_close(after[OUT], 3 * out[..., 0, :] - out[..., 1, :] / 2)


def test_other_whole_number_types_route_as_well(model: HookedGptOss, tokens: Tensor) -> None:
    chosen = unused(model.run_with_cache(tokens)[1][INDICES])
    wanted = model.run_with_hooks(tokens, fwd_hooks=[(INDICES, lambda indices, hook: chosen)])
    for dtype in (torch.int32, torch.uint8, torch.int16):
        given = chosen.to(dtype)
        assert torch.equal(model.run_with_hooks(tokens, fwd_hooks=[(INDICES, lambda i, hook, g=given: g)]), wanted)


def at_one_token(indices: Tensor, slots: tuple[int, int]) -> Tensor:
    indices = indices.clone()
    indices[1, 3] = torch.tensor(slots)
    return indices


REFUSED = {
    "an expert twice": (lambda i: at_one_token(i, (4, 4)), r"token \[batch 1, pos 3\] to \[4, 4\]: an expert twice"),
    "one past the last": (lambda i: at_one_token(i, (0, 6)), r"routes to expert 6; there are 0 to 5"),
    "a negative one": (lambda i: at_one_token(i, (-1, 2)), r"routes to expert -1; there are 0 to 5"),
    "floats": (lambda i: i.double(), r"returned torch\.float64 \(2, 9, 2\); expected whole numbers"),
    "booleans": (lambda i: i > 2, r"returned torch\.bool \(2, 9, 2\); expected whole numbers"),
    "too many slots": (lambda i: torch.cat((i, i[..., :1]), -1), r"\(2, 9, 3\); expected .* shape \(2, 9, 2\)"),
    "too few slots": (lambda i: i[..., :1], r"\(2, 9, 1\); expected .* shape \(2, 9, 2\)"),
    "one row": (lambda i: i[:1], r"\(1, 9, 2\); expected .* shape \(2, 9, 2\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_routes_are_refused_by_site_and_value(
    model: HookedGptOss, tokens: Tensor, plain: Tensor, case: str
) -> None:
    change, message = REFUSED[case]
    with pytest.raises(ValueError, match=r"blocks\.1\.mlp\.hook_expert_indices: the edit .*" + message):
        model.run_with_hooks(tokens, fwd_hooks=[(INDICES, lambda indices, hook: change(indices))])
    assert torch.equal(model(tokens), plain)


def test_a_mistyped_way_to_weigh_is_refused(model: HookedGptOss, tokens: Tensor, as_in_a_notebook: None) -> None:
    with pytest.raises(ValueError, match=r"index_weights='recomput': expected one of \('keep', 'recompute'\)"):
        model(tokens, index_weights="recomput")
