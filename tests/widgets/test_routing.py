"""Routing on the side of Python: what it sends is what runs and experiments say, what it does is what specs do."""

import numpy as np
import pytest

import workbench as wb
from tests.browser.benches import SHAPE_20B, tokens_of_length
from workbench import experiments
from workbench.activations import rerun
from workbench.experiments.experts.expert_contexts import expert_contexts
from workbench.experiments.experts.unchosen import unchosen_experts
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.widgets.wire import clean, packed

MOST = 2_000_000  # bytes in one message
LAST = 13


@pytest.fixture
def view(bench):
    return bench["routing"]


def routes(run, kind, row=slice(None)):
    layers = range(run.model.config.n_layers)
    return np.stack([run[f"blocks.{layer}.mlp.hook_expert_{kind}"][0, row].numpy() for layer in layers], 1)


def heard(bench):
    """What is streamed from now on."""
    messages = []
    bench.session.send = lambda message, arrays: message["did"] == "stream" and messages.append((message, arrays))
    return messages


def first_expert(bench, layer=1, position=LAST):
    return int(bench.base[f"blocks.{layer}.mlp.hook_expert_indices"][0, position, 0])


# ---------------------------------------------------------------- what is sent


def test_the_ribbon_is_the_runs_routes(bench, view):
    about, arrays = view.data({"what": "ribbon"})
    assert about["tokens"] == bench.session.tokens() and about["effect"] is None
    assert np.array_equal(arrays["chosen"], routes(bench.base, "indices"))
    assert np.allclose(arrays["weight"], routes(bench.base, "weights"))


def test_after_an_edit_kl_flips_and_the_routes_from_before_are_those_of_a_plain_run(bench, view, nano):
    expert = first_expert(bench)
    view.act({"kind": "ban", "layer": 1, "expert": expert, "position": None})
    bench.session.wait(30)
    about, arrays = view.data({"what": "ribbon"})
    made = wb.run(nano, bench.base.tokens, [wb.AblateExpert(1, expert)])
    assert np.array_equal(arrays["chosen"], routes(made, "indices"))
    assert np.array_equal(arrays["before"], routes(bench.base, "indices"))
    assert arrays["kl"] == pytest.approx(made.kl[0].numpy(), abs=1e-5)
    assert np.array_equal(arrays["route_flips"], made.flipped_routes[:, 0].T.numpy())
    flipped = (made.logits[0].argmax(-1) != bench.base.logits[0].argmax(-1)).numpy()
    assert np.array_equal(arrays["flipped"].astype(bool), flipped)
    assert about["effect"]["n_flipped"] == flipped.sum() == len(about["effect"]["flipped"])
    assert about["effect"]["mean_kl"] == pytest.approx(float(made.kl.mean()), abs=1e-5)
    for each in about["effect"]["flipped"]:
        assert each["after"] == bench.session.word(int(made.logits[0, each["position"]].argmax()))


def test_statistics_are_those_of_the_experiment_also_where_an_expert_is_banned(bench, view):
    view.act({"kind": "ban", "layer": 1, "expert": 0, "position": None})
    bench.session.wait(30)
    expected = experiments.routing_statistics(bench.run, shuffles=0, progress=False)
    _, arrays = view.data({"what": "statistics"})
    for name, values in arrays.items():
        assert np.allclose(values, expected[name], atol=1e-6) and np.isfinite(values).all(), name
    about, arrays = view.data({"what": "layer", "layer": 2})
    assert np.allclose(arrays["coactivation"], expected.coactivation.sel(layer=2), equal_nan=True)
    assert np.allclose(arrays["speaker_load"], expected.speaker_load.sel(layer=2))
    assert sum(about["tokens"]) == bench.base.tokens.shape[1]


def test_the_experts_that_come_next_are_measured_in_runs_in_which_they_are_forced(bench, view, nano):
    bench.session.options("routing", measured=True, next=3)
    about, _ = view.data({"what": "unchosen", "layer": 2, "position": LAST})
    right, wrong = bench.session.metric()
    expected = unchosen_experts(bench.base, 2, LAST, (right, wrong), n=3)
    assert [row["expert"] for row in about["rows"]] == expected.expert.values.tolist()
    for row in about["rows"][2:]:
        made = wb.run(nano, bench.base.tokens, [wb.ForceExpert(2, row["expert"], (LAST,))])
        before, after = (run.logits[0, LAST, right] - run.logits[0, LAST, wrong] for run in (bench.base, made))
        assert row["total"] == pytest.approx(float(after - before), abs=1e-4)
        assert row["kl"] == pytest.approx(float(made.kl[0, LAST]), abs=1e-5)
    assert about["right"] == bench.session.word(right)


# ---------------------------------------------------------------- what is done


def test_every_action_is_its_spec_and_once_more_takes_it_away(bench, view):
    at = {"layer": 1, "expert": 3, "position": 5}
    made = {
        "ban": wb.AblateExpert(1, 3, positions=(5,)),
        "zero": wb.AblateExpert(1, 3, "zero", (5,)),
        "renormalise": wb.AblateExpert(1, 3, "renormalise", (5,)),
        "force": wb.ForceExpert(1, 3, (5,)),
        "swap": wb.SwapExperts(1, 3, 6, positions=(5,)),
        "reweight": wb.ReweightExpert(1, 3, 0.5, positions=(5,)),
    }
    more = {"swap": {"other": 6}, "reweight": {"factor": 0.5}}
    for kind, spec in made.items():
        action = {"kind": kind, **at, **more.get(kind, {})}
        view.act(action)
        assert bench.interventions == (spec,)
        assert view.data({"what": "edits"})[0]["edits"][0]["kind"] == kind
        view.act(action)
        assert bench.interventions == ()
    bench.session.wait(30)


def test_an_edit_takes_the_place_of_one_that_it_makes_meaningless_and_of_no_other(bench, view):
    here = {"layer": 1, "expert": 3, "position": None}
    view.act({"kind": "ban", **here})
    view.act({"kind": "zero", **here})
    view.act({"kind": "reweight", "factor": 2, "layer": 1, "expert": 4, "position": None})
    view.act({"kind": "reweight", "factor": 3, "layer": 1, "expert": 4, "position": None})
    view.act({"kind": "force", "layer": 2, "expert": 4, "position": 1})
    view.act({"kind": "force", "layer": 2, "expert": 5, "position": 1})
    expected = (wb.AblateExpert(1, 3, "zero"), wb.ReweightExpert(1, 4, 3.0), wb.ForceExpert(2, 5, (1,)))
    assert bench.interventions == expected
    view.act({"kind": "reweight", "factor": 1, "layer": 1, "expert": 4, "position": None})
    assert bench.interventions == (expected[0], expected[2])
    bench.undo()
    assert bench.interventions == expected
    bench.session.wait(30)


def test_all_edits_of_one_expert_go_at_once(bench, view):
    view.act({"kind": "ban", "layer": 1, "expert": 3, "position": None})
    view.act({"kind": "swap", "layer": 1, "expert": 5, "other": 3, "position": 2})
    view.act({"kind": "ban", "layer": 2, "expert": 3, "position": None})
    view.act({"kind": "remove", "layer": 1, "expert": 3})
    assert bench.interventions == (wb.AblateExpert(2, 3),)
    bench.session.wait(30)


def test_trying_streams_what_putting_it_on_does_and_leaves_no_trace(bench, view):
    messages, before = heard(bench), len(bench.session.history.entries)
    action = {"kind": "reweight", "layer": 1, "expert": first_expert(bench), "position": None, "factor": 0.25}
    view.act({"kind": "preview", "action": action})
    bench.session.wait(30)
    tried, arrays = messages[-1]
    assert tried["key"] == "preview" and bench.interventions == ()
    assert len(bench.session.history.entries) == before
    made = rerun(bench.base, [wb.ReweightExpert(1, action["expert"], 0.25)])
    assert tried["json"]["mean_kl"] == pytest.approx(float(made.kl.mean()), rel=1e-4) and float(made.kl.mean()) > 0
    assert np.allclose(arrays["weight"], routes(made, "weights"), atol=1e-6)


def test_what_cannot_be_is_refused_in_words(bench, view):
    with pytest.raises(ValueError, match="does not know how to 'fly'"):
        view.act({"kind": "fly"})
    with pytest.raises(ValueError, match="another expert"):
        view.act({"kind": "swap", "layer": 0, "expert": 1, "position": None})
    for action in (
        {"kind": "ban", "layer": 0, "expert": 99},
        {"kind": "preview", "action": {"kind": "ban", "layer": 77, "expert": 1}},
    ):
        with pytest.raises(ValueError):
            view.act(action)
    for ask in ({"what": "layer", "layer": 9}, {"what": "unchosen", "layer": 0, "position": None}, {"what": "x"}):
        with pytest.raises(ValueError):
            view.data(ask)
    for options in ({"zoom": "huge"}, {"where": "nowhere"}, {"next": 0}, {"texts": "one"}, {"texts": ["x" * 30_000]}):
        with pytest.raises(ValueError):
            bench.session.options("routing", **options)
    assert bench.interventions == ()


# ---------------------------------------------------------------- the corpus


def test_the_corpus_is_run_in_the_background_and_its_contexts_are_the_experiments(bench, view, nano):
    texts = {"people": ["Mia lives in the park.", "Tom"], "sums": ["12+5=17"]}
    view.use_texts(texts)
    assert view.data({"what": "corpus", "layer": 1, "expert": 2, "done": 0})[0]["total"] == 3
    messages = heard(bench)
    view.act({"kind": "corpus"})
    bench.session.wait(30)
    flat, domains = [*texts["people"], *texts["sums"]], ["people", "people", "sums"]
    expected = expert_contexts(nano, flat, domains, progress=False)
    about, arrays = view.data({"what": "corpus", "layer": 1, "expert": 2, "done": 3})
    assert messages[-1][0]["json"] == {"done": 3, "total": 3}
    assert np.allclose(arrays["domain_load"], expected.domain_load.sel(layer=1))
    here = expected.sel(layer=1, expert=2)
    assert [each["weight"] for each in about["contexts"]] == pytest.approx(
        here.weight.dropna("context").values.tolist()
    )
    for each in about["contexts"]:
        assert domains[each["text"]] == each["domain"]
        assert each["tokens"][each["at"]] == bench.session.word(
            int(here.token_id.values[about["contexts"].index(each), 8])
        )


def test_a_cancelled_corpus_keeps_what_is_done_and_goes_on_to_the_same_end(bench, view, nano):
    texts = ["Mia lives in the park.", "Tom", "12+5=17", "Ana feeds a hen.", "Where is Tom?"] * 4
    bench.session.options("routing", texts=texts)
    job = view.corpus.start(texts)
    report = job.report
    job.report = lambda done, total=None: (report(done, total), done >= 3 and job.cancel())
    job.wait(30)
    assert job.state == "cancelled"
    done = view.corpus.known(texts).attrs["n_done"]
    assert 0 < done < len(texts)
    assert view.data({"what": "corpus", "layer": 0, "expert": 1})[0]["done"] == done
    job.resume().result(30)
    expected = expert_contexts(nano, texts, progress=False)
    for name in expected:
        assert np.array_equal(view.corpus.known(texts)[name], expected[name], equal_nan=True), name


def test_a_model_without_a_tokenizer_says_that_it_needs_ids(bench_of, nano):
    bare = random_weights(HookedGptOss(nano.config), 0)
    bench = bench_of([1, 2, 3], model=bare)
    about, _ = bench["routing"].data({"what": "corpus", "layer": 0, "expert": 0})
    assert not about["ready"] and "use_texts" in about["why"]
    bench["routing"].use_texts([[1, 2, 3], [4, 5]])
    bench["routing"].act({"kind": "corpus"})
    bench.session.wait(30)
    assert bench["routing"].data({"what": "corpus", "layer": 0, "expert": 0})[0]["done"] == 2
    assert "expert" in bench["routing"].static()


# ---------------------------------------------------------------- without a browser


def test_the_code_gives_what_is_on_screen(bench, view):
    bench.select(layer=2, position=LAST, expert=first_expert(bench, 2))
    view.act({"kind": "ban", "layer": 1, "expert": 2, "position": None})
    view.use_texts(["Mia lives in the park.", "12+5=17"])
    view.act({"kind": "corpus"})
    bench.session.wait(30)
    made: dict = {}
    exec(bench.code("routing"), made)
    _, arrays = view.data({"what": "ribbon"})
    assert np.array_equal(made["routes"].chosen, arrays["chosen"])
    assert np.allclose(made["routes"].weight, arrays["weight"], atol=1e-6)
    assert np.allclose(
        made["statistics"].coactivation.sel(layer=2),
        view.data({"what": "layer", "layer": 2})[1]["coactivation"],
        equal_nan=True,
    )
    rows = view.data({"what": "unchosen", "layer": 2, "position": LAST})[0]["rows"]
    assert made["unchosen"].forced.values == pytest.approx([row["forced"] for row in rows], abs=1e-4)
    assert np.allclose(made["contexts"].domain_load, view.corpus.known(None).domain_load)
    assert bench.code("routing").rstrip().endswith("figures.routing_ribbon(routes)")
    assert len(view.figure().data) == 2


def test_the_table_has_routes_loads_and_what_the_edits_did(bench, view):
    view.act({"kind": "zero", "layer": 1, "expert": 2, "position": None})
    bench.session.wait(30)
    table = view.table()
    assert {"chosen", "weight", "load", "token_entropy", "speaker_load", "kl", "flipped", "route_flipped"} <= set(table)
    assert table.kl.values == pytest.approx(bench.run.kl[0].numpy())
    assert not bool(table.route_flipped.sel(layer=[0, 1]).any()), "zeroing changes no route before a later layer"


def test_the_static_form_has_every_token_escaped_and_the_selected_tokens_experts(bench_of):
    bench = bench_of("<img src=x onerror=alert(1)> Mia </script>")
    bench.select(layer=1, position=2, expert=0)
    made = bench["routing"].static()
    assert "<img" not in made.replace("<img alt=", "") and "</script" not in made and "<script" not in made
    row = bench["routing"].data({"what": "unchosen", "layer": 1, "position": 2})[0]["rows"][2]
    assert f"<bdi>{row['expert']}</bdi>" in made and f"<bdi>{row['probability']:.3g}</bdi>" in made


@pytest.mark.parametrize("n", [1, 20, 2000])
def test_every_length_at_the_20bs_sizes_in_messages_that_are_not_large(bench_of, nano, n):
    # As many layers and experts; few heads, which are not looked at here and would take long.
    shape = SHAPE_20B | {"n_heads": 4, "n_key_value_heads": 1, "d_model": 32}
    model = random_weights(HookedGptOss(NANO.with_(**shape), nano.tokenizer), 0)
    bench = bench_of(tokens_of_length(n), model=model)
    view, last = bench["routing"], n - 1
    asks = [
        {"what": "ribbon"},
        {"what": "statistics"},
        {"what": "layer", "layer": 23},
        {"what": "unchosen", "layer": 23, "position": last},
    ]
    if n == 2000:
        view.act({"kind": "ban", "layer": 20, "expert": 1, "position": None})
        bench.session.wait(60)
    for ask in asks:
        about, arrays = view.data(ask)
        size = sum(memory.nbytes for memory in packed(arrays)[1]) + len(str(clean(about)))
        assert size < MOST, (ask, size)
        assert ask["what"] != "ribbon" or arrays["chosen"].shape == (n, 24, 4)
    if n == 2000:
        assert np.array_equal(view.data({"what": "ribbon"})[1]["chosen"], routes(bench.run, "indices"))
        assert len(view.static()) < MOST


def test_a_text_too_long_for_one_message_comes_in_parts(bench, view, monkeypatch):
    monkeypatch.setattr("workbench.widgets.views.routing.MOST_ROUTES", 5 * 4 * 2)
    about, arrays = view.data({"what": "ribbon", "part": 7})
    assert (about["start"], about["size"], about["n_pos"]) == (5, 5, LAST + 1)
    assert about["tokens"] == bench.session.tokens()[5:10]
    assert np.array_equal(arrays["chosen"], routes(bench.base, "indices", slice(5, 10)))
