"""The config refuses shapes that the architecture cannot have, and a model is what its config says."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch

from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import GPT_OSS_20B, GPT_OSS_120B, NANO, Config, ConfigError, HookedGptOss, Rope, preset
from workbench.model.config import FULL, SLIDING

WRONG = {
    "n_layers": 0,
    "d_model": -1,
    "n_experts": True,
    "n_key_value_heads": 3,
    "d_head": 15,
    "experts_per_token": 33,
    "sliding_window": 0,
    "n_ctx": True,
    "rms_eps": float("nan"),
    "dtype": "int8",
    "layer_types": (SLIDING, FULL),
}


@pytest.mark.parametrize(("field", "value"), WRONG.items(), ids=WRONG.keys())
def test_a_size_that_gpt_oss_cannot_have_is_refused_by_name(field: str, value: object):
    with pytest.raises(ConfigError, match=field):
        GPT_OSS_20B.with_(**{field: value})


def test_a_layer_type_of_another_kind_is_refused():
    with pytest.raises(ConfigError, match="chunked_attention"):
        NANO.with_(layer_types=(SLIDING, FULL, SLIDING, "chunked_attention"))


@pytest.mark.parametrize("rope", [Rope(original_context=200), Rope(theta=20.0), Rope(beta_slow=40.0)])
def test_corners_of_yarn_out_of_order_are_refused_with_what_to_change(rope: Rope):
    with pytest.raises(ConfigError, match=r"0 < low < high < d_head/2 − 1 = 31.*set factor=1"):
        GPT_OSS_20B.with_(rope=rope)


def test_even_layers_slide_and_odd_ones_see_everything():
    assert GPT_OSS_20B.layer_types == (SLIDING, FULL) * 12
    assert [NANO.window(layer) for layer in range(4)] == [16, None, 16, None]
    assert NANO.with_(n_layers=3).layer_types == (SLIDING, FULL, SLIDING)


@pytest.mark.parametrize(
    ("name", "config"),
    [("gpt-oss-20b", GPT_OSS_20B), ("20b", GPT_OSS_20B), ("120b", GPT_OSS_120B), ("nano", NANO)],
)
def test_a_preset_is_found_by_its_name_or_its_size(name: str, config: Config):
    assert preset(name) is config


def test_an_unknown_preset_is_refused_with_the_closest():
    with pytest.raises(ConfigError, match="closest is 'gpt-oss-20b'"):
        preset("gpt-oss-20")


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_a_model_has_its_configs_type_and_norm_gains_in_float32(dtype: str, seed: int):
    config = random_shape(seed, dtype=dtype, n_layers=2)
    model = HookedGptOss(config)
    model.load_state_dict(random_model(config, seed).state_dict())
    for name, parameter in model.named_parameters():
        assert parameter.dtype == (torch.float32 if name.endswith(".w") else getattr(torch, dtype)), name
    logits = model(random_tokens(config, seed, 2, 9))
    assert logits.dtype == getattr(torch, dtype) and logits.isfinite().all()
    assert model.cfg.dtype == getattr(torch, dtype)


@pytest.mark.parametrize("how", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_is_a_model_of_its_own(how, seed: int):
    config = random_shape(seed, n_layers=2)
    model, tokens = random_model(config, seed), random_tokens(config, seed, 9)
    other = how(model)
    assert torch.equal(other(tokens), model(tokens))
    with torch.no_grad():
        other.embed.weight.zero_()
    other.add_hook("hook_embed", lambda value, hook: value * 0)
    assert not torch.equal(other(tokens), model(tokens))


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (torch.zeros(1, 0, dtype=torch.long), "at least one token"),
        (torch.zeros(1, 2, 3, dtype=torch.long), "expected .batch pos. or .pos."),
        (torch.zeros(1, 2), "expected whole numbers"),
        (torch.tensor([[1, 10_000]]), "token id 10000 is outside the vocabulary 0 to "),
        (torch.tensor([[-1, 1]]), "token id -1 is outside"),
    ],
)
def test_tokens_that_are_none_are_refused(tokens: torch.Tensor, message: str, seed: int):
    model = random_model(random_shape(seed), seed)
    with pytest.raises(ValueError, match=message):
        model(tokens)


def test_an_unknown_return_type_is_refused_and_the_known_ones_agree(seed: int):
    model = random_model(random_shape(seed), seed)
    tokens = random_tokens(model.config, seed, 2, 12)
    with pytest.raises(ValueError, match=r"return_type='logit'.*'logits'"):
        model(tokens, return_type="logit")
    logits, loss = model(tokens, return_type="both")
    assert torch.equal(logits, model(tokens)) and loss == model(tokens, return_type="loss")
    logprobs = model(tokens, return_type="logprobs")
    assert torch.allclose(logprobs, logits.log_softmax(-1), atol=1e-6)
    wanted = -logprobs[:, :-1].gather(-1, tokens[:, 1:, None])[..., 0]
    assert torch.allclose(model(tokens, return_type="loss", loss_per_token=True), wanted, atol=1e-5)
    assert loss.item() == pytest.approx(wanted.mean().item(), abs=1e-5)
    assert model(tokens, return_type=None) is None
