"""The route graph on the side of Python: what it sends is what the experiment says, what it does is what specs do."""

import threading

import numpy as np
import pytest

import workbench as wb
from tests.browser.benches import ANSWER, PROMPT, SHAPE_20B, make_bench, tokens_of_length
from tests.widgets.cells import ran
from workbench import experiments
from workbench.experiments.nodes import Node
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.widgets.views.graph_arrays import KINDS, verdict
from workbench.widgets.views.graph_study import knock_out
from workbench.widgets.wire import clean, packed

MOST = 2_000_000  # bytes in one message
LAST = 13


@pytest.fixture
def view(traced):
    return traced["graph"]


@pytest.fixture(scope="module")
def kept(nano):
    """One Bench with a graph, for tests that only read."""
    bench = make_bench(nano, PROMPT, open=["graph"])
    bench.session.wait(60)
    bench["graph"].trace()
    yield bench
    bench.close()


@pytest.fixture
def traced(bench_of):
    """One for tests that touch it."""
    bench = bench_of(PROMPT, answer=ANSWER, open=["graph"])
    bench.session.options("graph", n_nodes=50, confirm=0)
    bench["graph"].trace()
    return bench


@pytest.fixture(scope="module")
def expected(nano):
    return experiments.attribution_graph(nano, PROMPT["clean"], ANSWER, n_nodes=100, confirm=30)


def numbers(name):
    """Layer, index and position of a node."""
    node = Node.parse(name)
    assert node.layer is not None and node.index is not None and node.pos is not None
    return node.layer, node.index, node.pos


def heard(bench):
    """What is streamed from now on."""
    messages = []
    bench.session.send = lambda message, arrays: message["did"] == "stream" and messages.append((message, arrays))
    return messages


# ---------------------------------------------------------------- what is sent


def test_the_nodes_and_edges_sent_are_the_experiments_and_edges_fall_in_share(kept, expected):
    about, arrays = kept["graph"].data({})
    names, (ends, edge) = about["names"], (arrays["ends"], arrays["edge"])
    assert np.all(np.diff(edge[:, 1]) <= 0) and about["n_edges"] == len(edge)
    assert names[: len(expected.source) + 1] == [*expected.source.values.tolist(), "logits"]
    seen = 0
    for (source, target), (effect, flow, *_, attention) in zip(ends.tolist(), edge.tolist(), strict=True):
        if names[source].startswith("error"):
            continue
        at = {"source": names[source], "target": names[target]}
        assert effect == pytest.approx(float(expected.adjacency.sel(at)), rel=1e-3, abs=1e-5)
        assert flow == pytest.approx(float(expected.edge_influence.sel(at)), rel=1e-3, abs=1e-6)
        assert np.isnan(attention) == (arrays["node"][target, 0] != KINDS.index("head"))
        seen += 1
    assert seen == int((expected.adjacency.values != 0).sum())


def test_what_comes_in_at_a_node_by_the_edges_sent_is_what_it_is_worth(kept):
    about, arrays = kept["graph"].data({})
    number, checked = arrays["number"], 0
    for i, name in enumerate(about["names"]):
        if "embed" in name or name.startswith("error"):
            continue
        _, _, bias, error, rest, total, *_ = number[i]
        into = arrays["ends"][:, 1] == i
        by_errors = np.array([about["names"][j].startswith("error") for j in arrays["ends"][:, 0]])
        assert arrays["edge"][into & ~by_errors, 0].sum() + bias + error + rest == pytest.approx(total, abs=2e-4)
        assert arrays["edge"][into & by_errors, 0].sum() == pytest.approx(error, abs=1e-6)
        assert total == pytest.approx(number[i, 0], abs=2e-4), "what comes in is the node's own effect"
        checked += 1
    assert checked > 50


def test_the_target_is_the_runs_own_logits_and_the_summary_the_experiments(kept, expected):
    said = kept["graph"].data({})[0]["summary"]
    right, wrong = (kept.session.tokenizer.encode(word)[0] for word in ANSWER)
    logits = kept.base.logits[0, -1]
    assert said["value"] == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-3)
    for name in ("embed", "bias", "error", "kept"):
        assert said[name] == pytest.approx(float(expected[f"{name}_share"]), abs=1e-4)
    assert said["embed"] + said["bias"] + said["error"] == pytest.approx(1, abs=1e-5)
    for name in ("frozen_correlation", "live_correlation", "live_signs"):
        assert said[name] == pytest.approx(float(expected[name]), abs=1e-3)
    assert said["n_checked"] == 30 and f"{round(30 * said['live_signs'])} of 30 edges" in said["verdict"]


def test_the_verdict_never_claims_more_than_was_confirmed():
    def words(n, r, signs):
        return verdict(n, {"live_correlation": r, "live_signs": signs}).split(":")[0]

    assert words(0, None, None) == "No edge was confirmed yet"
    assert words(2, float("nan"), 1.0) == words(2, 1.0, 1.0) == "Too few edges to judge"
    assert words(30, 0.95, 1.0) == "The live model agrees"
    assert words(30, 0.95, 0.8) == words(30, 0.6, 0.9) == "The live model agrees in part"
    assert words(30, 0.4, 0.9) == words(30, -0.9, 0.0) == words(30, 0.9, 0.5) == "The live model does not agree"


def test_what_a_node_promotes_is_its_write_read_by_the_final_norm_and_the_unembedding(kept, nano):
    about, arrays = kept["graph"].data({})
    i = next(i for i, kind in enumerate(arrays["node"][:, 0]) if kind == KINDS.index("head"))
    node = Node.parse(about["names"][i])
    found = kept["graph"].data({"what": "node", "node": node.name})[0]
    run = kept.base
    z = run[f"blocks.{node.layer}.attn.hook_z"][0, node.pos, node.index].numpy()
    write = z @ nano.blocks[node.layer].attn.W_O[node.index].detach().numpy()
    read = write / run["ln_final.hook_scale"][0, node.pos].numpy() * nano.ln_final.w.detach().numpy()
    logits = nano.unembed.weight.detach().float().numpy() @ read
    assert [each["id"] for each in found["raised"]] == np.argsort(-logits)[:5].tolist()
    assert [each["logit"] for each in found["lowered"]] == pytest.approx(np.sort(logits)[:5].tolist(), rel=1e-3)
    assert found["raised"][0]["text"] == kept.session.word(int(logits.argmax()))


def test_one_token_after_an_earlier_position_is_traced_on_its_own(kept):
    view, word = kept["graph"], kept.session.word
    ask = {"target": "token", "token": 690, "position": 6, "n_nodes": 25}
    before = view.data(ask)[0]
    assert not before["traced"] and before["position"] == 6 and before["cost"]["quick"]
    assert before["words"] == f"logit of ‘{word(690)}’" and len(before["tokens"]) == 7
    view.act({"kind": "trace", **ask})
    kept.session.wait(60)
    after, arrays = view.data(ask)
    assert after["summary"]["value"] == pytest.approx(float(kept.base.logits[0, 6, 690]), abs=1e-3)
    assert arrays["node"][:, 3].max() == 6 and sum("error" not in name for name in after["names"]) == 26
    assert [each["id"] for each in after["likely"][:2]] == kept.base.logits[0, 6].topk(2).indices.tolist()


def test_without_an_answer_the_two_likeliest_next_tokens_are_weighed(bench_of):
    bench = bench_of("When Ben and Anna went to the forest", open=["graph"])
    found = bench["graph"].data({})[0]
    assert found["answer"] is None
    assert [each["id"] for each in found["target"]] == bench.base.logits[0, -1].topk(2).indices.tolist()
    assert not bench.jobs or all(job.view != "graph" for job in bench.jobs), "looking traces nothing"


# ---------------------------------------------------------------- what is done


def test_edges_confirmed_on_demand_are_sent_with_what_the_experiment_measures(traced, view, nano):
    about, arrays = view.data({})
    whole = experiments.attribution_graph(nano, PROMPT["clean"], ANSWER, n_nodes=50, confirm=60)
    name = str(whole.edge.values[55])
    pair = name.split(" → ")
    messages = heard(traced)
    view.act({"kind": "confirm", "edges": [pair]})
    traced.session.wait(60)
    about, arrays = view.data({})
    source, target = (about["names"].index(end) for end in pair)
    assert arrays["ends"][arrays["checked"][0]].tolist() == [source, target] and len(arrays["checked"]) == 1
    measured = [float(whole[part][55]) for part in ("predicted", "frozen_effect", "live_effect")]
    assert arrays["found"][0] == pytest.approx(measured, rel=2e-2, abs=1e-4)
    sent = [(message, more) for message, more in messages if message["key"] == "checked"]
    assert sent[-1][0]["json"]["n_checked"] == 1 and sent[-1][1]["found"][0] == pytest.approx(arrays["found"][0])
    for edges in ([["embed@0", "logits"]], [["nonsense", "L0H0@1"]]):
        with pytest.raises(ValueError, match="cannot be taken away"):
            view.act({"kind": "confirm", "edges": edges})


def test_cancelled_it_keeps_what_is_confirmed_and_resume_goes_on_to_the_end(traced, view, nano):
    job = view.traces.confirm(view.study(), 20)
    report = job.report

    def slowly(done, total=None):
        report(done, total)
        if done:
            job.cancel()

    job.report = slowly
    job.wait(60)
    some = view.data({})[0]["summary"]["n_checked"]
    if job.state == "cancelled":  # else the job had ended before it could be told
        assert 0 < some < 20
        job.resume().result(60)
    assert view.data({})[0]["summary"]["n_checked"] == 20
    expected = experiments.attribution_graph(nano, PROMPT["clean"], ANSWER, n_nodes=50, confirm=20)
    assert view.table().live_effect.values == pytest.approx(expected.live_effect.values, rel=2e-2, abs=1e-4)


def test_a_trace_that_is_cancelled_leaves_nothing_and_can_be_begun_again(traced, view):
    ask = {"target": "token", "token": 5}
    job = view.traces.start(view.study(ask), 0)
    job.cancel()
    job.wait(60)
    if job.state == "cancelled":
        assert not view.data(ask)[0]["traced"]
        job.resume().result(60)
    assert view.data(ask)[0]["traced"]


def test_two_that_ask_for_the_same_graph_share_one_job(traced, view):
    study = view.study({"target": "token", "token": 7})
    first, second = view.traces.start(study, 0), view.traces.start(study, 0)
    first.result(60)
    assert first is second or second.state == "done"


def test_touching_a_node_puts_its_spec_on_and_shows_what_became_of_the_target(traced, view, nano):
    names = view.data({})[0]["names"]
    head, expert = (next(n for n in names if f"{kind}" in n and n.startswith("L")) for kind in "HE")
    (layer, i, pos), (of, j, at) = (numbers(name) for name in (head, expert))
    given = [
        ({"kind": "ablate", "node": head}, wb.AblateHead(layer, i, positions=(pos,))),
        ({"kind": "ablate", "node": head, "everywhere": True}, wb.AblateHead(layer, i)),
        ({"kind": "ablate", "node": expert}, wb.AblateExpert(of, j, "zero", (at,))),
        ({"kind": "ablate", "node": "embed@3"}, wb.AblateSite("hook_embed", positions=(3,))),
        ({"kind": "patch", "node": expert}, wb.PatchExpert(of, j, "corrupt", (at,))),
        ({"kind": "patch", "node": head}, wb.Patch(f"blocks.{layer}.attn.hook_z", "corrupt", (pos,), component=i)),
    ]
    for action, spec in given:
        view.act(action)
        assert traced.interventions == (spec,), action
        found = view.data({"what": "edits"})[0]["nodes"]
        assert names.index(action["node"]) in found
        traced.undo()
    view.act({"kind": "ablate", "node": head})
    traced.session.wait(60)
    right, wrong = (traced.session.tokenizer.encode(word)[0] for word in ANSWER)
    logits = wb.run(nano, PROMPT["clean"], list(traced.interventions)).logits[0, -1]
    said = view.data({"what": "edits"})[0]
    assert said["after"] == pytest.approx(float(logits[right] - logits[wrong]), abs=1e-3)
    assert said["before"] == pytest.approx(view.data({})[0]["summary"]["value"], abs=1e-3)
    assert view.data({})[0]["traced"], "the graph is of the unedited run, and stays"


def test_while_a_run_is_under_way_no_other_runs_number_stands_for_it(traced, view):
    traced.add(wb.AblateHead(1, 0))
    traced.session.wait(60)
    first = view.data({"what": "edits"})[0]["after"]
    gate = threading.Event()
    traced.session.submit(lambda job: gate.wait(30), "busy", urgent=True)
    traced.add(wb.AblateLayer(2))
    assert view.data({"what": "edits"})[0]["after"] is None
    gate.set()
    traced.session.wait(60)
    assert view.data({"what": "edits"})[0]["after"] not in (None, first)


def test_knocking_an_edge_out_is_the_nearest_that_an_intervention_can_do(traced, view):
    assert knock_out("L0H1@3", "L2H5@7")[0] == wb.KnockOut(2, ((7, 3),), 5, "drop")
    assert knock_out("L0H1@3", "L1E2@3")[0] == wb.AblateExpert(1, 2, "zero", (3,))
    assert knock_out("L0H1@3", "logits")[0] == wb.AblateHead(0, 1, positions=(3,))
    names = view.data({})[0]["names"]
    target = next(name for name in names if "H" in name)
    layer, head, pos = numbers(target)
    view.act({"kind": "knock_out", "edge": [f"embed@{pos}", target]})
    assert traced.interventions == (wb.KnockOut(layer, ((pos, pos),), head, "drop"),)
    assert view.data({"what": "edits"})[0]["nodes"] == [names.index(target)]
    traced.session.wait(60)


def test_what_cannot_be_is_refused_in_words(traced, view):
    asks = [{"n_nodes": 7}, {"target": "best"}, {"token": -1}, {"token": 10**9}, {"position": 1.5}, {"what": "x"}]
    for ask in asks:
        with pytest.raises(ValueError, match=r"Route graph|route graph"):
            view.data(ask)
    actions = [{"kind": "fly"}, {"kind": "token", "token": "two words"}, {"kind": "ablate", "node": "nobody"}]
    for action in [*actions, {"kind": "confirm", "n": 0}, {"kind": "ablate", "node": "L99H0@0"}]:
        with pytest.raises(ValueError):
            view.act(action)
    for options in ({"threshold": 2}, {"columns": "some"}, {"table": "rows"}, {"confirm": 10_000}):
        with pytest.raises(ValueError):
            traced.session.options("graph", **options)
    with pytest.raises(ValueError, match="not traced yet"):
        view.act({"kind": "confirm", "n": 3, "target": "token", "token": 999})
    assert traced.interventions == ()


def test_any_token_can_be_the_target_by_its_text(traced, view):
    assert view.act({"kind": "token", "token": " the"})["text"] == "␣the"
    assert view.study().ids == tuple(traced.session.tokenizer.encode(" the"))


# ---------------------------------------------------------------- without a browser


def test_the_code_gives_what_is_on_screen(traced, view):
    name = view.data({})[0]["names"]
    _, arrays = view.data({})
    e = next(e for e, (a, b) in enumerate(arrays["ends"].tolist()) if name[b] != "logits" and "error" not in name[a])
    for confirmed in ([], [[name[i] for i in arrays["ends"][e]]]):
        if confirmed:
            view.act({"kind": "confirm", "edges": confirmed})
            traced.session.wait(60)
        figure, made = ran(traced.code("graph"))
        np.testing.assert_allclose(made["graph"].adjacency, view.table().adjacency, rtol=1e-3, atol=1e-4)
        assert made["graph"].sizes.get("edge", 0) == len(confirmed) == view.table().sizes.get("edge", 0)
        assert len(figure.data) == len(view.figure().data)


def test_the_static_form_says_how_far_it_can_be_believed_and_nothing_in_it_runs(bench_of):
    bench = bench_of("<img src=x onerror=alert(1)> Mia </script>", open=["graph"])
    made = bench["graph"].static()
    assert "<img src=x" not in made and "</script" not in made and "<script" not in made
    assert bench["graph"].data({})[0]["summary"]["verdict"] in made.replace("&#x27;", "'")
    assert "data:image/svg+xml;base64," in made and "strongest nodes" in made


def test_a_long_text_is_not_traced_unasked_and_says_what_it_would_take(bench_of):
    bench = bench_of(tokens_of_length(2000), open=["graph"])
    about, arrays = bench["graph"].data({})
    assert not about["traced"] and not arrays and not about["cost"]["quick"] and about["cost"]["fits"]
    assert about["cost"]["nodes"] == 2000 * 41
    made = bench["graph"].static()
    assert "not traced yet" in made and about["cost"]["memory"] in made
    with pytest.raises(ValueError, match=r"bench\['graph'\]\.trace\(\) does it"):
        bench["graph"].table()
    # An early position of it is a short text.
    bench.session.options("graph", position=30)
    assert bench["graph"].table().sizes["pos"] == 31


@pytest.mark.parametrize("n", [1, 3])
def test_the_20bs_sizes_go_in_messages_that_are_not_large(bench_of, nano, n):
    model = random_weights(HookedGptOss(NANO.with_(**SHAPE_20B), nano.tokenizer), 0)
    bench = bench_of(tokens_of_length(n), model=model, open=["graph"])
    bench.session.options("graph", n_nodes=400, confirm=2 if n > 1 else 0)
    bench["graph"].trace()
    about, arrays = bench["graph"].data({})
    size = sum(memory.nbytes for memory in packed(arrays)[1]) + len(str(clean(about)))
    assert size < MOST and len(arrays["edge"]) <= 4000
    assert bench["graph"].static().count("<tr>") < 60
    whole = arrays["edge"][:, 1].sum() / (1 - about["share_left"])
    assert about["n_edges"] == len(arrays["edge"]) or whole > arrays["edge"][:, 1].sum()
