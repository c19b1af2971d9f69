"""Tokens, their labels and their surprise; what every dataset carries."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench import experiments
from workbench.activations import run
from workbench.model import HookedGptOss, random_weights


def test_surprise_is_the_models_own_loss_of_each_token(done, model):
    made = experiments.tokens(done)
    loss = model(done.tokens, return_type="loss", loss_per_token=True)[0].detach().numpy()
    assert np.isnan(made.surprise.values[0])
    assert made.surprise.values[1:] == pytest.approx(loss, abs=1e-5)


def test_labels_are_those_of_the_model(done, model):
    made, labels = experiments.tokens(done), model.label(done.tokens)
    assert made.token.values.tolist() == model.to_str_tokens(done.tokens)
    assert made.token_id.values.tolist() == done.tokens[0].tolist()
    assert made.message.values.tolist() == list(labels.message)
    assert made.role.values.tolist() == [role or "" for role in labels.role]
    assert made.part.values.tolist() == list(labels.part)


def test_a_models_tokens_are_those_of_a_run_without_running(done, model):
    made = experiments.tokens(model, done.tokens)
    assert not made.data_vars
    assert made.drop_attrs().identical(experiments.tokens(done).drop_vars("surprise").drop_attrs())


def test_a_padded_row_is_the_row_alone(model, padded):
    alone, within = experiments.tokens(run(model, "Tom")), experiments.tokens(padded, row=1)
    assert within.token.values.tolist() == alone.token.values.tolist() == ["Tom"]
    assert experiments.tokens(model, ["a", "Tom lives"], row=0).sizes["pos"] == 1


def test_an_input_beside_a_run_is_refused(done):
    with pytest.raises(ValueError, match="leave it out"):
        experiments.tokens(done, "text")


def test_every_dataset_says_where_it_came_from_in_plain_values(done, model):
    made = [
        experiments.tokens(done),
        experiments.logit_lens(done),
        experiments.routing(done),
        experiments.expert_load(done),
        experiments.attention(done, 0, 0),
        experiments.head_scores(model, length=4),
        experiments.compare(done, run(model, done.tokens, [wb.AblateExpert(0, 0)])),
        experiments.effect({"chat": done}, [wb.AblateExpert(0, 0)]),
    ]
    for dataset in made:
        assert dataset.attrs["model"] == "small"
        assert dataset.attrs["fingerprint"] == done.provenance["fingerprint"]
        assert all(isinstance(value, str | int | float) for value in dataset.attrs.values()), dataset.attrs
        assert all("long_name" in variable.attrs for variable in dataset.data_vars.values())
    assert "AblateExpert(layer=0, expert=0" in made[-1].attrs["interventions"]


def test_a_model_without_a_tokenizer_is_measured_all_the_same(model):
    bare = HookedGptOss(model.config)
    bare.load_state_dict(model.state_dict())
    ids = torch.arange(30, 42)[None]
    done = run(bare, ids)
    made = experiments.tokens(done)
    assert made.token.values.tolist() == [str(i) for i in range(30, 42)]
    assert set(made.role.values) == {""}
    assert experiments.logit_lens(done).top_token.dtype.kind == "U"
    assert experiments.compare(done, run(bare, ids, [wb.AblateExpert(0, 0)])).sizes["pos"] == 12
    assert experiments.head_scores(bare, length=4).sizes["kind"] == 3


def test_a_bfloat16_model_gives_float32_numbers(model):
    half = random_weights(HookedGptOss(model.config, model.tokenizer, dtype=torch.bfloat16), seed=1)
    done = run(half, "Mia lives in the park.")
    made = experiments.logit_lens(done)
    assert made.kl.dtype == np.float32
    assert np.isfinite(made.kl).all()
    assert made.kl.sel(layer=2).values == pytest.approx(0, abs=1e-6)
    assert experiments.attention(done, 0, 0).pattern.dtype == np.float32
    assert experiments.routing(done).weight_share.sum("expert").values == pytest.approx(1, abs=1e-2)
