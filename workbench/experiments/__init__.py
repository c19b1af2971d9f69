"""What can be measured: each experiment takes a run or a model and returns a labelled dataset. None shows anything.

| what one asks | where |
|---|---|
| what is there in a run, and what comes next | observe/ |
| what a layer, a head, a neuron or an expert would say | lenses/ |
| what an edit does, and whether through routing or content | effects/ |
| where the answer travels | patching/ |
| the same, guessed from gradients | attribution/ |
| which parts told which | graphs/ |
| parts that do it alone | circuits/ |
| where tokens are routed, and what experts specialise in | experts/ |
| directions: steering, probes, features | directions/ |
| what the weights say, without a run | weights.py, experts/expert_weights.py |
| how sure it is | inference.py (resampling.py) |
| many at once, on one machine or a cluster | measures.py |
| shared by them | metrics.py, nodes.py, readers.py, contrast.py, prompts.py, rows.py, texts.py, watch.py |

A folder may import the shared files, and `lenses` and `patching` serve others; no two folders import each other.
"""

from workbench.experiments.attribution.edges import edge_attribution, top_edges
from workbench.experiments.attribution.gradients import attribution_patching, integrated_gradients
from workbench.experiments.circuits.circuit import Circuit, auroc, compare_circuits
from workbench.experiments.circuits.faithfulness import completeness, faithfulness, faithfulness_curve, minimality
from workbench.experiments.circuits.runs import all_edges, run_circuit
from workbench.experiments.directions.features import feature_activations, feature_logit_effect, top_tokens
from workbench.experiments.directions.probes import probe
from workbench.experiments.directions.steering import (
    SteeringVector,
    contrastive_activation_addition,
    difference_of_means,
    steer,
)
from workbench.experiments.effects.ablation import ablation_sweep
from workbench.experiments.effects.compare import compare
from workbench.experiments.effects.effect import effect
from workbench.experiments.effects.expert_effects import expert_effects
from workbench.experiments.effects.knock_out import greedy_knock_out
from workbench.experiments.effects.mediation import mediation
from workbench.experiments.experts.expert_contexts import expert_contexts
from workbench.experiments.experts.expert_weights import embedding_norms, expert_similarity, router_geometry
from workbench.experiments.experts.routing import expert_load, routing
from workbench.experiments.experts.routing_changes import expert_paths, routing_contrast, routing_saturation
from workbench.experiments.experts.routing_statistics import routing_statistics, vocabulary_specialisation
from workbench.experiments.experts.unchosen import unchosen_experts
from workbench.experiments.graphs.graph import attribution_graph
from workbench.experiments.inference import adjusted, bootstrap, max_t, over_prompts, stack_prompts
from workbench.experiments.lenses.direct import direct_logit_attribution
from workbench.experiments.lenses.expert_lens import expert_lens
from workbench.experiments.lenses.lens_difference import lens_difference
from workbench.experiments.lenses.logit_lens import logit_lens
from workbench.experiments.lenses.neurons import neurons
from workbench.experiments.lenses.tuned_lens import TunedLens, lens_kl, train_tuned_lens, tuned_lens
from workbench.experiments.measures import each, metric_of
from workbench.experiments.metrics import kl_from, logit_difference, probability
from workbench.experiments.nodes import Node, Receiver, all_nodes, all_receivers
from workbench.experiments.observe.attention import attention
from workbench.experiments.observe.continuations import NextToken
from workbench.experiments.observe.heads import head_matches, head_scores
from workbench.experiments.observe.tokens import tokens
from workbench.experiments.patching.controls import patching_controls
from workbench.experiments.patching.grid import component_patching, patching_grid
from workbench.experiments.patching.joint import joint_patching
from workbench.experiments.patching.paths import path_patching
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
