"""ActivationCache's decompositions, TransformerLens' own code, add up on our model."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens import ActivationCache

from workbench.model import HookedGptOss

# float32 sums of some twenty terms of order 1.
CLOSE = {"rtol": 1e-5, "atol": 2e-5}


@pytest.fixture(scope="module", params=["whole rows", "padded left"])
def run(
    request: pytest.FixtureRequest, model: HookedGptOss, tokens: Int[Tensor, "batch pos"]
) -> tuple[Tensor, ActivationCache]:
    mask = torch.ones_like(tokens)
    if request.param == "padded left":
        mask[0, :4] = 0
    with torch.no_grad():
        return model.run_with_cache(tokens, attention_mask=mask)


@pytest.fixture(scope="module")
def logits(run: tuple[Tensor, ActivationCache]) -> Tensor:
    return run[0]


@pytest.fixture
def cache(run: tuple[Tensor, ActivationCache], model: HookedGptOss) -> ActivationCache:
    # A cache of its own for each test: TransformerLens writes head results into it.
    return ActivationCache(dict(run[1].cache_dict), model)


def to_logits(model: HookedGptOss, normalised: Tensor) -> Tensor:
    """By hand: the gain, which is folded into nothing, then the unembedding."""
    return (normalised * model.ln_final.w) @ model.unembed.weight.T


@pytest.mark.parametrize("layer", [0, 1, 2, 3, -1, None])
def test_layer_outputs_add_up_to_the_stream_that_a_layer_reads(cache: ActivationCache, layer: int | None) -> None:
    stack, labels = cache.decompose_resid(layer, return_labels=True)
    last = layer is None or layer in (-1, 3)
    torch.testing.assert_close(stack.sum(0), cache["resid_post", -1] if last else cache["resid_pre", layer], **CLOSE)
    assert labels[0] == "embed" and len(labels) == 1 + 2 * (3 if last else layer)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_layer_outputs_add_up_to_the_stream_that_the_experts_read(cache: ActivationCache, layer: int) -> None:
    stack, labels = cache.decompose_resid(layer, mlp_input=True, return_labels=True)
    torch.testing.assert_close(stack.sum(0), cache["resid_mid", layer], **CLOSE)
    assert labels[-1] == f"{layer}_attn_out"


def test_normalised_layer_outputs_add_up_to_the_logits(
    model: HookedGptOss, cache: ActivationCache, logits: Tensor
) -> None:
    stack = cache.decompose_resid(apply_ln=True)
    torch.testing.assert_close(to_logits(model, stack.sum(0)), logits, **CLOSE)
    torch.testing.assert_close(cache.apply_ln_to_stack(cache.decompose_resid()), stack)


def test_attention_and_expert_outputs_are_two_halves_of_the_whole(cache: ActivationCache) -> None:
    attention = cache.decompose_resid(mode="attn", incl_embeds=False).sum(0)
    experts = cache.decompose_resid(mode="mlp", incl_embeds=False).sum(0)
    torch.testing.assert_close(cache["embed"] + attention + experts, cache["resid_post", -1], **CLOSE)


def test_a_head_result_is_its_pattern_on_its_values_through_its_own_slice_of_o(
    model: HookedGptOss, cache: ActivationCache
) -> None:
    stack, labels = cache.stack_head_results(return_labels=True)
    for layer in range(3):
        o = model.blocks[layer].attn.o.weight
        for head in range(4):
            values = cache["v", layer][:, :, head // 2]  # two query heads share a key-value head
            z = torch.einsum("bqk,bkd->bqd", cache["pattern", layer][:, head], values)
            by_hand = z @ o[:, 16 * head : 16 * (head + 1)].T
            torch.testing.assert_close(stack[labels.index(f"L{layer}H{head}")], by_hand, **CLOSE)


def test_head_results_and_the_output_bias_are_what_attention_writes(
    model: HookedGptOss, cache: ActivationCache
) -> None:
    for layer in range(3):
        heads = cache["result", layer].sum(-2)
        torch.testing.assert_close(heads + model.blocks[layer].attn.o.bias, cache["attn_out", layer], **CLOSE)


def test_head_results_can_be_had_from_a_cache_that_did_not_keep_them(
    model: HookedGptOss, cache: ActivationCache
) -> None:
    lean = ActivationCache({k: v for k, v in cache.items() if not k.endswith("hook_result")}, model)
    torch.testing.assert_close(lean.stack_head_results(), cache.stack_head_results(), **CLOSE)


def test_the_remainder_of_the_heads_is_embedding_experts_and_biases(
    model: HookedGptOss, cache: ActivationCache
) -> None:
    stack, labels = cache.stack_head_results(incl_remainder=True, return_labels=True)
    assert labels[-1] == "remainder"
    rest = cache["embed"] + sum(cache["mlp_out", layer] + model.b_O[layer] for layer in range(3))
    torch.testing.assert_close(stack[-1], rest, **CLOSE)
    torch.testing.assert_close(stack.sum(0), cache["resid_post", -1], **CLOSE)


@pytest.mark.parametrize(("layer", "mlp_input"), [(None, False), (1, False), (2, False), (1, True), (2, True)])
def test_the_full_decomposition_adds_up_to_the_stream(
    cache: ActivationCache, layer: int | None, mlp_input: bool
) -> None:
    stack, labels = cache.get_full_resid_decomposition(layer, mlp_input, expand_neurons=False, return_labels=True)
    stream = cache["resid_post", -1] if layer is None else cache["resid_mid" if mlp_input else "resid_pre", layer]
    torch.testing.assert_close(stack.sum(0), stream, **CLOSE)
    assert len(labels) == len(stack) and labels[-2:] == ["embed", "bias"]


def test_the_full_decomposition_adds_up_to_the_logits_normalised_or_projected(
    model: HookedGptOss, cache: ActivationCache, logits: Tensor
) -> None:
    stack = cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True)
    torch.testing.assert_close(to_logits(model, stack.sum(0)), logits, **CLOSE)
    direction = model.tokens_to_residual_directions(7)
    projected = cache.get_full_resid_decomposition(expand_neurons=False, apply_ln=True, project_output_onto=direction)
    torch.testing.assert_close(projected.sum(0), logits[..., 7], **CLOSE)


def test_neurons_are_refused_since_an_expert_neuron_is_no_neuron_of_the_layer(cache: ActivationCache) -> None:
    # TransformerLens' stack_neuron_results would broadcast a three-dimensional W_out to numbers without a meaning.
    for ask in (cache.get_full_resid_decomposition, cache.stack_neuron_results):
        with pytest.raises(KeyError, match=r"mlp\.hook_post"):
            ask(2)


def test_the_accumulated_stream_is_the_stream_at_each_layer(cache: ActivationCache) -> None:
    stack, labels = cache.accumulated_resid(incl_mid=True, return_labels=True)
    names = [cache[kind, layer] for layer in range(3) for kind in ("resid_pre", "resid_mid")]
    assert torch.equal(stack, torch.stack([*names, cache["resid_post", -1]]))
    assert labels == ["0_pre", "0_mid", "1_pre", "1_mid", "2_pre", "2_mid", "final_post"]


def test_the_accumulated_stream_normalised_ends_in_the_logits(
    model: HookedGptOss, cache: ActivationCache, logits: Tensor
) -> None:
    stack = cache.accumulated_resid(apply_ln=True)
    torch.testing.assert_close(model.unembed(stack[-1]), logits, **CLOSE)
    first = cache["embed"]
    by_hand = first * (first.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt() * model.ln_final.w
    torch.testing.assert_close(stack[0], by_hand, **CLOSE)


def test_the_accumulated_stream_before_a_layer_takes_that_layers_scale(cache: ActivationCache) -> None:
    stack = cache.accumulated_resid(layer=1, apply_ln=True)
    torch.testing.assert_close(stack[-1], cache["normalized", 1, "ln1"], **CLOSE)
    stack = cache.accumulated_resid(layer=1, apply_ln=True, mlp_input=True)
    torch.testing.assert_close(stack[-1], cache["normalized", 1, "ln2"], **CLOSE)


def test_the_logit_lens_of_transformerlens_ends_in_the_logits(cache: ActivationCache, logits: Tensor) -> None:
    lens = cache.logit_lens(positions=None)
    assert lens.labels == ["0_pre", "1_pre", "2_pre", "final_post"]
    torch.testing.assert_close(lens.values[-1], logits, **CLOSE)


STACKS: dict[str, Callable[[ActivationCache], Tensor]] = {
    "layers": lambda cache: cache.decompose_resid(),
    "heads": lambda cache: cache.stack_head_results(incl_remainder=True),
    "everything": lambda cache: cache.get_full_resid_decomposition(expand_neurons=False),
}


@pytest.mark.parametrize("kind", STACKS)
def test_logit_attributions_add_up_to_the_logit_and_to_the_logit_difference(
    cache: ActivationCache, logits: Tensor, kind: str
) -> None:
    stack = STACKS[kind](cache)
    torch.testing.assert_close(cache.logit_attrs(stack, 7).sum(0), logits[..., 7], **CLOSE)
    difference = cache.logit_attrs(stack, 7, incorrect_tokens=30).sum(0)
    torch.testing.assert_close(difference, logits[..., 7] - logits[..., 30], **CLOSE)


def test_logit_attributions_take_a_token_for_each_row_and_for_each_position(
    cache: ActivationCache, logits: Tensor
) -> None:
    stack = cache.decompose_resid()
    rows = torch.tensor([3, 50])
    by_row = cache.logit_attrs(stack, rows).sum(0)
    torch.testing.assert_close(by_row, torch.stack([logits[0, :, 3], logits[1, :, 50]]), **CLOSE)
    each = torch.arange(28).reshape(2, 14)
    by_position = cache.logit_attrs(stack, each).sum(0)
    torch.testing.assert_close(by_position, logits.gather(-1, each[..., None])[..., 0], **CLOSE)


def test_logit_attributions_at_one_position_are_those_of_the_whole_sliced(
    cache: ActivationCache, logits: Tensor
) -> None:
    last = cache.decompose_resid(pos_slice=-1)
    assert last.shape == (7, 2, 32)
    attributions = cache.logit_attrs(last, torch.tensor([3, 50]), pos_slice=-1)
    torch.testing.assert_close(attributions.sum(0), torch.stack([logits[0, -1, 3], logits[1, -1, 50]]), **CLOSE)


def test_the_gain_belongs_to_the_directions_and_without_it_the_attribution_is_wrong(
    model: HookedGptOss, cache: ActivationCache, logits: Tensor
) -> None:
    normalised = cache.decompose_resid(apply_ln=True).sum(0)
    with_gain = normalised @ model.tokens_to_residual_directions(7)
    without = normalised @ model.W_U[:, 7]
    torch.testing.assert_close(with_gain, logits[..., 7], **CLOSE)
    assert (without - logits[..., 7]).abs().max() > 0.01


def test_directions_are_those_of_the_tokens_asked_for(model: HookedGptOss) -> None:
    asked = torch.tensor([[3, 5], [7, 3]])
    by_hand = model.unembed.weight * model.ln_final.w
    assert torch.equal(model.tokens_to_residual_directions(asked), by_hand[asked])
    for one in (5, torch.tensor(5), torch.tensor([5])):
        assert torch.equal(model.tokens_to_residual_directions(one), by_hand[5])


def test_a_value_bias_reaches_the_stream_times_one_minus_sink_so_it_is_in_no_bias_term(
    model: HookedGptOss, cache: ActivationCache
) -> None:
    attention, layer = model.blocks[1].attn, 1
    bias = attention.v.bias.reshape(2, 16).repeat_interleave(2, 0)  # of each query head's key-value head
    plain = cache["v", layer] - attention.v.bias.reshape(2, 16)
    z = torch.einsum("bhqk,bkhd->bqhd", cache["pattern", layer], plain.repeat_interleave(2, 2))
    z = z + (1 - cache["sink", layer, "attn"])[..., None] * bias
    torch.testing.assert_close(z, cache["z", layer], **CLOSE)
    folded = (bias[:, None] @ attention.W_O).sum((0, 1))
    assert folded.abs().max() > 0.1
    expected = [sum((b.attn.o.bias for b in model.blocks[:n]), torch.zeros(32)) for n in range(4)]
    for n in range(4):
        torch.testing.assert_close(model.accumulated_bias(n), expected[n])
    torch.testing.assert_close(model.accumulated_bias(1, mlp_input=True), expected[2])


@pytest.mark.parametrize(("name", "kind"), [("z", None), ("pattern", None), ("sink", "attn"), ("router_logits", "mlp")])
def test_stacked_activations_are_the_layers_one_after_another(
    cache: ActivationCache, name: str, kind: str | None
) -> None:
    stacked = cache.stack_activation(name, sublayer_type=kind)
    assert torch.equal(stacked, torch.stack([cache[f"blocks.{i}.{kind or 'attn'}.hook_{name}"] for i in range(3)]))


def test_a_row_of_the_cache_decomposes_as_the_batch_does(cache: ActivationCache, logits: Tensor) -> None:
    row = cache.apply_slice_to_batch_dim(1)
    stack = row.decompose_resid()
    assert stack.shape == (7, 14, 32)
    torch.testing.assert_close(row.logit_attrs(stack, 9, has_batch_dim=False).sum(0), logits[1, :, 9], **CLOSE)


def test_slices_of_positions_decompose_as_the_whole_does(cache: ActivationCache) -> None:
    for take in ([2, 7], (3, 9), (9,), (0, 14, 3)):
        index = take if isinstance(take, list) else slice(*take)
        for stack in (cache.stack_head_results, cache.decompose_resid):
            assert torch.equal(stack(pos_slice=take), stack()[:, :, index])
        part = cache.get_full_resid_decomposition(expand_neurons=False, pos_slice=take)
        torch.testing.assert_close(part.sum(0), cache["resid_post", -1][:, index], **CLOSE)
