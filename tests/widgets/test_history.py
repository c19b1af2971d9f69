"""The history: steps as they were, two of them compared. The truth is wb.run on each step's own specs."""

import numpy as np
import pytest
import torch

import workbench as wb

SPECS = (wb.AblateExpert(1, 3, "zero"), wb.AblateLayer(1))


@pytest.fixture
def stepped(bench):
    """Three steps: unedited, one intervention, two."""
    for spec in SPECS:
        bench.add(spec)
        bench.session.wait(30)
    return bench


def test_each_step_says_what_it_moved(stepped):
    made, _ = stepped["history"].data({})
    tokens = stepped.base.tokens
    for step, specs in zip(made["steps"], ((), SPECS[:1], SPECS), strict=True):
        assert step["n_edits"] == len(specs)
        if specs:
            run = wb.run(stepped.model, tokens, specs)
            assert step["kl"] == pytest.approx(float(run.kl.mean()), rel=1e-3, abs=1e-6)
            assert step["flipped"] == int((run.logits.argmax(-1) != stepped.base.logits.argmax(-1)).sum())
        else:
            assert step["kl"] is None


def test_two_steps_are_compared_by_the_runs_of_their_specs(stepped):
    ids = [entry.id for entry in stepped.session.history.entries]
    made, _ = stepped["history"].data({"compare": [ids[1], ids[2]], "position": 5})
    found = made["comparison"]
    first, second = (wb.run(stepped.model, stepped.base.tokens, specs) for specs in (SPECS[:1], SPECS))
    before, after = (run.logits[0].log_softmax(-1) for run in (first, second))
    kl = (before.exp() * (before - after)).sum(-1)
    assert found["kl_here"] == pytest.approx(float(kl[5]), abs=1e-4)
    assert found["kl"] == pytest.approx(float(kl.mean()), abs=1e-4)
    flipped = (before.argmax(-1) != after.argmax(-1)).nonzero()[:, 0].tolist()
    assert [each["position"] for each in found["flipped"]] == flipped and found["n_flipped"] == len(flipped)
    for token in found["tokens"]:
        assert token["before"] == pytest.approx(float(before[5, token["id"]].exp()), abs=1e-4)
        assert token["after"] == pytest.approx(float(after[5, token["id"]].exp()), abs=1e-4)
    assert [spec["kind"] for spec in found["only_after"]] == ["AblateLayer"] and found["only_before"] == []


def test_steps_over_different_texts_are_compared_by_what_they_say_last(bench):
    first = bench.base.logits
    bench.session.set_prompts({"clean": "Tom has a red ball and a", "corrupt": "Mia has a red ball and a"})
    bench.session.wait(30)
    ids = [entry.id for entry in bench.session.history.entries]
    found = bench["history"].data({"compare": ids})[0]["comparison"]
    assert not found["same_text"] and "flipped" not in found
    best = found["tokens"][0]
    assert best["before"] == pytest.approx(float(first[0, -1].softmax(-1)[best["id"]]), abs=1e-5)


def test_a_step_compared_with_itself_says_so(stepped):
    with pytest.raises(ValueError, match="chosen twice"):
        stepped["history"].data({"compare": [1, 1]})


def test_the_table_has_a_row_for_each_step(stepped):
    table = stepped["history"].table()
    assert table.interventions.values.tolist() == [0, 1, 2]
    assert np.isnan(table.kl.values[0]) and (table.kl.values[1:] >= 0).all()
    assert "AblateLayer" in stepped["history"].static()


def test_comparing_leaves_the_run_on_screen_alone(stepped):
    shown = stepped.run.logits.clone()
    stepped["history"].data({"compare": [1, 2]})
    assert torch.equal(stepped.run.logits, shown)
    assert stepped["history"].figure().data
