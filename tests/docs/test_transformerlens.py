"""Coming from TransformerLens: both sides of the page run on the same weights, and say the same."""

from pathlib import Path
from typing import Any

import pytest
import torch

from docs.generator import examples

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "pages" / "coming-from" / "transformerlens.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def sides() -> list[dict[str, Any]]:
    """The names that each block leaves, in the page's order; theirs reads nano from its folder."""
    spaces: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for block in examples.blocks(PAGE.replace("path/to/nano", (ROOT / "data" / "nano").as_posix())):
        with torch.no_grad():
            exec(compile(block.code, "transformerlens.md", "exec"), shared)
        spaces.append(dict(shared))
    return spaces


def test_each_of_theirs_stands_beside_one_of_ours():
    titles = [line.split('"')[1] for line in PAGE.split("\n") if line.startswith("```python title=")]
    assert titles == ["theirs", "ours"] * 5


def test_logits_and_caches_are_alike(sides: list[dict[str, Any]]):
    theirs, ours = sides[3], sides[4]
    for what in ("logits", "pattern", "resid"):
        assert torch.allclose(theirs[what], ours[what], atol=2e-4), what


def test_an_edit_by_a_hook_does_the_same_and_so_does_the_intervention(sides: list[dict[str, Any]]):
    theirs, ours = sides[5], sides[6]
    assert torch.allclose(theirs["edited"], ours["edited"], atol=2e-4)
    assert torch.allclose(ours["edited"], ours["done"].logits, atol=1e-5)
    assert not torch.allclose(ours["edited"], ours["logits"], atol=1e-1)


def test_activation_patching_gives_the_same_grid(sides: list[dict[str, Any]]):
    theirs, ours = sides[7], sides[8]
    grid = torch.from_numpy(ours["grid"].transpose("layer", "pos").values).float()
    assert torch.allclose(theirs["grid"].float(), grid, atol=2e-3)


def test_shares_of_the_answer_add_up_to_the_logit_difference(sides: list[dict[str, Any]]):
    theirs, ours = sides[9], sides[10]
    last = ours["logits"][0, -1].detach()
    difference = float(last[ours["right"]] - last[ours["wrong"]])
    stack, cache, bridge = theirs["stack"], theirs["cache"], theirs["bridge"]
    scale = cache["ln_final.hook_scale"][0, -1]
    direction = bridge.unembed.W_U[:, ours["right"]] - bridge.unembed.W_U[:, ours["wrong"]]
    gain = ours["model"].ln_final.w
    whole = ((stack.sum(0)[0, -1] / scale * gain) @ direction).detach()
    assert float(whole) == pytest.approx(difference, abs=1e-2)
    shares = ours["shares"]
    written = sum(float(shares[part].sum()) for part in ("embed", "heads", "attn_bias", "experts"))
    assert written == pytest.approx(difference, abs=1e-2)
