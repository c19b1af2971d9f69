"""Edge attribution: exact path patching to first order, and sums that must be the effects of nodes."""

import numpy as np
import pytest
import torch

from tests.experiments.pairs import NEAR, RIGHT, WRONG, cached, difference, exact_model, far, near, scored
from tests.forms import EAGER, held, packable, through
from tests.small import SMALL, as_held, rows
from workbench.experiments.attribution.edges import edge_attribution, top_edges
from workbench.experiments.attribution.gradients import attribution_patching
from workbench.experiments.nodes import Receiver, all_nodes, all_receivers
from workbench.experiments.patching.paths import path_patching
from workbench.model import HookedGptOss, random_weights


@pytest.fixture(scope="module")
def exact():
    return exact_model()


@pytest.fixture(scope="module")
def texts(exact):
    return far(exact)


@pytest.fixture(scope="module")
def edges(exact, texts):
    return edge_attribution(exact, *texts, (RIGHT, WRONG), by_position=True)


@pytest.mark.parametrize(("method", "steps"), [("eap", 1), ("eap-ig", 3)])
def test_between_texts_that_are_near_every_edge_is_the_exact_path_patch(exact, method, steps):
    clean, corrupt = near(exact)
    ours = edge_attribution(exact, clean, corrupt, difference, method, steps=steps)
    nodes, receivers = all_nodes(exact.config), all_receivers(exact.config)
    exactly = path_patching(exact, clean, corrupt, difference, nodes, receivers, progress=False)
    assert ours.upstream.values.tolist() == exactly.sender.values.tolist()
    assert ours.downstream.values.tolist() == exactly.receiver.values.tolist()
    there = ~np.isnan(exactly.effect.values)
    assert np.array_equal(there, ~np.isnan(ours.score.values))
    size = np.abs(exactly.effect.values[there]).max()
    assert size > NEAR / 10
    assert np.abs(ours.score.values - exactly.effect.values)[there].max() < 1e-3 * size
    # Not only the largest of them agree.
    some = there & (np.abs(exactly.effect.values) > 1e-3 * size)
    assert some.sum() > 200 and np.allclose(ours.score.values[some], exactly.effect.values[some], rtol=2e-2)


def test_the_edges_out_of_a_node_add_up_to_the_effect_of_the_node(exact, texts, edges):
    nodes = attribution_patching(exact, *texts, (RIGHT, WRONG))
    out = edges.score_at.sum("downstream")
    assert out.sel(upstream="embed").values == pytest.approx(
        nodes.effect.sel(site="resid_pre", layer=0).values, abs=1e-10
    )
    for layer in range(3):
        for kind, letter, size in (("head", "H", 4), ("expert", "E", 6)):
            for index in range(size):
                expected = nodes[f"{kind}_effect"].sel({"layer": layer, kind: index})
                assert out.sel(upstream=f"L{layer}{letter}{index}").values == pytest.approx(expected.values, abs=1e-10)
    assert np.abs(out).max() > 0.1


def test_the_edges_into_a_reader_add_up_to_all_that_its_stream_brings(exact, texts, edges):
    """By central difference along the whole change of the stream, read by this reader alone."""
    caches = [cached(exact, tokens) for tokens in texts]
    for name, site, step in (("L1router", "router_logits", 1e-6), ("L2H1.q", "q", 1e-6), ("L1KV0.v", "v", 1e-6)):
        receiver = Receiver.parse(name)
        block, attention = exact.blocks[receiver.layer], receiver.part in "qkv"
        at = f"blocks.{receiver.layer}.{'hook_resid_pre' if attention else 'hook_resid_mid'}"
        place = f"blocks.{receiver.layer}.{'attn' if attention else 'mlp'}.hook_{site}"

        def answered(by: float, at=at, block=block, receiver=receiver, attention=attention, site=site, place=place):
            stream = caches[1][at] + by * (caches[0][at] - caches[1][at])
            norm, linear = (block.ln1, getattr(block.attn, site)) if attention else (block.ln2, block.mlp.router)
            made = linear(stream / (stream.pow(2).mean(-1, keepdim=True) + norm.eps).sqrt() * norm.w)
            if not attention:
                return [(place, lambda x, hook: made)]
            heads = caches[1][place].clone()
            heads[:, :, receiver.index] = made.view(heads.shape)[:, :, receiver.index]
            return [(place, lambda x, hook: heads)]

        with torch.no_grad():
            slope = (scored(exact, texts[1], answered(step)) - scored(exact, texts[1], answered(-step))) / (2 * step)
        assert float(edges.score.sel(downstream=name).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-7), name


def test_positions_add_up_to_the_score_and_share_is_of_clean_less_corrupted(exact, texts, edges):
    assert np.allclose(edges.score_at.sum("pos", skipna=False), edges.score, equal_nan=True)
    span = scored(exact, texts[0]) - scored(exact, texts[1])
    assert np.allclose(edges.share, edges.score / span, equal_nan=True)
    assert edges.token.values.tolist() == [str(i) for i in texts[1][0].tolist()]


def test_eap_ig_out_of_the_embedding_is_the_integrated_gradient_of_the_input(exact):
    """Texts that differ at the last token only a little: no route flips, so the integral is all of the difference."""
    clean, corrupt = near(exact)
    data = edge_attribution(exact, clean, corrupt, difference, "eap-ig", steps=4)
    total = float(data.clean - data.corrupted)
    assert float(data.score.sel(upstream="embed").sum()) == pytest.approx(total, rel=1e-6)


def test_where_every_expert_is_routed_to_eap_ig_explains_all_that_eap_leaves_unexplained():
    """Without a choice of experts there is no boundary that a gradient could miss."""
    model = exact_model(n_experts=3, experts_per_token=3)
    texts = far(model)
    total = scored(model, texts[0]) - scored(model, texts[1])
    unexplained = [
        abs(
            edge_attribution(model, *texts, (RIGHT, WRONG), method, steps=n).score.sel(upstream="embed").sum().item()
            - total
        )
        for method, n in (("eap", 1), ("eap-ig", 5), ("eap-ig", 64))
    ]
    assert unexplained[0] > 10 * unexplained[1] > 100 * unexplained[2]


def test_many_steps_in_several_passes_are_the_same(exact, texts, monkeypatch):
    whole = edge_attribution(exact, *texts, (RIGHT, WRONG), "eap-ig", steps=5)
    monkeypatch.setattr("workbench.experiments.attribution.edges._MOST", 20)
    parts = edge_attribution(exact, *texts, (RIGHT, WRONG), "eap-ig", steps=5)
    assert np.allclose(parts.score, whole.score, atol=1e-10, equal_nan=True)


def test_packed_experts_have_the_edges_of_the_dense_ones():
    dense = packable(random_weights(HookedGptOss(as_held(SMALL, EAGER)), 0))
    clean, corrupt = rows(dense.config, 5).split(1)
    with through(EAGER):
        ours, theirs = (
            edge_attribution(model, clean, corrupt, (RIGHT, WRONG)) for model in (held(dense, EAGER), dense)
        )
    assert np.allclose(ours.score, theirs.score, atol=1e-10, equal_nan=True)


def test_top_edges_are_the_largest_of_either_sign_and_the_largest_first(edges):
    top = top_edges(edges, 30)
    flat = np.abs(edges.score.values[~np.isnan(edges.score.values)])
    assert np.abs(top.score.values).tolist() == sorted(flat.tolist(), reverse=True)[:30]
    assert (top.score.values < 0).any() and (top.score.values > 0).any()
    for up, down, score in zip(top.upstream.values, top.downstream.values, top.score.values, strict=True):
        assert float(edges.score.sel(upstream=up, downstream=down)) == score
    assert top_edges(edges, 10**6).sizes["edge"] == len(flat)
    assert top.attrs["experiment"] == "edge_attribution" and top["rank"].values.tolist() == list(range(1, 31))


def test_no_gradient_is_left_behind(exact, texts, edges):
    assert all(parameter.grad is None for parameter in exact.parameters()) and not exact.list_hooks()


def test_what_does_not_fit_is_refused(exact, texts, edges):
    with pytest.raises(ValueError, match="steps=0: expected at least 1"):
        edge_attribution(exact, *texts, (RIGHT, WRONG), "eap-ig", steps=0)
    with pytest.raises(ValueError, match="clean has 9 tokens and corrupt 3"):
        edge_attribution(exact, texts[0], texts[1][:, :3], (RIGHT, WRONG))
    with pytest.raises(ValueError, match="n=0"):
        top_edges(edges, 0)
    with pytest.raises(ValueError, match="top_edges takes what edge_attribution returns"):
        top_edges(edges[["clean"]])
