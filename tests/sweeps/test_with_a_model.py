"""A sweep over a model: every cell as in a run of its own, and each prompt's beginning run once."""

import numpy as np
import pytest
import torch

from workbench.checkpoints import load
from workbench.sweeps import Grid, sweep

PROMPTS = ("Mia lives in the park.", "Tom and Mia went to the store.")


@pytest.fixture(scope="module")
def nano():
    return load("nano")


def scaled(head: int):
    def hook(z, hook):
        return torch.cat((z[:, :, :head], 0 * z[:, :, head : head + 1], z[:, :, head + 1 :]), dim=2)

    return hook


def test_head_ablations_from_a_shared_recording_are_those_of_whole_runs(nano):
    grid = Grid(prompt=PROMPTS, layer=range(1, 4), head=[0, 3, 7])
    recorded = []

    @torch.no_grad()
    def measure(cells):
        prompt = cells[0]["prompt"]
        if not recorded or recorded[-1][0] != prompt:
            recorded.append((prompt, nano.record(nano.to_tokens(prompt))))
        recording, values = recorded[-1][1], []
        for cell in cells:
            hooks = [(f"blocks.{cell['layer']}.attn.hook_z", scaled(cell["head"]))]
            values.append(nano.resume(recording, cell["layer"], fwd_hooks=hooks)[0, -1].float().logsumexp(-1))
        return values

    made = sweep(
        measure,
        grid,
        cost=lambda cell: nano.config.n_layers - cell["layer"],
        most=5,
        together=lambda cell: cell["prompt"],
        progress=False,
    ).to_xarray()
    assert [prompt for prompt, _ in recorded] == list(PROMPTS)  # once each
    for cell in grid:
        hooks = [(f"blocks.{cell['layer']}.attn.hook_z", scaled(cell["head"]))]
        with torch.no_grad():
            whole = nano.run_with_hooks(nano.to_tokens(cell["prompt"]), fwd_hooks=hooks)
        found = made["value"].sel(prompt=cell["prompt"], layer=cell["layer"], head=cell["head"])
        np.testing.assert_allclose(found, whole[0, -1].float().logsumexp(-1), rtol=1e-5)
