"""Nodes go by name, stand in the model's own order, and what they write adds up to what their layers write."""

import pytest
import torch

from tests.experiments.pairs import cached, exact_model, far, written
from tests.small import as_in_a_notebook
from workbench.experiments.nodes import (
    Node,
    Receiver,
    all_nodes,
    all_receivers,
    expert_writes,
    node_write,
    node_writes,
    write_sites,
)

__all__ = ["as_in_a_notebook"]


@pytest.fixture(scope="module")
def exact():
    return exact_model()


@pytest.fixture(scope="module")
def cache(exact):
    return cached(exact, far(exact)[0])


def test_every_name_is_read_back_as_what_it_names(exact):
    nodes = [*all_nodes(exact.config), *all_nodes(exact.config, 3, ("embed", "head", "attn", "mlp", "expert"))]
    assert [Node.parse(node.name) for node in nodes] == nodes
    receivers = all_receivers(exact.config)
    receivers += [Receiver("experts", 1), Receiver("expert", 0, 5, 8), Receiver("logits", pos=2)]
    assert [Receiver.parse(str(receiver)) for receiver in receivers] == receivers
    named = [Node("head", 1, 7, 12), Node("expert", 2, 5), Node("embed", pos=3), Node("mlp", 0)]
    assert list(map(str, named)) == ["L1H7@12", "L2E5", "embed@3", "L0mlp"]


def test_all_nodes_are_each_there_once(exact):
    assert len(all_nodes(exact.config)) == len(set(all_nodes(exact.config))) == 1 + 3 * (4 + 6)
    assert len(all_nodes(exact.config, 9, ["expert"])) == len(set(all_nodes(exact.config, 9, ["expert"]))) == 9 * 18
    # Queries of 4 heads, keys and values of 2, the router and 6 experts, and the logits.
    assert len(set(all_receivers(exact.config))) == 3 * (4 + 2 + 2 + 1 + 6) + 1


def test_a_receiver_reads_the_nodes_whose_sites_fire_before_its_own(exact):
    order = {name: i for i, name in enumerate(exact.sites)}
    writes = {"embed": "hook_embed", "head": "hook_attn_out", "expert": "hook_mlp_out"}
    reads = {"q": "attn.hook_q_in", "k": "attn.hook_k_in", "v": "attn.hook_v_in", "router": "mlp.hook_router_in"}
    reads |= {"expert": "mlp.hook_expert_in"}
    for node in all_nodes(exact.config):
        at = order[writes[node.kind] if node.layer is None else f"blocks.{node.layer}.{writes[node.kind]}"]
        for receiver in all_receivers(exact.config):
            last = (
                "ln_final.hook_scale"
                if receiver.part == "logits"
                else f"blocks.{receiver.layer}.{reads[receiver.part]}"
            )
            assert receiver.reads(node) == (at < order[last]), f"{node} → {receiver}"


@pytest.mark.parametrize("node", all_nodes(exact_model().config), ids=str)
def test_a_node_writes_what_plain_loops_say(exact, cache, node):
    found = node_write(exact, cache.__getitem__, node)[0]
    assert torch.allclose(found, written(exact, cache, node.kind, node.layer, node.index), atol=1e-12)


def test_heads_and_b_o_are_what_attention_writes_and_experts_what_their_layer_does(exact, cache):
    read = {site: cache[site] for site in write_sites(exact.config)}.__getitem__
    for layer in range(3):
        heads, experts = (node_writes(exact, read, kind, layer).sum(2) for kind in ("head", "expert"))
        assert torch.allclose(heads + exact.blocks[layer].attn.b_O, cache[f"blocks.{layer}.hook_attn_out"])
        assert torch.allclose(experts, cache[f"blocks.{layer}.hook_mlp_out"])


def test_the_order_of_the_slots_does_not_matter(cache):
    chosen, weights, out = (cache[f"blocks.1.mlp.hook_expert_{part}"] for part in ("indices", "weights", "out"))
    found = expert_writes(chosen, weights, out, 6)
    assert torch.equal(found, expert_writes(chosen.flip(2), weights.flip(2), out.flip(2), 6))


def test_a_node_at_one_position_writes_nowhere_else(exact, cache):
    whole, one = (node_write(exact, cache.__getitem__, node)[0] for node in (Node("head", 1, 2), Node("head", 1, 2, 4)))
    assert torch.equal(one[4], whole[4]) and one.abs().sum(-1).nonzero().tolist() == [[4]]


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (lambda: Node.parse("L1H"), "'L1H' names no node: expected one like 'embed'"),
        (lambda: Receiver.parse("L1H2.k"), r"names no receiver.*keys and values belong to key-value heads"),
        (lambda: Node("head", 1), "index=None for 'head': expected a whole number"),
        (lambda: Node("mlp", 1, 2), "index=2 for 'mlp': expected none"),
        (lambda: Node("neuron", 1), r"kind='neuron': expected one of \('embed'"),
        (lambda: Node("embed", 1), "layer=1 for 'embed': expected none"),
        (lambda: Receiver("x", 1), r"part='x': expected one of \('q'"),
        (lambda: Node("head", 9, 0).check(exact_model().config), "layer=9: the model has layers 0 to 2"),
        (lambda: Node("expert", 0, 6).check(exact_model().config), "expert=6: the model has experts 0 to 5"),
        (
            lambda: Receiver("k", 0, 2).check(exact_model().config),
            "key-value head=2: the model has key-value heads 0 to 1",
        ),
        (
            lambda: Node("embed", pos=9).check(exact_model().config, 9),
            "pos=9 of embed@9: the text has positions 0 to 8",
        ),
        (
            lambda: all_nodes(exact_model().config, kinds=["heads"]),
            "kind 'heads': expected some of .*closest is 'head'",
        ),
    ],
)
@pytest.mark.usefixtures("as_in_a_notebook")
def test_what_is_not_there_is_refused(made, told):
    with pytest.raises(ValueError, match=told):
        made()
