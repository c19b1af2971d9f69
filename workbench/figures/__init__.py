"""Labelled data → plotly figures: pure functions, no model, no torch, no state."""

from workbench.figures.ablation import ablation_bars, ablation_heatmap, knock_out_curve
from workbench.figures.atlas import atlas_contexts, atlas_effects, atlas_load, atlas_neighbours, atlas_specialisation
from workbench.figures.attention import attention_pattern, head_scores
from workbench.figures.circuits import faithfulness_curve
from workbench.figures.compare import next_token_bars
from workbench.figures.direct import direct_logit_attribution
from workbench.figures.edges import top_edges
from workbench.figures.expert_lens import expert_lens_heatmap
from workbench.figures.features import feature_heatmap
from workbench.figures.gradients import attribution_grid
from workbench.figures.graph import attribution_graph
from workbench.figures.head_matches import head_matches
from workbench.figures.lens_difference import lens_difference_heatmap
from workbench.figures.load_table import load_table
from workbench.figures.logit_lens import logit_lens_heatmap
from workbench.figures.mediation import mediation_table
from workbench.figures.neurons import neuron_table
from workbench.figures.patching import patching_heatmap
from workbench.figures.probes import probe_scores
from workbench.figures.routing import expert_load, routing_ribbon
from workbench.figures.routing_statistics import (
    expert_coactivation,
    expert_paths,
    expert_specialisation,
    expert_transitions,
    routing_balance,
    routing_contrast,
    routing_information,
    routing_saturation,
    vocabulary_table,
)
from workbench.figures.steering import steering_effect
from workbench.figures.swept import swept_heatmap
from workbench.figures.tokens import token_values, tokens
from workbench.figures.tuned_lens import lens_kl, tuned_lens_heatmap
from workbench.figures.weights import (
    composition_scores,
    embedding_norms,
    expert_similarity,
    head_circuits,
    router_tokens,
)

__all__ = [
    "ablation_bars",
    "ablation_heatmap",
    "atlas_contexts",
    "atlas_effects",
    "atlas_load",
    "atlas_neighbours",
    "atlas_specialisation",
    "attention_pattern",
    "attribution_graph",
    "attribution_grid",
    "composition_scores",
    "direct_logit_attribution",
    "embedding_norms",
    "expert_coactivation",
    "expert_lens_heatmap",
    "expert_load",
    "expert_paths",
    "expert_similarity",
    "expert_specialisation",
    "expert_transitions",
    "faithfulness_curve",
    "feature_heatmap",
    "head_circuits",
    "head_matches",
    "head_scores",
    "knock_out_curve",
    "lens_difference_heatmap",
    "lens_kl",
    "load_table",
    "logit_lens_heatmap",
    "mediation_table",
    "neuron_table",
    "next_token_bars",
    "patching_heatmap",
    "probe_scores",
    "router_tokens",
    "routing_balance",
    "routing_contrast",
    "routing_information",
    "routing_ribbon",
    "routing_saturation",
    "steering_effect",
    "swept_heatmap",
    "token_values",
    "tokens",
    "top_edges",
    "tuned_lens_heatmap",
    "vocabulary_table",
]
