"""Attribution patching and integrated gradients against finite differences, exact patches and completeness."""

import numpy as np
import pytest
import torch
from transformer_lens import patching

import workbench as wb
from tests.experiments.pairs import (
    NEAR,
    RIGHT,
    WRONG,
    cached,
    difference,
    exact_model,
    far,
    near,
    scored,
    written,
)
from tests.forms import EAGER, held, packable, through
from tests.small import SMALL, as_held, rows
from workbench.activations import run
from workbench.experiments.attribution.gradients import (
    GRADIENT_KINDS,
    STREAM,
    attribution_patching,
    integrated_gradients,
)
from workbench.experiments.metrics import kl_from
from workbench.experiments.patching.grid import patching_grid
from workbench.model import HookedGptOss, random_weights

STEP = 1e-6


@pytest.fixture(scope="module")
def exact():
    return exact_model()


@pytest.fixture(scope="module")
def texts(exact):
    return far(exact)


@pytest.fixture(scope="module")
def caches(exact, texts):
    return [cached(exact, tokens) for tokens in texts]


@pytest.fixture(scope="module")
def found(exact, texts):
    return attribution_patching(exact, *texts, (RIGHT, WRONG))


@pytest.fixture(scope="module")
def integrated(exact, texts):
    return integrated_gradients(exact, *texts, (RIGHT, WRONG), steps=32, progress=False)


def change(exact, caches, kind: str, layer: int, index: int | None) -> tuple[str, torch.Tensor]:
    """Where a node is added into the stream, and clean less corrupted there, [pos d_model]."""
    if kind in STREAM:
        site = f"blocks.{layer}.hook_{kind}"
        return site, (caches[0][site] - caches[1][site])[0]
    clean, corrupt = (written(exact, cache, kind, layer, index) for cache in caches)
    return f"blocks.{layer}.hook_{'attn' if kind == 'head' else 'mlp'}_out", clean - corrupt


def slope(exact, tokens, site: str, towards: torch.Tensor, pos: int) -> float:
    """Of the metric of the corrupted run, by central difference, on the way at one position."""

    def moved(by: float):
        return lambda x, hook: x + by * towards * (torch.arange(len(towards)) == pos)[:, None]

    ahead, behind = (scored(exact, tokens, [(site, moved(by))]) for by in (STEP, -STEP))
    return (ahead - behind) / (2 * STEP)


@pytest.mark.parametrize(
    ("kind", "layer", "index"),
    [("resid_pre", 0, None), ("resid_pre", 2, None), ("attn_out", 1, None), ("mlp_out", 0, None)]
    + [("head", layer, head) for layer, head in ((0, 0), (1, 3), (2, 2))]
    + [("expert", layer, expert) for layer in (0, 1) for expert in range(6)],
)
def test_the_effect_is_the_finite_difference(exact, texts, caches, found, kind, layer, index):
    site, towards = change(exact, caches, kind, layer, index)
    positions = [2, 5, 7, 8]  # where the texts differ, and where the answer is made
    expected = [slope(exact, texts[1], site, towards, pos) for pos in positions]
    here = found.effect.sel(site=kind, layer=layer) if index is None else found[f"{kind}_effect"].sel(layer=layer)
    here = here if index is None else here.sel({kind: index})
    assert here.sel(pos=positions).values == pytest.approx(expected, rel=1e-5, abs=1e-7)


def test_the_experts_compared_above_include_ones_that_only_one_of_the_runs_routes_to(caches, found):
    chosen = [cache["blocks.1.mlp.hook_expert_indices"][0] for cache in caches]
    only_clean = [(int(e), p) for p in range(9) for e in chosen[0][p] if e not in chosen[1][p]]
    assert any(float(found.expert_effect.sel(layer=1, expert=e, pos=p)) != 0 for e, p in only_clean)
    neither = [(e, p) for p in range(9) for e in range(6) if not (chosen[0][p] == e).any() | (chosen[1][p] == e).any()]
    assert all(float(found.expert_effect.sel(layer=1, expert=e, pos=p)) == 0 for e, p in neither)


def test_heads_add_up_to_their_attention_and_experts_to_their_layer(found, integrated):
    for data in (found, integrated):
        for kind, site in (("head", "attn_out"), ("expert", "mlp_out")):
            assert np.allclose(data[f"{kind}_effect"].sum(kind), data.effect.sel(site=site), atol=1e-12)


def test_effect_is_in_units_of_the_metric_and_recovered_a_share_of_clean_less_corrupted(exact, texts, found):
    clean, corrupted = (scored(exact, tokens) for tokens in texts)
    assert float(found.clean) == pytest.approx(clean) and float(found.corrupted) == pytest.approx(corrupted)
    for name in ("", "head_", "expert_"):
        assert np.allclose(found[f"{name}recovered"], found[f"{name}effect"] / (clean - corrupted))


@pytest.mark.parametrize("method", [attribution_patching, integrated_gradients])
def test_texts_that_are_near_are_patched_exactly(exact, method):
    clean, corrupt = near(exact)
    more = {"progress": False, "steps": 2} if method is integrated_gradients else {}
    data = method(exact, clean, corrupt, difference, kinds=STREAM, **more)
    ours = patching_grid(exact, clean, corrupt, difference, progress=False)
    assert abs(float(ours.clean - ours.corrupted)) > NEAR / 100
    size = np.abs(ours.metric - ours.corrupted).max()
    assert np.abs(data.effect.values - (ours.metric - ours.corrupted).values).max() < 1e-3 * size
    # TransformerLens keeps its table in float32, so it is given the change alone, and that enlarged.
    _, cache = exact.run_with_cache(clean)
    with torch.no_grad():
        theirs = patching.get_act_patch_attn_out(
            exact, corrupt, cache, lambda logits: (difference(logits[:, -1])[0] - float(ours.corrupted)) / NEAR
        )
    assert np.abs(data.effect.sel(site="attn_out") - NEAR * theirs.numpy()).max() < 1e-3 * size


def test_all_of_the_stream_recovers_all(exact, texts, integrated):
    assert integrated.path.values.tolist() == list(STREAM)
    whole = integrated.joint_effect.sel(path="resid_pre")
    assert whole.values == pytest.approx(float(integrated.clean - integrated.corrupted), abs=1e-12)


@pytest.mark.parametrize("site", STREAM)
def test_the_gap_is_what_the_effects_lack_of_the_exact_patch(exact, texts, caches, integrated, site):
    for layer in range(3):
        name = f"blocks.{layer}.hook_{site}"
        exactly = scored(exact, texts[1], [(name, lambda x, hook, name=name: caches[0][name])])
        here = integrated.sel(path=site, layer=layer)
        assert float(here.joint_effect) == pytest.approx(exactly - float(integrated.corrupted), abs=1e-10)
        total = float(integrated.effect.sel(site=site, layer=layer).sum())
        assert float(here.gap) == pytest.approx(total - float(here.joint_effect), abs=1e-10)


def test_the_gap_closes_with_more_steps_where_no_route_flips_and_stays_where_one_does(exact, texts):
    few, many = (
        integrated_gradients(exact, *texts, (RIGHT, WRONG), STREAM, steps=steps, progress=False) for steps in (8, 256)
    )
    still = (many.route_flips == 0).values
    assert still.any() and not still.all()
    assert np.abs(many.gap.values[still]).max() < 1e-3
    crossed = np.abs(many.gap.values[~still])
    assert crossed.max() > 0.02 and np.abs(few.gap.values[~still]).max() > 0.02


def test_routes_that_flip_are_those_that_differ_between_the_ends_at_least(exact, caches, integrated):
    """On the way of the whole stream that enters layer 0, which ends in the clean run."""
    ends = 0
    for layer in range(3):
        sets = [cache[f"blocks.{layer}.mlp.hook_expert_indices"][0].sort(-1).values for cache in caches]
        differ = (sets[0] != sets[1]).any(-1)
        assert integrated.routes_differ.sel(layer=layer).values.tolist() == differ.tolist()
        ends += int(differ.sum())
    assert int(integrated.route_flips.sel(path="resid_pre", layer=0)) >= ends > 0


def test_the_margin_is_how_much_the_first_expert_left_out_lacks(caches, found):
    for layer in range(3):
        logits = np.sort(caches[1][f"blocks.{layer}.mlp.hook_router_logits"][0].numpy(), axis=-1)
        assert found.router_margin.sel(layer=layer).values == pytest.approx(logits[:, -2] - logits[:, -3])
    assert (found.router_margin >= 0).all()


def test_moving_a_router_by_less_than_the_margin_changes_no_route(exact, texts, found):
    layer, pos = 1, int(found.router_margin.sel(layer=1).values.argmin())
    chosen = exact.run_with_cache(texts[1])[1]["blocks.1.mlp.hook_expert_indices"][0, pos]
    margin = float(found.router_margin[layer, pos])
    for share, same in ((0.99, True), (1.01, False)):

        def push(x, hook, share=share):
            x = x.clone()
            x[0, pos, chosen[-1]] -= share * margin
            return x

        with exact.hooks(fwd_hooks=[("blocks.1.mlp.hook_router_logits", push)]):
            now = run(exact, texts[1])["blocks.1.mlp.hook_expert_indices"][0, pos]
        assert (set(now.tolist()) == set(chosen.tolist())) is same


def test_some_kinds_are_a_part_of_all_kinds(exact, texts, found, integrated):
    part = attribution_patching(exact, *texts, (RIGHT, WRONG), ["expert"])
    assert "effect" not in part and "site" not in part.coords
    assert np.array_equal(part.expert_effect, found.expert_effect)
    part = integrated_gradients(exact, *texts, (RIGHT, WRONG), ["head"], steps=32, progress=False)
    assert part.path.values.tolist() == ["attn_out"]
    assert np.allclose(part.head_effect, integrated.head_effect, atol=1e-12)


def test_many_steps_in_several_passes_are_the_same(exact, texts, monkeypatch):
    def made():
        return integrated_gradients(exact, *texts, (RIGHT, WRONG), ["attn_out"], steps=7, progress=False)

    whole = made()
    monkeypatch.setattr("workbench.experiments.attribution.gradients._MOST", 30)
    assert np.allclose(made().effect, whole.effect, atol=1e-10)
    assert np.array_equal(made().route_flips, whole.route_flips)


def test_no_gradient_is_left_behind_whether_parameters_want_one_or_not(exact, texts, found):
    before = [parameter.requires_grad for parameter in exact.parameters()]
    assert all(parameter.grad is None for parameter in exact.parameters()) and all(before)
    exact.requires_grad_(False)
    try:
        with torch.no_grad():
            again = attribution_patching(exact, *texts, (RIGHT, WRONG))
    finally:
        exact.requires_grad_(True)
    assert np.array_equal(again.effect, found.effect) and not exact.list_hooks()


def test_an_earlier_position_and_any_differentiable_metric_can_be_read(exact, texts):
    logits = exact(texts[0])[:, 6].detach()
    data = attribution_patching(exact, *texts, kl_from(logits), logits_at=6)
    assert data.pos.values.tolist() == list(range(7)) and float(data.clean) == pytest.approx(0, abs=1e-12)
    cut = attribution_patching(exact, *(tokens[:, :7] for tokens in texts), kl_from(logits))
    assert np.array_equal(cut.effect, data.effect) and float(np.abs(data.effect).max()) > 0


def test_a_padded_row_is_the_row(model):
    texts = "One day Mia went to the park.", "One day Tom went to the mill."
    alone = attribution_patching(model, *texts, (" park", " mill"))
    longer = [[text, text + " It was a day."] for text in texts]
    beside = attribution_patching(model, *longer, (" park", " mill"))
    assert np.allclose(beside.head_effect, alone.head_effect, atol=1e-6)
    assert beside.token.values.tolist() == alone.token.values.tolist()
    assert "Mia" in "".join(alone.clean_token.values) and "Tom" in "".join(alone.token.values)


def test_packed_experts_have_the_gradients_of_the_dense_ones():
    dense = packable(random_weights(HookedGptOss(as_held(SMALL, EAGER)), 0))
    clean, corrupt = rows(dense.config, 5).split(1)
    with through(EAGER):
        ours, theirs = (
            attribution_patching(model, clean, corrupt, (RIGHT, WRONG)) for model in (held(dense, EAGER), dense)
        )
    assert float(np.abs(theirs.expert_effect).max()) > 1e-3
    for name in ("effect", "head_effect", "expert_effect"):
        assert np.allclose(ours[name], theirs[name], atol=1e-10)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"kinds": ["neuron"]}, r"kinds=\['neuron'\]: expected some of \('resid_pre'"),
        ({"kinds": []}, r"kinds=\[\]: expected some"),
        ({"corrupt": [1, 2]}, "clean has 9 tokens and corrupt 2: expected as many"),
        ({"row": 1}, "row=1: clean has rows 0 to 0"),
        ({"logits_at": 9}, "logits_at=9: the corrupted text has positions 0 to 8"),
        ({"metric": (RIGHT, 99)}, "token=99"),
        ({"metric": lambda logits: logits.detach()[:, 0]}, "the metric has no gradient"),
        ({"metric": lambda logits: logits.mean()}, "expected one number a row"),
    ],
)
def test_what_does_not_fit_is_refused(exact, texts, given, told):
    clean, corrupt = texts
    with pytest.raises(ValueError, match=told):
        attribution_patching(**({"model": exact, "clean": clean, "corrupt": corrupt, "metric": (3, 7)} | given))
    assert not exact.list_hooks()


def test_runs_it_cannot_repeat_are_refused(model, exact, texts):
    edited = run(model, "Mia lives", [wb.AblateExpert(0, 1)])
    with pytest.raises(ValueError, match=r"clean was edited \(AblateExpert"):
        attribution_patching(model, edited, "Tom lives", (3, 7))
    with pytest.raises(ValueError, match="corrupt is a run of another model, 'small'"):
        attribution_patching(exact, texts[0], run(model, "Tom"), (3, 7))
    with pytest.raises(ValueError, match="steps=0: expected at least 1"):
        integrated_gradients(exact, *texts, (3, 7), steps=0)
    assert set(GRADIENT_KINDS) > set(STREAM)
