"""What an expert does at one token, against plain runs: with it, without it, and what its output adds to each logit."""

import numpy as np
import pytest

from workbench.activations import run
from workbench.experiments.effects.expert_effects import expert_effects
from workbench.experiments.lenses.expert_lens import expert_lens
from workbench.interventions import AblateExpert, InterventionError

TEXTS = ["Mia lives in the park. Tom", "Tom saw a dog", "One day Ana walked to the mill", "1 2 3 4 5"]
LAYER = 1


@pytest.fixture(scope="module")
def whole(model):
    return [run(model, text, sites="all") for text in TEXTS]


@pytest.fixture(scope="module")
def expert(whole):
    """One that the first text's last token goes to."""
    return int(whole[0][f"blocks.{LAYER}.mlp.hook_expert_indices"][0, -1, 0])


@pytest.fixture(scope="module")
def found(model, whole, expert):
    rows = [each.tokens[0].tolist() for each in whole]
    control = (expert + 1) % model.config.n_experts
    return expert_effects(model, rows, LAYER, expert, control, following=[7, 8, None, 9], top_k=6, progress=False)


def logprobs(made):
    return made.logits[0, -1].double().log_softmax(-1).numpy()


@pytest.mark.parametrize("policy", ["reroute", "zero"])
def test_kl_and_loss_are_those_of_runs_with_the_expert_ablated(model, whole, expert, policy):
    rows, following = [each.tokens[0].tolist() for each in whole], [7, 8, None, 9]
    control = (expert + 1) % model.config.n_experts
    made = expert_effects(model, rows, LAYER, expert, control, following=following, policy=policy, progress=False)
    for i, (each, after) in enumerate(zip(whole, following, strict=True)):
        before = logprobs(each)
        for name, number in (("expert", expert), ("control", control)):
            without = logprobs(run(model, each.tokens, [AblateExpert(LAYER, number, policy)]))
            cell = made.sel(ablated=name).isel(context=i)
            assert float(cell.kl) == pytest.approx((np.exp(before) * (before - without)).sum(), abs=1e-5)
            if after is None:
                assert np.isnan(float(cell.loss_change)) and np.isnan(float(made.loss[i]))
            else:
                assert float(made.loss[i]) == pytest.approx(-before[after], abs=1e-5)
                assert float(cell.loss_change) == pytest.approx(before[after] - without[after], abs=1e-5)
    assert float(made.kl.max()) > 1e-3


def test_weights_are_the_runs_and_0_where_the_token_goes_elsewhere(whole, expert, found):
    for i, each in enumerate(whole):
        chosen = each[f"blocks.{LAYER}.mlp.hook_expert_indices"][0, -1]
        weights = each[f"blocks.{LAYER}.mlp.hook_expert_weights"][0, -1]
        for name, number in (("expert", expert), ("control", int(found.attrs["control"]))):
            assert float(found.weight.sel(ablated=name)[i]) == pytest.approx(
                float(weights[chosen == number].sum()), abs=1e-6
            )
    assert float(found.weight[0, 0]) > 0 == float(found.weight.min())


def test_what_it_raises_is_the_mean_of_the_expert_lens_over_the_contexts_that_go_to_it(whole, expert, found):
    gone = [each for i, each in enumerate(whole) if float(found.weight[0, i]) > 0]
    added = []
    for each in gone:
        slot = each[f"blocks.{LAYER}.mlp.hook_expert_indices"][0, -1].tolist().index(expert)
        out, weight = (
            each[f"blocks.{LAYER}.mlp.hook_expert_{kind}"][0, -1, slot].double() for kind in ("out", "weights")
        )
        unembed = each.model.unembed.weight.double() * each.model.ln_final.w.double()
        added.append((unembed @ out * weight / each["ln_final.hook_scale"][0, -1].double()).detach().numpy())
    mean = np.mean(added, 0)
    expected = mean - mean.mean()
    order = np.argsort(-expected)
    assert found.raised_id.values.tolist() == order[:6].tolist()
    assert found.lowered_id.values.tolist() == order[::-1][:6].tolist()
    assert found.raised.values == pytest.approx(expected[order[:6]], abs=1e-4)
    assert found.lowered.values == pytest.approx(expected[order[::-1][:6]], abs=1e-4)
    # Two tokens are as far apart as the expert lens has them.
    first, last = (int(found[f"{end}_id"][0]) for end in ("raised", "lowered"))
    apart = [_lens(each, expert, first) - _lens(each, expert, last) for each in gone]
    assert np.mean(apart) == pytest.approx(float(found.raised[0] - found.lowered[0]), abs=1e-4)


def _lens(of, expert, token):
    """What the expert adds to a token's logit at the last position."""
    made = expert_lens(of, layers=[LAYER], target=token).isel(pos=-1)
    return float(made.contribution.where(made.chosen == expert, 0).sum())


def test_the_mean_is_over_the_contexts_that_have_a_number_and_its_interval_is_round_it(found):
    for name in ("kl", "loss_change"):
        values = found[name].values[:, np.isfinite(found[name].values).all(0)]
        mean, low, high = (found[f"{name}_{end}"].values for end in ("mean", "low", "high"))
        assert mean == pytest.approx(values.mean(1), abs=1e-6)
        assert (low <= mean).all() and (mean <= high).all() and (low < high).any()
    assert np.isfinite(found.loss_change.values).all(0).sum() == 3


def test_a_cancelled_call_returns_what_is_done(model, whole, expert):
    rows, heard = [each.tokens[0].tolist() for each in whole], []
    made = expert_effects(
        model,
        rows,
        LAYER,
        expert,
        cancel=lambda: len(heard) == 2,
        on_result=lambda i, each: heard.append(i),
        progress=False,
    )
    assert made.sizes["context"] == 2 and heard == [0, 1] and list(made.ablated.values) == ["expert"]
    none = expert_effects(model, rows, LAYER, expert, cancel=lambda: True, progress=False)
    assert none.sizes["context"] == 0 and none.sizes["rank"] == 0 and np.isnan(none.kl_mean.values).all()


@pytest.mark.parametrize(
    "wrong",
    [
        *({"layer": 3}, {"expert": 8}, {"control": -1}, {"policy": "mean"}, {"following": [1]}, {"top_k": 0}),
        *({"following": [-1, 7]}, {"following": [None, 10**6]}),
    ],
)
def test_what_the_model_does_not_have_is_refused_before_anything_runs(model, as_in_a_notebook, wrong):
    given = {"layer": 1, "expert": 0} | wrong
    heard = []
    with pytest.raises((ValueError, InterventionError)):
        expert_effects(model, [[1, 2], [3]], **given, on_result=lambda i, each: heard.append(i), progress=False)
    assert heard == []
