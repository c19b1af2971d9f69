"""What the effect panel says, against wb.run, experiments.compare, and generation without a Bench."""

import numpy as np
import pytest
import torch

import workbench as wb
from tests.widgets.cells import ran
from workbench import experiments
from workbench.widgets.views.effect_completion import differing, first_difference

CHAT = wb.Chat().user("Where is Mia? Mia is in the garden. Tom is in the kitchen. Where is Mia?")
HARD = (wb.AblateHead(1, 0), wb.AblateLayer(1))  # the text that follows changes


@pytest.fixture
def bench(bench_of):
    return bench_of(CHAT, interventions=HARD)


@pytest.fixture
def view(bench):
    return bench["effect"]


@pytest.fixture(scope="module")
def truth(nano):
    """Runs without a Bench: unedited, edited, and the two compared."""
    before = wb.run(nano, CHAT, name="before")
    after = wb.run(nano, CHAT, list(HARD), name="after")
    return before, after, experiments.compare(before, after, top_k=5)


def text(model, specs, length, tokens, sources=None):
    with model.edited(specs, sources=sources):
        return model.generate(tokens, length).finish().new_tokens[0].tolist()


@pytest.mark.parametrize("position", [0, 31, 56, None])
def test_the_bars_are_the_softmax_of_both_runs(bench, view, truth, position):
    json, _ = view.data({"position": position})
    at = 56 if position is None else position
    assert json["position"] == at
    p, q = (run.logits[0, at].double().softmax(-1).numpy() for run in truth[:2])
    ids = [bar["id"] for bar in json["bars"]]
    assert [bar["before"] for bar in json["bars"]] == pytest.approx(p[ids], abs=1e-5)
    assert [bar["after"] for bar in json["bars"]] == pytest.approx(q[ids], abs=1e-5)
    assert {int(p.argmax()), int(q.argmax())} <= set(ids) and 2 <= len(ids) <= 6
    rest = np.delete(np.maximum(p, q), ids)
    assert rest.max() <= max(p[ids[-1]], q[ids[-1]]) + 1e-5
    assert json["kl"]["here"] == pytest.approx((p * np.log(p / q)).sum(), abs=1e-4)


def test_the_sums_are_those_of_compare(view, truth):
    json, _ = view.data({})
    compared = truth[2].sel(run="after")
    assert json["kl"]["mean"] == pytest.approx(float(compared.kl.mean()), rel=1e-3)
    assert json["kl"]["max"] == pytest.approx(float(compared.kl.max()), rel=1e-3)
    assert json["kl"]["at"] == int(compared.kl.values.argmax())
    assert json["flipped"]["count"] == int(compared.flipped.sum()) == len(json["flipped"]["list"]) > 0
    assert [row["position"] for row in json["flipped"]["list"]] == np.flatnonzero(compared.flipped).tolist()
    assert json["routes"]["counts"] == compared.routes_flipped.sum("pos").values.tolist()
    assert json["routes"]["here"] == compared.routes_flipped.isel(pos=-1).values.tolist()


def test_a_flipped_token_is_named_as_it_was_and_as_it_is(bench, view, truth):
    before, after, _ = truth
    for row in view.data({})[0]["flipped"]["list"]:
        for run, name in ((before, "before"), (after, "after")):
            assert row[name] == bench.session.word(int(run.logits[0, row["position"]].argmax()))


def test_the_selected_position_and_the_end_of_a_span_are_what_is_shown(bench, view):
    bench.select(position=9)
    assert view.data({})[0]["position"] == 9
    bench.session.select(span=(3, 7))
    assert view.data({})[0]["position"] == 6


def test_the_answer_is_weighed_before_and_after(bench_of, nano, truth):
    bench = bench_of(CHAT, interventions=HARD, answer=("<|channel|>", " Mia"))
    said = bench["effect"].data({})[0]
    right, wrong = nano.to_single_token("<|channel|>"), nano.to_single_token(" Mia")
    for run, name in zip(truth[:2], ("before", "after"), strict=True):
        gap = float(run.logits[0, -1, right] - run.logits[0, -1, wrong])
        assert said["answer"][name] == pytest.approx(gap, abs=1e-3)
    assert {right, wrong} <= {bar["id"] for bar in said["bars"]}


def test_both_texts_are_those_of_generation_with_and_without_the_interventions(bench, view, nano):
    view.complete().wait(30)
    said = view.data({})[0]["completion"]
    assert said["before"]["ids"] == text(nano, [], 24, bench.base.tokens)
    assert said["after"]["ids"] == text(nano, HARD, 24, bench.base.tokens)
    assert said["done"] and said["first"] is not None and said["before"]["over"]


def test_a_text_with_a_patch_reads_its_source(bench_of, nano):
    pair = {"mia": "Mia is in the garden. Where is Mia?", "tom": "Tom is in the garden. Where is Tom?"}
    spec = wb.Patch("blocks.1.hook_resid_post", "tom", positions=(0, 8))
    bench = bench_of(pair, interventions=[spec])
    bench.session.options("effect", length=8)
    bench["effect"].complete().wait(30)
    sources = {"tom": wb.run(nano, pair["tom"])}
    expected = text(nano, [spec], 8, bench.base.tokens, sources)
    assert bench["effect"].data({})[0]["completion"]["after"]["ids"] == expected
    _, made = ran(bench.code("effect"))
    assert made["after"] == nano.to_string(torch.tensor(expected))


def test_tokens_come_one_by_one_and_other_edits_stop_what_is_under_way(bench, view):
    session, told = bench.session, []
    session.send = lambda message, arrays: told.append(message) if message["did"] == "stream" else None
    session.streams.push = lambda key, send: send()  # every message, not the newest of many
    first = view.complete().wait(30)
    streamed = [message["json"] for message in told if message["key"] == "completion"]
    lengths = [(len(json["before"]["ids"]), len(json["after"]["ids"])) for json in streamed]
    assert first.state == "done" and lengths == sorted(lengths) and len(set(lengths)) == sum(lengths[-1]) > 30
    bench.add(wb.AblateHead(2, 3))
    bench.wait(30)
    assert view.data({})[0]["completion"] is None  # that text was of other interventions
    second = view.complete()
    assert second.total <= 24  # the unedited text is there already
    bench.session.edit(HARD, "back")
    second.wait(30)
    assert second.state == "done" or second.cancelled
    view.complete().wait(30)
    assert view.data({})[0]["completion"]["after"]["ids"] == streamed[-1]["after"]["ids"]


def test_a_text_that_other_interventions_have_outlived_is_not_streamed(bench, view, monkeypatch):
    told = []
    real = bench.session.stream

    def stream(name, key, json, arrays):
        if key == "completion":
            told.append((bench.session.state.specs, json["revision"], bench.session.revision))
        real(name, key, json, arrays)

    monkeypatch.setattr(bench.session, "stream", stream)
    job = view.complete()
    while not told and not job.future.done():
        pass
    bench.session.edit((wb.AblateHead(0, 2),), "another")
    job.wait(30)
    bench.session.wait(60)
    assert {specs for specs, *_ in told} == {HARD}
    assert all(said == now for _, said, now in told)


def test_it_is_not_generated_twice_and_a_cancelled_text_goes_on(bench, view, nano):
    bench.session.options("effect", length=48)
    job = view.complete()
    assert view.complete() is None
    job.cancel()
    job.wait(30)
    assert view.complete() is None  # who cancelled it does not want it at once again
    if job.state == "cancelled":
        job.resume().wait(60)
    said = view.data({})[0]["completion"]
    assert said["after"]["ids"] == text(nano, HARD, 48, bench.base.tokens)
    bench.session.options("effect", length=8)
    view.complete()
    bench.wait(30)
    short = view.data({})[0]["completion"]
    assert short["after"]["ids"] == said["after"]["ids"][:8] and short["done"] and not short["before"]["over"]


def test_an_edit_is_not_held_up_by_a_text_under_way(bench, view):
    bench.session.options("effect", length=192)
    job = view.complete()
    bench.add(wb.AblateExpert(3, 1))
    bench.run  # noqa: B018 waits for the run
    assert job.state in ("running", "queued", "done")
    job.wait(30)
    assert job.done < 192  # its interventions are gone, and so is the need for it


@pytest.mark.parametrize(
    ("before", "after", "marks", "first"),
    [
        ([1, 2, 3], [1, 2, 3], ([0, 0, 0], [0, 0, 0]), None),
        ([1, 2, 3], [1, 9, 3], ([0, 1, 0], [0, 1, 0]), 1),
        ([1, 2, 3, 4], [1, 3, 4], ([0, 1, 0, 0], [0, 0, 0]), 1),
        ([], [5], ([], [1]), None),
    ],
)
def test_differences_are_the_tokens_without_a_counterpart(before, after, marks, first):
    assert differing(before, after) == marks
    assert first_difference(before, after) == first


def test_a_text_that_is_still_coming_is_compared_as_far_as_it_has_come():
    assert differing([1, 2, 3, 4], [1, 2], whole=False) == ([0, 0, 0, 0], [0, 0])


def test_without_an_intervention_there_is_nothing_to_show(bench_of):
    bench = bench_of("Mia is in the garden")
    view = bench["effect"]
    assert view.data({})[0] == {"on": False} and view.complete() is None
    assert "no intervention" in view.static() and "no intervention" in view.code()
    with pytest.raises(ValueError, match="nothing to compare"):
        view.table()


def test_the_copied_code_draws_the_numbers_on_screen(bench, view):
    bench.select(position=31)
    figure, made = ran(bench.code("effect"))
    json = view.data({})[0]
    bars = {bar["text"]: (bar["before"], bar["after"]) for bar in json["bars"]}
    likeliest = [max(trace.x) for trace in figure.data]
    assert likeliest == pytest.approx(np.array(list(bars.values())).max(0).tolist(), abs=1e-4)
    assert float(made["compared"].kl.sel(run="edited").mean()) == pytest.approx(json["kl"]["mean"], rel=1e-3)
    view.complete().wait(30)
    assert made["after"] == bench.model.to_string(torch.tensor(view.data({})[0]["completion"]["after"]["ids"]))


def test_the_table_holds_what_is_on_screen(view, truth):
    made, compared = view.table(), truth[2].sel(run="after")
    assert made.kl.values == pytest.approx(compared.kl.values, abs=1e-4)
    assert np.array_equal(made.flipped, compared.flipped)
    assert np.array_equal(made.routes_flipped, compared.routes_flipped)


def test_the_static_form_says_it_without_a_script_and_hostile_text_stays_text(bench, view, monkeypatch):
    view.complete().wait(30)
    said = view.static()
    assert "goes on, after" in said and "KL" in said and "<script" not in said
    monkeypatch.setattr(bench.session, "word", lambda token: "<img src=x onerror=alert(1)>")
    assert "<img" not in view.static()


def test_a_length_that_is_not_offered_is_refused(bench):
    with pytest.raises(ValueError, match="Effect"):
        bench.session.options("effect", length=7)


def test_after_another_prompt_both_runs_are_of_it(bench, view):
    bench.session.set_prompts({"prompt": "Tom went to the mill."})
    json, _ = view.data({})
    assert json["n"] == len(bench.session.tokens(bench.base)) == json["position"] + 1
