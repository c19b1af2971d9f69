"""Translators that change nothing are the logit lens; trained ones are closer to the end on unseen text."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.activations import run
from workbench.experiments import logit_lens
from workbench.experiments.lenses.tuned_lens import TunedLens, _loss, _streams, lens_kl, train_tuned_lens, tuned_lens
from workbench.figures import tuned_lens as drawn
from workbench.training.microworld import DOCUMENTS


def story(seed: int) -> str:
    return "".join(segment.text for segment in DOCUMENTS["story"](random.Random(seed)).segments)


@pytest.fixture(scope="module")
def nano():
    return wb.load("nano")


@pytest.fixture(scope="module")
def trained(nano):
    return train_tuned_lens(nano, [story(seed) for seed in range(24)], steps=60, tokens_per_step=96, progress=False)


def test_the_identity_is_the_logit_lens_bit_for_bit(done, model):
    made, plain = tuned_lens(done, TunedLens.identity(model)), logit_lens(done)
    for name in plain.data_vars:
        assert np.array_equal(made[name].values, plain[name].values)


def test_training_brings_unseen_text_closer_in_every_early_layer(nano, trained):
    kl = lens_kl(run(nano, story(1000)), trained).kl
    gain = kl.sel(lens="logit lens") - kl.sel(lens="tuned lens")
    assert (gain.sel(layer=slice(-1, 2)) > 0).all()
    assert float(kl.sel(lens="tuned lens").sel(layer=slice(-1, 2)).mean()) < 0.7 * float(
        kl.sel(lens="logit lens").sel(layer=slice(-1, 2)).mean()
    )
    assert kl.sel(layer=3).values == pytest.approx(0, abs=1e-5)
    assert np.mean(trained.losses[-5:]) < np.mean(trained.losses[:5])


def test_the_loss_is_the_kl_that_the_lens_reports(model):
    """Each stage of the training loss, against logit_lens' own kl."""
    text = "Mia lives in the park."
    generator = torch.Generator().manual_seed(0)
    lens = TunedLens(torch.randn(3, 32, 32, generator=generator) / 40, torch.randn(3, 32, generator=generator) / 10)
    streams = _streams(model, [text])
    reported = tuned_lens(run(model, text), lens).kl.sel(layer=slice(-1, 1)).mean()
    assert _loss(model, streams, lens.change, lens.bias).item() == pytest.approx(float(reported), rel=1e-4)


def test_training_leaves_the_model_as_it_was(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        assert parameter.grad is None
    train_tuned_lens(model, ["Mia lives in the park."], steps=2, progress=False)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.list_hooks()


def test_the_same_seed_gives_the_same_lens(model):
    one, same, other = (
        train_tuned_lens(model, ["Mia lives in the park."], steps=3, tokens_per_step=4, seed=seed, progress=False)
        for seed in (0, 0, 1)
    )
    assert torch.equal(one.change, same.change)
    assert not torch.equal(one.change, other.change)


def test_a_lens_comes_back_from_its_file(trained, tmp_path: Path):
    trained.save(tmp_path / "lens.safetensors")
    back = TunedLens.load(tmp_path / "lens.safetensors")
    assert torch.equal(back.change, trained.change)
    assert torch.equal(back.bias, trained.bias)
    assert back.losses == trained.losses
    assert back.provenance == trained.provenance


def test_a_lens_of_another_model_is_refused(done, trained):
    with pytest.raises(ValueError, match=r"\(4, 128\).*\(3, 32\)"):
        tuned_lens(done, trained)
    with pytest.raises(ValueError, match="steps=0"):
        train_tuned_lens(done.model, ["Mia"], steps=0)


def test_the_figures_draw_the_translated_lens(nano, trained, tmp_path: Path):
    made = tuned_lens(run(nano, story(1001)[:80]), trained)
    assert "Tuned lens" in drawn.tuned_lens_heatmap(made).layout.title.text
    compared = lens_kl(run(nano, story(1001)[:80]), trained)
    assert [len(trace.x) for trace in drawn.lens_kl(compared).data] == [5, 5]
    made.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    compared.to_netcdf(tmp_path / "compared.nc", engine="scipy")
