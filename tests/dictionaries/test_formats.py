"""Both forms on disk: read as their own packages read them, written and read back, and refused where they must be."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from tests.dictionaries.trained import random_weights
from workbench.checkpoints import CheckpointError
from workbench.dictionaries import Dictionary, load_dictionary, save_dictionary

D_MODEL, N = 6, 20


def saelens_folder(folder: Path, weights, **config) -> Path:
    """As SAELens 6 writes it."""
    base = {"architecture": "standard", "d_in": D_MODEL, "d_sae": N, "dtype": "float32", "device": "cpu"}
    base |= {"apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none"}
    metadata = {"sae_lens_version": "6.12.1", "model_name": "gpt-oss-20b", "hook_name": "blocks.3.hook_resid_post"}
    folder.mkdir(exist_ok=True)
    (folder / "cfg.json").write_text(json.dumps(base | {"metadata": metadata} | config))
    save_file(weights, folder / "sae_weights.safetensors")
    return folder


def dictionary_learning_folder(folder: Path, state, dict_class: str, **trainer) -> Path:
    """As dictionary_learning writes it."""
    base = {"trainer_class": "BatchTopKTrainer", "dict_class": dict_class, "activation_dim": D_MODEL, "dict_size": N}
    base |= {"layer": 11, "lm_name": "openai/gpt-oss-20b", "submodule_name": "resid_post_layer_11", "lr": 1e-4}
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({"trainer": base | trainer, "buffer": {"ctx_len": 1024}}))
    torch.save(state, folder / "ae.pt")
    return folder


def linear_state(seed=0, **more) -> dict[str, torch.Tensor]:
    """Two nn.Linear, which hold [out, in]."""
    weights = random_weights("relu", D_MODEL, N, seed)
    return {
        "encoder.weight": weights["W_enc"].T.contiguous(),
        "encoder.bias": weights["b_enc"],
        "decoder.weight": weights["W_dec"].T.contiguous(),
    } | more


def inputs(seed=3) -> torch.Tensor:
    return torch.randn(5, D_MODEL, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------- SAELens


@pytest.mark.parametrize(
    ("activation", "kind"), [("relu", "standard"), ("topk", "topk"), ("jumprelu", "jumprelu"), ("gated", "gated")]
)
def test_a_saelens_dictionary_is_written_and_read_back_to_the_bit(tmp_path, activation, kind):
    k = {"k": 4} if activation == "topk" else {}
    made = Dictionary(
        random_weights(activation, D_MODEL, N), activation, **k, subtract_bias=False, site="blocks.3.hook_resid_post"
    )
    save_dictionary(made, tmp_path / "there")
    config = json.loads((tmp_path / "there/cfg.json").read_text())
    assert config["architecture"] == kind and config["d_in"] == D_MODEL and config["d_sae"] == N
    assert config["metadata"]["hook_name"] == "blocks.3.hook_resid_post" and config.get("k") == made.k
    assert set(load_file(tmp_path / "there/sae_weights.safetensors")) == set(made.state_dict())
    read = load_dictionary(tmp_path / "there")
    assert (read.activation, read.k, read.subtract_bias, read.site) == (activation, made.k, False, made.site)
    assert all(torch.equal(read.state_dict()[name], tensor) for name, tensor in made.state_dict().items())
    assert torch.equal(read.encode(inputs()), made.encode(inputs()))
    assert sorted(os.listdir(tmp_path / "there")) == ["cfg.json", "sae_weights.safetensors"]


def test_a_folder_that_has_a_dictionary_is_not_written_over(tmp_path):
    made = Dictionary(random_weights("relu", D_MODEL, N))
    save_dictionary(made, tmp_path)
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save_dictionary(made, tmp_path)
    save_dictionary(made, tmp_path, overwrite=True)


def test_the_older_saelens_form_is_read(tmp_path):
    """Before 6.0: no metadata, hook_point, activation_fn_str, and ones called scaling_factor."""
    weights = random_weights("topk", D_MODEL, N) | {"scaling_factor": torch.ones(N)}
    older = {"d_in": D_MODEL, "d_sae": N, "hook_point": "blocks.1.hook_mlp_out", "model_name": "x"}
    older |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}, "normalize_activations": False}
    saelens_folder(tmp_path, weights)
    (tmp_path / "cfg.json").write_text(json.dumps(older))
    read = load_dictionary(tmp_path)
    assert (read.activation, read.k, read.site) == ("topk", 3, "blocks.1.hook_mlp_out")


def test_a_log_threshold_is_read_as_the_threshold(tmp_path):
    weights = random_weights("jumprelu", D_MODEL, N)
    stored = {name: tensor for name, tensor in weights.items() if name != "threshold"}
    saelens_folder(tmp_path, stored | {"log_threshold": weights["threshold"].log()}, architecture="jumprelu")
    torch.testing.assert_close(load_dictionary(tmp_path).get_buffer("threshold"), weights["threshold"])


def test_topk_by_the_length_that_is_written_chooses_what_saelens_chooses(tmp_path):
    """rescale_acts_by_decoder_norm: the k largest of pre · ‖W_dec‖, each written with its row's direction."""
    weights, x = random_weights("topk", D_MODEL, N, seed=5), inputs()
    folder = saelens_folder(tmp_path, weights, architecture="topk", k=4, rescale_acts_by_decoder_norm=True)
    norms = weights["W_dec"].norm(dim=-1)
    pre = ((x - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]) * norms
    top = pre.topk(4)
    expected = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
    read = load_dictionary(folder)
    torch.testing.assert_close(read.encode(x), expected, rtol=1e-4, atol=1e-5)
    reconstructed = (expected / norms) @ weights["W_dec"] + weights["b_dec"]
    torch.testing.assert_close(read(x), reconstructed, rtol=1e-4, atol=1e-5)


def test_inputs_scaled_in_training_need_the_factor_and_are_then_read_as_they_are(tmp_path):
    weights, x = random_weights("relu", D_MODEL, N), inputs()
    folder = saelens_folder(tmp_path, weights, normalize_activations="expected_average_only_in")
    with pytest.raises(CheckpointError, match="give norm_scaling_factor="):
        load_dictionary(folder)
    read, plain = load_dictionary(folder, norm_scaling_factor=2.5), Dictionary(weights)
    torch.testing.assert_close(read.encode(x), plain.encode(2.5 * x), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(read(x), plain(2.5 * x) / 2.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"architecture": "transcoder"}, "architecture: expected one of"),
        ({"normalize_activations": "covariance_whitening"}, "normalize_activations: expected 'none'"),
        ({"reshape_activations": "hook_z"}, "reshape_activations: expected 'none'"),
        ({"activation_fn": "tanh-relu"}, "activation_fn: expected 'relu' or 'topk'"),
        ({"d_in": 7}, r"expected \(7, 20\), d_in and d_sae"),
        ({"architecture": "jumprelu"}, r"missing \['threshold'\]"),
        ({"architecture": "topk"}, "k: expected a whole number"),
        ({"architecture": "topk", "k": 21}, "k=21 of a topk"),
    ],
)
def test_what_is_not_handled_is_refused_by_name(tmp_path, config, complaint):
    folder = saelens_folder(tmp_path, random_weights("relu", D_MODEL, N), **config)
    with pytest.raises(CheckpointError, match=complaint):
        load_dictionary(folder)


def test_an_output_scale_that_means_something_is_refused(tmp_path):
    weights = random_weights("relu", D_MODEL, N) | {"scaling_factor": torch.full((N,), 1.5)}
    with pytest.raises(CheckpointError, match="scaling_factor"):
        load_dictionary(saelens_folder(tmp_path, weights))


# ---------------------------------------------------------------- dictionary_learning


def test_a_batchtopk_dictionary_lets_through_what_is_above_its_threshold(tmp_path):
    """BatchTopKSAE.encode(use_threshold=True): relu(encoder(x − b_dec)), kept where it is above the one threshold."""
    b_dec, x = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9)), inputs()
    state = linear_state(b_dec=b_dec, k=torch.tensor(4), threshold=torch.tensor(1.25))
    read = load_dictionary(dictionary_learning_folder(tmp_path, state, "BatchTopKSAE", k=4))
    acts = F.linear(x - b_dec, state["encoder.weight"], state["encoder.bias"]).relu()
    acts = acts * (acts > 1.25)
    assert 0 < (acts > 0).float().mean() < 0.9
    torch.testing.assert_close(read.encode(x), acts)
    torch.testing.assert_close(read(x), F.linear(acts, state["decoder.weight"]) + b_dec)
    assert read.site == "blocks.11.hook_resid_post" and read.about["model"] == "openai/gpt-oss-20b"


def test_every_class_of_dictionary_learning_is_read_as_it_encodes(tmp_path):
    x, plain = inputs(), random_weights("jumprelu", D_MODEL, N)
    bias = torch.randn(D_MODEL, generator=torch.Generator().manual_seed(9))
    linear = linear_state()

    def encoder(v):
        return F.linear(v, linear["encoder.weight"], linear["encoder.bias"])

    def gated(v):
        dots = F.linear(v - bias, linear["encoder.weight"])
        return (dots + 0.1 > 0) * (dots * torch.tensor(0.3).exp() - 0.2).relu()

    def above(v, threshold):
        pre = v @ plain["W_enc"] + plain["b_enc"]
        return (pre * (pre > threshold)).relu()

    top = (encoder(x - bias)).relu().topk(4)
    by_topk = torch.zeros(len(x), N).scatter(-1, top.indices, top.values)
    own_gate = {"gate_bias": torch.full((N,), 0.1), "mag_bias": torch.full((N,), -0.2), "r_mag": torch.full((N,), 0.3)}
    without_bias = {name: tensor for name, tensor in linear.items() if name != "encoder.bias"}
    groups = {"k": torch.tensor(4), "threshold": torch.tensor(0.7), "group_sizes": torch.tensor([5, 15])}
    cases = {
        "AutoEncoder": (linear | {"bias": bias}, encoder(x - bias).relu()),
        "AutoEncoderNew": (linear | {"decoder.bias": bias}, encoder(x).relu()),
        "AutoEncoderTopK": (linear | {"b_dec": bias, "k": torch.tensor(4), "threshold": torch.tensor(9.0)}, by_topk),
        "GatedAutoEncoder": (without_bias | own_gate | {"decoder_bias": bias}, gated(x)),
        "JumpReluAutoEncoder": (plain, above(x, plain["threshold"])),
        "MatryoshkaBatchTopKSAE": (
            {name: tensor for name, tensor in plain.items() if name != "threshold"} | groups,
            above(x - plain["b_dec"], 0.7),
        ),
    }
    for name, (state, expected) in cases.items():
        folder = dictionary_learning_folder(tmp_path / name, state, name, k=4)
        torch.testing.assert_close(load_dictionary(folder).encode(x), expected, rtol=1e-4, atol=1e-5, msg=name)


def test_a_dictionary_of_dictionary_learning_is_kept_in_saelens_form(tmp_path):
    state = linear_state(b_dec=torch.ones(D_MODEL), k=torch.tensor(4), threshold=torch.tensor(1.25))
    read = load_dictionary(dictionary_learning_folder(tmp_path / "theirs", state, "BatchTopKSAE", k=4))
    again = load_dictionary(save_dictionary(read, tmp_path / "kept"))
    assert again.activation == "jumprelu" and again.site == "blocks.11.hook_resid_post"
    assert torch.equal(again.encode(inputs()), read.encode(inputs())) and torch.equal(again(inputs()), read(inputs()))


class Runs:
    """A pickle of this makes a folder when it is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return (os.mkdir, (str(self.folder),))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_pickle_that_would_run_code_is_refused_and_nothing_runs(tmp_path, how):
    trap, state = tmp_path / "it ran", linear_state(b_dec=torch.ones(D_MODEL), threshold=torch.tensor(1.0))
    folder = dictionary_learning_folder(tmp_path / "ae", state | {"k": Runs(trap)}, "BatchTopKSAE", k=4)
    if how == "pickle":
        (folder / "ae.pt").write_bytes(pickle.dumps(Runs(trap), protocol=2))
    with pytest.raises(CheckpointError, match="a pickle can run any code") as refused:
        load_dictionary(folder)
    assert not trap.exists()
    assert str(folder / "ae.pt") in str(refused.value) and "\n" not in str(refused.value)
    pickle.loads(pickle.dumps(Runs(trap)))
    assert trap.exists()  # it does run where it is let


@pytest.mark.parametrize("damage", [b"", b"not a pickle", b"PK\x03\x04 cut off"])
def test_a_damaged_pickle_is_refused(tmp_path, damage):
    folder = dictionary_learning_folder(tmp_path / "ae", linear_state(), "BatchTopKSAE", k=4)
    (folder / "ae.pt").write_bytes(damage)
    with pytest.raises(CheckpointError, match=r"ae\.pt"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"dict_class": "CrossCoder"}, r"trainer\.dict_class: expected one of"),
        ({"activation_dim": 7}, r"\(7, 20\), activation_dim and dict_size"),
        ({"dict_class": "AutoEncoder"}, r"missing \['bias'\], unread \['b_dec', 'k', 'threshold'\]"),
        ({"dict_class": "AutoEncoderTopK", "k": 5}, r"k: expected 5, as config\.json says, found 4"),
    ],
)
def test_files_that_do_not_hold_together_are_refused(tmp_path, change, complaint):
    state = linear_state(b_dec=torch.ones(D_MODEL), k=torch.tensor(4), threshold=torch.tensor(1.0))
    folder = dictionary_learning_folder(tmp_path / "ae", state, **({"dict_class": "BatchTopKSAE"} | change))
    with pytest.raises(CheckpointError, match=complaint):
        load_dictionary(folder)


def test_a_folder_with_neither_form_or_half_of_one_says_what_it_needs(tmp_path):
    with pytest.raises(CheckpointError, match=r"cfg\.json with sae_weights\.safetensors, or config\.json with ae\.pt"):
        load_dictionary(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_dictionary(tmp_path / "nowhere")
    (tmp_path / "cfg.json").write_text(json.dumps({"d_in": 6, "d_sae": 20}))
    with pytest.raises(CheckpointError, match=r"expected sae_weights\.safetensors, found cfg\.json"):
        load_dictionary(tmp_path)
