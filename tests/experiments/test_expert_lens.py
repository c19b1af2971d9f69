"""The expert lens against numpy in float64, and against what the layer adds to the logits as a whole."""

import numpy as np
import pytest

from workbench.activations import run
from workbench.experiments.lenses.expert_lens import expert_lens
from workbench.figures.expert_lens import SHADES, expert_lens_heatmap


@pytest.fixture(scope="module")
def everything(model):
    return run(model, "Mia lives in the park. Tom", sites="all")


@pytest.fixture(scope="module")
def lens(everything):
    return expert_lens(everything, top_k=4)


def test_direction_magnitude_and_contribution_are_the_formulas(everything, lens):
    model = everything.model
    unembed = model.unembed.weight.detach().double().numpy() * model.ln_final.w.detach().double().numpy()
    scale = everything["ln_final.hook_scale"][0, :, 0].double().numpy()
    for layer in range(3):
        here = f"blocks.{layer}.mlp.hook_expert"
        out, weight = (everything[f"{here}_{kind}"][0].double().numpy() for kind in ("out", "weights"))
        for pos in range(len(scale)):
            for slot in range(2):
                y, w, cell = out[pos, slot], weight[pos, slot], lens.sel(layer=layer, slot=slot).isel(pos=pos)
                logits = unembed @ (y / np.sqrt((y**2).mean() + model.config.rms_eps))
                order = np.argsort(-logits)[:4]
                assert cell.top_id.values.tolist() == order.tolist()
                assert cell.top_logit.values == pytest.approx(logits[order], rel=1e-4)
                assert float(cell.magnitude) == pytest.approx(np.linalg.norm(w * y) / scale[pos], rel=1e-4)
                added = unembed @ (w * y) / scale[pos]
                assert float(cell.contribution) == pytest.approx(added[int(cell.target_id)], abs=1e-5)
                assert cell.top_contribution.values == pytest.approx(added[order], abs=1e-5)


def test_the_experts_contributions_sum_to_their_layers(everything, lens):
    model = everything.model
    directions = model.tokens_to_residual_directions(everything.logits[0].argmax(-1)).detach()
    for layer in range(3):
        total = (everything[f"blocks.{layer}.hook_mlp_out"][0] * directions).sum(-1)
        total = total / everything["ln_final.hook_scale"][0, :, 0]
        assert lens.contribution.sel(layer=layer).sum("slot").values == pytest.approx(total.numpy(), abs=1e-4)


def test_weights_change_the_magnitude_and_not_the_direction(model, everything, lens):
    """Norm alone cancels w."""
    site = "blocks.2.mlp.hook_expert_weights"
    hooks = [(site, lambda w, hook: w * 0.25)]
    names = ["blocks.2.mlp.hook_expert_out", site, "blocks.2.mlp.hook_expert_indices", "ln_final.hook_scale"]
    with model.hooks(fwd_hooks=hooks):
        quiet = run(model, everything.tokens, sites=names)
    quieter, loud = expert_lens(quiet, layers=[2], top_k=4), lens.sel(layer=[2])
    assert np.array_equal(quieter.top_id, loud.top_id)
    assert quieter.top_logit.values == pytest.approx(loud.top_logit.values, rel=1e-4)
    scales = [done["ln_final.hook_scale"][0].numpy()[..., None] for done in (quiet, everything)]
    assert (quieter.magnitude * scales[0]).values == pytest.approx((loud.magnitude * scales[1]).values * 0.25, rel=1e-4)


def test_a_target_of_ones_own_is_attributed(everything, model):
    made = expert_lens(everything, layers=[1], target=" park")
    assert set(made.target_token.values) == {" park"}
    assert set(made.target_id.values) == {model.to_single_token(" park")}


def test_what_is_not_there_is_refused(everything, done):
    for given, told in (({"layers": [5]}, "layer=5"), ({"top_k": 0}, "top_k=0"), ({"target": 5000}, "token=5000")):
        with pytest.raises(ValueError, match=told):
            expert_lens(everything, **given)
    with pytest.raises(KeyError, match="did not keep"):
        expert_lens(done)


@pytest.mark.parametrize("shade", SHADES)
def test_the_figure_has_a_cell_for_each_route(lens, shade, tmp_path):
    drawn = expert_lens_heatmap(lens, shade)
    assert np.array(drawn.data[0].z) == pytest.approx(lens[shade].values.reshape(lens.sizes["pos"], 6), rel=1e-5)
    lens.to_netcdf(tmp_path / "stored.nc", engine="scipy")
    with pytest.raises(ValueError, match=r"experiments\.expert_lens returns"):
        expert_lens_heatmap(lens.drop_vars("magnitude"))
