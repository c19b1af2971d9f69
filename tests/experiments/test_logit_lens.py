"""The logit lens against a by-hand norm and unembedding, and against TransformerLens' accumulated residuals."""

import sys

import numpy as np
import pytest
import torch

from workbench.activations import run
from workbench.experiments import logit_lens


def by_hand(model, resid: torch.Tensor) -> np.ndarray:
    """Root mean square norm, gain, unembedding and log-softmax in float64 numpy."""
    x = resid.double().numpy()
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + model.config.rms_eps)
    logits = (x * model.ln_final.w.detach().double().numpy()) @ model.unembed.weight.detach().double().numpy().T
    logits -= logits.max(-1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


@pytest.fixture(scope="module")
def lens(done):
    return logit_lens(done, top_k=7)


def streams(done) -> list[torch.Tensor]:
    """After the embedding and after each layer, from TransformerLens' own cache."""
    n_layers = done.model.config.n_layers
    return list(done.cache.accumulated_resid(layer=n_layers, incl_mid=False, apply_ln=False)[:, 0])


def test_there_is_a_column_for_the_embedding_and_one_for_each_layer(done, lens):
    assert lens.layer.values.tolist() == [-1, 0, 1, 2]
    assert lens.stage.values.tolist() == ["embedding", "layer 0", "layer 1", "layer 2"]
    assert lens.sizes["pos"] == done.tokens.shape[1]


@pytest.mark.parametrize("layer", [-1, 0, 1, 2])
def test_every_number_is_that_of_the_stream_read_by_hand(done, lens, layer):
    logprobs = by_hand(done.model, streams(done)[layer + 1])
    final = by_hand(done.model, streams(done)[-1])
    here, rows = lens.sel(layer=layer), np.arange(len(logprobs))
    order = np.argsort(-logprobs, axis=-1)
    target = final.argmax(-1)
    assert np.array_equal(here.top_id.values, order[:, :7])
    assert here.top_probability.values == pytest.approx(
        np.exp(np.take_along_axis(logprobs, order[:, :7], -1)), abs=1e-5
    )
    assert here.target_probability.values == pytest.approx(np.exp(logprobs[rows, target]), abs=1e-5)
    assert np.array_equal(here.target_rank.values, 1 + np.argmax(order == target[:, None], axis=-1))
    assert here.entropy.values == pytest.approx(-(np.exp(logprobs) * logprobs).sum(-1), abs=1e-4)
    assert here.kl.values == pytest.approx((np.exp(final) * (final - logprobs)).sum(-1), abs=1e-4)


def test_the_last_layer_is_the_models_own_prediction(done, lens):
    probabilities = done.logits[0].softmax(-1)
    last = lens.sel(layer=2)
    assert last.top_probability.sel(rank=1).values == pytest.approx(probabilities.max(-1).values.numpy(), abs=1e-6)
    assert last.kl.values == pytest.approx(0, abs=1e-6)
    assert (last.target_rank == 1).all()


def test_a_long_text_is_read_in_pieces_to_the_same_numbers(model, monkeypatch):
    done = run(model, torch.arange(40)[None] + 20)
    whole = logit_lens(done)
    monkeypatch.setattr(sys.modules[logit_lens.__module__], "_CHUNK", 7)
    assert np.array_equal(logit_lens(done).top_id, whole.top_id)
    assert logit_lens(done).kl.values == pytest.approx(whole.kl.values, rel=1e-5, abs=1e-6)


def test_a_target_of_ones_own_is_followed(done, model):
    token = model.to_single_token(" park")
    by_text, by_id = logit_lens(done, target=" park"), logit_lens(done, target=token)
    assert by_text.target_rank.identical(by_id.target_rank)
    assert set(by_text.target_token.values) == {" park"}
    probability = done.logits[0].softmax(-1)[:, token].numpy()
    assert by_text.target_probability.sel(layer=2).values == pytest.approx(probability, abs=1e-6)


def test_tokens_are_written_as_the_tokenizer_writes_them(lens, model):
    ids = lens.top_id.values.reshape(-1).tolist()
    assert lens.top_token.values.reshape(-1).tolist() == model.tokenizer.str_tokens(ids)


def test_an_edited_run_is_read_as_edited(model, done):
    import workbench as wb

    edited = run(model, done.tokens, [wb.AblateExpert(0, e) for e in (0, 1)])
    lens, plain = logit_lens(edited), logit_lens(done)
    assert lens.kl.sel(layer=2).values == pytest.approx(0, abs=1e-6)
    assert np.array_equal(lens.top_id.sel(layer=-1), plain.top_id.sel(layer=-1))
    assert not np.array_equal(lens.kl.sel(layer=0), plain.kl.sel(layer=0))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"top_k": 0}, "top_k=0"),
        ({"target": 5000}, "token=5000"),
        ({"row": 3}, "rows 0 to 0"),
    ],
)
def test_what_is_not_there_is_refused(done, given, told):
    with pytest.raises(ValueError, match=told):
        logit_lens(done, **given)


def test_a_run_without_its_residual_stream_says_how_to_keep_it(model):
    with pytest.raises(KeyError, match="did not keep 'hook_embed'"):
        logit_lens(run(model, "Mia", sites="blocks.0.attn.hook_pattern"))


def test_a_target_that_is_no_whole_number_is_no_token(done, as_in_a_notebook):
    with pytest.raises(ValueError, match=r"token=1\.5: expected the text of a single token, or its id"):
        logit_lens(done, target=1.5)
