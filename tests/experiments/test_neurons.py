"""Neurons against the expert multiplied out by hand, and a planted one."""

import copy

import numpy as np
import pytest
import torch

from tests.forms import EAGER, held, packable
from workbench.activations import run
from workbench.experiments.lenses.neurons import neurons
from workbench.figures.neurons import neuron_table
from workbench.model import HookedGptOss, random_weights

TEXTS = ["Mia lives in the park. Tom lives in the mill.", "One day Ana walked to the mill.", "Tom has the ball."]
LAYER, EXPERT = 1, 3
quiet = {"progress": False}


@pytest.fixture(scope="module")
def made(model):
    return neurons(model, TEXTS, LAYER, EXPERT, target=" park", top_neurons=16, **quiet)


def by_hand(model, layer=LAYER, expert=EXPERT):
    """(text, pos, activations, routing weight, final scale) of each token of the expert, from its own weights."""
    experts, found = model.blocks[layer].mlp.experts, []
    for number, text in enumerate(TEXTS):
        done = run(model, text, sites="all")
        chosen = done[f"blocks.{layer}.mlp.hook_expert_indices"][0]
        for pos, slot in (chosen == expert).nonzero().tolist():
            x = done[f"blocks.{layer}.mlp.hook_expert_in"][0, pos]
            both = (experts.W_gate_up[expert] @ x + experts.b_gate_up[expert]).detach()
            gate, up = both[0::2].clamp(max=7), both[1::2].clamp(-7, 7)
            act = (up + 1) * gate * torch.sigmoid(1.702 * gate)
            weight = done[f"blocks.{layer}.mlp.hook_expert_weights"][0, pos, slot]
            found.append((number, pos, act.numpy(), float(weight), float(done["ln_final.hook_scale"][0, pos])))
    return found


def test_sizes_and_effects_are_means_over_the_experts_tokens(model, made):
    found = by_hand(model)
    assert made.attrs["n_routed"] == len(found)
    acts = np.stack([act for _, _, act, _, _ in found])
    column = model.blocks[LAYER].mlp.experts.W_down[EXPERT].detach().numpy()
    direction = model.tokens_to_residual_directions(" park").detach().numpy()
    for neuron in made.neuron.values:
        here = made.sel(neuron=neuron)
        size = np.abs(acts[:, neuron]).mean() * np.linalg.norm(column[:, neuron])
        assert float(here["size"]) == pytest.approx(size, rel=1e-4)
        effect = np.mean([w * act[neuron] * (column[:, neuron] @ direction) / s for _, _, act, w, s in found])
        assert float(here.direct_effect) == pytest.approx(effect, rel=1e-3, abs=1e-6)
    assert (np.diff(np.abs(made.direct_effect.values)) <= 0).all()
    by_size = neurons(model, TEXTS, LAYER, EXPERT, **quiet)["size"].values
    assert (np.diff(by_size) <= 0).all()


def test_direct_effects_of_all_neurons_sum_to_the_experts_without_its_bias(model, made):
    found = by_hand(model)
    b_down = model.blocks[LAYER].mlp.experts.b_down[EXPERT].detach()
    direction, total = model.tokens_to_residual_directions(" park").detach(), []
    for number, pos, _, weight, scale in found:
        done = run(model, TEXTS[number], sites="all")
        slot = done[f"blocks.{LAYER}.mlp.hook_expert_indices"][0, pos].tolist().index(EXPERT)
        out = done[f"blocks.{LAYER}.mlp.hook_expert_out"][0, pos, slot] - b_down
        total.append(weight * float(out @ direction) / scale)
    assert float(made.direct_effect.sum()) == pytest.approx(np.mean(total), abs=1e-5)


def test_strongest_places_are_those_of_the_largest_activation(model, made):
    found = by_hand(model)
    for neuron in made.neuron.values[:6]:
        order = sorted(found, key=lambda one: -abs(one[2][neuron]))[:5]
        here = made.sel(neuron=neuron)
        assert here.example_activation.values[: len(order)] == pytest.approx([o[2][neuron] for o in order], abs=1e-5)
        for i, (number, pos, *_) in enumerate(order):
            token = model.to_str_tokens(TEXTS[number])[pos]
            assert str(here.example_token.values[i]) == token
            assert token in str(here.example_context.values[i])


def test_what_a_neuron_reads_and_writes_is_in_its_rows_and_its_column(model, made):
    block, embed = model.blocks[LAYER], model.embed.weight.detach().double()
    unit = embed / (embed.square().mean(-1, keepdim=True) + model.config.rms_eps).sqrt() * block.ln2.w.detach()
    unembed = model.unembed.weight.detach().double() * model.ln_final.w.detach()
    for neuron in made.neuron.values[:5]:
        here = made.sel(neuron=neuron)
        gate_up = block.mlp.experts.W_gate_up[EXPERT].detach().double()
        for name, row in (("gate", gate_up[2 * neuron]), ("up", gate_up[2 * neuron + 1])):
            scores = (unit @ row).numpy()
            assert here[f"{name}_id"].values.tolist() == np.argsort(-scores)[:5].tolist()
            assert here[f"{name}_score"].values == pytest.approx(np.sort(scores)[::-1][:5], rel=1e-4)
        logits = (unembed @ block.mlp.experts.W_down[EXPERT][:, neuron].detach().double()).numpy()
        assert here.raises_id.values.tolist() == np.argsort(-logits)[:5].tolist()
        assert here.lowers_id.values.tolist() == np.argsort(logits)[:5].tolist()
        assert here.lowers_logit.values == pytest.approx(np.sort(logits)[:5], rel=1e-4)


def test_a_planted_neuron_is_the_first_and_names_its_token(model):
    planted = copy.deepcopy(model)
    park, mill = (planted.to_single_token(word) for word in (" park", " mill"))
    with torch.no_grad():
        experts, block = planted.blocks[LAYER].mlp.experts, planted.blocks[LAYER]
        # All of one length, so that none is raised by the direction of another more than that other.
        planted.unembed.weight /= planted.unembed.weight.norm(dim=-1, keepdim=True)
        planted.ln_final.w.fill_(1)
        direction = planted.tokens_to_residual_directions(park)
        experts.W_down[EXPERT][:, 7] = 30 * direction / direction.norm()
        experts.W_gate_up[EXPERT][14] = planted.embed.weight[mill] / planted.embed.weight[mill].norm() / block.ln2.w
        experts.b_gate_up[EXPERT][14] = 3.0
        # up + 1 is 3 everywhere, so that no two activations cancel in the mean.
        experts.W_gate_up[EXPERT][15], experts.b_gate_up[EXPERT][15] = 0.0, 2.0
    made = neurons(planted, TEXTS, LAYER, EXPERT, target=park, **quiet)
    first = made.isel(neuron=0)
    assert int(first.neuron) == 7
    assert first.raises_token[0].item() == " park"
    assert first.gate_token[0].item() == " mill"


def test_packed_experts_have_the_same_neurons():
    from workbench.model import NANO

    dense = packable(random_weights(HookedGptOss(NANO.with_(n_layers=2, d_model=64, d_mlp=32)), seed=2))
    texts = np.random.default_rng(0).integers(20, 900, (3, 20)).tolist()
    one = neurons(dense, texts, 1, 2, target=5, **quiet)
    other = neurons(held(copy.deepcopy(dense), EAGER), texts, 1, 2, target=5, **quiet)
    assert one.neuron.values.tolist() == other.neuron.values.tolist()
    assert other.direct_effect.values == pytest.approx(one.direct_effect.values, rel=1e-3, abs=1e-6)
    assert np.array_equal(one.raises_id, other.raises_id)


def test_what_is_not_there_is_refused(model):
    with pytest.raises(ValueError, match="expert=8"):
        neurons(model, TEXTS, 1, 8, **quiet)
    with pytest.raises(ValueError, match="top_neurons=99"):
        neurons(model, TEXTS, 1, 0, top_neurons=99, **quiet)
    idle = next(e for e in range(8) if e not in run(model, "Mia")["blocks.0.mlp.hook_expert_indices"])
    with pytest.raises(ValueError, match=f"none of the 1 tokens goes to expert {idle}"):
        neurons(model, ["Mia"], 0, idle, **quiet)


def test_the_figure_has_a_row_for_each_neuron(model, made, tmp_path):
    drawn = neuron_table(made)
    assert len(drawn.data[0].cells["values"][0]) == 16
    assert "␣" in drawn.data[0].cells["values"][2][0] + drawn.data[0].cells["values"][5][0]
    made.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    with pytest.raises(ValueError, match=r"experiments\.neurons returns"):
        neuron_table(made.drop_vars("size"))
