"""What can be measured: each experiment takes a run or a model and returns a labelled dataset. None shows anything.

| what one asks | file (and what it stands on) |
|---|---|
| what is there: tokens, patterns, routes | tokens.py, attention.py, routing.py, heads.py |
| what a layer would say | logit_lens.py (lens_difference.py), tuned_lens.py, direct.py, expert_lens.py, neurons.py |
| what an edit does | effect.py, compare.py, ablation.py (prompts.py) |
| where the answer travels | patching.py, joint_patching.py, paths.py (patch_setting, cells, patching_controls) |
| the same, guessed from gradients | gradients.py, edges.py (contrast.py, readers.py, nodes.py) |
| which parts told which | graph.py (graph_trace.py, graph_nodes.py, graph_cost.py, frozen.py, edge_checks.py) |
| through routing or through content | mediation.py |
| parts that do it alone | circuits.py, circuit_runs.py, faithfulness.py |
| what experts specialise in | routing_statistics.py, routing_changes.py (routes.py), expert_contexts.py, unchosen.py |
| what one expert does where it fires | expert_effects.py |
| what comes next, step by step | continuations.py |
| what the weights say | weights.py, expert_weights.py |
| directions | steering.py, probes.py, features.py |
| how sure it is | inference.py (resampling.py) |
| many at once, on one machine or a cluster | measures.py |
| shared | metrics.py, rows.py, texts.py, watch.py |
"""

from workbench.experiments.ablation import ablation_sweep, greedy_knock_out
from workbench.experiments.attention import attention
from workbench.experiments.circuit_runs import all_edges, run_circuit
from workbench.experiments.circuits import Circuit, auroc, compare_circuits
from workbench.experiments.compare import compare
from workbench.experiments.continuations import NextToken
from workbench.experiments.direct import direct_logit_attribution
from workbench.experiments.edges import edge_attribution, top_edges
from workbench.experiments.effect import effect
from workbench.experiments.expert_contexts import expert_contexts
from workbench.experiments.expert_effects import expert_effects
from workbench.experiments.expert_lens import expert_lens
from workbench.experiments.expert_weights import embedding_norms, expert_similarity, router_geometry
from workbench.experiments.faithfulness import completeness, faithfulness, faithfulness_curve, minimality
from workbench.experiments.features import feature_activations, feature_logit_effect, top_tokens
from workbench.experiments.gradients import attribution_patching, integrated_gradients
from workbench.experiments.graph import attribution_graph
from workbench.experiments.heads import head_matches, head_scores
from workbench.experiments.inference import adjusted, bootstrap, max_t, over_prompts, stack_prompts
from workbench.experiments.joint_patching import joint_patching
from workbench.experiments.lens_difference import lens_difference
from workbench.experiments.logit_lens import logit_lens
from workbench.experiments.measures import each, metric_of
from workbench.experiments.mediation import mediation
from workbench.experiments.metrics import kl_from, logit_difference, probability
from workbench.experiments.neurons import neurons
from workbench.experiments.nodes import Node, Receiver, all_nodes, all_receivers
from workbench.experiments.patching import component_patching, patching_grid
from workbench.experiments.patching_controls import patching_controls
from workbench.experiments.paths import path_patching
from workbench.experiments.probes import probe
from workbench.experiments.routing import expert_load, routing
from workbench.experiments.routing_changes import expert_paths, routing_contrast, routing_saturation
from workbench.experiments.routing_statistics import routing_statistics, vocabulary_specialisation
from workbench.experiments.steering import SteeringVector, contrastive_activation_addition, difference_of_means, steer
from workbench.experiments.tokens import tokens
from workbench.experiments.tuned_lens import TunedLens, lens_kl, train_tuned_lens, tuned_lens
from workbench.experiments.unchosen import unchosen_experts
from workbench.experiments.weights import composition_scores, head_circuits, ov_circuit, qk_circuit

__all__ = [
    "Circuit",
    "NextToken",
    "Node",
    "Receiver",
    "SteeringVector",
    "TunedLens",
    "ablation_sweep",
    "adjusted",
    "all_edges",
    "all_nodes",
    "all_receivers",
    "attention",
    "attribution_graph",
    "attribution_patching",
    "auroc",
    "bootstrap",
    "compare",
    "compare_circuits",
    "completeness",
    "component_patching",
    "composition_scores",
    "contrastive_activation_addition",
    "difference_of_means",
    "direct_logit_attribution",
    "each",
    "edge_attribution",
    "effect",
    "embedding_norms",
    "expert_contexts",
    "expert_effects",
    "expert_lens",
    "expert_load",
    "expert_paths",
    "expert_similarity",
    "faithfulness",
    "faithfulness_curve",
    "feature_activations",
    "feature_logit_effect",
    "greedy_knock_out",
    "head_circuits",
    "head_matches",
    "head_scores",
    "integrated_gradients",
    "kl_from",
    "joint_patching",
    "lens_difference",
    "lens_kl",
    "logit_difference",
    "logit_lens",
    "max_t",
    "mediation",
    "metric_of",
    "minimality",
    "neurons",
    "ov_circuit",
    "over_prompts",
    "patching_grid",
    "patching_controls",
    "path_patching",
    "probability",
    "probe",
    "qk_circuit",
    "router_geometry",
    "routing",
    "routing_contrast",
    "routing_saturation",
    "routing_statistics",
    "run_circuit",
    "stack_prompts",
    "steer",
    "tokens",
    "top_edges",
    "top_tokens",
    "train_tuned_lens",
    "tuned_lens",
    "unchosen_experts",
    "vocabulary_specialisation",
]
