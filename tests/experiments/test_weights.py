"""Weight views against whole matrices multiplied out, TransformerLens' own scores, and planted weights."""

import copy
import random

import numpy as np
import pytest
import torch
from transformer_lens.utilities.matrix import composition_scores as theirs

import workbench as wb
from tests.forms import EAGER, held, packable
from workbench.experiments.experts import expert_weights
from workbench.experiments.experts.expert_weights import embedding_norms, expert_similarity, router_geometry
from workbench.experiments.weights import composition_scores, head_circuits, ov_circuit, qk_circuit
from workbench.figures import weights as drawn
from workbench.model import HookedGptOss, random_weights
from workbench.training.microworld import DOCUMENTS

quiet = {"progress": False}


def whole(model, layer, head):
    """W_V W_O and W_Q W_Kᵀ with the gains, as dense matrices; the key-value head by division."""
    a, gain = model.blocks[layer].attn, torch.diag(model.blocks[layer].ln1.w.detach())
    kv = head // (model.config.n_heads // model.config.n_key_value_heads)
    ov = gain @ a.W_V[kv].detach() @ a.W_O[head].detach()
    qk = gain @ a.W_Q[head].detach() @ a.W_K[kv].detach().T @ gain / model.config.d_head**0.5
    return ov, qk


def test_circuits_are_the_products_with_the_gains_folded_in(model):
    for layer, head in [(0, 0), (1, 3), (2, 2)]:
        ov, qk = whole(model, layer, head)
        assert ov_circuit(model, layer, head).AB.numpy() == pytest.approx(ov.numpy(), abs=1e-6)
        assert qk_circuit(model, layer, head).AB.numpy() == pytest.approx(qk.numpy(), abs=1e-6)


def test_a_query_heads_score_on_its_keys_is_the_circuits(model):
    """At distance 0 and without biases, x_q · QK · x_k is the attention score."""
    from workbench.activations import run

    plain = copy.deepcopy(model)
    for name in ("q", "k"):
        torch.nn.init.zeros_(getattr(plain.blocks[1].attn, name).bias)
    done = run(plain, "Mia went to the park", sites="all")
    stream = done["blocks.1.ln1.hook_normalized"][0]
    for head in range(4):
        scores = done["blocks.1.attn.hook_attn_scores"][0, head].diagonal()
        found = (stream @ qk_circuit(plain, 1, head).AB * stream).sum(-1)
        # YaRN stretches queries and keys by its factor each.
        factor = (scores / found).detach()
        assert factor.numpy() == pytest.approx(np.full(len(factor), float(factor[0])), rel=1e-3)


def test_copying_is_the_eigenvalues_of_the_whole_token_to_token_matrix(model):
    made = head_circuits(model, **quiet)
    e, u = model.embed.weight.detach().double(), model.unembed.weight.detach().double() * model.ln_final.w.detach()
    for layer, head in [(2, 3)]:
        ov, qk = (part.double() for part in whole(model, layer, head))
        for name, full in (("copying", e @ ov @ u.T), ("matching", e @ qk @ e.T)):
            found = torch.linalg.eigvals(full)
            big = found[found.abs() > 1e-8 * found.abs().max()]  # the others are what rounding makes of 0
            expected = float(big.real.sum() / big.abs().sum())
            assert float(made[name].sel(layer=layer, head=head)) == pytest.approx(expected, abs=1e-3)
        assert float(made.ov_norm.sel(layer=layer, head=head)) == pytest.approx(float(ov.norm()), rel=1e-5)
        s = torch.linalg.svdvals(ov)
        assert float(made.ov_rank.sel(layer=layer, head=head)) == pytest.approx(
            float(s.sum() ** 2 / (s**2).sum()), rel=1e-3
        )


def test_a_head_planted_to_copy_scores_one_and_its_negative_minus_one(model):
    planted = copy.deepcopy(model)
    with torch.no_grad():
        planted.unembed.weight.copy_(planted.embed.weight)
        for norm in (planted.ln_final, planted.blocks[1].ln1):
            norm.w.fill_(1)
        a = planted.blocks[1].attn
        value = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0)))[0][
            :, : a.W_V.shape[-1]
        ]
        a.v.weight[: value.shape[1]] = value.T
        d_head = value.shape[1]
        a.o.weight[:, :d_head] = value
        a.o.weight[:, d_head : 2 * d_head] = -value
    made = head_circuits(planted, **quiet).copying.sel(layer=1)
    assert float(made.sel(head=0)) == pytest.approx(1, abs=1e-4)
    assert float(made.sel(head=1)) == pytest.approx(-1, abs=1e-4)


def test_composition_is_transformer_lens_own_score(model):
    made = composition_scores(model, **quiet)
    for left, right in [((0, 1), (1, 2)), ((0, 3), (2, 0)), ((1, 0), (2, 3))]:
        a, qk, v = ov_circuit(model, *left), qk_circuit(model, *right), ov_circuit(model, *right)
        for kind, b in (("Q", qk), ("K", qk.T), ("V", v)):
            found = float(made.score.sel(kind=kind, layer=left[0], head=left[1], to_layer=right[0], to_head=right[1]))
            assert found == pytest.approx(float(theirs(a, b, broadcast_dims=False)), rel=1e-4)
    assert np.isnan(made.score.sel(layer=1, to_layer=[0, 1])).all()
    assert np.isfinite(made.score.sel(layer=1, to_layer=2)).all()


def naive_cosines(experts, kind):
    matrices = []
    for e in range(8):
        w = (experts.W_gate_up if kind in ("gate_up", "reads") else experts.W_down)[e].detach().double()
        matrices.append({"writes": w @ w.T, "reads": w.T @ w}.get(kind, w).flatten())
    return np.array([[float(a @ b / a.norm() / b.norm()) for b in matrices] for a in matrices])


@pytest.mark.parametrize("form", ["dense", EAGER])
def test_expert_similarity_is_the_cosine_of_the_matrices_dense_or_packed(model, form, monkeypatch):
    if form == EAGER:
        config = model.config.with_(d_mlp=32)
        model = held(packable(random_weights(HookedGptOss(config, model.tokenizer), seed=3)), EAGER)
    monkeypatch.setattr(expert_weights, "_BYTES", 4 * 8 * 32 * 10)  # ten rows of each Gram matrix at a time
    made = expert_similarity(model, layers=[0, 2], **quiet)
    for kind in ("down", "gate_up", "writes", "reads"):
        for layer in (0, 2):
            expected = naive_cosines(model.blocks[layer].mlp.experts, kind)
            assert made.similarity.sel(kind=kind, layer=layer).values == pytest.approx(expected, abs=1e-5)


def test_shuffled_neurons_leave_what_an_expert_reads_and_writes_but_not_its_flat_cosine(model):
    twin = copy.deepcopy(model)
    experts, order = twin.blocks[0].mlp.experts, torch.randperm(16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        experts.W_down[1] = experts.W_down[0][:, order]
        experts.W_gate_up[1] = experts.W_gate_up[0].view(16, 2, -1)[order].reshape(32, -1)
    made = expert_similarity(twin, layers=[0], **quiet).similarity.sel(layer=0, expert=0, other_expert=1)
    assert made.sel(kind=["writes", "reads"]).values == pytest.approx(1, abs=1e-5)
    assert (np.abs(made.sel(kind=["down", "gate_up"])) < 0.6).all()


def test_random_experts_are_as_alike_as_chance_says():
    from workbench.model import NANO

    wide = random_weights(HookedGptOss(NANO.with_(n_layers=2, n_experts=3, d_mlp=96)), seed=0)
    made = expert_similarity(wide, layers=[1], **quiet)
    for kind in made.kind.values:
        off = made.similarity.sel(kind=kind, layer=1).values[~np.eye(3, dtype=bool)]
        assert off == pytest.approx(float(made.chance.sel(kind=kind)), abs=0.05)


def test_router_rows_name_the_embeddings_that_excite_them(model):
    made = router_geometry(model, top_k=5)
    embeddings = model.embed.weight.detach().double()
    for layer in range(3):
        block = model.blocks[layer]
        unit = embeddings / (embeddings.square().mean(-1, keepdim=True) + model.config.rms_eps).sqrt()
        rows = block.mlp.router.weight.detach().double() * block.ln2.w.detach().double()
        logits = unit @ rows.T
        for expert in range(8):
            order = np.argsort(-logits[:, expert].numpy())[:5]
            here = made.sel(layer=layer, expert=expert)
            assert here.token_id.values.tolist() == order.tolist()
            assert here.score.values == pytest.approx(logits[order, expert].numpy(), rel=1e-4)
            for other in range(8):
                cosine = torch.cosine_similarity(rows[expert], rows[other], dim=0)
                assert float(here.similarity.sel(other_expert=other)) == pytest.approx(float(cosine), abs=1e-5)


def test_a_planted_untrained_token_is_the_strangest(model):
    planted = copy.deepcopy(model)
    with torch.no_grad():
        for weight in (planted.embed.weight, planted.unembed.weight):
            weight[700] = weight.mean(0)
    made = embedding_norms(planted)
    assert int(made.vocab[made.glitch_score.argmin("vocab")]) == 700
    weights = planted.embed.weight.detach().double()
    assert made.embed_norm.values == pytest.approx(weights.norm(dim=-1).numpy())
    assert made.embed_distance.values == pytest.approx((weights - weights.mean(0)).norm(dim=-1).numpy(), abs=1e-7)
    assert made.known.values.tolist() == [i < planted.tokenizer.vocab_size for i in range(1024)]


def test_the_strangest_tokens_of_nano_are_those_that_its_training_never_held():
    nano, seen = wb.load("nano"), set()
    for seed, make in enumerate(DOCUMENTS.values()):
        for n in range(15):
            text = "".join(segment.text for segment in make(random.Random(100 * seed + n)).segments)
            seen |= set(nano.tokenizer.encode(text))
    made = embedding_norms(nano)
    strangest = made.vocab.values[np.argsort(made.glitch_score.values)[:3]].tolist()
    assert {nano.tokenizer.decode([i]) for i in strangest} == {"<|call|>", "<|startoftext|>", "<|constrain|>"}
    assert not seen & set(strangest)


def test_what_is_not_there_is_refused(model):
    with pytest.raises(ValueError, match="layer=7"):
        expert_similarity(model, layers=[7], **quiet)
    with pytest.raises(ValueError, match="expected some of"):
        expert_similarity(model, kinds=["up"], **quiet)
    with pytest.raises(ValueError, match="head=4"):
        ov_circuit(model, 0, 4)
    with pytest.raises(ValueError, match="top_k=0"):
        router_geometry(model, top_k=0)


def test_every_figure_draws_its_numbers(model, tmp_path):
    circuits, composed = head_circuits(model, **quiet), composition_scores(model, **quiet)
    alike, router, embeddings = expert_similarity(model, **quiet), router_geometry(model), embedding_norms(model)
    assert np.array(drawn.head_circuits(circuits).data[0].z) == pytest.approx(circuits.copying.values)
    assert np.array(drawn.composition_scores(composed, "V").data[0].z).shape == (8, 8)
    assert len(drawn.expert_similarity(alike).data) == len(drawn.expert_similarity(router, kind="router").data) == 3
    assert np.array(drawn.router_tokens(router, 1).data[0].z) == pytest.approx(router.score.sel(layer=1).values)
    assert sum(len(trace.x) for trace in drawn.embedding_norms(embeddings).data) == 1024
    for data in (circuits, composed, alike, router, embeddings):
        data.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    with pytest.raises(ValueError, match="expected one of"):
        drawn.composition_scores(composed, "Z")
    with pytest.raises(ValueError, match=r"experiments\.head_circuits returns"):
        drawn.head_circuits(alike)
