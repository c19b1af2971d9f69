"""Each hand-compiled model does what its truth says, by brute force over prompts, heads and experts."""

import pytest
import torch

from tests.planted.models import (
    BY_HAND,
    N,
    both,
    cached,
    difference,
    every_cut,
    last_logits,
    planted,
    without_expert,
    without_head,
)
from workbench import compiled
from workbench.prompts import Pair, stack


@pytest.mark.parametrize("name", [*BY_HAND, "backdoor"])
def test_clean_prompts_get_the_right_answer_and_corrupt_ones_the_wrong_one(name: str, seed: int) -> None:
    model, rows = planted(name).model, stack(planted(name).pairs(N, seed))
    assert torch.equal(last_logits(model, rows.clean).argmax(-1), rows.right)
    clean, corrupt = both(model, planted(name).pairs(N, seed))
    # nano's own logits beside the payload's are its training's: the least of 7,552 prompts is 2.3, of most 14.
    assert float(clean.min()) > (1 if name == "backdoor" else 5) and float(corrupt.max()) < 0
    if name != "backdoor":  # its corrupt prompts are nano's own to answer
        assert torch.equal(last_logits(model, rows.corrupt).argmax(-1), rows.wrong)
        assert float(corrupt.max()) < -5


@pytest.mark.parametrize("name", BY_HAND)
def test_taking_out_a_planted_part_takes_the_effect_of_every_prompt_it_is_named_for(name: str, seed: int) -> None:
    planted_model, pairs = planted(name), planted(name).pairs(N, seed)
    cuts = dict(every_cut(planted_model.model))
    clean, corrupt = both(planted_model.model, pairs)
    for part in planted_model.truth.components:
        without = both(planted_model.model, pairs, cuts[part.name])
        left = (without[0] - without[1]) / (clean - corrupt)
        named = torch.tensor([bool(part.at(pair)) for pair in pairs])
        assert bool(named.any())
        # Half, where another expert does the same for the other side; else (nearly) all.
        assert float(left[named].max()) < 0.55, (part.name, left)
        assert float((left[~named] - 1).abs().amax() if bool((~named).any()) else 0) < 0.01


@pytest.mark.parametrize("name", BY_HAND)
def test_taking_out_anything_else_changes_nearly_nothing(name: str, seed: int) -> None:
    planted_model, pairs = planted(name), planted(name).pairs(N, seed)
    needed = {part.name for part in planted_model.truth.components}
    plain = torch.cat(both(planted_model.model, pairs))
    for other, hooks in every_cut(planted_model.model):
        if other not in needed:
            changed = (torch.cat(both(planted_model.model, pairs, hooks)) - plain).abs() / plain.abs()
            assert float(changed.max()) < 0.06, other


@pytest.mark.parametrize("name", [*BY_HAND, "backdoor"])
def test_pairs_are_of_one_length_and_the_same_for_the_same_seed(name: str, seed: int) -> None:
    once, again = (planted(name).pairs(5, seed) for _ in range(2))
    assert once == again and stack(once).clean.shape[0] == 5
    assert once != planted(name).pairs(5, seed + 1)
    with pytest.raises(ValueError, match="n=0"):
        planted(name).pairs(0)


@pytest.mark.parametrize("name", BY_HAND)
def test_the_weights_are_the_same_each_time_and_take_gradients(name: str) -> None:
    model, again = planted(name).model, getattr(compiled, name)().model
    for one, two in zip(model.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two) and one.requires_grad and one.dtype == torch.float32
    assert model.config.d_model <= 64 and not model.training


# ------------------------------------------------------------------------------------------------- (a) induction


def test_the_previous_token_head_attends_one_back_and_the_first_token_to_the_sink(seed: int) -> None:
    rows = stack(planted("induction").pairs(N, seed))
    sites = cached(planted("induction").model, rows.clean)
    pattern, sink = sites["blocks.0.attn.hook_pattern"][:, 0], sites["blocks.0.attn.hook_sink"][:, :, 0]
    assert float(pattern.diagonal(-1, 1, 2).min()) > 0.999
    assert float(sink[:, 0].min()) > 0.999 and float(sink[:, 1:].max()) < 0.001


def test_the_induction_head_attends_to_what_followed_last_time(seed: int) -> None:
    rows = stack(planted("induction").pairs(N, seed, length=12))
    sites = cached(planted("induction").model, rows.clean)
    pattern = sites["blocks.1.attn.hook_pattern"][:, 2]
    again = range(12, rows.clean.shape[1])
    assert min(float(pattern[:, query, query - 11].min()) for query in again) > 0.99
    assert float(sites["blocks.1.attn.hook_sink"][:, :12, 2].min()) > 0.9, "in the first telling there is none to find"


def test_induction_needs_the_previous_token_head_only_through_the_keys(seed: int) -> None:
    model, pairs = planted("induction").model, planted("induction").pairs(N, seed)
    rows = stack(pairs)
    corrupt = cached(model, rows.corrupt)
    keys = [("blocks.1.attn.hook_k_in", lambda x, hook: corrupt["blocks.1.attn.hook_k_in"])]
    rest = [
        (f"blocks.1.attn.hook_{part}_in", lambda x, hook: corrupt[hook.name].where(_where(rows, x), x)) for part in "qv"
    ]
    clean, swapped = both(model, pairs)
    assert torch.allclose(difference(last_logits(model, rows.clean, keys), rows), swapped, atol=0.3)
    assert torch.allclose(difference(last_logits(model, rows.clean, rest), rows), clean, atol=0.3)


def _where(rows: object, x: torch.Tensor) -> torch.Tensor:
    """Where the swapped tokens' followers stand: there only what the previous-token head wrote differs."""
    changed = rows.clean != rows.corrupt  # type: ignore[attr-defined]
    return changed.roll(1, dims=1)[..., None].expand_as(x)


# ------------------------------------------------------------------------------------- (b) classes, experts, mediation


@pytest.mark.parametrize("name", ["token_class_router", "routed_by_attention"])
def test_the_router_is_a_look_up_of_the_class(name: str, seed: int) -> None:
    for pair in planted(name).pairs(N, seed):
        rows = stack([pair])
        chosen = cached(planted(name).model, rows.clean)["blocks.0.mlp.hook_expert_indices"][0, -1]
        assert chosen.tolist() == [int(rows.right[0]) // 6], "answers keep the class of what is asked"


def test_another_experts_route_gives_that_experts_permutation(seed: int) -> None:
    model, pairs = planted("token_class_router").model, planted("token_class_router").pairs(N, seed)
    tokens = stack(pairs).clean
    for expert in range(4):
        route = [("blocks.0.mlp.hook_expert_indices", lambda x, hook, e=expert: torch.full_like(x, e))]
        index = tokens[:, -1] % 6
        assert torch.equal(last_logits(model, tokens, route).argmax(-1), expert * 6 + (index + expert + 1) % 6)


@pytest.mark.parametrize("change", ["class", "index", "both"])
@pytest.mark.parametrize("metric", ["", ", right logit"])
def test_routing_content_and_interaction_split_as_written(change: str, metric: str, seed: int) -> None:
    model, truth = planted("routed_by_attention").model, planted("routed_by_attention").truth
    rows = stack(planted("routed_by_attention").pairs(N, seed, change=change))
    sides = {"clean": cached(model, rows.clean), "corrupt": cached(model, rows.corrupt)}

    def measured(routing: str, content: str) -> torch.Tensor:
        hooks = [
            ("blocks.0.mlp.hook_expert_indices", lambda x, hook: sides[routing][hook.name]),
            ("blocks.0.mlp.hook_expert_in", lambda x, hook: sides[content][hook.name]),
        ]
        logits = last_logits(model, rows.corrupt, hooks)
        return logits.gather(1, rows.right[:, None])[:, 0] if metric else difference(logits, rows)

    start = measured("corrupt", "corrupt")
    total = measured("clean", "clean") - start
    routing, content = measured("clean", "corrupt") - start, measured("corrupt", "clean") - start
    for part, effect in {"routing": routing, "content": content, "interaction": total - routing - content}.items():
        told = truth.numbers[f"{change}{metric}: {part} share"]
        assert torch.allclose(effect / total, torch.full_like(total, told), atol=1e-4), part


# ------------------------------------------------------------------------------------------------ (c) sink, (d) window


def test_the_idle_head_feeds_its_sink_and_without_the_sink_it_answers(seed: int) -> None:
    planted_model = planted("sink_head")
    rows = stack(planted_model.pairs(N, seed))
    sinks = cached(planted_model.model, rows.clean)["blocks.0.attn.hook_sink"]
    assert float(sinks[:, :, 2].min()) >= planted_model.truth.numbers["least sink mass"] > 0.999999
    assert float(sinks[:, 1:, 0].max()) < 0.001

    def removed(logit: torch.Tensor, hook: object) -> torch.Tensor:
        logit[:, :, 2] = -torch.inf
        return logit

    answers = last_logits(planted_model.model, rows.clean, [("blocks.0.attn.hook_sink_logit", removed)]).argmax(-1)
    assert torch.equal(answers, rows.clean[:, -1])


@pytest.mark.parametrize("distance", [1, 7, 8, 9, 40, 120])
def test_the_window_decides_which_twin_sees_the_value(distance: int, seed: int) -> None:
    model, pairs = (
        planted("retrieval_beyond_window").model,
        planted("retrieval_beyond_window").pairs(N, seed, distance=distance),
    )
    rows = stack(pairs)
    sites = cached(model, rows.clean)
    sliding, full = (sites[f"blocks.{layer}.attn.hook_pattern"][:, 1, -1, 3] for layer in (0, 1))
    assert float(full.min()) > 0.99
    assert float(sliding.min()) > 0.99 if distance < 8 else float(sliding.max()) == 0
    answers = [last_logits(model, rows.clean, without_head(layer, 1)).argmax(-1) == rows.right for layer in (0, 1)]
    assert bool(answers[0].all()), "without the sliding head the full one always does"
    assert bool(answers[1].all()) if distance < 8 else float(answers[1].float().mean()) < 0.5


# ------------------------------------------------------------------------------------- (f) steering, (g) saturated


def test_the_direction_alone_decides_and_the_difference_of_means_finds_it(seed: int) -> None:
    planted_model = planted("steering_direction")
    model, direction = planted_model.model, planted_model.truth.directions["answer"]
    written = planted_model.truth.numbers["written"]
    site = "blocks.0.hook_resid_post"
    yes, no = (stack(planted_model.pairs(N, seed, says=says)) for says in ("yes", "no"))
    means = [cached(model, rows.clean)[site][:, -1].mean(0) for rows in (yes, no)]
    assert float(torch.cosine_similarity(means[0] - means[1], direction, dim=0)) > 0.9999
    assert float((means[0] - means[1]).norm()) == pytest.approx(2 * written, rel=1e-3)

    def moved(by: float) -> torch.Tensor:
        hooks = [(site, lambda x, hook: x + by * direction)]
        return difference(last_logits(model, yes.clean, hooks), yes)

    assert float(moved(-0.9 * written).min()) > 0 > float(moved(-1.1 * written).max())

    def out(x: torch.Tensor, hook: object) -> torch.Tensor:
        return x - (x @ direction)[..., None] * direction

    assert float(difference(last_logits(model, yes.clean, [(site, out)]), yes).abs().max()) < 1e-4


def test_an_unrelated_direction_of_the_same_norm_steers_nothing(seed: int) -> None:
    planted_model = planted("steering_direction")
    rows, direction = stack(planted_model.pairs(N, seed)), planted_model.truth.directions["answer"]
    other = torch.randn(64, generator=torch.Generator().manual_seed(seed))
    other = other - (other @ direction) * direction
    hooks = [("blocks.0.hook_resid_post", lambda x, hook: x + 3.0 * other / other.norm())]
    answers = last_logits(planted_model.model, rows.clean, hooks).argmax(-1)
    assert torch.equal(answers, rows.right)


def _z_effect(head: int, pairs: list[Pair]) -> dict[str, float]:
    """Of one head's z at the last position, corrupt → clean: the exact effect, and what two methods say of it."""
    model, rows, site = planted("saturated").model, stack(pairs), "blocks.0.attn.hook_z"
    clean, corrupt = (cached(model, side)[site][:, -1, head] for side in (rows.clean, rows.corrupt))

    def answer(z: torch.Tensor) -> torch.Tensor:
        def put(x: torch.Tensor, hook: object) -> torch.Tensor:
            x = x.clone()
            x[:, -1, head] = z
            return x

        with model.hooks(fwd_hooks=[(site, put)]):
            return difference(model(rows.corrupt)[:, -1], rows)

    def slope(share: float) -> torch.Tensor:
        z = (corrupt + share * (clean - corrupt)).requires_grad_()
        return ((clean - corrupt) * torch.autograd.grad(answer(z).sum(), z)[0]).sum(-1)

    with torch.no_grad():
        exact = answer(clean) - answer(corrupt)
    steps = [(i + 0.5) / 64 for i in range(64)]
    integrated = torch.stack([slope(share) for share in steps]).mean(0)
    return {"exact": float(exact.mean()), "gradient": float(slope(0.0).mean()), "integrated": float(integrated.mean())}


def test_in_saturation_the_gradient_sees_only_decoys_and_integrated_gradients_see_the_circuit(seed: int) -> None:
    pairs = planted("saturated").pairs(8, seed)
    both_sides = both(planted("saturated").model, pairs)
    circuit, decoys = _z_effect(1, pairs), {head: _z_effect(head, pairs) for head in (0, 2, 3)}
    assert abs(circuit["gradient"]) < 0.01 * circuit["exact"]
    assert circuit["integrated"] == pytest.approx(circuit["exact"], rel=0.01)
    for head, decoy in decoys.items():
        share = planted("saturated").truth.numbers[f"L0H{head} share"]
        # What the head is worth of clean − corrupt; a linear writer, but for the last RMSNorm.
        assert decoy["exact"] == pytest.approx(share * float((both_sides[0] - both_sides[1]).mean()), rel=0.05)
        assert decoy["gradient"] > 3 * abs(circuit["gradient"]), "ranked by gradient, every decoy comes first"


def test_the_neurons_gate_is_clamped_on_one_side_and_cut_off_on_the_other(seed: int) -> None:
    rows = stack(planted("saturated").pairs(N, seed))
    gates = [
        cached(planted("saturated").model, side)["blocks.0.mlp.hook_expert_gate"][:, -1, 0, 0] for side in rows[:2]
    ]
    assert float(gates[0].max()) < -12 and float(gates[1].min()) > 12


# ------------------------------------------------------------------------------------------------ (h) the busy expert


def test_the_busiest_and_loudest_expert_has_no_effect_at_all(seed: int) -> None:
    model, pairs = planted("busy_expert").model, planted("busy_expert").pairs(N, seed)
    sites = cached(model, stack(pairs).clean)
    chosen = sites["blocks.0.mlp.hook_expert_indices"].flatten()
    norms = sites["blocks.0.mlp.hook_expert_out"].norm(dim=-1).flatten()
    load = torch.bincount(chosen, minlength=4) / len(chosen)
    assert load.argmax() == 1 and float(load[1]) > 0.9
    assert float(norms[chosen == 1].min()) > 5 * float(norms[chosen == 2].max())
    plain, without = (torch.cat(both(model, pairs, hooks)) for hooks in ([], without_expert(0, 1)))
    assert torch.equal(plain, without)


# ------------------------------------------------------------------------------------------------------------- asking


def test_the_truth_names_nodes_and_refuses_what_it_does_not_know() -> None:
    planted_model = planted("induction")
    pair = planted_model.pairs(1, 0)[0]
    swapped = [
        pos for pos, both_sides in enumerate(zip(pair.clean, pair.corrupt, strict=True)) if len(set(both_sides)) > 1
    ]
    assert planted_model.truth.nodes(pair) == (
        *(f"L0H0@{pos + 1}" for pos in swapped),
        f"L1H2@{len(pair.clean) - 1}",
    )
    assert planted_model.truth.component("L0H3") in planted_model.truth.idle
    with pytest.raises(KeyError, match="L0H0, L1H2, L0H3"):
        planted_model.truth.component("L0H1")
    assert "L1H2: induction" in str(planted_model)


def test_options_that_a_model_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="change='colour': expected one of"):
        planted("routed_by_attention").pairs(1, 0, change="colour")
    with pytest.raises(ValueError, match="distance=0"):
        planted("retrieval_beyond_window").pairs(1, 0, distance=0)
    with pytest.raises(ValueError, match="says='maybe'"):
        planted("steering_direction").pairs(1, 0, says="maybe")


@pytest.mark.parametrize(("name", "length"), [("induction", 3), ("induction", 19), ("sink_head", 1), ("sink_head", 20)])
def test_prompts_of_a_length_that_cannot_be_are_refused_and_not_cut(name: str, length: int):
    with pytest.raises(ValueError, match=f"length={length}: expected"):
        getattr(compiled, name)().pairs(1, length=length)
