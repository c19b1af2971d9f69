"""Patching in the Bench: every number is that of a whole run with the patch, and nothing that was found is lost."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

import workbench as wb
from workbench import experiments
from workbench.experiments.patching.controls import patching_controls
from workbench.experiments.patching.setting import FIRST_GROUP
from workbench.widgets.views import patching_sweep
from workbench.widgets.views.patching import WHY
from workbench.widgets.views.patching_study import aligned


@pytest.fixture
def view(bench):
    return bench["patching"]


def choose(view, **options):
    view.session.options("patching", **options)
    return view.sweep(view.study())


def measured(view, **options):
    sweep = choose(view, **options)
    view.start(sweep).result(60)
    return sweep


def whole_run(view, spec) -> torch.Tensor:
    """The last logits of a run of the target with this spec, made from nothing."""
    name, target = (view.session.state.prompt(name) for name in view.names({}))
    model, kept = view.session.model, {site for _, site in spec.reads(view.session.config)}
    source = wb.run(model, list(name.tokens), sites=sorted(kept))
    return wb.run(model, list(target.tokens), [spec], sources={name.name: source}, sites=sorted(kept)).logits[0, -1]


def share(view, sweep, spec) -> float:
    """The same as a share of what there is to bring back, worked out with numpy."""
    study = sweep.study

    def score(logits) -> float:
        logits = logits.double().numpy()
        p = np.exp(logits - np.logaddexp.reduce(logits))
        if study.metric == "kl":
            q = np.exp(source.double().numpy() - np.logaddexp.reduce(source.double().numpy()))
            return float((q * (np.log(q) - np.log(p))).sum())
        return float(p[study.right] if study.metric == "probability" else logits[study.right] - logits[study.wrong])

    session = view.session
    source, target = (session.run(name).logits[0, -1] for name in (study.source, study.target))
    good, bad = score(source), score(target)
    return (score(whole_run(view, spec)) - bad) / (good - bad)


def some(sweep, n: int = 4):
    """A few cells: the largest, and others that were run."""
    able = np.argwhere(sweep.able)
    largest = able[np.argsort(-np.abs(sweep.exact[sweep.able]))[: n // 2]]
    return [*map(tuple, largest.tolist()), *map(tuple, able[:: max(1, len(able) // 2)].tolist())]


@pytest.mark.parametrize(
    "options",
    [
        {"part": "resid_pre"},
        {"part": "attn_out", "metric": "probability"},
        {"part": "mlp_out", "metric": "kl"},
        {"part": "head"},
        {"part": "head", "over": "position", "layer": 2, "metric": "kl"},
        {"part": "expert"},
        {"part": "expert", "over": "position", "layer": 1, "source": "corrupt"},
    ],
    ids=lambda options: " ".join(map(str, options.values())),
)
def test_each_cell_is_a_whole_run_with_its_patch(view, options):
    sweep = measured(view, **options)
    assert sweep.left == 0 and not np.isnan(sweep.exact).any()
    for row, column in some(sweep):
        assert sweep.exact[row, column] == pytest.approx(share(view, sweep, sweep.study.spec(row, column)), abs=1e-3)
    assert np.abs(sweep.exact).max() > 0.01
    idle = np.argwhere(~sweep.able)
    assert (sweep.exact[~sweep.able] == 0).all()
    for row, column in idle[len(idle) // 2 :][:1].tolist():
        assert share(view, sweep, sweep.study.spec(row, column)) == pytest.approx(0, abs=1e-4)


def test_the_ends_are_the_source_at_1_and_the_target_at_0(view):
    sweep = measured(view)
    assert sweep.exact[-1, -1] == pytest.approx(1, abs=0.2)  # almost all that the answer is read from
    logits = {name: view.session.run(name).logits[0, -1] for name in ("clean", "corrupt")}
    right, wrong = view.session.state.answer
    assert sweep.ends == pytest.approx([float(logits[n][right] - logits[n][wrong]) for n in ("clean", "corrupt")])


def test_estimates_are_attribution_patching_and_r_is_their_correlation_with_the_exact_cells(view):
    sweep = choose(view)
    view.start(sweep, exact=False).result(60)
    assert sweep.left == 20 and sweep.correlation() == (None, 0)
    right, wrong = view.session.state.answer
    runs = [view.session.run(name) for name in ("clean", "corrupt")]
    expected = experiments.attribution_patching(view.session.model, *runs, (right, wrong), ["resid_pre"])
    np.testing.assert_allclose(sweep.estimate, expected.recovered.values[0], atol=1e-5)
    view.start(sweep).result(60)
    r, n = sweep.correlation()
    assert n == 20 and r == pytest.approx(np.corrcoef(sweep.estimate[sweep.able], sweep.exact[sweep.able])[0, 1])


def test_the_noise_floor_is_above_95_percent_of_random_patches(view):
    sweep = measured(view, part="attn_out")
    runs = [view.session.run(name) for name in ("clean", "corrupt")]
    answer = view.session.state.answer
    controls = patching_controls(view.session.model, *runs, answer, "attn_out", n=patching_sweep.CONTROLS)
    assert sweep.floor == pytest.approx(np.quantile(np.abs(controls.recovered.values), 0.95), abs=1e-4)
    assert sweep.controls == 20 and (np.abs(controls.recovered) > sweep.floor).sum() == 1


def test_largest_estimates_come_first_a_cancel_keeps_what_is_done_and_resume_goes_on(view, monkeypatch):
    sweep, stop = choose(view, part="head", over="position", layer=2), threading.Event()
    push = patching_sweep.push

    def pushed(sweep, session, now=False):
        if not stop.is_set() and sweep.left < sweep.able.sum():
            stop.set()
            session.jobs[-1].cancel()
        push(sweep, session, now)

    monkeypatch.setattr(patching_sweep, "push", pushed)
    job = view.start(sweep)
    job.wait(60)
    assert job.state == "cancelled" and 0 < sweep.left < sweep.able.sum()
    done = sweep.able & np.isfinite(sweep.exact)
    size = np.abs(sweep.estimate)
    least_of_the_first = np.sort(size[sweep.able])[::-1][FIRST_GROUP - 1]
    assert (size[done] >= least_of_the_first - 1e-9).all()
    kept, left = sweep.exact[done].copy(), sweep.left
    again = job.resume()
    again.result(60)
    assert again.done == again.total == left and sweep.left == 0
    np.testing.assert_array_equal(sweep.exact[done], kept)


def test_a_model_without_gradients_has_exact_cells_all_the_same_and_says_why(view, monkeypatch):
    def refuse(*given):
        raise ValueError("packed experts have no gradient")

    monkeypatch.setattr(experiments, "attribution_patching", refuse)
    sweep = measured(view)
    about, arrays = view.data({"kind": "grid"})
    assert (
        sweep.left == 0 and "estimate" not in arrays and about["why_no_estimate"] == "packed experts have no gradient"
    )


def test_switching_the_source_changes_their_places(view):
    first = measured(view)
    about, _ = view.data({"kind": "grid", "source": "corrupt"})
    assert (about["source"], about["target"]) == ("corrupt", "clean") and about["ends"] == list(first.ends[::-1])
    assert about["id"] != first.id and about["left"] == 20


def test_numbers_outlast_edits_and_another_answer_asks_another_question(bench, view):
    sweep = measured(view)
    bench.add(wb.AblateHead(1, 2))
    bench.session.wait(60)
    assert view.data({})[0]["id"] == sweep.id and view.data({})[0]["left"] == 0
    bench.session.edit(lambda state: replace(state, answer=(5, 7)), "another answer")
    about, _ = view.data({})
    assert about["id"] != sweep.id and about["answer"] == {"right": view.session.word(5), "wrong": view.session.word(7)}


def test_without_an_answer_the_tokens_are_what_each_prompt_says_next(bench_of, pair):
    view = bench_of({"clean": pair.clean, "corrupt": pair.corrupt})["patching"]
    study = view.study()
    said = [int(view.session.run(name).logits[0, -1].argmax()) for name in ("clean", "corrupt")]
    assert [study.right, study.wrong] == said


# ---------------------------------------------------------------- one patch


def test_a_cell_shows_the_run_with_that_patch_and_fills_the_grid(view):
    sweep = choose(view)
    row, column = 1, 11
    json, _ = view.data({"kind": "cell", "row": row, "column": column})
    p = whole_run(view, sweep.study.spec(row, column)).softmax(-1)
    q = view.session.run("corrupt").logits[0, -1].softmax(-1)
    assert [token["patched"] for token in json["tokens"]] == pytest.approx(
        [float(p[t["id"]]) for t in json["tokens"]], abs=1e-4
    )
    assert json["kl"] == pytest.approx(float((q * (q.log() - p.log())).sum()), abs=1e-3) and json["kl"] > 1
    assert json["share"] == pytest.approx(share(view, sweep, sweep.study.spec(row, column)), abs=1e-4)
    assert sweep.exact[row, column] == json["share"] and sweep.left == 19
    assert {json["tokens"][0]["text"], json["tokens"][1]["text"]} == {"␣Ben", "␣Anna"}


@pytest.mark.parametrize("options", [{"part": "resid_pre"}, {"part": "expert"}], ids=["position", "everywhere"])
def test_the_text_that_follows_is_that_of_the_patched_model_word_by_word(view, options):
    study, sent = choose(view, **options).study, []
    view.session.stream = lambda view, key, json, arrays: sent.append((key, json))
    row, column = (
        (1, 11)
        if options["part"] == "resid_pre"
        else (1, int(np.argmax(view._able(study, *map(view.session.run, view.names({})))[1])))
    )
    view.act({"kind": "text", "row": row, "column": column})
    view.session.wait(60)
    shown = [json for key, json in sent if key == "text"][-1]
    assert shown["done"] and shown["texts"]["target"] != shown["texts"]["source"]
    tokens, source = list(study.target_tokens), wb.run(view.session.model, list(study.source_tokens), sites="all")
    for word in shown["texts"]["patched"][:6]:  # each anew, without a cache
        logits = wb.run(view.session.model, tokens, [study.spec(row, column)], sources={"clean": source}).logits[0, -1]
        tokens.append(int(logits.argmax()))
        assert word == view.session.word(tokens[-1])


def test_put_on_the_bench_is_a_chip_on_the_target(bench, view):
    assert bench.session.state.subject == "clean"
    view.act({"kind": "add", "row": 1, "column": 11})
    bench.session.wait(60)
    assert bench.interventions == (wb.Patch("blocks.1.hook_resid_pre", "clean", (11,)),)
    assert bench.session.state.subject == "corrupt"
    assert torch.allclose(bench.run.logits[0, -1], whole_run(view, bench.interventions[0]), atol=1e-4)


def test_a_dragged_residual_is_put_at_the_other_token(bench, view):
    view.act({"kind": "drag", "part": "resid_pre", "layer": 1, "source_position": 9, "position": 4})
    bench.session.wait(60)
    assert bench.interventions == (wb.Patch("blocks.1.hook_resid_pre", "clean", (4,), (9,)),)
    clean = bench.session.run("clean")["blocks.1.hook_resid_pre"][:, 9]

    def put(x, hook):
        x = x.clone()
        x[:, 4] = clean
        return x

    with torch.no_grad():
        expected = bench.model.run_with_hooks(
            torch.tensor([bench.session.state.prompt("corrupt").tokens]), fwd_hooks=[("blocks.1.hook_resid_pre", put)]
        )
    assert torch.allclose(bench.run.logits, expected, atol=1e-4)


def test_a_head_can_be_dragged_back_the_other_way(bench, view):
    view.act(
        {
            "kind": "drag",
            "source": "corrupt",
            "part": "head",
            "head": 3,
            "layer": 2,
            "source_position": 5,
            "position": 5,
        }
    )
    assert bench.interventions == (wb.Patch("blocks.2.attn.hook_z", "corrupt", (5,), component=3),)
    assert bench.session.state.subject == "clean"
    for wrong in (
        {"part": "expert"},
        {"part": "head"},
        {"part": "resid_pre", "head": 1},
        {"part": "resid_pre", "layer": True},
    ):
        with pytest.raises(ValueError, match=r"expected|dragged"):
            view.act({"kind": "drag", "layer": 2, "source_position": 5, "position": 5, **wrong})
    with pytest.raises(ValueError, match="positions 0 to 13"):
        view.act({"kind": "drag", "part": "resid_pre", "layer": 2, "source_position": 14, "position": 5})


# ---------------------------------------------------------------- without a grid


def test_prompts_that_cannot_be_compared_say_why(bench_of):
    one = bench_of("Mia went to the park.")["patching"]
    same = bench_of({"a": "Mia went", "b": "Mia went"})["patching"]
    unlike = bench_of({"a": "Mia went to the park", "b": "Mia went"})["patching"]
    for view, why in ((one, "one"), (same, "same"), (unlike, "length")):
        assert view.data({})[0] == {"missing": why}
        assert WHY[why].split(":")[0].replace("'", "&#x27;") in view.static() and WHY[why] in view.code()
        assert not view.table().data_vars
        with pytest.raises(ValueError, match="prompt"):
            view.figure()
        with pytest.raises(ValueError, match="prompt"):
            view.act({"kind": "run"})
    json, arrays = unlike.data({"kind": "prompts"})
    assert json["missing"] == "length" and arrays["pairs"].tolist()[:2] == [[0, 0], [1, 1]]
    unlike.act({"kind": "drag", "part": "mlp_out", "layer": 0, "source_position": 4, "position": 1})
    assert unlike.session.state.specs == (wb.Patch("blocks.0.hook_mlp_out", "a", (1,), (4,)),)


def test_texts_are_aligned_by_what_they_share():
    assert aligned([1, 2, 3], [1, 9, 3]) == [(0, 0), (1, 1), (2, 2)]
    assert aligned([1, 2, 3], [1, 3]) == [(0, 0), (1, -1), (2, 1)]
    assert aligned([1, 3], [1, 7, 8, 3]) == [(0, 0), (-1, 1), (-1, 2), (1, 3)]
    assert aligned([], [4]) == [(-1, 0)]


def test_two_runs_that_score_the_same_have_nothing_to_bring_back(bench_of):
    model_view = bench_of({"a": "Mia went", "b": "Tom went"}, answer=(7, 7))["patching"]
    about, arrays = model_view.data({})
    assert about["ends"][0] == about["ends"][1] and about["left"] == 0 and np.isnan(arrays["exact"]).all()
    json, _ = model_view.data({"kind": "cell", "row": 0, "column": 0})
    assert json["share"] is None
    assert "nothing to bring back" in model_view.static()


def test_what_it_does_not_have_is_refused(view):
    for options in (
        {"metric": "loss"},
        {"part": "router"},
        {"over": "layer"},
        {"layer": 9},
        {"layer": True},
        {"size": 1},
    ):
        with pytest.raises(ValueError, match="Patching"):
            view.session.options("patching", **options)
    with pytest.raises(ValueError, match="no cell 4, 0"):
        view.data({"kind": "cell", "row": 4, "column": 0})
    with pytest.raises(ValueError, match="whole number"):
        view.act({"kind": "add", "row": "1", "column": 0})
    with pytest.raises(ValueError, match="does not know how"):
        view.act({"kind": "dance"})


# ---------------------------------------------------------------- without a browser


@pytest.mark.parametrize(
    "options",
    [{"part": "mlp_out"}, {"part": "head"}, {"part": "expert", "over": "position", "layer": 2, "metric": "kl"},
     {"part": "attn_out", "metric": "probability", "source": "corrupt"}],
    ids=lambda options: options["part"],
)  # fmt: skip
def test_its_code_gives_the_numbers_on_screen_in_a_fresh_namespace(bench, view, options):
    measured(view, **options)
    namespace: dict = {}
    exec(bench.code("patching"), namespace)
    grid, table = namespace["grid"], view.table()
    np.testing.assert_allclose(grid.recovered, table.recovered, atol=1e-3)
    np.testing.assert_allclose(grid.metric, table.metric, atol=1e-3)
    assert grid.recovered.dims == table.recovered.dims
    assert view.figure().data[0].z is not None


def test_its_static_form_has_every_number_marks_estimates_and_runs_nothing(bench_of, pair):
    hostile = "<img src=x onerror=alert(1)>"
    view = bench_of({"clean": f"{hostile} Mia", "corrupt": f"{hostile} Tom"})["patching"]
    sweep = choose(view)
    assert "not run yet" in view.static()
    view.start(sweep, exact=False).result(60)
    assert "≈" in view.static()
    view.start(sweep).result(60)
    page = view.static()
    assert "<img" not in page and "<script" not in page and "noise floor" in page and "largest effects" in page
    largest = np.unravel_index(np.argmax(np.abs(sweep.exact)), sweep.exact.shape)
    assert f"{sweep.exact[largest]:.3g}" in page
    assert hostile not in str(view.data({"kind": "prompts"})[0]) or "<" in view.session.word(
        view.study().source_tokens[0]
    )


def test_a_long_text_is_a_picture_and_small_messages(bench_of, nano):
    tokens = nano.to_tokens("Mia went to the park. Tom saw a dog. " * 40)[0].tolist()
    other = [*tokens]
    other[300] = (other[300] + 1) % 1000
    view = bench_of({"clean": tuple(tokens), "corrupt": tuple(other)})["patching"]
    view.start(choose(view), exact=False).result(60)
    about, arrays = view.data({})
    assert about["shape"] == [4, len(tokens)] and sum(values.nbytes for values in arrays.values()) < 200_000
    page = view.static()
    assert len(page) < 60_000 and "<img alt" in page  # a grid as a picture
