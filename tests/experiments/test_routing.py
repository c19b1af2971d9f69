"""Routes recomputed from the router's logits; loads counted one by one."""

import numpy as np
import pytest

from workbench.experiments import expert_load, routing


def test_routes_are_the_top_k_of_the_routers_logits_and_weights_their_softmax(done):
    routes, k = routing(done), done.model.config.experts_per_token
    for layer in routes.layer.values:
        logits = done[f"blocks.{layer}.mlp.hook_router_logits"][0].double().numpy()
        order = np.argsort(-logits, axis=-1)[:, :k]
        chosen = np.take_along_axis(logits, order, -1)
        expected = np.exp(chosen) / np.exp(chosen).sum(-1, keepdims=True)
        assert np.array_equal(routes.chosen.sel(layer=layer), order)
        assert routes.weight.sel(layer=layer).values == pytest.approx(expected, abs=1e-6)


def test_load_counts_tokens_and_weight_share_adds_weights(done):
    routes = routing(done)
    n = routes.sizes["pos"]
    for layer in routes.layer.values:
        here = routes.sel(layer=layer)
        for expert in routes.expert.values:
            served = here.chosen.values == expert
            assert here["load"].sel(expert=expert) == pytest.approx(served.any(-1).sum() / n)
            assert here.weight_share.sel(expert=expert) == pytest.approx(here.weight.values[served].sum() / n, abs=1e-6)


def test_loads_sum_to_the_routes_of_a_token_and_weights_to_one(done, padded):
    for made in (routing(done), expert_load(done), expert_load(padded)):
        assert made["load"].sum("expert").values == pytest.approx(made.attrs["even_load"] * made.sizes["expert"])
        assert made.weight_share.sum("expert").values == pytest.approx(1, abs=1e-5)


def test_the_load_of_several_rows_is_that_of_their_tokens_together_without_padding(padded):
    rows = [routing(padded, row) for row in range(3)]
    n = np.array([row.sizes["pos"] for row in rows])
    assert n.tolist() == padded.attention_mask.sum(1).tolist()
    together = sum(row["load"] * count for row, count in zip(rows, n, strict=True)) / n.sum()
    assert expert_load(padded)["load"].values == pytest.approx(together.values)
    assert expert_load(padded).attrs["n_tokens"] == n.sum()


def test_routes_know_their_tokens_roles_and_channels(done):
    routes = routing(done)
    assert routes.token.values.tolist() == done.str_tokens()
    assert set(routes.role.values) == {"system", "user", "assistant"}
    spoken = routes.token.values[(routes.channel.values == "final") & (routes.part.values == "body")]
    assert "".join(spoken) == "In the park."
