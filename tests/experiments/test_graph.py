"""Attribution graphs: every number beside one made with plain loops, autograd and hooks, on a float64 model."""

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor

from tests.experiments.pairs import RIGHT, WRONG, by_hand, cached, exact_model, written
from tests.forms import FORMS
from tests.small import SMALL, rows, small_model
from workbench.activations import run
from workbench.experiments.graphs.graph import attribution_graph
from workbench.experiments.nodes import Node
from workbench.interventions import AblateHead
from workbench.model import HookedGptOss
from workbench.model.moe import clamped_swiglu

ALL = 10_000
N_LAYERS, N_POS = 3, 9


@pytest.fixture(scope="module")
def model() -> HookedGptOss:
    """As many key-value heads as heads, so that a hook reaches one head's keys alone."""
    return exact_model(n_key_value_heads=4).requires_grad_(False)


@pytest.fixture(scope="module")
def tokens(model: HookedGptOss, seed: int) -> Tensor:
    return rows(model.config, seed)[:1]


@pytest.fixture(scope="module")
def cache(model: HookedGptOss, tokens: Tensor) -> dict[str, Tensor]:
    return cached(model, tokens)


@pytest.fixture(scope="module")
def whole(model: HookedGptOss, tokens: Tensor) -> xr.Dataset:
    return attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=ALL, confirm=60)


def difference(logits: Tensor) -> Tensor:
    return logits[:, -1, RIGHT] - logits[:, -1, WRONG]


def pins(cache: dict[str, Tensor]) -> list:
    """Hooks that hold scales, patterns and routing."""
    ends = ("hook_scale", "hook_pattern", "hook_expert_indices", "hook_expert_weights")
    return [(name, lambda x, hook: cache[hook.name].expand_as(x)) for name in cache if name.endswith(ends)]


def site_of(node: Node) -> str:
    if node.kind == "embed":
        return "hook_embed"
    return f"blocks.{node.layer}.hook_{'attn' if node.kind == 'head' else 'mlp'}_out"


@pytest.fixture(scope="module")
def gradients(model: HookedGptOss, tokens: Tensor, cache: dict[str, Tensor]) -> dict[str, Tensor]:
    """∂ target / ∂ what is added into the stream at each site, in the held model, by autograd."""
    sites = ["hook_embed"] + [f"blocks.{i}.hook_{part}_out" for i in range(N_LAYERS) for part in ("attn", "mlp")]
    nothing = {site: torch.zeros_like(cache[site], requires_grad=True) for site in sites}
    hooks = [(site, lambda x, hook: x + nothing[hook.name]) for site in sites]
    with model.hooks(fwd_hooks=[*hooks, *pins(cache)]):
        found = torch.autograd.grad(difference(model(tokens)).sum(), list(nothing.values()))
    return {site: gradient[0] for site, gradient in zip(sites, found, strict=True)}


def write_of(model: HookedGptOss, cache: dict[str, Tensor], name: str) -> Tensor:
    node = Node.parse(name)
    return written(model, cache, node.kind, node.layer, node.index)[node.pos]


def expert(model: HookedGptOss, cache: dict[str, Tensor], node: Node, x: Tensor) -> Tensor:
    """What an expert writes for a stream x at its position, with the norm and the weight held."""
    block, at = model.blocks[node.layer], f"blocks.{node.layer}."
    weights = block.mlp.experts
    read = x / cache[f"{at}ln2.hook_scale"][0, node.pos] * block.ln2.w
    gate_up = weights.W_gate_up[node.index] @ read + weights.b_gate_up[node.index]
    act = clamped_swiglu(gate_up[None, 0::2], gate_up[None, 1::2], model.config)[0]
    slot = cache[f"{at}mlp.hook_expert_indices"][0, node.pos].tolist().index(node.index)
    weight = cache[f"{at}mlp.hook_expert_weights"][0, node.pos, slot]
    return weight * (weights.W_down[node.index] @ act + weights.b_down[node.index])


def edge(model: HookedGptOss, cache: dict[str, Tensor], gradients: dict, source: str, target: str) -> float:
    """One edge, by hand: the source's write, through the target's linear part, times the gradient at its write."""
    write, there = write_of(model, cache, source), Node.parse(source).pos
    if target == "logits":
        direction = (model.unembed.weight[RIGHT] - model.unembed.weight[WRONG]) * model.ln_final.w
        return float(write @ direction / cache["ln_final.hook_scale"][0, -1]) if there == N_POS - 1 else 0.0
    node, at = Node.parse(target), f"blocks.{Node.parse(target).layer}."
    gradient = gradients[site_of(node)][node.pos]
    if node.kind == "expert":
        stream = cache[f"{at}hook_resid_mid"][0, node.pos]
        moved = torch.autograd.functional.jvp(lambda x: expert(model, cache, node, x), stream, write)[1]
        return float(moved @ gradient) if there == node.pos else 0.0
    attn, block = model.blocks[node.layer].attn, model.blocks[node.layer]
    read = write / cache[f"{at}ln1.hook_scale"][0, there] * block.ln1.w
    moved = (read @ attn.W_V[node.index]) @ attn.W_O[node.index]
    return float(cache[f"{at}attn.hook_pattern"][0, node.index, node.pos, there] * (moved @ gradient))


def test_what_comes_in_at_a_node_is_what_its_write_is_worth(whole: xr.Dataset, tokens: Tensor, model) -> None:
    coming = whole.adjacency.sum("source") + whole.bias + whole.error + whole.rest
    np.testing.assert_allclose(coming, whole.total, atol=1e-13)
    assert abs(whole.rest).max() < 1e-13, "nothing is left out of a graph of all nodes"
    with torch.no_grad():
        assert float(coming.sel(target="logits")) == pytest.approx(float(difference(model(tokens))), abs=1e-12)
    assert float(whole.value) == pytest.approx(float(coming.sel(target="logits")), abs=1e-12)


def test_what_goes_out_of_a_node_is_what_its_write_is_worth(whole: xr.Dataset) -> None:
    np.testing.assert_allclose(whole.adjacency.sum("target"), whole.activation, atol=1e-13)


def test_each_activation_is_the_write_times_the_gradient_of_the_held_model(
    whole: xr.Dataset, model: HookedGptOss, cache: dict, gradients: dict
) -> None:
    for name in whole.source.values:
        node = Node.parse(str(name))
        worth = float(write_of(model, cache, str(name)) @ gradients[site_of(node)][node.pos])
        assert float(whole.activation.sel(source=name)) == pytest.approx(worth, abs=1e-12), name


def test_edges_are_what_plain_loops_make_them(
    whole: xr.Dataset, model: HookedGptOss, cache: dict, gradients: dict, seed: int
) -> None:
    assert whole.sizes["source"] == N_POS * (1 + N_LAYERS * (4 + 2)) and whole.sizes["target"] == N_POS * 18 + 1
    drawn = np.random.default_rng(seed)
    targets = [*drawn.choice(whole.target.values[:-1], 12, replace=False), "logits"]
    for target in map(str, targets):
        for source in map(str, whole.source.values):
            end = target == "logits"
            seen = end or (
                Node.parse(source).stage < Node.parse(target).stage and Node.parse(source).pos <= Node.parse(target).pos
            )
            expected = edge(model, cache, gradients, source, target) if seen else 0.0
            found = float(whole.adjacency.sel(target=target, source=source))
            assert found == pytest.approx(expected, abs=1e-12), (source, target)


def test_biases_and_remainders_are_what_plain_sums_make_them(
    whole: xr.Dataset, model: HookedGptOss, cache: dict, gradients: dict
) -> None:
    for name in map(str, whole.target.values[:-1]):
        node = Node.parse(name)
        at, gradient = f"blocks.{node.layer}.", gradients[site_of(node)][node.pos]
        before = [model.blocks[i].attn.b_O for i in range(node.layer + (node.kind == "expert"))]
        bias = sum(before, torch.zeros(model.config.d_model, dtype=torch.float64))
        if node.kind == "expert":
            stream = cache[f"{at}hook_resid_mid"][0, node.pos]
            linear = torch.autograd.functional.jvp(lambda x, n=node: expert(model, cache, n, x), stream, stream)[1]
            left = expert(model, cache, node, stream) - linear
            moved = torch.autograd.functional.jvp(lambda x, n=node: expert(model, cache, n, x), stream, bias)[1]
        else:
            attn, pattern = model.blocks[node.layer].attn, cache[f"{at}attn.hook_pattern"][0, node.index, node.pos]
            scales = cache[f"{at}ln1.hook_scale"][0]
            reads = [bias / scale * model.blocks[node.layer].ln1.w for scale in scales]
            value, out = attn.W_V[node.index], attn.W_O[node.index]
            moved = sum((a * (r @ value + attn.b_V[node.index]) @ out) for a, r in zip(pattern, reads, strict=True))
            left = torch.zeros_like(moved)
        assert float(whole.bias.sel(target=name)) == pytest.approx(float(moved @ gradient), abs=1e-12), name
        assert float(whole.error.sel(target=name)) == pytest.approx(float(left @ gradient), abs=1e-12), name


def test_influence_is_the_inverse_of_one_minus_the_normalised_graph(whole: xr.Dataset) -> None:
    sources, targets = list(whole.source.values), list(whole.target.values)
    names = [*sources, "logits"]
    edges = np.zeros((len(names), len(names)))
    for row, target in enumerate(targets):
        coming = np.abs(whole.adjacency.values[row])
        total = coming.sum() + abs(float(whole.bias[row])) + abs(float(whole.error[row]))
        edges[names.index(target), : len(sources)] = coming / max(total, 1e-30)
    paths = np.linalg.inv(np.eye(len(names)) - edges)[-1]
    np.testing.assert_allclose(whole.influence, paths[:-1], atol=1e-10)
    np.testing.assert_allclose(whole.edge_influence.sum("target"), whole.influence, atol=1e-10)


def test_all_influence_comes_from_embeddings_biases_and_remainders(whole: xr.Dataset) -> None:
    assert float(whole.embed_share + whole.bias_share + whole.error_share) == pytest.approx(1, abs=1e-10)
    embeddings = whole.influence[whole.source_kind == "embed"]
    assert float(embeddings.sum()) == pytest.approx(float(whole.embed_share), abs=1e-12)


def test_pruning_keeps_the_most_influential_nodes_and_counts_what_it_drops(
    whole: xr.Dataset, model: HookedGptOss, tokens: Tensor
) -> None:
    some = attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=25, confirm=0)
    best = whole.source.values[np.argsort(-whole.influence.values, kind="stable")[:25]]
    assert set(some.source.values) == set(best)
    assert set(some.target.values) == {name for name in best if not name.startswith("embed")} | {"logits"}
    both = whole.adjacency.sel(target=some.target, source=some.source)
    np.testing.assert_allclose(some.adjacency, both, atol=1e-13)
    coming = some.adjacency.sum("source") + some.bias + some.error + some.rest
    np.testing.assert_allclose(coming, some.total, atol=1e-13)
    np.testing.assert_allclose(some.influence, whole.influence.sel(source=some.source), atol=1e-13)
    assert 0 < float(some.kept_share) < 1 == float(whole.kept_share)


def taken_away(model: HookedGptOss, tokens: Tensor, cache: dict, source: Node, target: Node, held: bool) -> float:
    """The target with the edge less without it: a whole run, whose target node reads the stream without the write."""
    write, at = written(model, cache, source.kind, source.layer, source.index)[source.pos], f"blocks.{target.layer}."
    block = model.blocks[target.layer]
    if target.kind == "expert":
        stream = cache[f"{at}hook_resid_mid"][0, target.pos]
        old = expert(model, cache, target, stream)
        if held:
            new = expert(model, cache, target, stream - write)
        else:
            read = by_hand(stream - write, block.ln2)
            logits = block.mlp.router.weight @ read + block.mlp.router.bias
            best = logits.topk(2)
            new = torch.zeros_like(old)
            if target.index in best.indices.tolist():
                weights = block.mlp.experts
                gate_up = weights.W_gate_up[target.index] @ read + weights.b_gate_up[target.index]
                act = clamped_swiglu(gate_up[None, 0::2], gate_up[None, 1::2], model.config)[0]
                share = best.values.softmax(0)[best.indices.tolist().index(target.index)]
                new = share * (weights.W_down[target.index] @ act + weights.b_down[target.index])
        change, site = new - old, f"{at}hook_mlp_out"
        hooks = [
            (
                site,
                lambda x, hook: torch.cat(
                    (x[:, : target.pos], x[:, target.pos, None] + change, x[:, target.pos + 1 :]), 1
                ),
            )
        ]
    else:
        stream = cache[f"{at}hook_resid_pre"][0].clone()
        stream[source.pos] -= write
        scale = cache[f"{at}ln1.hook_scale"][0]
        read = stream / scale * block.ln1.w if held else by_hand(stream, block.ln1)
        parts = "v" if held else "qkv"

        def reading(part: str):
            weight, bias = (getattr(block.attn, f"{kind}_{part.upper()}")[target.index] for kind in "Wb")

            def put(x: Tensor, hook: object) -> Tensor:
                x = x.clone()
                x[0, :, target.index] = read @ weight + bias
                return x

            return put

        def only_here(z: Tensor, hook: object) -> Tensor:
            made = cache[hook.name].clone()
            made[0, target.pos, target.index] = z[0, target.pos, target.index]
            return made

        hooks = [(f"{at}attn.hook_{part}", reading(part)) for part in parts] + [(f"{at}attn.hook_z", only_here)]
    with torch.no_grad():
        if held:
            # The pins of the layer's own attention come after the edits of q, k and v, and before that of z.
            hooks = [*pins(cache), *hooks]
        changed = model.run_with_hooks(tokens, fwd_hooks=hooks)
        return float(difference(model(tokens)) - difference(changed))


def test_taking_edges_away_does_what_it_does_in_whole_runs(
    whole: xr.Dataset, model: HookedGptOss, tokens: Tensor, cache: dict
) -> None:
    kinds = set()
    for i, name in enumerate(whole.edge.values):
        source, target = (Node.parse(part) for part in str(name).split(" → "))
        kinds.add(target.kind)
        if kinds == {"head", "expert"} and i > 25:
            break
        for mode in ("frozen", "live"):
            expected = taken_away(model, tokens, cache, source, target, mode == "frozen")
            assert float(whole[f"{mode}_effect"][i]) == pytest.approx(expected, abs=1e-10), (name, mode)
    assert kinds == {"head", "expert"}


def test_the_edges_checked_are_the_largest_ones_and_their_agreement_is_numpys(whole: xr.Dataset) -> None:
    inner = whole.adjacency.values[:-1]
    np.testing.assert_allclose(np.abs(whole.predicted), np.sort(np.abs(inner).ravel())[::-1][:60], rtol=1e-12)
    for mode in ("frozen", "live"):
        found = whole[f"{mode}_effect"].values
        assert float(whole[f"{mode}_correlation"]) == pytest.approx(np.corrcoef(whole.predicted, found)[0, 1])
        assert float(whole[f"{mode}_signs"]) == pytest.approx(np.mean(whole.predicted * found > 0))


def test_where_experts_are_linear_the_held_model_agrees_exactly(tokens: Tensor) -> None:
    model = exact_model(n_key_value_heads=4)
    with torch.no_grad():
        for block in model.blocks:
            block.mlp.experts.W_gate_up.zero_()  # then each expert writes a constant
    data = attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=ALL, confirm=50)
    np.testing.assert_allclose(data.predicted, data.frozen_effect, atol=1e-12)
    assert float(data.frozen_correlation) == pytest.approx(1) and float(data.frozen_signs) == 1


@pytest.mark.parametrize("form", FORMS)
def test_packed_experts_add_up_too(form: str, seed: int) -> None:
    model = small_model(SMALL, form, seed)
    data = attribution_graph(model, rows(model.config, seed)[:1], (RIGHT, WRONG), n_nodes=40, confirm=10)
    coming = data.adjacency.sum("source") + data.bias + data.error + data.rest
    np.testing.assert_allclose(coming, data.total, atol=2e-6 if data.adjacency.dtype == np.float32 else 1e-13)


def test_one_token_and_an_earlier_position_may_be_the_target(model: HookedGptOss, tokens: Tensor) -> None:
    data = attribution_graph(model, tokens, RIGHT, n_nodes=ALL, confirm=0, logits_at=5)
    with torch.no_grad():
        assert float(data.value) == pytest.approx(float(model(tokens)[0, 5, RIGHT]), abs=1e-12)
    assert data.sizes["pos"] == 6 and data.source_pos.max() == 5 and data.attrs["logits_at"] == 5


def test_padding_is_left_out_and_positions_are_those_of_the_row(model: HookedGptOss, tokens: Tensor) -> None:
    padded = torch.cat((torch.zeros(1, 3, dtype=torch.long), tokens), 1)
    mask = torch.arange(12)[None] >= 3
    data = attribution_graph(model, run(model, padded, attention_mask=mask), (RIGHT, WRONG), n_nodes=30, confirm=5)
    plain = attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=30, confirm=5)
    np.testing.assert_allclose(data.adjacency, plain.adjacency, atol=1e-12)
    assert list(data.source_pos.values) == [pos + 3 for pos in plain.source_pos.values]
    assert [Node.parse(name).pos for name in data.source.values] == list(data.source_pos.values)


def test_it_leaves_no_gradient_and_can_be_stored(tokens: Tensor, tmp_path) -> None:
    model = exact_model()
    data = attribution_graph(model, tokens, (RIGHT, WRONG), n_nodes=30, confirm=5)
    assert all(parameter.grad is None for parameter in model.parameters()) and not model.list_hooks()
    data.to_netcdf(tmp_path / "graph.nc")
    with xr.open_dataset(tmp_path / "graph.nc") as again:
        assert again.adjacency.equals(data.adjacency)


def test_what_cannot_be_is_refused_before_anything_runs(
    model: HookedGptOss, tokens: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    edited = run(model, tokens, [AblateHead(0, 1)])
    monkeypatch.setattr(model, "_stream", None)
    for given, target, more, message in [
        (tokens, (RIGHT, WRONG), {"n_nodes": 0}, "n_nodes=0: expected at least 1"),
        (tokens, (RIGHT, WRONG), {"confirm": -1}, "confirm=-1: expected at least 0"),
        (tokens, (RIGHT, WRONG), {"row": 1}, "row=1: the text has rows 0 to 0"),
        (tokens, (RIGHT, WRONG), {"logits_at": 9}, "logits_at=9: the text has positions 0 to 8"),
        (tokens, (RIGHT, 400), {}, "token=400"),
        (edited, RIGHT, {}, "the text was edited"),
    ]:
        with pytest.raises(ValueError, match=message):
            attribution_graph(model, given, target, **more)
