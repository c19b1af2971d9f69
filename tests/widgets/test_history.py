"""The history: steps as they were, two of them compared. The truth is wb.run on each step's own specs."""

import json
import random

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.widgets import describe, workspace
from workbench.widgets.history import History

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


# ---------------------------------------------------------------- a limit


def test_a_history_with_a_limit_is_the_end_of_one_without(n=400, most=7):
    draw, limited, whole = random.Random(0), History((0,), "opened", most), History((0,), "opened", 10**6)
    for i in range(n):
        able = ["push"] * 3 + ["undo"] * limited.can_undo + ["redo"] * limited.can_redo + ["goto"]
        kind, place = draw.choice(able), draw.randrange(len(limited.entries))
        for history in (limited, whole):
            if kind == "push":
                history.push((i,), f"step {i}")
            elif kind == "goto":
                history.goto(limited.entries[place].id)
            else:
                history.step(-1 if kind == "undo" else 1)
        assert limited.entries[0].study == whole.entries[limited.dropped].study
        assert [entry.study for entry in limited.entries] == [e.study for e in whole.entries[limited.dropped :]]
        assert (limited.now.study, len(limited.entries) <= most) == (whole.now.study, True)
        assert limited.number(limited.now.id) == whole.number(whole.now.id) == whole.at + 1
    assert limited.dropped > 10


def test_a_history_of_no_step_is_refused():
    for most in (0, -1, True):
        with pytest.raises(ValueError, match="keeps 1 step or more"):
            History((0,), "opened", most)


@pytest.fixture
def short(bench_of):
    """Of ten steps the newest four."""
    made = bench_of({"clean": (3, 4, 5, 6), "corrupt": (3, 4, 9, 6)}, steps=4)
    for layer, head in [(layer, head) for layer in (0, 1, 2) for head in (0, 1, 2)]:
        made.add(wb.AblateHead(layer, head))
    made.session.wait(60)
    return made


def test_the_oldest_steps_fall_off_and_the_rest_keep_their_numbers(short):
    made, _ = short["history"].data({})
    assert [step["number"] for step in made["steps"]] == [7, 8, 9, 10] == short["history"].table().step.values.tolist()
    assert (made["first"], made["last"], made["at"]) == (7, 10, 10)
    assert [step["n_edits"] for step in made["steps"]] == [6, 7, 8, 9] and made["steps"][-1]["kl"] >= 0
    for said in (short["history"].static(), short["history"].code()):
        assert "steps 1 to 6 have fallen off: the newest 4 are kept" in said and "10" in said
    for _ in range(3):
        short.undo()
    with pytest.raises(ValueError, match="nothing to undo"):
        short.undo()
    assert len(short.interventions) == 6


def test_steps_are_compared_by_their_numbers_and_those_that_fell_off_are_not(short):
    view, ids = short["history"], [entry.id for entry in short.session.history.entries]
    assert view.data({"compare": ids[:2]})[0]["comparison"]["steps"] == [7, 8]
    assert "comparison" not in view.data({"compare": [1, ids[0]]})[0]
    short.session.options("history", compared=[1, 2])
    assert view.figure().data  # of the first and the last, where the chosen ones are gone


def test_a_file_keeps_the_steps_their_numbers_and_what_is_compared(short, bench_of):
    ids = [entry.id for entry in short.session.history.entries]
    short.session.options("history", compared=[ids[1], ids[3]])
    short.undo()
    again = bench_of((1, 2))
    workspace.restore(again.session, workspace.to_json(short.session))
    history = again.session.history
    assert [entry.study for entry in history.entries] == [entry.study for entry in short.session.history.entries]
    assert (history.dropped, history.at, history.can_redo) == (6, 2, True)
    assert again["history"]._compared() == short["history"]._compared() == (ids[1], ids[3])
    again.redo()
    assert len(again.interventions) == 9
    again.add(wb.AblateLayer(1))
    assert history.number(history.now.id) == 11 and len({entry.id for entry in history.entries}) == 5


@pytest.mark.parametrize(("at", "kept"), [(3, [9, 10]), (2, [9, 10]), (1, [8, 9]), (0, [7, 8])])
def test_of_a_file_with_more_steps_than_are_kept_the_newest_and_the_one_where_it_stands_are(short, bench_of, at, kept):
    given = json.loads(workspace.to_json(short.session))
    given |= {"at": at, "study": given["history"][at]["study"]}
    few = bench_of((1, 2), steps=2)
    workspace.restore(few.session, json.dumps(given))
    few.session.wait(60)
    history = few.session.history
    assert [history.number(entry.id) for entry in history.entries] == kept
    assert history.number(history.now.id) == 7 + at and len(few.interventions) == 6 + at


@pytest.mark.parametrize(
    "wrong",
    [{"dropped": -1}, {"dropped": "x"}, {"at": 9}, {"at": True}, {"ids": [4, 3, 2, 1]}, {"ids": [1, 2, 3, "4"]}],
)
def test_a_file_whose_steps_do_not_fit_is_one_step(short, bench_of, wrong):
    given = json.loads(workspace.to_json(short.session))
    for step, id in zip(given["history"], wrong.pop("ids", ()), strict=False):
        step["id"] = id
    again = bench_of((1, 2))
    workspace.restore(again.session, json.dumps(given | wrong))
    assert len(again.session.history.entries) == 1 and len(again.interventions) == 9


def test_many_steps_make_no_message_large(bench_of):
    bench = bench_of((3, 4, 5, 6))
    for i in range(600):
        bench.session.edit((wb.AblateHead(i % 2, i % 3),), "a label that is rather long " * 4)
    bench.session.wait(120)
    assert len(bench.session.history.entries) == 500 and bench.session.history.dropped == 101
    state, steps = (len(json.dumps(each)) for each in (describe.state(bench.session), bench["history"].data({})[0]))
    assert state < 10_000 and steps < 20_000, (state, steps)
    first = bench["history"].data({"first": 102})[0]
    assert [step["number"] for step in first["steps"]] == list(range(102, 152)) and first["at"] == 601


def test_the_bars_of_all_steps_end_at_the_largest_of_them_whichever_are_shown(bench_of):
    bench = bench_of((3, 4, 5, 6))
    bench.add(wb.AblateLayer(1))
    bench.session.wait(60)
    largest = bench.session.history.now.kl
    for i in range(60):
        bench.session.edit((wb.AblateHead(i % 2, i % 3),), f"step {i}")
    bench.session.wait(60)
    page = bench["history"].data({})[0]
    assert page["steps"][0]["number"] > 2
    assert page["most"] == max(entry.kl or 0 for entry in bench.session.history.entries) >= largest > 0
