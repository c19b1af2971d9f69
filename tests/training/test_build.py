"""``python -m workbench.training`` from nothing to a model that opens, with a card that says what was measured."""

import json
import re
import sys

import pytest
import torch

from workbench.checkpoints import load
from workbench.model import NANO
from workbench.training import __main__ as command
from workbench.training import scorecard


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A model of two steps, and the scores of its card (few questions: an untrained model answers none of them)."""
    out, found, threads = tmp_path_factory.mktemp("made") / "model", [], torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:

        def score(model, tokenizer):
            found.append(scorecard.score(model, tokenizer, seeds=(11, 12), count=4))
            return found[0]

        patch.setattr(command, "score", score)
        patch.setattr(sys, "argv", ["training", "--out", str(out), "--steps", "2", "--threads", "1", "--seed", "3"])
        command.main()
    torch.set_num_threads(threads)
    return out, found[0]


def test_what_it_leaves_is_a_whole_checkpoint_and_how_it_was_made(made):
    out, _ = made
    model = load(out)
    assert model.config == NANO.with_(name=model.config.name) and model.embed.weight.dtype == torch.float32
    # Rounded before it was stored, so that what is measured is what is stored.
    assert all(torch.equal(each, each.bfloat16().float()) for each in model.parameters())
    note = json.loads((out / "training.json").read_text())
    assert (note["steps"], note["recipe"]["seed"], note["threads"]) == (2, 3, 1)
    assert not out.with_name("model.training.pt").exists()  # done, so there is nothing to resume
    assert model.to_tokens("Mia went to the garden.").shape[0] == 1


def test_the_card_has_every_figure_that_was_measured_and_none_that_an_untrained_model_cannot_reach(made):
    out, scores = made
    tasks, losses = (out / "card.md").read_text(encoding="utf-8").split("## Loss of each domain")
    assert "seed 3" in tasks and "2 steps" in tasks
    for part, measured in ((tasks, scores.tasks | {"induction": scores.induction}), (losses, scores.domain_losses)):
        rows = dict(re.findall(r"^\| ([^|]+) \| (-?[0-9.]+ ± [0-9.]+) \|", part, re.M))
        for name, measure in measured.items():
            values = torch.tensor(measure.values, dtype=torch.float64)
            assert rows[name] == f"{values.mean():.3f} ± {values.std():.3f}", name
    # Nobody learns to copy one token of 1,024 in two steps; and ln 1,024 is 6.9.
    assert scores.induction.mean < 0.1 and scores.tasks["facts"].mean < 0.5
    means = [measure.mean for measure in scores.domain_losses.values()]
    assert 5 < sum(means) / len(means) < 9
