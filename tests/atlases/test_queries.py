"""Every answer of an atlas is the one that pandas gives on the routes of the runs."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest

import workbench as wb
from tests.atlases.conftest import MAX_LENGTH
from workbench.atlases import AtlasError
from workbench.experiments import bootstrap, routing_statistics

LAYER, EXPERT = 2, 3
N_LAYERS, N_EXPERTS, N_SLOTS = 4, 8, 2


@pytest.fixture(scope="module")
def mine(truth) -> pd.DataFrame:
    """The routes of one expert."""
    return truth[(truth["layer"] == LAYER) & (truth["expert"] == EXPERT)]


@pytest.fixture(scope="module")
def tokens(truth) -> pd.DataFrame:
    """A row a token."""
    return truth[(truth["layer"] == 0) & (truth["slot"] == 0)].fillna({"language": "", "role": "", "channel": ""})


# ---------------------------------------------------------------- where it fires
def test_top_gives_the_largest_weights_of_an_expert_and_where_they_are(atlas, mine, nano, documents):
    found = atlas.top(LAYER, EXPERT, 25)
    expected = np.sort(mine["weight"].to_numpy())[::-1][:25]
    np.testing.assert_allclose(found["weight"], expected, atol=1e-5)
    assert found["weight"].is_monotonic_decreasing
    there = mine.set_index(["document", "position"])
    for row in found.itertuples():
        same = there.loc[(row.document, row.position)]
        assert (row.token, row.slot) == (same["token"], same["slot"]) and row.id == documents[row.document].id
        assert abs(row.weight - same["weight"]) < 1e-5 and row.text == nano.tokenizer.str_tokens([row.token])[0]
        assert row.domain == same["domain"] and (same["role"] or "") == ("" if pd.isna(row.role) else row.role)
    assert len(atlas.top(LAYER, EXPERT, 10**6)) == len(mine)


def test_top_takes_at_most_so_many_of_a_document_and_random_takes_any_evenly(atlas, mine):
    found = atlas.top(LAYER, EXPERT, 30, per_document=1)
    best = mine.groupby("document")["weight"].max().sort_values(ascending=False)[:30]
    np.testing.assert_allclose(found["weight"], best, atol=1e-5)
    assert found["document"].is_unique
    drawn = [atlas.top(LAYER, EXPERT, 40, by="random", seed=seed) for seed in (0, 0, 1)]
    pd.testing.assert_frame_equal(drawn[0], drawn[1])
    places = [set(zip(each["document"], each["position"], strict=True)) for each in drawn]
    everywhere = set(zip(mine["document"], mine["position"], strict=True))
    assert places[0] != places[2] and all(len(each) == 40 and each <= everywhere for each in places)
    means = [atlas.top(LAYER, EXPERT, 200, by="random", seed=seed)["weight"].mean() for seed in range(5)]
    assert abs(np.mean(means) - mine["weight"].mean()) < 4 * mine["weight"].std() / np.sqrt(200)


def test_a_context_is_the_text_round_a_token_with_the_experts_weight_at_each(atlas, mine, ids, nano, documents):
    found = atlas.contexts(LAYER, EXPERT, 25, before=5, after=3)
    assert [context.weight for context in found] == atlas.top(LAYER, EXPERT, 25)["weight"].tolist()
    there = mine.set_index(["document", "position"])["weight"]
    for context in found:
        row, at = ids[context.document], context.position
        first, last = max(0, at - 5), min(len(row), at + 4)
        assert list(context.ids) == row[first:last] and context.ids[context.centre] == row[at]
        assert list(context.tokens) == nano.tokenizer.str_tokens(row[first:last])
        assert context.text == "".join(context.tokens) and context.id == documents[context.document].id
        expected = [there.get((context.document, position), 0.0) for position in range(first, last)]
        np.testing.assert_allclose(context.weights, expected, atol=1e-5)
        assert context.weights[context.centre] == context.weight
        assert context.seen == max(0, at - at % MAX_LENGTH - first)
        assert context.domain == documents[context.document].domain


def test_a_context_in_a_cut_document_says_what_the_model_had_not_seen(atlas, truth):
    late = truth[truth["position"] == MAX_LENGTH + 1].iloc[0]
    found = atlas.contexts(int(late["layer"]), int(late["expert"]), 10**4, before=4, after=0)
    here = next(c for c in found if (c.document, c.position) == (late["document"], MAX_LENGTH + 1))
    assert (here.centre, here.seen) == (4, 3)  # two before the cut, the token at it, one more, and itself
    early = next(c for c in found if c.position == 2)
    assert (early.centre, early.seen, len(early.ids)) == (2, 0, 3)


# ---------------------------------------------------------------- how it is spread
def test_loads_are_those_of_the_routing_statistics_of_the_same_texts(atlas, nano, ids):
    windows = [row[at : at + MAX_LENGTH] for row in ids for at in range(0, len(row), MAX_LENGTH)]
    expected = routing_statistics(nano, windows, shuffles=0, progress=False)
    found = atlas.load()
    np.testing.assert_array_equal(found["load"], expected["load"])
    np.testing.assert_allclose(found["weight_share"], expected["weight_share"], atol=1e-7)
    np.testing.assert_allclose(found["entropy"], expected["share_entropy"])
    np.testing.assert_allclose(found["mean_weight"] * found["load"], found["weight_share"])
    np.testing.assert_allclose(found["route_share"].sum("expert"), 1)
    assert found.attrs["even_load"] == 0.25 and found["count"].sum() == atlas.n_tokens * N_LAYERS * N_SLOTS
    for layer in range(N_LAYERS):
        together = atlas.coactivation(layer)
        np.testing.assert_allclose(together["share"], expected["coactivation"].sel(layer=layer), equal_nan=True)


def test_specialisation_is_the_counts_of_pandas_in_every_cell(atlas, truth, tokens):
    for by in ("domain", "language", "role", "channel", "document"):
        found = atlas.specialisation(by)
        named = truth.assign(**{by: truth[by].fillna("")})
        counts = named.groupby(["layer", "expert", by]).size()
        of_group = tokens.groupby(by).size()
        assert sorted(found[by].values.tolist()) == sorted(of_group.index.tolist())
        np.testing.assert_array_equal(found["tokens"].sel({by: of_group.index.tolist()}), of_group)
        of_documents = tokens.groupby(by)["document"].nunique()
        np.testing.assert_array_equal(found["documents"].sel({by: of_group.index.tolist()}), of_documents)
        table = counts.reindex(
            pd.MultiIndex.from_product([range(N_LAYERS), range(N_EXPERTS), found[by].values.tolist()]), fill_value=0
        )
        table = table.to_numpy().reshape(N_LAYERS, N_EXPERTS, -1)
        np.testing.assert_array_equal(found["count"], table)
        size = of_group.reindex(found[by].values.tolist()).to_numpy()
        np.testing.assert_allclose(found["share"], table / size)
        np.testing.assert_allclose(found["composition"], table / table.sum(-1, keepdims=True))
        np.testing.assert_allclose(found["lift"], table / table.sum(-1, keepdims=True) / (size / size.sum()))
        inside = (found["share_low"] <= found["share"]) & (found["share"] <= found["share_high"])
        assert bool((inside | (found["documents"] == 1)).all())
        assert bool(found["share_low"].where(found["documents"] == 1).isnull().all())


def test_specialisation_by_domain_is_that_of_the_routing_statistics(atlas, nano, ids, documents):
    windows = [(row[at : at + MAX_LENGTH], each.domain)
               for row, each in zip(ids, documents, strict=True) for at in range(0, len(row), MAX_LENGTH)]  # fmt: skip
    texts, domains = zip(*windows, strict=True)
    expected = routing_statistics(nano, list(texts), list(domains), shuffles=0, progress=False)
    np.testing.assert_allclose(atlas.specialisation()["share"].transpose("domain", ...), expected["domain_load"])


def test_an_interval_is_as_wide_as_documents_drawn_again_make_it(atlas, truth, tokens):
    """Where documents are of one length, a share is a mean over documents, which the bootstrap knows."""
    found = atlas.specialisation("language").sel(language="x")
    size = tokens[tokens["language"] == "x"].groupby("document").size()
    routed = truth[(truth["language"] == "x") & (truth["layer"] == LAYER)].groupby(["expert", "document"]).size()
    for expert in range(N_EXPERTS):
        count = routed.loc[expert].reindex(size.index, fill_value=0)
        share = count.sum() / size.sum()
        # A ratio of sums, linearised: its deviations are a mean over documents.
        off = share + (count - share * size) / size.mean()
        expected = bootstrap(off.to_numpy()[:, None], n=4000, seed=1, method="percentile")
        low, high = (float(expected[end].values[0]) for end in ("low", "high"))
        here = found.sel(layer=LAYER, expert=expert)
        width = float(here["share_high"] - here["share_low"])
        assert 0.8 < width / (high - low) < 1.25, (expert, low, high, width)


def test_coactivation_and_neighbours_are_the_pairs_of_pandas(atlas, truth):
    here = truth[truth["layer"] == LAYER]
    pairs = here.merge(here, on=["document", "position"]).groupby(["expert_x", "expert_y"]).size()
    expected = pairs.unstack(fill_value=0).reindex(range(N_EXPERTS), fill_value=0).to_numpy()
    found = atlas.coactivation(LAYER)
    np.testing.assert_array_equal(found["count"], expected)
    lift = expected * atlas.n_tokens / np.outer(expected.diagonal(), expected.diagonal())
    np.fill_diagonal(lift, np.nan)
    np.testing.assert_allclose(found["lift"], lift)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found["pmi"], np.log2(lift))
    near = atlas.neighbours(LAYER, EXPERT, 3)
    order = [int(i) for i in np.argsort(-np.nan_to_num(lift[EXPERT], nan=-1))[:3]]
    assert near["expert"].tolist() == order and near["count"].tolist() == expected[EXPERT][order].tolist()
    np.testing.assert_allclose(near["share"], expected[EXPERT][order] / expected[EXPERT, EXPERT])


# ---------------------------------------------------------------- asking
def test_any_question_can_be_asked_in_sql_from_several_threads_at_once(atlas, truth):
    question = "select expert, count(*) as n, avg(weight) as weight from routing where layer = ? group by expert"
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda layer: atlas.sql(question, [layer]), [0, 1, 2, 3] * 4))
    for layer, answer in zip([0, 1, 2, 3] * 4, answers, strict=True):
        expected = truth[truth["layer"] == layer].groupby("expert")["weight"].agg(["size", "mean"])
        answer = answer.sort_values("expert")
        assert answer["n"].tolist() == expected["size"].tolist()
        np.testing.assert_allclose(answer["weight"], expected["mean"], atol=1e-6)
    text = "select text, count(*) as n from routing join vocabulary using (token) group by text order by n desc, text"
    assert atlas.sql(text)["n"].sum() == len(truth)


def test_a_question_that_does_not_fit_is_refused_with_what_there_is(atlas, nano, tmp_path):
    for ask, said in (
        (lambda: atlas.top(4, 0), "layer=4: this atlas has layers 0 to 3"),
        (lambda: atlas.contexts(0, 8), "expert=8: this atlas has experts 0 to 7"),
        (lambda: atlas.contexts(0, 1, before=-1), "expected at least 0"),
        (lambda: atlas.top(0, 1, 0), "expected at least 1"),
        (lambda: atlas.top(0, 1, by="slot"), "by='slot': expected one of"),
        (lambda: atlas.coactivation(True), "layer=True"),
        (lambda: atlas.neighbours(0, -1), "expert=-1"),
        (lambda: atlas.specialisation("token"), "by='token': expected one of"),
        (lambda: atlas.specialisation("domain", level=95.0), "level=95.0: expected between 0 and 1"),
        (lambda: atlas.sql("select * from rooting"), r"rooting(.|\n)*routing\(token, layer, slot"),
    ):
        with pytest.raises(AtlasError, match=said):
            ask()
    plain = wb.atlas(nano, ["one two"], tmp_path / "a", progress=False)
    with pytest.raises(AtlasError, match="no document of this atlas has a language: build it with language="):
        plain.specialisation("language")
    assert plain.contexts(0, int(plain.sql("select expert from routing limit 1")["expert"][0]))


def test_an_atlas_is_opened_and_asked_without_torch(folder):
    script = """
import sys, workbench as wb
atlas = wb.atlas.open(sys.argv[1])
atlas.top(0, 1); atlas.contexts(0, 1); atlas.load(); atlas.specialisation(); atlas.coactivation(0); atlas.tokenizer
wb.atlas.compare(atlas, atlas)
print(sorted(name for name in ("torch", "transformer_lens") if name in sys.modules), repr(atlas))
"""
    done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("[] Atlas(nano: ")
