"""Comparisons and effects against numpy's own arithmetic in float64."""

import numpy as np
import pytest

import workbench as wb
from workbench.activations import run
from workbench.experiments import compare, effect

EDITS = [wb.AblateExpert(0, 1), wb.AblateExpert(1, 2)]


def logprobs(done, row: int = 0) -> np.ndarray:
    logits = done.logits[row].double().numpy()
    logits = logits - logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def edited(model, done):
    return run(model, done.tokens, EDITS, name="edited")


@pytest.fixture(scope="module")
def changes(done, edited):
    return compare(done, edited, top_k=4)


def test_kl_is_that_of_the_two_distributions(done, edited, changes):
    p, q = logprobs(done), logprobs(edited)
    assert changes.kl.sel(run="edited").values == pytest.approx((np.exp(p) * (p - q)).sum(-1), abs=1e-5)
    assert changes.kl.sel(run="before").values == pytest.approx(0)
    assert changes.kl.sel(run="edited").values == pytest.approx(edited.kl[0].numpy(), abs=1e-6)


def test_a_flip_is_another_likeliest_token(done, edited, changes):
    flipped = logprobs(done).argmax(-1) != logprobs(edited).argmax(-1)
    assert flipped.any()
    assert not flipped.all()
    assert np.array_equal(changes.flipped.sel(run="edited"), flipped)
    assert not changes.flipped.sel(run="before").any()


def test_a_route_flips_when_the_set_of_experts_does_whatever_their_order(done, edited, changes):
    for layer in range(3):
        site = f"blocks.{layer}.mlp.hook_expert_indices"
        pairs = zip(done[site][0].tolist(), edited[site][0].tolist(), strict=True)
        expected = [set(one) != set(other) for one, other in pairs]
        assert changes.routes_flipped.sel(run="edited", layer=layer).values.tolist() == expected
    assert np.array_equal(changes.routes_flipped.sel(run="edited"), edited.flipped_routes[:, 0])


def test_candidates_are_the_top_of_both_runs_likeliest_first(done, edited, changes):
    p, q = np.exp(logprobs(done)), np.exp(logprobs(edited))
    for pos in range(changes.sizes["pos"]):
        here = changes.isel(pos=pos)
        ids = [i for i in here.candidate_id.values.tolist() if i >= 0]
        assert set(ids) == {*np.argsort(-p[pos])[:4].tolist(), *np.argsort(-q[pos])[:4].tolist()}
        best = np.maximum(p[pos], q[pos])[ids]
        assert (np.diff(best) <= 1e-7).all()
        assert here.probability.sel(run="before").values[: len(ids)] == pytest.approx(p[pos][ids], abs=1e-5)
        assert np.isnan(here.probability.values[:, len(ids) :]).all()
        assert (here.candidate_token.values[len(ids) :] == "").all()


def test_several_runs_are_compared_at_once_by_name(done, edited, model):
    other = run(model, done.tokens, EDITS[:1], name="one edit")
    both, alone = compare(done, edited, other), compare(done, other)
    assert both.run.values.tolist() == ["before", "edited", "one edit"]
    assert both.kl.sel(run="one edit").values == pytest.approx(alone.kl.sel(run="one edit").values)


def test_runs_of_other_tokens_are_refused_where_they_first_differ(model, done):
    other = done.tokens.clone()
    other[0, 5] += 1
    with pytest.raises(ValueError, match="first difference is at position 5"):
        compare(done, run(model, other))


def test_runs_need_names_to_tell_them_apart(done, edited):
    with pytest.raises(ValueError, match="different names"):
        compare(done, edited, edited)
    with pytest.raises(ValueError, match="second run"):
        compare(done)


def test_a_padded_row_compares_as_the_row_alone(model, padded):
    text = "One day Ana walked to the mill."
    within = compare(padded, run(model, padded.tokens, EDITS, attention_mask=padded.attention_mask), row=2)
    alone = compare(run(model, text), run(model, text, EDITS))
    assert within.kl.values == pytest.approx(alone.kl.values, abs=1e-5)


def test_without_routes_there_are_no_flipped_routes(model):
    kept = {"sites": "hook_embed"}
    made = compare(run(model, "Mia", **kept), run(model, "Mia", EDITS, **kept))
    assert "routes_flipped" not in made


def test_an_effect_is_the_mean_over_the_real_tokens_of_each_text(model, done, padded):
    made = effect({"chat": done, "three": padded}, EDITS)
    again = run(model, padded.tokens, EDITS, attention_mask=padded.attention_mask)
    rows = [compare(padded, again, row=row).sel(run="after") for row in range(3)]
    kl = np.concatenate([row.kl.values for row in rows])
    flips = np.concatenate([row.flipped.values for row in rows])
    routes = np.concatenate([row.routes_flipped.values for row in rows], axis=1)
    three = made.sel(text="three")
    assert three.kl == pytest.approx(kl.mean(), abs=1e-6)
    assert three.flipped == pytest.approx(flips.mean())
    assert three.routes_flipped.values == pytest.approx(routes.mean(1))


def test_an_effect_needs_unedited_runs_and_an_edit(done, edited):
    with pytest.raises(ValueError, match=r"\['again'\] were edited"):
        effect({"again": edited}, EDITS)
    with pytest.raises(ValueError, match="0 interventions"):
        effect({"chat": done}, [])


def test_an_effect_of_a_run_that_took_its_routing_from_another_is_refused(model, done):
    frozen = run(model, done.tokens, routing="frozen_set", routing_from=done)
    with pytest.raises(ValueError, match="were edited themselves"):
        effect({"frozen": frozen}, EDITS)
