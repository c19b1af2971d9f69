"""Workers of one machine hold one copy of packed weights between them: the pages of the file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.checkpoints.small import SMALL
from tests.scale.measures import read_experts
from workbench.checkpoints import synthesise
from workbench.sweeps import Grid, sweep

SHAPE = SMALL.with_(d_model=512, d_mlp=512, n_experts=16, n_layers=1)


def mapped(folder: str) -> dict[str, int]:
    """Of this process and the files of a folder: Rss, what it sees of them; Pss, its share where others see it too."""
    found = {"Rss": 0, "Pss": 0}
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split(" ")[0]:
            inside = folder in line
        elif inside and name in found:
            found[name] += int(rest.split()[0]) * 1024
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says who shares a page")
def test_two_workers_and_this_process_hold_one_copy_of_the_packed_weights(client, tmp_path):
    folder = synthesise(SHAPE, tmp_path / "model")
    n_bytes = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    made = sweep(
        read_experts, Grid(i=range(8)), model=folder, batch=1, executor=client.get_executor(), progress=False
    ).to_xarray()
    packed = int(made.packed.max())
    assert packed > 0.8 * n_bytes and len(set(made.process.values)) == 2
    # This process has them too: it read the model's fingerprint.
    seen = [*client.run(mapped, str(folder)).values(), mapped(str(folder))]
    assert all(0.95 * packed < each["Rss"] <= 1.01 * n_bytes for each in seen)  # each has all of it before it
    together = sum(each["Pss"] for each in seen)
    assert 0.95 * packed < together <= 1.01 * n_bytes  # and it is there once
