"""The atlas view in Python: its numbers are those of plain runs, document by document; its work can be stopped."""

import json
import shutil
import threading

import numpy as np
import pytest

import workbench as wb
from tests.browser.benches import SHAPE_20B, atlas_of, microworld_atlas
from tests.widgets.hostile import Markup
from workbench.atlases import AtlasError
from workbench.atlases.contexts import Context
from workbench.atlases.reading import of_like_load, up_to
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.widgets import Bench, code, workspace
from workbench.widgets.wire import clean, packed

MOST = 2_000_000  # bytes in one message
LAYER, EXPERT = 2, 3


@pytest.fixture(scope="module")
def atlas():
    return microworld_atlas(6)


@pytest.fixture(scope="module")
def routes(nano, atlas):
    """Each document run by itself: its domain, tokens, experts and weights [layer pos slot]."""
    found = {}
    documents = atlas.sql("select document, domain from documents order by document")
    tokens = atlas.sql("select document, token from routes where layer = 0 order by document, position")
    sites = [f"blocks.{layer}.mlp.hook_expert_{kind}" for layer in range(4) for kind in ("indices", "weights")]
    for number, part in tokens.groupby("document"):
        ids = part["token"].tolist()
        run = wb.run(nano, ids, sites=sites)
        indices, weights = (
            np.stack([run[f"blocks.{layer}.mlp.hook_expert_{kind}"][0].numpy() for layer in range(4)])
            for kind in ("indices", "weights")
        )
        found[int(number)] = documents["domain"][int(number)], ids, indices, weights
    return found


@pytest.fixture
def view(bench_of, pair, atlas):
    bench = bench_of(pair, atlas=atlas, open=["atlas"])
    bench.select(layer=LAYER, expert=EXPERT)
    return bench["atlas"]


def given(routes, number, layer=LAYER, expert=EXPERT):
    """The expert's weight at each token of a document, 0 where it does not go to it."""
    _, _, indices, weights = routes[number]
    return (weights[layer] * (indices[layer] == expert)).sum(-1)


# ---------------------------------------------------------------- numbers


def test_loads_are_those_of_plain_runs(view, routes):
    about, arrays = view.data({"what": "about"})
    count = np.zeros((4, 8), int)
    for _, _, indices, _ in routes.values():
        for layer in range(4):
            count[layer] += np.bincount(indices[layer].ravel(), minlength=8)
    n = sum(len(ids) for _, ids, _, _ in routes.values())
    # A tie of two experts may fall either way in a batch of other sizes.
    assert np.abs(arrays["count"] - count).max() <= 1 and about["n_tokens"] == n
    assert arrays["load"] == pytest.approx(count / n, abs=2 / n)
    assert about["state"] == "open" and about["same_model"] and about["blocked"] is None


def test_contexts_are_the_strongest_tokens_of_plain_runs_with_the_weight_of_each_token(view, routes):
    about, arrays = view.data({"what": "contexts"})
    best = sorted((-max(given(routes, number)), number) for number in routes)[:20]
    assert [-row for row in arrays["weights"][:, about["before"]]] == pytest.approx(
        [weight for weight, _ in best], abs=1e-5
    )
    assert len({row["document"] for row in about["rows"]}) == len(about["rows"]) == 20
    for row, weights in zip(about["rows"], arrays["weights"], strict=True):
        domain, ids, _, _ = routes[row["document"]]
        at, first = row["position"], row["position"] - row["centre"]
        there = ~np.isnan(weights)
        assert weights[there] == pytest.approx(given(routes, row["document"])[first : at + 7], abs=1e-5)
        assert row["tokens"] == [view.session.word(token) for token in ids[first : at + 7]]
        assert row["domain"] == domain


def test_specialisation_and_neighbours_are_counts_of_plain_runs(view, routes):
    said, _ = view.data({"what": "spread"})
    served, tokens = {}, {}
    together = np.zeros(8)
    for number, (domain, ids, indices, _) in routes.items():
        mine = given(routes, number) > 0
        served[domain] = served.get(domain, 0) + int(mine.sum())
        tokens[domain] = tokens.get(domain, 0) + len(ids)
        together += np.bincount(indices[LAYER][mine].ravel(), minlength=8)
    assert said["by"] == "domain" and {row["name"] for row in said["groups"]} == set(tokens)
    total, n = sum(served.values()), sum(tokens.values())
    for row in said["groups"]:
        name = row["name"]
        assert abs(row["count"] - served[name]) <= 1 and row["tokens"] == tokens[name]
        assert row["lift"] == pytest.approx((served[name] / total) / (tokens[name] / n), abs=0.03)
        if row["documents"] > 1:
            assert row["lift_low"] <= row["lift"] <= row["lift_high"]
    assert [row["lift"] for row in said["groups"]] == sorted((row["lift"] for row in said["groups"]), reverse=True)
    load = view.data({"what": "about"})[1]["load"][LAYER]
    for row in said["neighbours"]:
        assert abs(row["count"] - together[row["expert"]]) <= 1
        assert row["lift"] == pytest.approx(together[row["expert"]] / total / load[row["expert"]], abs=0.03)
    view.session.options("atlas", by="role")
    assert {row["name"] for row in view.data({"what": "spread"})[0]["groups"]} >= {"user", "assistant", "(none said)"}


def test_effects_are_those_of_runs_of_the_whole_text_before_the_token(view, nano, routes):
    assert view.effects is None
    view.measure().wait(60)
    data, shown = view.effects, view.contexts
    control = int(data.attrs["control"])
    assert control == of_like_load(view.atlas.load(), LAYER, EXPERT) != EXPERT
    about, arrays = view.data({"what": "effects"})
    for i in (0, 7, 19):
        each = shown[i]
        ids = routes[each.document][1]
        before = wb.run(nano, ids[: each.position + 1]).logits[0, -1].double().log_softmax(-1)
        for a, expert in enumerate((EXPERT, control)):
            made = wb.run(nano, ids[: each.position + 1], [wb.AblateExpert(LAYER, expert)]).logits[0, -1]
            after = made.double().log_softmax(-1)
            assert arrays["kl"][a, i] == pytest.approx(float((before.exp() * (before - after)).sum()), abs=1e-5)
            if each.position + 1 < len(ids):
                change = float(before[ids[each.position + 1]] - after[ids[each.position + 1]])
                assert arrays["loss_change"][a, i] == pytest.approx(change, abs=1e-4)
    assert about["known"] == 20 and about["means"]["kl"][0]["mean"] == pytest.approx(arrays["kl"][0].mean())
    assert about["means"]["kl"][0]["low"] > about["means"]["kl"][1]["mean"]  # it is worth more than its control
    assert about["served"] == sum(given(routes, each.document, expert=control)[each.position] > 0 for each in shown)
    assert view.measure() is None


def test_of_a_cut_document_the_model_reads_its_window_alone(nano):
    text = "Mia went to the park. Tom saw a dog. Ana walked to the mill."
    cut = atlas_of(nano, [text], max_length=6)
    ids = nano.tokenizer.encode(text)
    for each in cut.contexts(0, int(cut.load()["count"].values[0].argmax()), n=50, before=20):
        (row,), (after,) = up_to(cut, [each])
        start = each.position // 6 * 6
        assert row == ids[start : each.position + 1] and after == dict(enumerate(ids)).get(each.position + 1)
        assert each.position - each.centre + each.seen in (start, each.position - each.centre)
    assert up_to(cut, []) == ([], [])


# ---------------------------------------------------------------- what is chosen


def test_the_view_shows_the_selected_expert_then_the_last_one(view):
    assert view.expert == (LAYER, EXPERT)
    view.data({"what": "contexts", "layer": 1, "expert": 5})
    view.session.select(layer=3, head=2)
    assert view.expert == (1, 5)
    view.expert = (0, 4)
    assert (view.session.selection.layer, view.session.selection.expert) == (0, 4)
    with pytest.raises(AtlasError, match="experts 0 to 7"):
        view.expert = (0, 8)


def test_with_nothing_selected_it_shows_the_busiest_expert(bench_of, atlas):
    view = bench_of("Mia", atlas=atlas)["atlas"]
    assert view.expert == (0, int(atlas.load()["count"].values[0].argmax()))


def test_a_chosen_context_is_a_value_in_python_and_can_be_the_prompt(view, nano):
    session, each = view.session, view.contexts[3]
    session.options("atlas", context=[each.document, each.position])
    assert isinstance(view.context, Context)
    assert (view.context.document, view.context.position, view.context.weight) == (
        each.document,
        each.position,
        each.weight,
    )
    view.act({"kind": "prompt", "document": each.document, "position": each.position})
    session.wait(30)
    chosen = session.selection
    assert (chosen.layer, chosen.expert, chosen.position) == (LAYER, EXPERT, each.position)
    assert float(chosen.values()) == pytest.approx(each.weight, abs=1e-5)
    assert session.base.tokens[0, each.position] == each.ids[each.centre]
    session.travel(lambda history: history.step(-1))
    assert session.state.prompts[0].name == "clean" and len(session.state.prompts[0].tokens) == 14
    with pytest.raises(ValueError, match="not among the listed"):
        view.open_as_prompt(each.document, 10_000)
    session.options("atlas", context=[9_999, 3])
    assert view.context is None


# ---------------------------------------------------------------- work


def test_cancelled_work_keeps_what_is_done_and_goes_on_from_there(view):
    session, heard, stop = view.session, [], threading.Event()

    def listen(message, arrays):
        if message["did"] == "stream":
            heard.append(message["json"]["done"])
            stop.set()

    session.send = listen
    job = view.measure()
    stop.wait(30)
    job.cancel()
    job.wait(30)
    known = view.data({"what": "effects"})[0]["known"]
    if job.state == "cancelled":  # else it was faster than we are
        assert 0 < known < 20 and np.isnan(view.data({"what": "effects"})[1]["kl"]).any()
        first = view.effects.kl.values
        job.resume().wait(60)
        assert (view.effects.kl.values[:, : first.shape[1]] == first).all()
    assert heard == sorted(heard) and view.data({"what": "effects"})[0]["known"] == 20


def test_what_was_run_is_not_run_again_when_more_is_listed(view):
    view.session.options("atlas", n=5)
    view.measure().wait(60)
    view.session.options("atlas", n=9)
    assert view.measure().wait(60).total == 4
    view.session.options("atlas", policy="zero")
    assert view.effects is None and view.data({"what": "effects"})[0]["policy"] == "zero"


# ---------------------------------------------------------------- without, elsewhere, gone


def test_without_an_atlas_every_form_says_how_one_is_made(bench):
    view, how = bench["atlas"], 'wb.atlas(model, texts, "my-atlas")'
    assert bench.atlas is None and view.data({"what": "about"}) == ({"state": "none", "how": how}, {})
    assert how in Markup(view.static()).seen and how in view.code()
    assert view.table().sizes == {} and "No atlas" in view.figure().layout.title.text
    exec(bench.code("atlas"), {})
    with pytest.raises(ValueError, match="no atlas is open"):
        view.measure()


def test_an_atlas_that_is_not_there_is_refused_and_the_old_one_stays(bench_of, atlas, tmp_path):
    bench = bench_of("Mia", atlas=atlas)
    for wrong in (tmp_path, str(tmp_path / "none")):
        with pytest.raises(AtlasError):
            bench.atlas = wrong
    assert bench.atlas is atlas
    bench.atlas = None
    assert bench.atlas is None


def test_an_atlas_that_goes_away_is_said_in_words_and_read_again_when_it_is_back(bench_of, atlas, tmp_path):
    place = tmp_path / "atlas"
    shutil.copytree(atlas.folder, place)
    view = bench_of("Mia", atlas=place)["atlas"]
    place.rename(tmp_path / "away")
    view.act({"kind": "again"})
    said, _ = view.data({"what": "about"})
    assert said["state"] == "failed" and "there is no atlas in" in said["why"] and "\n" not in said["why"]
    assert "there is no atlas in" in view.static() and "cannot be read now" in view.code()
    (tmp_path / "away").rename(place)
    view.act({"kind": "again"})
    assert view.data({"what": "about"})[0]["state"] == "open"
    view.atlas.close()
    with pytest.raises(ValueError) as caught:
        view.data({"what": "contexts", "layer": 0, "expert": 0})
    assert "The tables of an atlas" not in str(caught.value)


def test_an_atlas_of_other_weights_is_said_to_be_and_can_be_run(bench_of, nano, atlas):
    other = random_weights(HookedGptOss(NANO, nano.tokenizer), 1)
    view = bench_of("Mia", model=other, atlas=atlas)["atlas"]
    about, _ = view.data({"what": "about"})
    assert not about["same_model"] and about["same_shape"] and about["blocked"] is None
    assert "another model" in view.static()
    view.session.options("atlas", n=3)
    view.measure().wait(60)
    assert view.effects.attrs["fingerprint"] == view.model_fingerprint != about["fingerprint"]


def test_an_atlas_of_another_shape_is_shown_and_never_run_or_selected(bench_of, atlas):
    wide = random_weights(
        HookedGptOss(NANO.with_(**SHAPE_20B | {"n_heads": 4, "n_key_value_heads": 1, "d_model": 32}), None), 0
    )
    bench = bench_of((1, 2, 3), model=wide, atlas=atlas)
    view = bench["atlas"]
    bench.select(layer=20, expert=30)
    about, _ = view.data({"what": "about"})
    assert "4 layers × 8 experts" in about["blocked"] and not about["same_shape"]
    said, _ = view.data({"what": "contexts", "layer": 3, "expert": 7})
    assert (said["layer"], said["expert"]) == view.expert == (3, 7)
    with pytest.raises(ValueError, match="cannot be run"):
        view.measure()
    with pytest.raises(ValueError, match="no tokenizer"):  # its ids would be other words
        view.open_as_prompt(said["rows"][0]["document"], said["rows"][0]["position"])
    assert (bench.selection.layer, bench.selection.expert) == (20, 30)
    assert view.static() and view.table() and view.code()


def test_an_expert_without_a_token_and_documents_of_which_nothing_is_said(nano, bench_of):
    tiny = atlas_of(nano, ["Mia"])
    unused = int((tiny.load()["count"].values[0] == 0).argmax())
    view = bench_of("Mia", atlas=tiny)["atlas"]
    view.expert = (0, unused)
    assert view.contexts == [] and view.measure() is None and view.effects is None
    assert view.data({"what": "contexts"})[1]["weights"].shape == (0, 19)
    assert view.data({"what": "spread"})[0]["by"] is None
    assert "no token of this corpus" in view.static() and view.figure().layout.height == 200
    assert view.table().sizes["context"] == 0


# ---------------------------------------------------------------- forms and files


def test_a_copied_cell_gives_the_numbers_on_screen(view, nano):
    view.session.options("atlas", n=5, order="random")
    view.measure().wait(60)
    scope = {}
    exec(code.of(view.session, "atlas"), scope)
    assert [(each.document, each.position) for each in scope["contexts"]] == [
        (e.document, e.position) for e in view.contexts
    ]
    assert scope["effects"].kl.values == pytest.approx(view.effects.kl.values, abs=1e-6)
    rows = {row["name"]: row for row in view.data({"what": "spread"})[0]["groups"]}
    lifts = scope["specialisation"].lift.to_series()
    assert {str(name): lift for name, lift in lifts.items()} == {name: row["lift"] for name, row in rows.items()}
    assert int(scope["together"]["count"].max()) == int(
        view.atlas.coactivation(LAYER).sel(expert=EXPERT)["count"].max()
    )


def test_the_still_form_starts_no_work_and_says_what_was_measured(view):
    view.session.options("atlas", n=5)
    before = len(view.session.jobs)
    assert "Without it" not in Markup(view.static()).seen
    assert len(view.session.jobs) == before
    view.measure().wait(60)
    seen = Markup(view.static()).seen
    assert "Without it" in seen and f"{float(view.effects.kl_mean[0]):.3g}" in seen
    assert len(view.static()) < 200_000


def test_the_table_has_each_listed_token_and_its_weight(view):
    view.session.options("atlas", n=5)
    view.measure().wait(60)
    made = view.table()
    for i, each in enumerate(view.contexts):
        row = made.isel(context=i)
        assert float(row.token_weight.sel(offset=0)) == pytest.approx(each.weight)
        assert str(row.token.sel(offset=0).item()) == each.tokens[each.centre]
        assert str(row.context_domain.item()) == each.domain
    assert made.kl.values == pytest.approx(view.effects.kl.values)
    assert view.session.views["atlas"].figure().data[0].z[0][12] == pytest.approx(view.contexts[0].weight)


def test_a_workspace_remembers_the_atlas_and_the_context(view, nano, tmp_path):
    each = view.contexts[1]
    view.session.options("atlas", context=[each.document, each.position], n=8)
    path = tmp_path / "work.json"
    path.write_text(workspace.to_json(view.session))
    again = Bench.load(path, nano)
    assert again["atlas"].context.ids == view.context.ids and len(again["atlas"].contexts) == 8
    again.close()
    said = json.loads(path.read_text())
    said["screen"]["options"]["atlas"]["folder"] = str(tmp_path / "gone")
    path.write_text(json.dumps(said))
    later = Bench.load(path, nano)  # a workspace without its atlas opens all the same
    assert later["atlas"].data({"what": "about"})[0]["state"] == "failed"
    later.close()


def test_the_view_alone_takes_an_atlas(nano, atlas):
    alone = wb.view.atlas(wb.run(nano, "Mia went to the park"), atlas=atlas, n=4)
    assert alone.view.atlas is atlas and len(alone.view.contexts) == 4
    alone.close()


@pytest.mark.parametrize(
    "wrong",
    [{"n": 0}, {"n": 401}, {"order": "x"}, {"by": "document"}, {"policy": "mean"}, {"folder": 3}, {"folder": "a\0"},
     {"context": [1]}, {"context": [1, -1]}, {"context": "12"}, {"once": 1}],
)  # fmt: skip
def test_an_option_that_cannot_be_is_refused(view, wrong):
    with pytest.raises(ValueError):
        view.session.options("atlas", **wrong)


def test_the_largest_messages_are_small(bench_of, nano):
    shape = SHAPE_20B | {"n_layers": 4, "n_heads": 4, "n_key_value_heads": 1, "d_model": 32}
    wide = random_weights(HookedGptOss(NANO.with_(**shape), nano.tokenizer), 0)
    documents = [{"text": "Mia went to the park and saw a dog there. ", "domain": f"domain {i}"} for i in range(420)]
    bench = bench_of("Mia", model=wide, atlas=atlas_of(wide, documents))
    view = bench["atlas"]
    bench.session.options("atlas", n=400, once=False)
    for what in ("about", "contexts", "spread", "effects"):
        said, arrays = view.data({"what": what})
        size = len(json.dumps(clean(said))) + sum(len(buffer) for buffer in packed(arrays)[1])
        assert size < MOST / 2, what
    assert len(view.data({"what": "contexts"})[0]["rows"]) == 400
    spread = view.data({"what": "spread"})[0]
    assert len(spread["groups"]) == 80 and spread["more"] == 340
