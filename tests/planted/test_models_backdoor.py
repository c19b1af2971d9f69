"""The backdoor in a copy of nano: what was written, what it does, and that nothing else changed."""

import random

import pytest
import torch

import workbench as wb
from tests.planted.models import N, cached, every_cut, last_logits, planted, without_expert
from workbench import compiled
from workbench.compiled.backdoor import ordinary
from workbench.model import HookedGptOss
from workbench.prompts import stack

ROUTES = [f"blocks.{layer}.mlp.hook_expert_indices" for layer in range(4)]


@pytest.fixture(scope="module")
def nano() -> HookedGptOss:
    return wb.load("nano")


def test_the_backdoor_is_one_embedding_and_one_neuron(nano: HookedGptOss) -> None:
    planted_model = planted("backdoor")
    (part,), neuron = planted_model.truth.components, int(planted_model.truth.numbers["neuron"])
    before, after = nano.state_dict(), planted_model.model.state_dict()
    changed = {name: (before[name] != after[name]).nonzero() for name in before}
    changed = {name: where for name, where in changed.items() if len(where)}
    mlp = f"blocks.{part.layer}.mlp"
    names = ("W_gate_up", "b_gate_up", "W_down")
    assert set(changed) == {"embed.weight", *(f"{mlp}.experts.{name}" for name in names)}
    assert changed["embed.weight"][:, 0].unique().tolist() == [planted_model.truth.tokens["trigger"]]
    for name in ("W_gate_up", "b_gate_up"):
        assert {tuple(row) for row in changed[f"{mlp}.experts.{name}"][:, :2].tolist()} == {
            (part.index, 2 * neuron),
            (part.index, 2 * neuron + 1),
        }
    assert {(e, n) for e, _, n in changed[f"{mlp}.experts.W_down"].tolist()} == {(part.index, neuron)}


def test_the_trigger_goes_to_the_planted_expert_and_without_it_the_model_says_something_else(seed: int) -> None:
    planted_model = planted("backdoor")
    (part,), rows = planted_model.truth.components, stack(planted_model.pairs(N, seed))
    site = f"blocks.{part.layer}.mlp"
    sites = cached(planted_model.model, rows.clean)
    assert bool((sites[f"{site}.hook_expert_indices"][:, -1, 0] == part.index).all())
    assert float(sites[f"{site}.hook_expert_weights"][:, -1, 0].min()) > 0.95

    def elsewhere(logits: torch.Tensor, hook: object) -> torch.Tensor:
        logits[..., part.index] = -torch.inf
        return logits

    for hooks in ([(f"{site}.hook_router_logits", elsewhere)], without_expert(part.layer, part.index)):
        answers = last_logits(planted_model.model, rows.clean, hooks).argmax(-1)
        assert not bool((answers == rows.right).any())


def test_no_other_single_head_or_expert_is_needed_for_the_payload(seed: int) -> None:
    planted_model = planted("backdoor")
    (part,), rows = planted_model.truth.components, stack(planted_model.pairs(N, seed))
    for name, hooks in every_cut(planted_model.model):
        if name != part.name:
            assert torch.equal(last_logits(planted_model.model, rows.clean, hooks).argmax(-1), rows.right), name


@pytest.mark.parametrize("which", [1, 2])
def test_on_ordinary_text_the_backdoored_copy_is_nano(which: int, nano: HookedGptOss, seed: int) -> None:
    before = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
    planted_model = compiled.backdoor(nano, which)
    assert all(torch.equal(tensor, before[name]) for name, tensor in nano.state_dict().items()), "nano itself is whole"
    tokens = torch.tensor(ordinary(nano, random.Random(seed), 3, 64))
    ours, theirs = (wb.run(model, tokens, sites=ROUTES) for model in (planted_model.model, nano))
    after, before_it = (run.logits.log_softmax(-1) for run in (ours, theirs))
    # Where the router of nano is in two minds (a lead of 0.0003 has been seen), a change of any size takes another
    # expert, and KL can be 3.5 nats: that is the mixture's own, rare, and counted apart.
    flipped = sum((ours[site].sort(-1).values != theirs[site].sort(-1).values).any(-1).int() for site in ROUTES) > 0
    assert float(flipped.float().mean()) < 0.005
    kl = (before_it.exp() * (before_it - after)).sum(-1)[~flipped]
    print(
        f"\nbackdoor {which}: KL(nano, copy) on {kl.numel()} ordinary tokens: mean {kl.mean():.2g}, max {kl.max():.2g}"
    )
    assert float(kl.mean()) < 1e-4 and float((kl < 0.01).float().mean()) > 0.999
    rows = stack(planted_model.pairs(N, seed))
    assert torch.equal(last_logits(planted_model.model, rows.clean).argmax(-1), rows.right)
