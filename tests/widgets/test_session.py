"""What a Bench does without a screen: runs, edits, undo, selection. The truth is wb.run on the same specs."""

import threading

import numpy as np
import pytest
import torch

import workbench as wb
from workbench.widgets import Bench, Selection, describe
from workbench.widgets.worker import Worker

SPEC = wb.AblateExpert(1, 3, "zero")


def direct(bench: Bench, *specs: wb.AblateExpert) -> wb.Run:
    """The same run without a Bench."""
    return wb.run(bench.model, bench.base.tokens, specs)


def test_the_bench_shows_what_wb_run_gives(bench, pair):
    for name in ("clean", "corrupt"):
        expected = wb.run(bench.model, getattr(pair, name))
        assert torch.equal(bench.session.run(name).logits, expected.logits)


def test_an_intervention_changes_the_run_as_wb_run_does(bench):
    bench.add(SPEC)
    torch.testing.assert_close(bench.run.logits, direct(bench, SPEC).logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(bench.run.kl, direct(bench, SPEC).kl, atol=1e-5, rtol=1e-3)


def test_undo_and_redo_bring_back_the_runs_of_each_state(bench):
    plain = bench.run.logits
    bench.add(SPEC)
    edited = bench.run.logits
    bench.undo()
    assert torch.equal(bench.run.logits, plain) and bench.interventions == ()
    bench.redo()
    assert torch.equal(bench.run.logits, edited) and bench.interventions == (SPEC,)


def test_a_step_after_an_undo_takes_the_place_of_what_was_undone(bench):
    bench.add(SPEC)
    bench.undo()
    bench.add(wb.AblateHead(0, 1))
    with pytest.raises(ValueError, match="nothing to redo"):
        bench.redo()
    assert bench.interventions == (wb.AblateHead(0, 1),)


def test_a_chip_that_is_off_changes_nothing(bench):
    number = bench.add(SPEC)
    bench.session.toggle(number)
    assert torch.equal(bench.run.logits, bench.base.logits)
    bench.session.toggle(number)
    assert not torch.equal(bench.run.logits, bench.base.logits)


def test_what_the_model_does_not_have_is_refused_and_nothing_changes(bench):
    before = bench.session.state
    for spec in (wb.AblateExpert(9, 0), wb.AblateHead(0, 99), wb.Patch("blocks.0.hook_attn_out", "nowhere")):
        with pytest.raises(ValueError):
            bench.add(spec)
    with pytest.raises(ValueError, match="no intervention"):
        bench.interventions = ("ablate",)
    assert bench.session.state is before and len(bench.session.history.entries) == 1


def test_the_history_says_how_far_each_state_moved_the_predictions(bench):
    bench.add(SPEC)
    expected = direct(bench, SPEC)
    bench.session.wait(30)
    entry = bench.session.history.now
    assert entry.kl == pytest.approx(float(expected.kl.mean()), abs=1e-5)
    flipped = (expected.logits[0].argmax(-1) != bench.base.logits[0].argmax(-1)).sum()
    assert entry.flipped == int(flipped)


def test_many_edits_in_a_row_end_in_the_last(bench):
    for expert in range(8):
        bench.interventions = (wb.AblateExpert(2, expert, "zero"),)
    last = wb.AblateExpert(2, 7, "zero")
    torch.testing.assert_close(bench.run.logits, direct(bench, last).logits, atol=1e-4, rtol=1e-4)
    assert bench.session.run("edited").interventions == (last,)


def test_edits_from_several_threads_leave_one_state_and_its_run(bench):
    def some(layer: int) -> None:
        for expert in range(4):
            bench.add(wb.AblateExpert(layer, expert, "zero"))

    threads = [threading.Thread(target=some, args=(layer,)) for layer in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bench.interventions) == 16 and len({repr(spec) for spec in bench.interventions}) == 16
    torch.testing.assert_close(bench.run.logits, direct(bench, *bench.interventions).logits, atol=1e-4, rtol=1e-4)


def test_the_model_is_as_it_was_after_all_that(bench):
    bench.add(SPEC)
    bench.session.wait(30)
    assert not any(point.fwd_hooks for point in bench.model.hook_dict.values())
    assert torch.equal(wb.run(bench.model, bench.base.tokens).logits, bench.base.logits)


def test_a_patch_takes_the_other_prompts_run_even_where_that_kept_too_little(bench):
    spec = wb.Patch("blocks.1.attn.hook_q", "corrupt", component=2)
    bench.add(spec)
    whole = wb.run(bench.model, bench.session.run("corrupt").tokens, sites="all")
    expected = wb.run(bench.model, bench.base.tokens, [spec], sources={"corrupt": whole})
    torch.testing.assert_close(bench.run.logits, expected.logits, atol=1e-4, rtol=1e-4)


def test_a_vector_is_made_from_its_recipe(bench):
    bench.vector("direction", {"kind": "unembedding", "token": 7})
    spec = wb.Steer("blocks.2.hook_resid_post", "direction", 2.0)
    bench.add(spec)
    vector = bench.model.unembed.weight[7].detach()
    expected = wb.run(bench.model, bench.base.tokens, [spec], sources={"direction": vector})
    torch.testing.assert_close(bench.run.logits, expected.logits, atol=1e-4, rtol=1e-4)


def test_another_prompt_gives_other_runs_and_undo_the_first_again(bench_of):
    bench = bench_of("Mia went to the park.")
    first = bench.run.tokens
    bench.session.set_prompts({"prompt": "Tom has a red ball."})
    assert bench.run.tokens.tolist() == bench.model.to_tokens("Tom has a red ball.").tolist()
    bench.undo()
    assert torch.equal(bench.run.tokens, first)


def test_interventions_at_positions_that_a_shorter_prompt_lacks_keep_it_out(bench_of):
    bench = bench_of("Mia went to the park and then to the garden.")
    bench.add(wb.AblatePosition((8,)))
    with pytest.raises(ValueError, match="position 8"):
        bench.session.set_prompts({"prompt": "Mia"})
    assert bench.run.tokens.shape[1] > 8


def test_an_empty_prompt_is_refused(bench_of):
    bench = bench_of("Mia")
    with pytest.raises(ValueError, match="no tokens"):
        bench.session.set_prompts({"prompt": ""})


def test_sites_that_were_not_kept_are_computed(bench):
    run, site = bench.base, "blocks.2.attn.hook_rot_q"
    expected = wb.run(bench.model, run.tokens, sites=site)[site][0]
    np.testing.assert_allclose(bench.session.site(run, site), expected.numpy(), atol=1e-5)


def test_one_model_has_one_worker(nano):
    assert Worker.of(nano) is Worker.of(nano)


def test_a_prompt_cannot_take_the_name_of_the_edited_run(nano):
    with pytest.raises(ValueError, match="edited"):
        Bench(nano, {"edited": "Mia"})


def test_what_is_no_prompt_is_refused(nano):
    for given in (3.5, {"a": "x", "b": "y", "c": "z"}, object()):
        with pytest.raises((ValueError, TypeError)):
            Bench(nano, given)


# ---------------------------------------------------------------- selection


def test_a_chosen_head_gives_its_pattern(bench):
    bench.select(layer=2, head=1)
    expected = bench.base["blocks.2.attn.hook_pattern"][0, 1]
    np.testing.assert_array_equal(bench.selection.values(), expected)
    bench.select(position=4, key=2)
    assert float(bench.selection.values()) == float(expected[4, 2])


def test_a_chosen_expert_gives_the_weight_of_each_token(bench):
    bench.select(layer=1, expert=3)
    chosen = bench.base["blocks.1.mlp.hook_expert_indices"][0]
    weights = bench.base["blocks.1.mlp.hook_expert_weights"][0]
    expected = [
        sum(float(w) for e, w in zip(es, ws, strict=True) if e == 3) for es, ws in zip(chosen, weights, strict=True)
    ]
    np.testing.assert_allclose(bench.selection.values(), expected, rtol=1e-6)


def test_a_layer_a_site_and_a_position_give_the_stream(bench):
    stream = [bench.base[f"blocks.{layer}.hook_resid_post"][0].numpy() for layer in range(4)]
    bench.select(layer=2)
    np.testing.assert_array_equal(bench.selection.values(), stream[2])
    bench.select(position=5)
    np.testing.assert_array_equal(bench.selection.values(), stream[2][5])
    bench.select(layer=None)
    np.testing.assert_array_equal(bench.selection.values(), np.stack([each[5] for each in stream]))
    bench.selection = Selection(site="blocks.0.hook_attn_out", span=(2, 5))
    np.testing.assert_array_equal(bench.selection.values(), bench.base["blocks.0.hook_attn_out"][0, 2:5])


def test_the_code_of_a_selection_gives_its_values(bench):
    choices = [
        {"layer": 2, "head": 1},
        {"layer": 2, "head": 1, "position": 4},
        {"layer": 2, "head": 1, "position": 4, "key": 2},
        {"layer": 1, "expert": 3},
        {"layer": 1, "expert": 3, "position": 7},
        {"layer": 3},
        {"layer": 3, "span": (1, 4)},
        {"site": "blocks.0.attn.hook_pattern", "position": 3},
        {"site": "blocks.0.hook_mlp_out", "position": 3},
        {"position": 6},
    ]
    for choice in choices:
        bench.selection = Selection(run="clean", **choice)
        code = f"{bench.code()}\nfrom workbench import experiments\n{bench.selection.code()}"
        scope: dict = {}
        exec(code, scope)
        np.testing.assert_allclose(scope["values"], bench.selection.values(), atol=1e-5, err_msg=str(choice))


def test_what_is_chosen_can_be_ablated_and_patched(bench):
    bench.select(layer=1, expert=3)
    assert bench.selection.ablate("zero") == wb.AblateExpert(1, 3, "zero")
    bench.select(layer=2, head=4, position=6)
    assert bench.selection.ablate(positions="selected") == wb.AblateHead(2, 4, positions=(6,))
    assert bench.selection.patch_from("corrupt") == wb.Patch(
        "blocks.2.attn.hook_z", "corrupt", positions=(6,), component=4
    )
    bench.select(layer=None, position=3)
    assert bench.selection.ablate() == wb.AblatePosition((3,))
    assert len(bench.interventions) == 4 and bench.run.kl is not None


def test_head_expert_and_site_exclude_one_another(bench):
    bench.select(layer=1, expert=3)
    bench.select(layer=1, head=2)
    assert bench.selection.chosen == {"layer": 1, "head": 2}
    bench.select(layer=0)
    assert bench.selection.chosen == {"layer": 0}
    with pytest.raises(ValueError, match="one of head, expert and site"):
        bench.select(layer=1, head=1, expert=1)


def test_a_choice_that_is_not_there_is_refused_with_what_there_is(bench):
    for choice, words in [
        ({"layer": 4}, "0 to 3"),
        ({"layer": 0, "expert": 8}, "0 to 7"),
        ({"position": 14}, "0 to 13"),
        ({"head": 1}, "without a layer"),
        ({"span": (5, 5)}, "span"),
        ({"lair": 1}, "no 'lair'"),
    ]:
        with pytest.raises(ValueError, match=words):
            bench.select(**choice)
    assert bench.selection.chosen == {}


def test_a_selection_without_a_bench_says_so():
    with pytest.raises(ValueError, match="no Bench"):
        Selection(layer=1).values()


def test_nothing_chosen_says_so(bench):
    for use in (bench.selection.values, bench.selection.ablate, lambda: bench.selection.patch_from("corrupt")):
        with pytest.raises(ValueError, match="selected"):
            use()


def test_a_still_form_starts_no_long_work(nano, monkeypatch):
    for module in ("runs", "views.graph"):  # as on the 20b, where each pass takes seconds
        monkeypatch.setattr(f"workbench.widgets.{module}.QUICK", 0)
    bench = wb.Bench(nano, "Mia went to the park", open=["steering", "ablation", "generation", "graph", "patching"])
    bench.wait()
    passes = []
    hook = nano.ln_final.register_forward_pre_hook(lambda *given: passes.append(1))
    try:
        said = bench.static()
        assert not passes and "not run yet" in said and "not looked at yet" in said
        bench["steering"].data({"what": "setup"})
        for what in ("effect", "controls"):
            bench["steering"].data({"what": what})
        assert passes
        passes.clear()
        assert "random directions of the same length" in bench.static() and not passes  # what is there is shown
    finally:
        hook.remove()
        bench.close()


# ---------------------------------------------------------------- messages from several threads


def told_by(bench, monkeypatch, did):
    """What of one kind is sent to the screen from now on."""
    sent = []
    monkeypatch.setattr(bench, "send", lambda content, buffers: content["did"] == did and sent.append(content))
    return sent


def test_a_state_that_a_newer_one_has_overtaken_is_not_sent_after_it(bench, monkeypatch):
    sent, described = told_by(bench, monkeypatch, "state"), describe.state
    begun, go_on = threading.Event(), threading.Event()

    def slow(session):
        made = described(session)
        if threading.current_thread().name == "slow":
            begun.set()
            go_on.wait(10)
        return made

    monkeypatch.setattr(describe, "state", slow)
    thread = threading.Thread(target=bench.session.tell, name="slow")
    thread.start()
    assert begun.wait(10)
    bench.select(layer=2)
    go_on.set()
    thread.join(10)
    assert [message["state"]["selection"]["layer"] for message in sent] == [2]
    bench.session.tell()
    assert len(sent) == 2


def test_what_is_streamed_later_is_the_last_that_comes(bench, monkeypatch):
    sent, begun, go_on = told_by(bench, monkeypatch, "stream"), threading.Event(), threading.Event()

    def slow(message, arrays):
        if message["json"]["n"] == 1:
            begun.set()
            go_on.wait(10)
        bench._push(message, arrays)

    session, session.send = bench.session, slow
    thread = threading.Thread(target=lambda: session.stream("steering", "text", {"n": 1}, {}))
    thread.start()
    assert begun.wait(10)
    session.stream("steering", "text", {"n": 2}, {})
    session.flush("steering", "text")
    session.stream("steering", "other", {"n": 3}, {})
    go_on.set()
    thread.join(10)
    assert [(message["json"]["n"], set(message)) for message in sent] == [
        (n, {"did", "view", "key", "json"}) for n in (2, 3)
    ]
