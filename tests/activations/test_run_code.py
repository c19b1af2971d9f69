"""The code that a run shows makes the same run again, whatever its sources are called and it has kept."""

import pytest
import torch

from workbench.activations import Run, run
from workbench.interventions import AblateHead, Patch, Steer
from workbench.model import HookedGptOss

NAMES = ["clean", "my run", "class", "tokens", "run", "wb", "sources", "2nd", "größer", "a'b\"c\n", ""]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("sites", [None, "all", ["hook_embed", "blocks.1.hook_resid_post"]])
def test_the_code_makes_the_run_again_whatever_its_sources_are_called(model: HookedGptOss, tokens, name: str, sites):
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[1, -2:] = False
    source, vector = run(model, tokens.flip(1), sites="all"), torch.ones(model.config.d_model)
    given = {name: source, f"{name}_v": vector}
    specs = [Patch("blocks.0.hook_mlp_out", name, (1,)), AblateHead(1, 0), Steer("hook_embed", f"{name}_v", 0.5)]
    done = run(model, tokens, specs, sites, sources=given, attention_mask=mask, name=name)
    names = {"model": model, "sources": given} | {key: value for key, value in given.items() if key.isidentifier()}
    if name in ("tokens", "run", "wb", "sources", "class"):
        names = {"model": model, "sources": given, f"{name}_v": vector}
    exec(done.code(), names)
    again = names["run"]
    assert isinstance(again, Run) and torch.equal(again.logits, done.logits)
    assert list(again.cache) == list(done.cache) and again.name == done.name
