"""Statistics of routes against loops that count one by one, on random routes and on texts."""

import math
from collections import Counter

import numpy as np
import pytest

from tests.small import as_in_a_notebook  # noqa: F401  a fixture
from workbench.activations import run
from workbench.experiments.experts.routes import Routes, collect
from workbench.experiments.experts.routing_changes import expert_paths, routing_contrast, routing_saturation
from workbench.experiments.experts.routing_statistics import (
    mutual_information,
    routing_statistics,
    vocabulary_specialisation,
)
from workbench.figures import routing_statistics as drawn
from workbench.model import NANO, HookedGptOss, random_weights
from workbench.text import Chat

TEXTS = [
    "Mia lives in the park. Mia walked to the park.",
    "Tom has the ball. Tom has the hat.",
    Chat().user("Where is Mia?").assistant("In the park.", channel="final"),
    "One day Ana walked to the mill.",
]
DOMAINS = ["story", "fact", "chat", "story"]
quiet = {"progress": False}


@pytest.fixture(scope="module")
def made(model):
    return routing_statistics(model, TEXTS, DOMAINS, shuffles=5, **quiet)


@pytest.fixture(scope="module")
def table(model):
    """For each layer and token: the set of experts, by itself, from runs of each text."""
    rows = []
    for text, domain in zip(TEXTS, DOMAINS, strict=True):
        done = run(model, text)
        labels = done.labels[0]
        for pos, token in enumerate(done.tokens[0].tolist()):
            experts = [done[f"blocks.{layer}.mlp.hook_expert_indices"][0, pos].tolist() for layer in range(3)]
            logits = [done[f"blocks.{layer}.mlp.hook_router_logits"][0, pos].double().numpy() for layer in range(3)]
            rows.append((token, domain, labels[pos].name, experts, logits))
    return rows


def test_loads_by_domain_and_by_speaker_are_counted_tokens(made, table):
    for layer in range(3):
        for expert in range(8):
            here = made.sel(layer=layer, expert=expert)
            served = [expert in experts[layer] for _, _, _, experts, _ in table]
            assert float(here["load"]) == pytest.approx(np.mean(served))
            for domain in set(DOMAINS):
                of = [s for s, row in zip(served, table, strict=True) if row[1] == domain]
                assert float(here.domain_load.sel(domain=domain)) == pytest.approx(np.mean(of))
            for speaker in made.speaker.values:
                of = [s for s, row in zip(served, table, strict=True) if row[2] == speaker]
                assert float(here.speaker_load.sel(speaker=speaker)) == pytest.approx(np.mean(of))
    assert {"", "user", "system", "assistant/final"} <= set(made.speaker.values.tolist())


def test_coactivation_is_of_all_pairs_and_conditional_on_the_row(made, table):
    for layer in range(3):
        for i in range(8):
            of_i = [row[3][layer] for row in table if i in row[3][layer]]
            for j in range(8):
                value = float(made.coactivation.sel(layer=layer, expert=i, other_expert=j))
                if i == j or not of_i:
                    assert math.isnan(value)
                else:
                    assert value == pytest.approx(sum(j in experts for experts in of_i) / len(of_i))


def test_entropies_say_which_p_and_variation_is_deviation_over_mean(made, table):
    for layer in range(3):
        counts = Counter(expert for row in table for expert in row[3][layer])
        p = [counts[e] / (2 * len(table)) for e in range(8) if counts[e]]
        assert float(made.share_entropy.sel(layer=layer)) == pytest.approx(
            -sum(x * math.log(x) for x in p) / math.log(8)
        )
        each = []
        for row in table:
            q = np.exp(row[4][layer] - row[4][layer].max())
            q /= q.sum()
            each.append(-(q * np.log(q)).sum())
        assert float(made.token_entropy.sel(layer=layer)) == pytest.approx(np.mean(each) / math.log(8), abs=1e-6)
        loads = np.array([counts[e] / len(table) for e in range(8)])
        assert float(made.load_cv.sel(layer=layer)) == pytest.approx(loads.std() / loads.mean())


def naive_information(experts, labels) -> float:
    joint = Counter((x, e) for x, chosen in zip(labels, experts, strict=True) for e in chosen)
    total = sum(joint.values())
    of_x, of_e = Counter(), Counter()
    for (x, e), c in joint.items():
        of_x[x] += c
        of_e[e] += c
    return sum(c / total * math.log2(c * total / (of_x[x] * of_e[e])) for (x, e), c in joint.items())


def test_mutual_information_is_the_sum_over_pairs(made, table):
    for layer in range(3):
        experts = [row[3][layer] for row in table]
        of_token, of_domain = (naive_information(experts, [row[i] for row in table]) for i in (0, 1))
        assert float(made.token_information.sel(layer=layer)) == pytest.approx(of_token)
        assert float(made.domain_information.sel(layer=layer)) == pytest.approx(of_domain)


def test_a_router_that_is_a_look_up_tells_all_and_one_that_ignores_the_label_tells_nothing():
    label = np.repeat(np.arange(4), 50)
    looked_up = np.stack([label, label + 4], axis=1)
    # Each route names the label exactly, of which there are four: two bits.
    assert mutual_information(looked_up, label, 8) == pytest.approx(2)
    assert mutual_information(np.tile([[1, 5]], (200, 1)), label, 8) == pytest.approx(0)


def random_routes(seed: int, n: int = 600) -> Routes:
    rng = np.random.default_rng(seed)
    experts = np.stack([[rng.permutation(8)[:2] for _ in range(n)] for _ in range(2)])
    return Routes(NANO, experts, np.full((2, n, 2), 0.5), np.zeros((2, n)), rng.integers(0, 30, n),
                  np.repeat(np.arange(12), n // 12), np.full(n, ""), tuple("ab" * 6), {})  # fmt: skip


def test_the_null_meets_the_information_of_routes_that_know_nothing():
    from workbench.experiments.experts.routing_statistics import _information

    routes = random_routes(1)
    ids = np.unique(routes.token_id, return_inverse=True)[1]
    found = _information(routes, "token", ids, np.arange(600), 40, 0, False)
    value, null, spread = (found[f"token_information{part}"][1] for part in ("", "_null", "_spread"))
    assert (value > 0.05).all()  # 600 tokens give that much by chance alone
    assert (np.abs(value - null) < 4 * spread).all()


def test_shuffles_are_repeatable(model):
    one, same, other = (routing_statistics(model, TEXTS, DOMAINS, shuffles=3, seed=seed, **quiet) for seed in (0, 0, 1))
    assert np.array_equal(one.token_information_null, same.token_information_null)
    assert not np.array_equal(one.token_information_null, other.token_information_null)


def test_runs_and_texts_give_the_same_statistics_padding_left_out(model, made):
    runs = [run(model, TEXTS[:2]), run(model, TEXTS[2]), run(model, TEXTS[3])]
    of_runs = routing_statistics(runs, domains=DOMAINS, shuffles=5, **quiet)
    for name in ("load", "coactivation", "domain_load", "token_information", "speaker_load", "weight_share"):
        assert of_runs[name].values == pytest.approx(made[name].values, abs=1e-6, nan_ok=True)
    assert of_runs.attrs["n_tokens"] == made.attrs["n_tokens"]


def test_vocabulary_shares_are_counted_and_sum_to_the_routes_of_a_token(model, table):
    vocabulary = vocabulary_specialisation(model, TEXTS, min_count=2, **quiet)
    assert vocabulary.share.sum("expert").values == pytest.approx(2)
    counts = Counter(row[0] for row in table)
    assert set(vocabulary.vocab.values.tolist()) == {x for x, c in counts.items() if c >= 2}
    for layer in range(3):
        for token in vocabulary.vocab.values[:5].tolist():
            here = vocabulary.sel(layer=layer, vocab=token)
            assert int(here["count"]) == counts[token]
            for expert in range(8):
                n = sum(expert in row[3][layer] for row in table if row[0] == token)
                assert float(here.share.sel(expert=expert)) == pytest.approx(n / counts[token])
        for expert in range(8):
            each = [
                sum(expert in r[3][layer] for r in table if r[0] == row[0]) / counts[row[0]]
                for row in table
                if expert in row[3][layer] and counts[row[0]] >= 2
            ]
            value = float(vocabulary.specialisation.sel(layer=layer, expert=expert))
            assert value == pytest.approx(np.mean(each)) if each else math.isnan(value)


@pytest.fixture(scope="module")
def other(model):
    """The same shape with other weights."""
    return random_weights(HookedGptOss(model.config, model.tokenizer), seed=9)


def test_saturation_is_the_shared_share_of_the_experts(model, other):
    made = routing_saturation(model, other, TEXTS, **quiet)
    for layer in range(3):
        site, shared, first = f"blocks.{layer}.mlp.hook_expert_indices", [], []
        for text in TEXTS:
            one, two = (run(m, text)[site][0].tolist() for m in (model, other))
            shared += [len(set(a) & set(b)) / 2 for a, b in zip(one, two, strict=True)]
            first += [a[0] == b[0] for a, b in zip(one, two, strict=True)]
        assert float(made.saturation.sel(layer=layer)) == pytest.approx(np.mean(shared))
        assert float(made.first_slot.sel(layer=layer)) == pytest.approx(np.mean(first))
    assert (routing_saturation(model, model, TEXTS, **quiet).saturation == 1).all()


def test_a_contrast_is_the_difference_of_loads_and_turns_around(model):
    one, two = TEXTS[::2], TEXTS[1::2]
    made = routing_contrast(model, model, (one, two), shuffles=20, **quiet)
    loads = [routing_statistics(model, texts, shuffles=0, **quiet)["load"].values for texts in (one, two)]
    assert made.contrast.values == pytest.approx(loads[0] - loads[1])
    back = routing_contrast(model, model, (two, one), shuffles=20, **quiet)
    assert back.contrast.values == pytest.approx(-made.contrast.values)


def test_texts_of_one_kind_rarely_pass_the_noise_floor_and_two_kinds_do(model):
    halves = [[f"{name} walked to the {place}." for name in names for place in ("park", "mill", "pond")]
              for names in (("Mia", "Tom", "Ana"), ("Ben", "Eva", "Max"))]  # fmt: skip
    same = routing_contrast(model, model, (halves[0] + halves[1][:0], halves[0]), shuffles=200, **quiet)
    assert (same.contrast == 0).all()
    different = routing_contrast(model, model, (halves[0], ["= = = = = =", "1 2 3 4 5 6"] * 5), shuffles=200, **quiet)
    assert float(np.abs(different.contrast).max()) > float(different.largest_noise)


def test_transitions_and_paths_are_counted_tokens(model, table):
    made = expert_paths(model, TEXTS, n_paths=5, **quiet)
    for layer in range(2):
        for i in range(8):
            for j in range(8):
                n = sum(i in row[3][layer] and j in row[3][layer + 1] for row in table)
                assert int(made.transitions.sel(layer=layer, expert=i, next_expert=j)) == n
    ways = Counter(tuple(experts[0] for experts in row[3]) for row in table)
    assert int(made.n_different) == len(ways)
    assert made.path_count.values.tolist() == sorted(ways.values(), reverse=True)[:5]
    for path, count in zip(made.path_expert.values.tolist(), made.path_count.values.tolist(), strict=True):
        assert ways[tuple(path)] == count
    assert made.expected.sum(("expert", "next_expert")).values == pytest.approx(4 * len(table))


@pytest.mark.parametrize(
    ("call", "told"),
    [
        (lambda m: routing_statistics(m), "without texts"),
        (lambda m: routing_statistics(m, []), "at least one text"),
        (lambda m: routing_statistics(m, "one text"), "a list of"),
        (lambda m: routing_statistics(m, ["Mia"], ["a", "b"]), "2 domains for 1 texts"),
        (lambda m: routing_statistics(run(m, "Mia"), ["Mia"]), "have their own"),
        (lambda m: vocabulary_specialisation(m, ["Mia"], min_count=50, **quiet), "seen 50 times"),
        (lambda m: routing_saturation(run(m, "Mia"), run(m, "Tom has the hat"), **quiet), "same texts"),
    ],
)
@pytest.mark.usefixtures("as_in_a_notebook")
def test_what_does_not_fit_is_refused(model, call, told):
    with pytest.raises(ValueError, match=told):
        call(model)


def test_every_figure_draws_every_layer(model, made, tmp_path):
    paths, vocabulary = (
        expert_paths(model, TEXTS, **quiet),
        vocabulary_specialisation(model, TEXTS, min_count=2, **quiet),
    )
    contrast = routing_contrast(model, model, (TEXTS[:2], TEXTS[2:]), **quiet)
    balance, information = drawn.routing_balance(made), drawn.routing_information(made)
    assert [len(trace.x) for trace in balance.data] == [3, 3, 3]
    assert len(information.data) == 4
    assert len(drawn.expert_specialisation(made).data) == len(drawn.expert_coactivation(made).data) == 3
    assert len(drawn.expert_specialisation(made, by="speaker").data) == 3
    assert len(drawn.expert_transitions(paths).data) == 2
    assert np.array(drawn.expert_paths(paths).data[0].z).shape == paths.path_expert.shape
    assert np.array(drawn.routing_contrast(contrast).data[0].z) == pytest.approx(contrast.contrast.values)
    assert "park" in str(drawn.vocabulary_table(vocabulary, 1).data[0].text)
    assert drawn.routing_saturation(routing_saturation(model, model, TEXTS, **quiet)).data
    with pytest.raises(ValueError, match=r"experiments\.routing_statistics returns"):
        drawn.expert_coactivation(contrast)
    for data in (made, paths, vocabulary, contrast):
        data.to_netcdf(tmp_path / "stored.nc", engine="scipy")


def test_collect_keeps_the_order_of_texts(model):
    routes = collect(model, TEXTS, DOMAINS, progress=False)
    assert routes.domain_of_token().tolist() == [DOMAINS[t] for t in routes.text]
