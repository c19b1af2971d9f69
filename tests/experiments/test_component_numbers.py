"""What components do in a run, against every site of it."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.experiments import direct_logit_attribution
from workbench.experiments.lenses.component_numbers import component_numbers

TEXT = "Anna gave a hat to Ben and Ben took it"
ANSWERS = (690, 688)


@pytest.fixture(scope="module")
def nano():
    return wb.load("nano")


@pytest.mark.parametrize("specs", [(), (wb.AblateExpert(1, 3, "zero"), wb.AblateHead(0, 2))])
@pytest.mark.parametrize("position", [-2, 4, None])
def test_of_experts_and_heads_they_are_those_of_the_sites_and_of_direct_logit_attribution(nano, specs, position):
    whole, plain = wb.run(nano, TEXT, specs, sites="all"), wb.run(nano, TEXT, specs)
    made, n = direct_logit_attribution(whole, ANSWERS), whole.tokens.shape[1]
    at = slice(None) if position is None else slice(position % n, position % n + 1)
    for kind in ("head", "expert"):
        found = component_numbers(plain, kind, ANSWERS, position)
        np.testing.assert_allclose(found.direct, made[f"{kind}s"], atol=2e-4)
        for layer in range(4):
            block = f"blocks.{layer}."
            if kind == "head":
                activation, norm = (
                    1 - whole[f"{block}attn.hook_sink"][0, at],
                    whole[f"{block}attn.hook_result"][0, at].norm(dim=-1),
                )
            else:
                indices, weights, out = (
                    whole[f"{block}mlp.hook_expert_{kind}"][0, at] for kind in ("indices", "weights", "out")
                )
                by_id = torch.nn.functional.one_hot(indices, 8).float()
                activation = (by_id * weights[..., None]).sum(1)
                norm = (by_id * (weights * out.norm(dim=-1))[..., None]).sum(1)
            np.testing.assert_allclose(found.activation[layer], activation.mean(0), atol=1e-5)
            np.testing.assert_allclose(found.norm[layer], norm.mean(0), atol=2e-4, rtol=1e-3)


def test_what_a_run_did_not_keep_is_read_elsewhere_or_worked_out(nano):
    full, asked = wb.run(nano, TEXT), []
    kept = [site for site in nano.sites.wanted(None) if not site.endswith(("hook_z", "hook_attn_out"))]
    less = wb.run(nano, TEXT, sites=kept)

    def read(site):
        asked.append(site)
        return full[site][0].numpy()

    for how in ({}, {"read": read}):
        for kind in ("head", "layer"):
            found, expected = (component_numbers(run, kind, ANSWERS, **more) for run, more in ((less, how), (full, {})))
            np.testing.assert_allclose(found.norm, expected.norm, atol=1e-4)
    assert "blocks.2.attn.hook_z" in asked and "blocks.3.hook_attn_out" in asked


@pytest.mark.parametrize("position", [-1, None])
def test_padding_has_no_part_in_them(nano, position):
    both, alone = wb.run(nano, [TEXT, "Mia sat"]), wb.run(nano, "Mia sat")
    for kind in ("head", "expert", "layer", "sink"):
        found = component_numbers(both, kind, ANSWERS, position, row=1)
        expected = component_numbers(alone, kind, ANSWERS, position)
        for name in ("activation", "norm", "direct"):
            np.testing.assert_allclose(found[name], expected[name], atol=3e-4, rtol=2e-3)


@pytest.mark.parametrize(("kind", "position"), [("neuron", None), ("head", 99)])
def test_what_is_not_there_is_refused(nano, kind, position):
    with pytest.raises(ValueError, match=r"expected one of|the run has positions"):
        component_numbers(wb.run(nano, TEXT), kind, ANSWERS, position)
