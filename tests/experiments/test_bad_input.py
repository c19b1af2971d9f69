"""What does not fit is refused in words: each public experiment, each kind of bad argument.

The error is one of ours (its last frame is in the workbench, not in a library that met the argument), and its message
holds what was given.
"""

import math
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import workbench as wb
from tests.small import as_in_a_notebook
from workbench import experiments
from workbench.activations import Run, run
from workbench.dictionaries import Dictionary
from workbench.experiments import Circuit, Node, Receiver, SteeringVector
from workbench.model import HookedGptOss, random_weights
from workbench.model.memory import NotEnoughMemory
from workbench.prompts import Pair

OURS = Path(wb.__file__).parent
CLEAN, CORRUPT = "Mia lives in the park.", "Tom lives in the park."
TEXTS = [CLEAN, CORRUPT, "One day Ana walked to the mill.", "Tom"]
METRIC = (30, 40)
PAIR, UNLIKE = (Pair(CLEAN, other, " Mia", " Tom") for other in (CORRUPT, "Tom"))

__all__ = ["as_in_a_notebook"]

Call = Callable[[Any], Any]


@pytest.fixture(scope="module")
def given(model: HookedGptOss, done: Run, padded: Run) -> SimpleNamespace:
    """A model, runs of it and of another one of another shape, and what else an experiment takes."""
    config = model.config
    other = random_weights(HookedGptOss(config.with_(n_layers=2, name="other"), model.tokenizer), seed=2)
    sizes = {"W_enc": (32, 6), "W_dec": (6, 32), "b_dec": (32,), "b_enc": (6,)}
    weights = {name: torch.ones(size) for name, size in sizes.items()}
    return SimpleNamespace(
        model=model,
        run=done,
        padded=padded,
        clean=run(model, CLEAN),
        corrupt=run(model, CORRUPT),
        edited=run(model, CORRUPT, [wb.AblateHead(1, 2)]),
        theirs=run(other, CORRUPT),
        dictionary=Dictionary(weights, site="blocks.1.hook_resid_post"),
        vector=SteeringVector("blocks.1.hook_resid_post", np.ones(32, np.float32)),
        lens=experiments.TunedLens(torch.zeros(4, 32, 32), torch.zeros(4, 32)),
    )


def quiet(function: Callable, **options: Any) -> Callable:
    return lambda *args, **more: function(*args, **{"progress": False} | options | more)


sweep = quiet(experiments.ablation_sweep)
knock = quiet(experiments.greedy_knock_out)
patch = quiet(experiments.patching_grid)
component = quiet(experiments.component_patching)
joint = quiet(experiments.joint_patching)
paths = quiet(experiments.path_patching)
faithful = quiet(experiments.faithfulness)
mediate = quiet(experiments.mediation)
steer = quiet(experiments.steer)
probe = quiet(experiments.probe)
means = quiet(experiments.difference_of_means)
added = quiet(experiments.contrastive_activation_addition)
statistics = quiet(experiments.routing_statistics)
SITE = "blocks.1.hook_resid_post"
PARTS = [wb.AblateHead(0, 1), wb.AblateHead(1, 2)]

# What is called, and what its message must hold.
CASES: dict[str, list[tuple[Call, str]]] = {
    "adjusted": [
        (lambda g: experiments.adjusted(np.array([0.1, 1.5])), "1.5"),
        (lambda g: experiments.adjusted(np.array([0.1]), "bonferroni"), "'bonferroni'"),
        (lambda g: experiments.adjusted(np.array(["a", "b"])), "<U1"),
    ],
    "all_nodes": [
        (lambda g: experiments.all_nodes(g.model.config, kinds=("heads",)), "heads"),
        (lambda g: experiments.all_nodes(g.model.config, n_pos=-3), "-3"),
    ],
    "Node": [
        (lambda g: Node("heads", 1, 2), "'heads'"),
        (lambda g: Node("head", 1), "None"),
        (lambda g: Node.parse("L1Q3"), "'L1Q3'"),
        (lambda g: Receiver("z", 1, 2), "'z'"),
        (lambda g: Receiver.parse("L1H2.z"), "'L1H2.z'"),
    ],
    "attention": [
        (lambda g: experiments.attention(g.run, 9, 0), "layer=9"),
        (lambda g: experiments.attention(g.run, -1, 0), "layer=-1"),
        (lambda g: experiments.attention(g.run, 0, 77), "head=77"),
        (lambda g: experiments.attention(g.run, 0, 0, row=5), "row=5"),
        (lambda g: experiments.attention(g.run, 1.5, 0), "1.5"),
        (lambda g: experiments.attention(g.run, "one", 0), "'one'"),
        (lambda g: experiments.attention(g.run, 0, math.nan), "nan"),
    ],
    "attribution_graph": [
        (lambda g: experiments.attribution_graph(g.model, CLEAN, 99_999), "99999"),
        (lambda g: experiments.attribution_graph(g.model, CLEAN, " no such token"), "' no such token'"),
        (lambda g: experiments.attribution_graph(g.model, CLEAN, METRIC, n_nodes=-2), "-2"),
        (lambda g: experiments.attribution_graph(g.model, CLEAN, METRIC, n_nodes=1.5), "1.5"),
        (lambda g: experiments.attribution_graph(g.model, CLEAN, METRIC, confirm=-4), "-4"),
        (lambda g: experiments.attribution_graph(g.model, CLEAN, METRIC, row=3), "row=3"),
        (lambda g: experiments.attribution_graph(g.model, CLEAN, METRIC, logits_at=77), "77"),
    ],
    "attribution_patching": [
        (lambda g: experiments.attribution_patching(g.model, CLEAN, "Tom", METRIC), "expected as many"),
        (lambda g: experiments.attribution_patching(g.model, CLEAN, CORRUPT, 7), "7"),
        (lambda g: experiments.attribution_patching(g.model, CLEAN, CORRUPT, METRIC, kinds=("heads",)), "heads"),
        (lambda g: experiments.attribution_patching(g.model, CLEAN, CORRUPT, METRIC, kinds=()), "()"),
        (lambda g: experiments.attribution_patching(g.model, CLEAN, CORRUPT, METRIC, row=4), "row=4"),
        (lambda g: experiments.attribution_patching(g.model, CLEAN, CORRUPT, METRIC, logits_at=88), "88"),
    ],
    "integrated_gradients": [
        (lambda g: quiet(experiments.integrated_gradients)(g.model, CLEAN, CORRUPT, METRIC, steps=0), "0"),
        (lambda g: quiet(experiments.integrated_gradients)(g.model, CLEAN, CORRUPT, METRIC, steps=2.5), "2.5"),
    ],
    "edge_attribution": [
        (lambda g: experiments.edge_attribution(g.model, CLEAN, CORRUPT, METRIC, "eep"), "'eep'"),
        (lambda g: experiments.edge_attribution(g.model, CLEAN, CORRUPT, METRIC, "eap-ig", steps=0), "steps=0"),
        (lambda g: experiments.edge_attribution(g.model, CLEAN, "Tom", METRIC), "expected as many"),
        (lambda g: experiments.top_edges(experiments.edge_attribution(g.model, CLEAN, CORRUPT, METRIC), n=-1), "-1"),
    ],
    "auroc": [
        (lambda g: experiments.auroc([1.0, 2.0], [True]), "1"),
        (lambda g: experiments.auroc([], []), "0"),
        (lambda g: experiments.auroc([1.0, 2.0], [True, True]), "2"),
        (lambda g: experiments.auroc([1.0, math.nan], [True, False]), "NaN"),
    ],
    "bootstrap": [
        (lambda g: experiments.bootstrap(np.array([1.0, math.inf, 2.0])), "inf"),
        (lambda g: experiments.bootstrap(np.array([1.0])), "1 prompts"),
        (lambda g: experiments.bootstrap(np.array(["a", "b"])), "<U1"),
        (lambda g: experiments.bootstrap(np.ones(4), "mode"), "'mode'"),
        (lambda g: experiments.bootstrap(np.ones(4), level=95), "level=95"),
        (lambda g: experiments.bootstrap(np.ones(4), level=math.nan), "nan"),
        (lambda g: experiments.bootstrap(np.ones(4), n=0), "n=0"),
        (lambda g: experiments.bootstrap(np.ones(4), n=10.5), "10.5"),
        (lambda g: experiments.bootstrap(np.ones(4), method="bcb"), "'bcb'"),
        (lambda g: experiments.bootstrap(np.ones(4), null=math.nan), "nan"),
        (lambda g: experiments.bootstrap(np.ones(4), seed=-1), "-1"),
        (lambda g: experiments.bootstrap(g.run.array(SITE), dim="prompt"), "'prompt'"),
        (lambda g: experiments.max_t(np.array([[1.0, -math.inf], [2.0, 1.0]])), "inf"),
        (lambda g: experiments.max_t(np.ones(4), n=-3), "n=-3"),
    ],
    "over_prompts": [
        (lambda g: quiet(experiments.over_prompts)([1.0, 2.0], correction="none"), "'none'"),
        (lambda g: quiet(experiments.over_prompts)([1.0]), "1 prompts"),
        (lambda g: quiet(experiments.over_prompts)([np.ones(2), np.ones(3)]), "3"),
        (lambda g: quiet(experiments.over_prompts)(lambda prompt: 1.0), "prompts"),
        (lambda g: quiet(experiments.stack_prompts)([experiments.tokens(g.run)] * 2, variable="kl"), "'kl'"),
        (lambda g: quiet(experiments.stack_prompts)(experiments.expert_load(g.run), variable="load"), "'prompt'"),
    ],
    "compare": [
        (lambda g: experiments.compare(g.clean, g.theirs), "other"),
        (lambda g: experiments.compare(g.clean, g.run), "tokens"),
        (lambda g: experiments.compare(g.clean, g.clean, top_k=0), "top_k=0"),
        (lambda g: experiments.compare(g.clean, g.clean, row=2), "row=2"),
        (lambda g: experiments.compare(g.clean), "run"),
    ],
    "effect": [
        (lambda g: experiments.effect({}, [wb.AblateHead(1, 2)]), "0 runs"),
        (lambda g: experiments.effect({"a": g.clean}, []), "0 interventions"),
    ],
    "circuits": [
        (lambda g: faithful(g.model, [], [PAIR], METRIC), "0 circuits"),
        (lambda g: faithful(g.model, Circuit(("L9H0",)), [PAIR], METRIC), "9"),
        (lambda g: faithful(g.model, Circuit(("L0H1",)), [], METRIC), "no pairs"),
        (lambda g: faithful(g.model, Circuit(("L0H1",)), [UNLIKE], METRIC), "tokens"),
        (lambda g: faithful(g.model, Circuit(("L0H1",)), [PAIR], METRIC, ablation="none"), "'none'"),
        (lambda g: faithful(g.model, Circuit(("L0H1",)), [PAIR], METRIC, kinds=("heads",)), "heads"),
        (lambda g: quiet(experiments.faithfulness_curve)(g.model, {}, [PAIR], METRIC), "{}"),
        (
            lambda g: quiet(experiments.faithfulness_curve)(g.model, {"L0H1": math.nan, "L0H0": 1.0}, [PAIR], METRIC),
            "nan",
        ),
        (
            lambda g: quiet(experiments.faithfulness_curve)(g.model, {"L0H1": 1.0}, [PAIR], METRIC, sizes=(2.5,)),
            "2.5",
        ),
        (
            lambda g: quiet(experiments.completeness)(g.model, Circuit(("L0H1",)), [PAIR], METRIC, n=-2),
            "-2",
        ),
        (lambda g: experiments.run_circuit(g.model, Circuit(("L0H1",)), CLEAN, "Tom"), "tokens"),
        (lambda g: Circuit(("nothing",)), "'nothing'"),
        (lambda g: Circuit(("L0H1",), of="heads"), "'heads'"),
        (lambda g: experiments.compare_circuits(Circuit(("L0H1",)), Circuit(("L0H1->logits",), "edges")), "edges"),
    ],
    "directions": [
        (lambda g: means(g.model, [], TEXTS, SITE), "[]"),
        (lambda g: means(g.model, TEXTS, TEXTS, "blocks.1.hook_resid_pots"), "'blocks.1.hook_resid_pots'"),
        (lambda g: means(g.model, TEXTS, TEXTS, "blocks.1.attn.hook_z"), "blocks.1.attn.hook_z"),
        (lambda g: means(g.model, TEXTS, TEXTS, SITE, at="first"), "'first'"),
        (lambda g: means(g.model, TEXTS, TEXTS, SITE, shuffles=-1), "-1"),
        (lambda g: added(g.model, [(CLEAN,)], SITE), "1"),
        (lambda g: steer(g.model, TEXTS, g.vector, METRIC, scales=()), "scales=[]"),
        (lambda g: steer(g.model, TEXTS, g.vector, METRIC, scales=(math.nan,)), "nan"),
        (lambda g: steer(g.model, TEXTS, g.vector, METRIC, positions="first"), "'first'"),
        (lambda g: steer(g.model, TEXTS, g.vector, METRIC, controls=-1), "-1"),
        (lambda g: steer(g.model, [], g.vector, METRIC), "(1, 0)"),
        (lambda g: steer(g.model, TEXTS, SteeringVector(SITE, np.ones(7, np.float32)), METRIC), "7"),
        (lambda g: probe(g.model, TEXTS, [1, 0]), "2"),
        (lambda g: probe(g.model, TEXTS, [1, 1, 1, 1], folds=2), "there must be two classes"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], layers=[9]), "9"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], layers=[]), "[]"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], folds=9), "9"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], kind="svm"), "'svm'"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], folds=2, strength=-1.0), "-1.0"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], folds=2, strength=math.nan), "nan"),
        (lambda g: probe(g.model, TEXTS, [1, 0, 1, 0], folds=2, site="resid_pots"), "resid_pots"),
        (lambda g: experiments.feature_activations(g.run, g.dictionary, features=[6]), "feature=6"),
        (lambda g: experiments.feature_activations(g.run, g.dictionary, features="some"), "'some'"),
        (lambda g: experiments.feature_activations(g.run, g.dictionary, row=4), "row=4"),
        (lambda g: experiments.feature_logit_effect(g.model, g.dictionary, [-1]), "-1"),
        (lambda g: experiments.feature_logit_effect(g.model, g.dictionary, []), "[]"),
        (lambda g: experiments.feature_logit_effect(g.model, g.dictionary, [1], top_k=0), "0"),
        (lambda g: experiments.top_tokens([], g.dictionary, [1]), "0 runs"),
        (lambda g: experiments.top_tokens([g.run], g.dictionary, [1], context=-1), "-1"),
        (lambda g: experiments.top_tokens([g.run], g.dictionary, [8]), "8"),
    ],
    "lenses": [
        (lambda g: experiments.logit_lens(g.run, row=3), "row=3"),
        (lambda g: experiments.logit_lens(g.run, target=99_999), "99999"),
        (lambda g: experiments.logit_lens(g.run, target=" no such token"), "' no such token'"),
        (lambda g: experiments.logit_lens(g.run, top_k=0), "top_k=0"),
        (lambda g: experiments.logit_lens(g.run, top_k=2.5), "2.5"),
        (lambda g: experiments.lens_difference(g.clean, g.theirs), "n_layers=3 and 2"),
        (lambda g: experiments.tuned_lens(g.theirs, g.lens), "3"),
        (lambda g: experiments.lens_kl(g.run, g.lens, row=9), "row=9"),
        (lambda g: quiet(experiments.train_tuned_lens)(g.model, [], steps=1), "[]"),
        (lambda g: quiet(experiments.train_tuned_lens)(g.model, TEXTS, steps=-1), "-1"),
        (lambda g: quiet(experiments.train_tuned_lens)(g.model, TEXTS, steps=1, tokens_per_step=0), "0"),
        (lambda g: quiet(experiments.train_tuned_lens)(g.model, TEXTS, steps=1, learning_rate=math.nan), "nan"),
        (lambda g: experiments.direct_logit_attribution(g.run, 99_999), "99999"),
        (lambda g: experiments.direct_logit_attribution(g.run, METRIC, position=999), "999"),
        (lambda g: experiments.direct_logit_attribution(g.run, METRIC, row=1), "row=1"),
        (lambda g: experiments.direct_logit_attribution(g.run, (1, 2, 3)), "(1, 2, 3)"),
        (lambda g: experiments.expert_lens(g.run, layers=[7]), "7"),
        (lambda g: experiments.expert_lens(g.run, layers=[]), "[]"),
        (lambda g: experiments.expert_lens(g.run, top_k=-1), "-1"),
        (lambda g: quiet(experiments.neurons)(g.model, TEXTS, 9, 0), "9"),
        (lambda g: quiet(experiments.neurons)(g.model, TEXTS, 0, 88), "88"),
        (lambda g: quiet(experiments.neurons)(g.model, [], 0, 0), "[]"),
        (lambda g: quiet(experiments.neurons)(g.model, TEXTS, 0, 0, top_neurons=0), "0"),
    ],
    "patching": [
        (lambda g: patch(g.model, CLEAN, "Tom", METRIC), "clean has"),
        (lambda g: patch(g.model, CLEAN, "Tom", METRIC, direction="noising"), "corrupted has 1 tokens and clean"),
        (lambda g: patch(g.model, g.theirs, CORRUPT, METRIC), "clean is a run of another model, 'other'"),
        (lambda g: patch(g.model, CLEAN, g.theirs, METRIC), "corrupted is a run of another model, 'other'"),
        (
            lambda g: patch(g.model, g.theirs, CORRUPT, METRIC, direction="noising"),
            "clean is a run of another model, 'other'",
        ),
        (
            lambda g: patch(g.model, CLEAN, g.theirs, METRIC, direction="noising"),
            "corrupted is a run of another model, 'other'",
        ),
        (lambda g: patch(g.model, g.clean, g.edited, METRIC), "corrupted was edited itself (AblateHead"),
        (
            lambda g: patch(g.model, g.edited, g.clean, METRIC, direction="noising"),
            "clean was edited itself (AblateHead",
        ),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, direction="both"), "'both'"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, sites=("resid",)), "resid"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, sites=()), "sites=[]"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, layers=[5]), "layer=5"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, layers=[0, 0]), "[0, 0]"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, layers=[]), "[]"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, layers=["a"]), "'a'"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, layers=[0.5]), "0.5"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, positions=[99]), "99"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, positions=[]), "[]"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, row=2), "row=2"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, METRIC, logits_at=66), "66"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, (30, 99_999)), "99999"),
        (lambda g: patch(g.model, CLEAN, CORRUPT, lambda logits: logits), "(1,"),
        (lambda g: patch(g.model, "", CORRUPT, METRIC), "(1, 0)"),
        (lambda g: patch(g.model, CLEAN, [[1, 2], [3]], METRIC), "[[1, 2], [3]]"),
        (lambda g: component(g.model, CLEAN, CORRUPT, METRIC, "neuron"), "'neuron'"),
        (lambda g: joint(g.model, CLEAN, CORRUPT, METRIC, "neuron"), "'neuron'"),
        (lambda g: experiments.patching_controls(g.model, CLEAN, CORRUPT, METRIC, n=0), "n=0"),
        (lambda g: experiments.patching_controls(g.model, CLEAN, CORRUPT, METRIC, "resid"), "'resid'"),
        (lambda g: paths(g.model, CLEAN, CORRUPT, METRIC, [], [Receiver("logits")]), "[]"),
        (lambda g: paths(g.model, CLEAN, CORRUPT, METRIC, [Node("head", 9, 0)], [Receiver("logits")]), "9"),
        (lambda g: paths(g.model, CLEAN, CORRUPT, METRIC, ["L0H0"], ["L0H9.q"]), "9"),
        (lambda g: paths(g.model, CLEAN, CORRUPT, METRIC, ["L0Q0"], ["logits"]), "'L0Q0'"),
    ],
    "effects": [
        (lambda g: sweep(g.model, [], METRIC), "[]"),
        (lambda g: sweep(g.model, "one", METRIC), "'one'"),
        (lambda g: sweep(g.model, TEXTS, METRIC, "neurons"), "'neurons'"),
        (lambda g: sweep(g.model, TEXTS, METRIC, []), "[]"),
        (lambda g: sweep(g.model, TEXTS, METRIC, [wb.AblateHead(1, 9)]), "9"),
        (lambda g: sweep(g.model, TEXTS, METRIC, [wb.AblateHead(7, 0)]), "7"),
        (lambda g: sweep(g.model, TEXTS, METRIC, "experts", policies="zero"), "'zero'"),
        (lambda g: sweep(g.model, TEXTS, METRIC, "experts", policies=["none"]), "'none'"),
        (lambda g: sweep(g.model, TEXTS, METRIC, PARTS, controls=-1), "-1"),
        (lambda g: sweep(g.model, TEXTS, METRIC, PARTS, controls=1.5), "1.5"),
        (lambda g: sweep(g.model, TEXTS, METRIC, ["L0H1"]), "'L0H1'"),
        (lambda g: sweep(g.model, TEXTS, ([30, 31], 40), PARTS), "2"),
        (lambda g: sweep(g.model, [CLEAN, 5.5], METRIC, PARTS), "tokens of shape ()"),
        (lambda g: knock(g.model, TEXTS, METRIC, PARTS, steps=0), "steps=0"),
        (lambda g: knock(g.model, TEXTS, METRIC, PARTS, steps=3), "steps=3"),
        (lambda g: knock(g.model, TEXTS, METRIC, PARTS, steps=1.5), "1.5"),
        (lambda g: mediate(g.model, CLEAN, [], METRIC), "no interventions"),
        (lambda g: mediate(g.model, CLEAN, [wb.AblateHead(1, 9)], METRIC), "9"),
        (lambda g: mediate(g.model, CLEAN, [wb.AblateHead(0, 1)], METRIC, what="routes"), "'routes'"),
        (lambda g: quiet(experiments.expert_effects)(g.model, [], 0, 1), "[]"),
        (lambda g: quiet(experiments.expert_effects)(g.model, TEXTS, 9, 1), "9"),
        (lambda g: quiet(experiments.expert_effects)(g.model, TEXTS, 0, 88), "88"),
        (lambda g: quiet(experiments.expert_effects)(g.model, TEXTS, 0, 1, control=1), "1"),
        (lambda g: quiet(experiments.expert_effects)(g.model, TEXTS, 0, 1, policy="none"), "'none'"),
        (lambda g: quiet(experiments.expert_effects)(g.model, TEXTS, 0, 1, following=[1]), "1"),
        (lambda g: quiet(experiments.expert_effects)(g.model, TEXTS, 0, 1, top_k=0), "0"),
    ],
    "experts": [
        (lambda g: quiet(experiments.expert_contexts)(g.model, []), "[]"),
        (lambda g: quiet(experiments.expert_contexts)(g.model, TEXTS, ["a"]), "1"),
        (lambda g: quiet(experiments.expert_contexts)(g.model, TEXTS, n=0), "0"),
        (lambda g: quiet(experiments.expert_contexts)(g.model, TEXTS, around=-1), "-1"),
        (lambda g: quiet(experiments.expert_paths)(g.model, TEXTS, n_paths=0), "0"),
        (lambda g: quiet(experiments.expert_paths)(g.model), "a model was given without texts"),
        (lambda g: quiet(experiments.expert_similarity)(g.model, layers=[9]), "9"),
        (lambda g: quiet(experiments.expert_similarity)(g.model, kinds=("up",)), "up"),
        (lambda g: experiments.router_geometry(g.model, top_k=0), "0"),
        (lambda g: experiments.routing(g.run, row=9), "row=9"),
        (lambda g: quiet(experiments.routing_contrast)(g.model, g.model), "a model was given without texts"),
        (lambda g: quiet(experiments.routing_contrast)(g.run, g.theirs), "layers or experts"),
        (lambda g: quiet(experiments.routing_contrast)(g.clean, g.corrupt, shuffles=-1), "-1"),
        (lambda g: quiet(experiments.routing_saturation)(g.clean, g.theirs), "expected the same texts"),
        (lambda g: statistics(g.model, []), "[]"),
        (lambda g: statistics(g.model, TEXTS, ["a", "b"]), "2"),
        (lambda g: statistics(g.model, TEXTS, shuffles=-1), "-1"),
        (lambda g: quiet(experiments.vocabulary_specialisation)(g.model, TEXTS, min_count=0), "0"),
        (lambda g: quiet(experiments.vocabulary_specialisation)(g.model, TEXTS, max_tokens=0), "0"),
        (lambda g: experiments.unchosen_experts(g.run, 9), "9"),
        (lambda g: experiments.unchosen_experts(g.run, 0, position=999), "999"),
        (lambda g: experiments.unchosen_experts(g.run, 0, n=-1), "n=-1"),
        (lambda g: experiments.unchosen_experts(g.run, 0, answers=(1, 99_999)), "99999"),
    ],
    "heads": [
        (lambda g: experiments.head_scores(g.model, length=10**6, n_rows=1000), "length=1000000, n_rows=1000"),
        (lambda g: experiments.head_scores(g.model, length=1), "length=1"),
        (lambda g: experiments.head_scores(g.model, n_rows=0), "n_rows=0"),
        (lambda g: experiments.head_scores(g.model, length=2.5), "2.5"),
        (lambda g: experiments.head_scores(g.model, length="long"), "'long'"),
        (lambda g: experiments.head_matches(g.run, row=5), "row=5"),
        (lambda g: experiments.head_matches(g.run, layers=[9]), "9"),
        (lambda g: experiments.head_matches(g.run, layers=[]), "[]"),
        (lambda g: experiments.ov_circuit(g.model, 9, 0), "layer=9"),
        (lambda g: experiments.qk_circuit(g.model, 0, 99), "head=99"),
        (lambda g: experiments.qk_circuit(g.model, 0, 1.5), "1.5"),
    ],
    "generation": [
        (lambda g: g.model.generate(CLEAN, seed="x"), "seed='x'"),
        (lambda g: g.model.generate(CLEAN, seed=1.5), "seed=1.5"),
        (lambda g: g.model.generate(CLEAN, seed=2**70), str(2**70)),
        (lambda g: g.model.generate(CLEAN, temperature=math.nan), "temperature=nan"),
        (lambda g: g.model.generate(CLEAN, temperature="hot"), "temperature='hot'"),
        (lambda g: g.model.generate(CLEAN, temperature=-1), "temperature=-1"),
        (lambda g: g.model.generate(CLEAN, top_p="most"), "top_p='most'"),
        (lambda g: g.model.generate(CLEAN, top_p=math.nan), "top_p=nan"),
        (lambda g: g.model.generate(CLEAN, top_k=2.5), "top_k=2.5"),
        (lambda g: g.model.generate(CLEAN, 1.5), "max_new_tokens=1.5"),
        (lambda g: g.model.generate(CLEAN, "many"), "max_new_tokens='many'"),
        (lambda g: g.model.generate(CLEAN, stop_at_eos="<|end|>"), "stop_at_eos='<|end|>'"),
        (lambda g: g.model.generate(CLEAN, stop_at_eos=[99_999]), "99999"),
        (lambda g: g.model.generate(CLEAN, stop_at_eos=7), "stop_at_eos=7"),
    ],
    "metrics": [
        (lambda g: experiments.logit_difference(1.5, 2), "1.5"),
        (lambda g: experiments.probability([1, 2.5]), "2.5"),
        (lambda g: experiments.each(7), "7"),
        (lambda g: experiments.metric_of(7), "7"),
    ],
    "tokens": [
        (lambda g: experiments.tokens(g.run, row=3), "row=3"),
        (lambda g: experiments.tokens(g.model), "None"),
        (lambda g: experiments.tokens(7), "7"),
    ],
}
EVERY = [(name, i) for name, cases in CASES.items() for i in range(len(cases))]


@pytest.mark.parametrize(("name", "i"), EVERY, ids=[f"{name} {i}" for name, i in EVERY])
def test_bad_input_is_refused_in_words_that_name_it(given, as_in_a_notebook, name: str, i: int):
    call, named = CASES[name][i]
    with pytest.raises((ValueError, TypeError, KeyError, NotEnoughMemory)) as caught:
        call(given)
    last = traceback.extract_tb(caught.value.__traceback__)[-1]
    assert OURS in Path(last.filename).parents, f"{last.filename}:{last.lineno} {caught.value!r}"
    assert named in str(caught.value), str(caught.value)
