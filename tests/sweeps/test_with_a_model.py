"""A sweep over a model: every cell as in a run of its own, and each prompt's beginning run once."""

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.checkpoints import load
from workbench.model.fingerprint import fingerprint
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


def test_a_model_made_by_hand_is_swept_in_this_process_and_told_apart_in_the_journal(tmp_path, nano):
    """It has no recipe: its weights are its name."""
    by_hand = wb.HookedGptOss(wb.NANO)
    by_hand.load_state_dict({name: tensor * 1.01 for name, tensor in nano.state_dict().items()})

    def total(model, cells):
        with torch.no_grad():
            return [float(model(torch.tensor([[1, 2, 3 + cell["i"]]])).sum()) for cell in cells]

    grid, there = Grid(i=range(3)), tmp_path / "journal"
    first = sweep(total, grid, model=by_hand, journal=there, progress=False).to_xarray()
    with torch.no_grad():
        expected = [float(by_hand(torch.tensor([[1, 2, 3 + i]])).sum()) for i in range(3)]
    assert first.value.values.tolist() == expected
    again = []
    sweep(total, grid, model=by_hand, journal=there, progress=False, on_result=lambda *_: again.append(1))
    assert not again
    with pytest.warns(UserWarning, match="another model"):
        other = sweep(total, grid, model=nano, journal=there, progress=False).to_xarray()
    assert not other.value.equals(first.value)


def test_a_sweep_leaves_one_record_and_its_runs_none(tmp_path, nano, monkeypatch):
    monkeypatch.setenv("WORKBENCH_RECORDS", str(tmp_path / "records.sqlite"))

    def measure(model, cells):
        return [float(wb.run(model, [1, 2, 3 + cell["i"]]).logits.sum()) for cell in cells]

    sweep(measure, Grid(i=range(5)), model=nano, batch=2, progress=False)
    (record,) = wb.records()
    assert record.kind == "sweep" and record.summary["done"] == 5 and record.summary["status"] == "finished"
    assert record.about["grid"] == {"i": 5} and record.fingerprint == fingerprint(nano)
