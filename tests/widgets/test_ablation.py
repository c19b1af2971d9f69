"""The ablation bench without a browser: every number against runs, hooks and experiments of their own."""

import json
import time

import numpy as np
import pytest
import torch

import workbench as wb
from workbench import experiments
from workbench.widgets import workspace
from workbench.widgets.views.ablation_parts import KINDS, name, part_of, spec

CHIP = wb.AblateExpert(1, 3, "zero")


@pytest.fixture
def view(bench):
    return bench.session.views["ablation"]


def choose(view, **values):
    view.session.options("ablation", **values)
    return view


def answered(view, **ask):
    json_, arrays = view.data(ask)
    return json_, {key: array.reshape(array.shape[0], json_["layers"], json_["count"]) for key, array in arrays.items()}


def finished(view, kind, **ask):
    """Carry an action out and wait for its job."""
    view.act({"kind": kind, **ask})
    view.session.wait(120)
    job = [job for job in view.session.jobs if job.view == "ablation"][-1]
    assert job.state == "done", job.error


@pytest.fixture(scope="module")
def whole(nano, pair):
    """Both prompts, with every site."""
    return [wb.run(nano, getattr(pair, side), sites="all") for side in ("clean", "corrupt")]


# ---------------------------------------------------------------- what is read off a run


@pytest.mark.parametrize("position", [3, None])
def test_activation_and_norm_of_heads_experts_layers_and_sinks_are_those_of_the_sites(view, whole, position):
    how = {"over": "mean"} if position is None else {"over": "token", "position": position}
    at = slice(None) if position is None else slice(position, position + 1)
    for side, run in enumerate(whole):
        for layer in range(4):
            site = {key.split(".", 2)[2]: values[0] for key, values in run.cache.items() if f"blocks.{layer}." in key}
            sink, written = site["attn.hook_sink"][at], site["attn.hook_result"][at].norm(dim=-1)
            by_id = torch.nn.functional.one_hot(site["mlp.hook_expert_indices"][at], 8).float()
            weights, out = site["mlp.hook_expert_weights"][at], site["mlp.hook_expert_out"][at].norm(dim=-1)
            stream = site["hook_resid_pre"][at], site["hook_resid_post"][at]
            expected = {
                "head": ((1 - sink).mean(0), written.mean(0)),
                "sink": (sink.mean(0), (written * sink / site["attn.hook_pattern"][:, at].sum(-1).T).mean(0)),
                "expert": tuple((by_id * x[..., None]).sum(1).mean(0) for x in (weights, weights * out)),
                "layer": (stream[0].norm(dim=-1).mean(0), (stream[1] - stream[0]).norm(dim=-1).mean(0)),
            }
            for kind, (activation, norm) in expected.items():
                _, arrays = answered(view, parts=kind, **how)
                for key, values in (("activation", activation), ("norm", norm)):
                    found = arrays[key][side, layer]
                    np.testing.assert_allclose(found, values.reshape(-1), atol=2e-4, rtol=1e-3, err_msg=f"{kind} {key}")


def test_direct_effects_are_those_of_direct_logit_attribution(view, whole, pair, nano):
    answer = view.session.metric()
    for side, run in enumerate(whole):
        made = experiments.direct_logit_attribution(run, answer)
        each = {kind: answered(view, parts=kind)[1]["direct"][side] for kind in KINDS}
        np.testing.assert_allclose(each["head"], made.heads, atol=2e-4)
        np.testing.assert_allclose(each["expert"], made.experts, atol=2e-4)
        layers = made.heads.sum("head") + made.attn_bias + made.experts.sum("expert")
        np.testing.assert_allclose(each["layer"][:, 0], layers, atol=2e-4)
        sink = np.stack([run[f"blocks.{layer}.attn.hook_sink"][0, -1].numpy() for layer in range(4)])
        mass = np.stack([run[f"blocks.{layer}.attn.hook_pattern"][0, :, -1].sum(-1).numpy() for layer in range(4)])
        np.testing.assert_allclose(each["sink"], made.heads * sink / mass, atol=2e-4, rtol=2e-3)


def test_the_write_of_a_sink_is_what_its_removal_adds_to_its_head(view, nano, whole):
    _, arrays = answered(view, parts="sink", over="token", position=6)
    without = wb.run(nano, whole[0].tokens, [wb.EditSink(2, 5)], sites="all")
    site = "blocks.2.attn.hook_result"
    more = (without[site] - whole[0][site])[0, 6, 5].norm()
    assert float(more) > 1e-3 and arrays["norm"][0, 2, 5] == pytest.approx(float(more), rel=2e-3)


def test_of_an_edited_run_the_numbers_are_its_own(bench, view, nano):
    bench.add(CHIP)
    bench.session.wait(60)
    edited = wb.run(nano, bench.base.tokens, [CHIP], sites="all")
    made = experiments.direct_logit_attribution(edited, view.session.metric())
    about, arrays = answered(choose(view, compare="edited"), parts="expert")
    assert [side["title"] for side in about["sides"]] == ["unedited", "edited"]
    np.testing.assert_allclose(arrays["direct"][1], made.experts, atol=2e-4)
    np.testing.assert_allclose(answered(view, parts="head")[1]["direct"][1], made.heads, atol=2e-4)


# ---------------------------------------------------------------- what is measured


def by_a_run(nano, tokens, specs, answer, given=()):
    """(logit difference, KL) with the specs against without them, each run whole."""
    right, wrong = answer
    plain, done = (wb.run(nano, tokens, list(each)) for each in (given, [*given, *specs]))
    gaps = [run.logits[0, -1, right] - run.logits[0, -1, wrong] for run in (plain, done)]
    logs = [run.logits[0, -1].log_softmax(-1) for run in (plain, done)]
    return float(gaps[1] - gaps[0]), float((logs[0].exp() * (logs[0] - logs[1])).sum())


@pytest.mark.parametrize(
    ("kind", "policy"), [("head", "zero"), ("expert", "reroute"), ("layer", "zero"), ("sink", "remove")]
)
def test_total_effects_are_those_of_whole_runs(view, nano, whole, kind, policy):
    choose(view, kind=kind, compare="prompts" if kind == "head" else "alone")
    finished(view, "run", parts=kind)
    about, arrays = answered(view)
    assert not any(about["left"]) and about["policy"] == policy
    for side, part in ((0, (1, 0)), (len(about["sides"]) - 1, (3, 0)), (0, (2, about["count"] - 1))):
        effect, kl = by_a_run(nano, whole[side].tokens, [spec(kind, part, policy)], view.session.metric())
        assert arrays["effect"][(side, *part)] == pytest.approx(effect, abs=5e-4)
        assert arrays["kl"][(side, *part)] == pytest.approx(kl, abs=2e-5, rel=2e-3)


def test_a_mean_is_taken_from_the_source_and_experts_that_it_never_routes_to_cannot_be_taken_out(view, nano, whole):
    choose(view, kind="expert", policy="mean", source="corrupt", compare="alone")
    finished(view, "run")
    _, arrays = answered(view)
    used = np.zeros((4, 8), bool)
    for layer in range(4):
        used[layer, whole[1][f"blocks.{layer}.mlp.hook_expert_indices"].unique().numpy()] = True
    np.testing.assert_array_equal(arrays["able"][0].astype(bool), used)
    np.testing.assert_array_equal(np.isfinite(arrays["effect"][0]), used)
    part = tuple(np.argwhere(used)[3])
    with_mean = wb.AblateExpert(*map(int, part), "mean", source="corrupt")
    edited = wb.run(nano, whole[0].tokens, [with_mean], sources={"corrupt": whole[1]})
    right, wrong = view.session.metric()
    gap = [float(run.logits[0, -1, right] - run.logits[0, -1, wrong]) for run in (whole[0], edited)]
    assert arrays["effect"][(0, *part)] == pytest.approx(gap[1] - gap[0], abs=5e-4)


def test_with_interventions_on_the_right_side_is_ablated_on_top_of_them(bench, view, nano):
    bench.add(CHIP)
    bench.session.wait(60)
    choose(view, compare="edited", kind="layer")
    finished(view, "run")
    _, arrays = answered(view)
    for layer in (0, 2):
        effect, _ = by_a_run(nano, bench.base.tokens, [wb.AblateLayer(layer)], view.session.metric(), [CHIP])
        assert arrays["effect"][1, layer, 0] == pytest.approx(effect, abs=5e-4)


def test_the_floor_is_the_largest_of_twenty_random_moves_as_the_experiment_makes_them(view, whole, nano):
    choose(view, kind="layer")
    finished(view, "run")
    about, _ = answered(view)
    specs = [wb.AblateLayer(layer) for layer in np.random.default_rng(0).permutation(4).tolist()]
    made = experiments.ablation_sweep(nano, [whole[0].tokens], view.session.metric(), specs, controls=5, progress=False)
    assert about["floor"][0] == pytest.approx(float(made.floor.max()), rel=1e-4)


def test_a_group_stands_beside_other_groups_of_as_many(view, nano, whole):
    choose(view, group=[[2, 6], [0, 1]])
    finished(view, "knock_out")
    about, _ = view.data({"what": "group"})
    assert about["group"] == [[0, 1], [2, 6]]
    left = about["sides"][0]
    effect, kl = by_a_run(nano, whole[0].tokens, [wb.AblateHead(0, 1), wb.AblateHead(2, 6)], view.session.metric())
    assert left["effect"] == pytest.approx(effect, abs=5e-4) and left["kl"] == pytest.approx(kl, abs=2e-5, rel=2e-3)
    groups = view.sweep(view.choice(), view.choice().sides()[0]).groups[((0, 1), (2, 6))].groups
    assert len(groups) == 21 and len({tuple(group) for group in groups}) == 21 and all(len(set(g)) == 2 for g in groups)
    other, _ = by_a_run(
        nano, whole[0].tokens, [spec("head", part, "zero") for part in groups[5]], view.session.metric()
    )
    assert left["others"][4] == pytest.approx(other, abs=5e-4)
    assert left["floor"] == pytest.approx(max(map(abs, left["others"])))
    larger = sum(abs(value) >= abs(left["effect"]) for value in left["others"])
    assert left["p"] == pytest.approx((1 + larger) / 21)


def test_experts_that_cannot_be_rerouted_together_are_refused_in_words(view):
    choose(view, kind="expert", group=[[1, i] for i in range(7)])
    with pytest.raises(ValueError, match="leaves 1 at position"):
        view.act({"kind": "knock_out"})
    with pytest.raises(ValueError, match="choose one row"):
        view.act({"kind": "knock_out", "group": []})


def test_a_cancelled_sweep_keeps_what_is_done_and_goes_on_from_there(view):
    choose(view, kind="expert", policy="zero")
    job = view.session.job(view.act({"kind": "run"})["job"])
    sweep = view.sweep(view.choice(), view.choice().sides()[0])
    while sweep.left > 28 and not job.future.done():
        time.sleep(0.005)
    job.cancel()
    job.wait(30)
    done = np.isfinite(sweep.effect)
    assert job.state == "cancelled" and 0 < done.sum() < 32
    before = sweep.effect[done]
    job.resume().wait(60)
    assert sweep.left == 0 and (sweep.effect[done] == before).all()


# ---------------------------------------------------------------- chips


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_is_taken_out_on_the_bench_and_put_back(bench, view, kind):
    part = (2, 0 if kind == "layer" else 3)
    ask = {"kind": "toggle", "parts": kind, "layer": part[0], "index": part[1]}
    assert view.act(ask)["out"]
    (made,) = bench.interventions
    assert part_of(made) == (kind, part)
    (chip,) = view.data({"what": "chips"})[0]["chips"]
    assert (chip["kind"], chip["layer"], chip["index"], chip["on"]) == (kind, *part, True)
    assert not view.act(ask)["out"] and bench.interventions == ()
    bench.undo()
    assert bench.interventions == (made,)


def test_a_group_goes_on_the_bench_as_one_step(bench, view):
    choose(view, group=[[0, 1], [2, 6]])
    view.act({"kind": "toggle", "parts": "head", "layer": 0, "index": 1})
    assert view.act({"kind": "add_group"})["added"] == 1
    assert [part_of(spec)[1] for spec in bench.interventions] == [(0, 1), (2, 6)]
    bench.undo()
    assert len(bench.interventions) == 1


def test_an_ablation_at_some_positions_alone_is_no_row_of_the_table():
    assert part_of(wb.AblateHead(0, 1, positions=(3,))) is None and part_of(wb.EditSink(0, 1, "scale", 0.5)) is None
    assert part_of(wb.EditSink(0, None)) is None and part_of(wb.AblateMLP(1)) is None
    assert name("sink", (1, 2)) == "L1 H2 sink"


# ---------------------------------------------------------------- without a browser


def test_the_code_runs_by_itself_and_finds_the_numbers_on_screen(bench, view):
    bench.add(CHIP)
    bench.session.wait(60)
    choose(view, kind="layer", policy="mean", source="corrupt", compare="edited", group=[[0, 0], [3, 0]])
    finished(view, "run")
    finished(view, "knock_out")
    about, arrays = answered(view)
    scope: dict = {}
    exec(bench.code("ablation"), scope)
    np.testing.assert_allclose(scope["left"].mean_effect, arrays["effect"][0, :, 0], atol=1e-5)
    np.testing.assert_allclose(scope["right"].mean_effect, arrays["effect"][1, :, 0], atol=1e-5)
    assert scope["floor"] == pytest.approx(about["floor"][0], abs=1e-5)
    group = view.data({"what": "group"})[0]["sides"][0]
    np.testing.assert_allclose(scope["together"].mean_effect, [group["effect"], *group["others"]], atol=1e-5)


def test_before_anything_is_run_there_is_a_page_a_table_and_a_figure(view):
    assert "32 total effects not run yet" not in view.static() and "64 total effects not run yet" in view.static()
    assert np.isnan(view.table().effect).all() and np.isfinite(view.table().direct).all()
    assert "Who wrote" in view.figure().layout.title.text


def test_the_page_the_table_and_the_figure_have_the_numbers_on_screen(view):
    choose(view, kind="layer", sort="effect.difference", down=True, group=[[0, 0]])
    finished(view, "run")
    finished(view, "knock_out")
    _, arrays = answered(view)
    np.testing.assert_allclose(view.table().effect, arrays["effect"][:, :, 0], rtol=1e-6)
    apart = arrays["effect"][1, :, 0] - arrays["effect"][0, :, 0]
    rows = [f"L{layer}" for layer in np.argsort(-apart)]
    page = view.static()
    assert [page.index(f"<bdi>{row}</bdi>") for row in rows] == sorted(page.index(f"<bdi>{row}</bdi>") for row in rows)
    assert "random groups of as many" in page
    bars = [trace for trace in view.figure().data if trace.name == "mean effect"]
    np.testing.assert_allclose(sorted(bars[0].x), sorted(arrays["effect"][0, :, 0]), rtol=1e-5)


def test_what_is_chosen_is_in_a_saved_workspace(bench, view, bench_of, pair):
    choose(view, kind="expert", policy="zero", group=[[1, 7]], sort="direct.left", down=True)
    other = bench_of(pair)
    workspace.restore(other.session, workspace.to_json(bench.session))
    assert other.session.views["ablation"].choice().group() == [(1, 7)]
    assert other.session.views["ablation"].choice().policy == "zero"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"kind": "neuron"}, "expected one of"),
        ({"policy": "reroute"}, "of a head there are"),
        ({"group": [[9, 0]]}, r"expected \[layer, head\] of 4 × 8"),
        ({"group": ["L0 H1"]}, "group has 'L0 H1'"),
        ({"compare": "both"}, "compare='both'"),
        ({"colour": 1}, "has no option 'colour'"),
    ],
)
def test_what_there_is_not_is_refused_in_words(view, values, message):
    with pytest.raises(ValueError, match=message):
        view.session.options("ablation", **values)


def test_what_crosses_to_the_screen_is_json_and_small_at_any_length(bench_of):
    bench = bench_of(tuple(range(20, 320)))
    for kind in KINDS:
        about, arrays = bench.session.views["ablation"].data({"parts": kind})
        assert len(json.dumps(about, allow_nan=False)) < 10_000 and sum(a.nbytes for a in arrays.values()) < 10_000
    assert about["compare"] == "alone" and len(about["sides"]) == 1
