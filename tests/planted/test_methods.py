"""Exact methods, and those that stand by themselves, on every planted model: what they must find."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.planted.cases import (
    BOUNDARY,
    CASES,
    SATURATED,
    Case,
    asked,
    by_edge,
    every,
    patched,
    rank,
    true_edges,
)
from tests.planted.models import planted
from tests.planted.scores import Scores
from workbench.activations import run
from workbench.experiments.circuits.circuit import auroc
from workbench.experiments.directions.steering import difference_of_means
from workbench.experiments.effects.ablation import ablation_sweep
from workbench.experiments.effects.mediation import mediation
from workbench.experiments.experts.routing_statistics import routing_statistics
from workbench.experiments.lenses.direct import direct_logit_attribution
from workbench.experiments.metrics import logit_difference
from workbench.experiments.nodes import all_nodes, all_receivers
from workbench.experiments.observe.heads import head_scores
from workbench.experiments.patching.grid import patching_grid
from workbench.experiments.patching.paths import path_patching
from workbench.interventions import Patch
from workbench.prompts import stack


@every
def test_exact_patching_ranks_what_was_planted_first(case: Case, seed: int, scores: Scores) -> None:
    for pair in case.pairs(seed):
        found, true = patched(case, pair), planted(case.model).truth.nodes(pair)
        scores.record(str(case), "patching", auroc(found, true))
        assert rank(found, true) == len(true), sorted(found.items(), key=lambda item: -item[1])[:6]


@pytest.mark.parametrize("case", (*CASES, *BOUNDARY, SATURATED), ids=str)
def test_path_patching_ranks_the_edges_that_were_written_first(case: Case, seed: int) -> None:
    config = planted(case.model).model.config
    nodes, receivers = all_nodes(config), all_receivers(config)
    for pair in case.pairs(seed)[:1]:
        data = path_patching(*asked(case, pair), nodes, receivers, progress=False).rename(
            sender="upstream", receiver="downstream", recovered="share"
        )
        found, true = by_edge(data), true_edges(case, pair)
        assert rank(found, true) == len(true), sorted(found.items(), key=lambda item: -item[1])[:6]
        assert min(found[name] for name in true) > 0.4


@every
def test_an_identity_patch_changes_nothing_and_the_whole_stream_brings_all_back(case: Case, seed: int) -> None:
    model = planted(case.model).model
    rows = stack(case.pairs(seed))
    clean = run(model, rows.clean, sites="all")
    own = [Patch(site, "clean") for site in model.sites if site.endswith(("resid_pre", "hook_z", "hook_expert_out"))]
    assert torch.equal(run(model, rows.clean, own, sources={"clean": clean}).logits, clean.logits)
    for layer in range(model.config.n_layers):
        stream = [Patch(f"blocks.{layer}.hook_resid_pre", "clean")]
        assert torch.equal(run(model, rows.corrupt, stream, sources={"clean": clean}).logits, clean.logits)
    model, good, _, metric = asked(case, case.pairs(seed)[0])
    same = patching_grid(model, good, good, metric, progress=False)
    assert float(abs(same.metric - same.corrupted).max()) <= 1e-5 * float(abs(same.clean))


@every
def test_direct_logit_attribution_sums_to_the_logit_difference(case: Case, seed: int) -> None:
    for pair in case.pairs(seed):
        model, clean, _, metric = asked(case, pair)
        done = run(model, clean, sites="all")
        data = direct_logit_attribution(done, metric)
        assert float(data.total) == pytest.approx(float(done.logits[0, -1, metric[0]] - done.logits[0, -1, metric[1]]))
        assert abs(float(data.residual)) < 1e-4


@pytest.mark.parametrize("change", ["class", "index"])
def test_mediation_names_routing_or_content_and_the_experts_that_carry_it(change: str, seed: int) -> None:
    of_model = planted("routed_by_attention")
    pairs = of_model.pairs(8, seed, change=change)
    rows = stack(pairs)
    data = mediation(
        of_model.model,
        rows.corrupt,
        [Patch("blocks.0.hook_resid_pre", "clean")],
        logit_difference(rows.right.tolist(), rows.wrong.tolist()),
        {"clean": run(of_model.model, rows.clean)},
        progress=False,
    )
    for part in ("routing", "content", "interaction"):
        told = of_model.truth.numbers[f"{change}: {part} share"]
        np.testing.assert_allclose(data[part] / data.total, told, atol=1e-4)
    part = "expert_routing" if change == "class" else "expert_content"
    for row, pair in enumerate(pairs):
        carried = set(np.flatnonzero(abs(data[part][row, 0]) > 0.1).tolist())
        assert carried == {int(pair.right) // 6, int(pair.wrong) // 6}


def test_routing_statistics_rank_the_idle_expert_first_and_the_noise_floor_says_that_it_does_nothing(seed: int) -> None:
    """The expert that is chosen most, with most weight, and writes most, is worth nothing; a quiet one is worth all."""
    of_model = planted("busy_expert")
    pairs = of_model.pairs(12, seed)
    seen = routing_statistics(of_model.model, [pair.clean for pair in pairs], shuffles=0, progress=False)
    busy, working = of_model.truth.idle[0].index, of_model.truth.components[0].index
    for name in ("load", "weight_share"):
        assert int(seen[name].values[0].argmax()) == busy and float(seen[name][0, busy]) > 0.9
        assert float(seen[name][0, working]) < 0.1
    data = ablation_sweep(of_model.model, pairs, components="experts", controls=19, progress=False)
    effect, floor = np.abs(data.mean_effect.values), data.floor.values
    assert float(effect[busy]) <= float(floor[busy]) and float(data.p[busy]) > 0.05
    assert int(effect.argmax()) == working and effect[working] > 3 * floor[working]
    assert float(data.p[working]) == pytest.approx(0.05)


def test_the_steering_direction_is_the_difference_of_means_and_no_shuffled_one_is(seed: int) -> None:
    of_model = planted("steering_direction")
    texts = {says: [pair.clean for pair in of_model.pairs(12, seed, says=says)] for says in ("yes", "no")}
    found = difference_of_means(of_model.model, texts["yes"], texts["no"], "blocks.0.hook_resid_post", progress=False)
    direction = of_model.truth.directions["answer"].numpy()

    def cosine(vector: np.ndarray) -> float:
        return float(vector @ direction / np.linalg.norm(vector) / np.linalg.norm(direction))

    assert cosine(found.vector) > 0.99
    assert max(abs(np.linalg.norm(vector)) for vector in found.shuffled) < 0.95 * found.norm


def test_head_scores_find_the_previous_token_head_and_the_induction_head(seed: int) -> None:
    data = head_scores(planted("induction").model, length=8, n_rows=8, seed=seed % 1000)
    for kind, head in (("previous_token", (0, 0)), ("induction", (1, 2))):
        score = np.nan_to_num(data.score.sel(kind=kind).values)
        assert np.unravel_index(score.argmax(), score.shape) == head, kind
