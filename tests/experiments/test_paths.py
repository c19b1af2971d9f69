"""Path patching against whole runs into which the receiver's hand-computed answer is put."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.experiments.pairs import RIGHT, WRONG, by_hand, cached, exact_model, far, scored, written
from workbench.activations import run
from workbench.experiments.nodes import Node, Receiver, all_nodes, all_receivers
from workbench.experiments.patching.paths import path_patching

SENDERS = ["embed", "L0H1", "L0E2", "L1H3", "L1E0@5", "L1E4", "embed@2"]


@pytest.fixture(scope="module")
def exact():
    return exact_model()


@pytest.fixture(scope="module")
def texts(exact):
    return far(exact)


@pytest.fixture(scope="module")
def caches(exact, texts):
    return [cached(exact, tokens) for tokens in texts]


def sent(exact, caches, node: Node) -> Tensor:
    """Clean less corrupted write, [pos d_model]."""
    clean, corrupt = (written(exact, cache, node.kind, node.layer, node.index) for cache in caches)
    change = clean - corrupt
    return change if node.pos is None else change * (torch.arange(len(change)) == node.pos)[:, None]


def expert_by_hand(exact, layer: int, expert: int, x: Tensor) -> Tensor:
    """[pos d_model] → what the expert puts out, gpt-oss' equations."""
    experts = exact.blocks[layer].mlp.experts
    both = x @ experts.W_gate_up[expert].T + experts.b_gate_up[expert]
    gate, up = both[:, 0::2].clamp(max=7), both[:, 1::2].clamp(-7, 7)
    return ((up + 1) * gate * torch.sigmoid(1.702 * gate)) @ experts.W_down[expert].T + experts.b_down[expert]


@torch.no_grad()
def answer(exact, corrupt: dict, change: Tensor, receiver: Receiver) -> tuple[str, Tensor]:
    """A site of the corrupted run, [1 pos …], as it is with the receiver reading the changed stream."""
    layer, index, part = receiver.layer, receiver.index, receiver.part
    here = torch.ones(9, 1, dtype=torch.bool) if receiver.pos is None else (torch.arange(9) == receiver.pos)[:, None]
    if part == "logits":
        site = "blocks.2.hook_resid_post"
        return site, torch.where(here, corrupt[site][0] + change, corrupt[site][0])[None]
    block, name = exact.blocks[layer], f"blocks.{layer}."
    stream = corrupt[name + ("hook_resid_pre" if part in "qkv" else "hook_resid_mid")][0] + change
    read = by_hand(stream, block.ln1 if part in "qkv" else block.ln2)
    if part in "qkv":
        site, linear = f"{name}attn.hook_{part}", getattr(block.attn, part)
        rows = slice(16 * index, 16 * index + 16)
        now = corrupt[site].clone()
        now[0, :, index] = torch.where(here, read @ linear.weight[rows].T + linear.bias[rows], now[0, :, index])
        return site, now
    if part == "router":
        site = f"{name}mlp.hook_router_logits"
        now = read @ block.mlp.router.weight.T + block.mlp.router.bias
        return site, torch.where(here, now, corrupt[site][0])[None]
    site, now = f"{name}mlp.hook_expert_out", corrupt[f"{name}mlp.hook_expert_out"].clone()
    for pos, slots in enumerate(corrupt[f"{name}mlp.hook_expert_indices"][0].tolist()):
        for slot, expert in enumerate(slots):
            if bool(here[pos]) and (part == "experts" or expert == index):
                now[0, pos, slot] = expert_by_hand(exact, layer, expert, read[pos : pos + 1])[0]
    return site, now


RECEIVERS = ["L0H2.q", "L1H0.q", "L2H3.q@8", "L1KV1.k", "L2KV0.k@5", "L0KV0.v", "L2KV1.v", "L0router", "L1router@2"]
RECEIVERS += ["L2router", "L0experts", "L2experts@8", *(f"L{layer}E{e}.in" for layer in (0, 1, 2) for e in range(6))]
RECEIVERS += ["L2E1.in@8", "logits", "logits@8", "logits@3"]


@pytest.fixture(scope="module")
def found(exact, texts):
    return path_patching(exact, *texts, (RIGHT, WRONG), SENDERS, RECEIVERS, progress=False)


@pytest.mark.parametrize("name", RECEIVERS)
def test_a_path_is_a_run_with_the_receivers_hand_computed_answer_in_it(exact, texts, caches, found, name):
    receiver, corrupted = Receiver.parse(name), scored(exact, texts[1])
    for sender in SENDERS:
        node = Node.parse(sender)
        effect = float(found.effect.sel(sender=sender, receiver=name))
        assert np.isnan(effect) == (not receiver.reads(node))
        if receiver.reads(node):
            site, value = answer(exact, caches[1], sent(exact, caches, node), receiver)
            expected = scored(exact, texts[1], [(site, lambda x, hook, value=value: value)]) - corrupted
            assert effect == pytest.approx(expected, abs=1e-9), sender


def test_the_paths_compared_above_do_something(found):
    largest = np.abs(found.effect).max("sender")
    assert (largest.sel(receiver=["L0H2.q", "L1KV1.k", "L0KV0.v", "L0experts", "L0router", "logits"]) > 1e-3).all()
    assert any(float(largest.sel(receiver=f"L2E{e}.in")) > 1e-3 for e in range(6))
    # What is read before the last position does not reach the answer by this reader.
    assert float(largest.sel(receiver="logits@3")) < 1e-12
    assert np.allclose(found.effect.sel(receiver="logits"), found.effect.sel(receiver="logits@8"))


@pytest.mark.parametrize("node", ["embed", "L0H1", "L0E2", "L1H3"])
def test_all_readers_together_are_the_patch_of_the_sender(exact, texts, caches, node):
    node = Node.parse(node)
    readers = [receiver for receiver in all_receivers(exact.config) if receiver.reads(node)]
    data = path_patching(exact, *texts, (RIGHT, WRONG), [node], [readers], progress=False)
    change = sent(exact, caches, node)
    into = {"embed": "hook_embed", "head": f"blocks.{node.layer}.hook_attn_out", "expert": "blocks.0.hook_mlp_out"}
    patched = scored(exact, texts[1], [(into[node.kind], lambda x, hook: x + change)])
    assert data.metric.item() == pytest.approx(patched, abs=1e-9)
    assert abs(data.effect.item()) > 1e-3
    if node.kind == "embed":
        assert data.recovered.item() == pytest.approx(1, abs=1e-9)


def test_senders_in_a_group_are_sent_together(exact, texts, caches):
    group = ["L0H1", "L0E2", "L1H3"]
    data = path_patching(exact, *texts, (RIGHT, WRONG), [group], ["L1H0.q", "logits"], progress=False)
    assert data.sender.values.tolist() == ["L0H1+L0E2+L1H3"]
    for name, heard in (("L1H0.q", group[:2]), ("logits", group)):  # L1H3 writes after L1H0 has read
        change = sum(sent(exact, caches, Node.parse(sender)) for sender in heard)
        site, value = answer(exact, caches[1], change, Receiver.parse(name))
        expected = scored(exact, texts[1], [(site, lambda x, hook, value=value: value)])
        assert data.metric.sel(receiver=name).item() == pytest.approx(expected, abs=1e-9)


def test_attention_and_layers_are_senders_as_well(exact, texts):
    data = path_patching(
        exact, *texts, (RIGHT, WRONG), ["L0attn", [f"L0H{h}" for h in range(4)]], ["logits"], progress=False
    )
    experts = path_patching(
        exact, *texts, (RIGHT, WRONG), ["L0mlp", [f"L0E{e}" for e in range(6)]], ["L1KV0.v"], progress=False
    )
    for made in (data, experts):
        assert made.effect[0].item() == pytest.approx(made.effect[1].item(), abs=1e-10)


def test_a_text_patched_into_itself_changes_exactly_nothing(exact, texts):
    nodes, receivers = all_nodes(exact.config), [*all_receivers(exact.config), "L1experts"]
    data = path_patching(exact, texts[0], texts[0], (RIGHT, WRONG), nodes, receivers, progress=False)
    there = ~np.isnan(data.effect.values)
    assert there.any() and (data.effect.values[there] == 0).all()


def test_with_frozen_routing_every_later_route_is_that_of_the_corrupted_run(exact, texts, caches, found):
    data = path_patching(
        exact, *texts, (RIGHT, WRONG), SENDERS, ["L0KV0.v", "L0experts"], freeze_routing=True, progress=False
    )
    pins = [
        (name, lambda x, hook: caches[1][hook.name])
        for name in exact.sites
        if name.endswith(("expert_indices", "expert_weights"))
    ]
    for name in ("L0KV0.v", "L0experts"):
        site, value = answer(exact, caches[1], sent(exact, caches, Node("embed")), Receiver.parse(name))
        expected = scored(exact, texts[1], [(site, lambda x, hook, value=value: value), *pins])
        assert float(data.metric.sel(sender="embed", receiver=name)) == pytest.approx(expected, abs=1e-9)
    assert np.abs(data.effect - found.effect).max() > 1e-3


def test_how_many_go_in_one_pass_changes_no_number(exact, texts, found, monkeypatch):
    monkeypatch.setattr("workbench.experiments.patching.paths._MOST", 30)
    again = path_patching(exact, *texts, (RIGHT, WRONG), SENDERS, RECEIVERS[:12], progress=False)
    assert np.allclose(again.effect, found.effect[:, :12], atol=1e-10, equal_nan=True)


def test_positions_are_those_of_a_padded_row(model):
    texts = "One day Mia went to the park.", "One day Tom went to the mill."
    alone = path_patching(model, *texts, (" park", " mill"), ["embed@2"], ["L0KV0.v"], progress=False)
    tokens = [model.to_tokens([text, text + " It was a day."], padding_side="left", return_mask=True) for text in texts]
    padded = [run(model, ids, attention_mask=mask) for ids, mask in tokens]
    first = int(tokens[1][1][0].nonzero()[0])
    beside = path_patching(model, *padded, (" park", " mill"), [f"embed@{first + 2}"], ["L0KV0.v"], progress=False)
    assert first > 0 and beside.effect.item() == pytest.approx(alone.effect.item(), abs=1e-6)
    assert abs(alone.effect.item()) > 1e-6
    with pytest.raises(ValueError, match=f"embed@0: the corrupted text has positions {first} to"):
        path_patching(model, *padded, (" park", " mill"), ["embed@0"], ["logits"])


@pytest.mark.parametrize(
    ("senders", "receivers", "told"),
    [
        ([], ["logits"], r"senders=\[\]: expected a list of at least one"),
        (["embed"], [[]], "receivers: .* is a group without members"),
        ([["embed", "embed"]], ["logits"], "names one twice"),
        (["L0H9"], ["logits"], "head=9: the model has heads 0 to 3"),
        (["L0H1"], ["L0H1.k"], "'L0H1.k' names no receiver"),
        (["embed@9"], ["logits"], "embed@9: the corrupted text has positions 0 to 8"),
        (["embed"], [["L0E1.in", "L0experts"]], "L0E1.in is one of the layer's experts already"),
        (["embed"], ["L0router"], "a frozen router passes nothing on"),
    ],
)
def test_what_is_not_there_is_refused(exact, texts, senders, receivers, told):
    frozen = "router" in str(receivers)
    with pytest.raises(ValueError, match=told):
        path_patching(exact, *texts, (RIGHT, WRONG), senders, receivers, freeze_routing=frozen)
    assert not exact.list_hooks()
