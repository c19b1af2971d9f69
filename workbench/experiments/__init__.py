"""What can be measured: each experiment takes a run or a model and returns a labelled dataset. None shows anything."""

from workbench.experiments.ablation import ablation_sweep, greedy_knock_out
from workbench.experiments.attention import attention
from workbench.experiments.compare import compare
from workbench.experiments.direct import direct_logit_attribution
from workbench.experiments.edges import edge_attribution, top_edges
from workbench.experiments.effect import effect
from workbench.experiments.features import feature_activations, feature_logit_effect, top_tokens
from workbench.experiments.gradients import attribution_patching, integrated_gradients
from workbench.experiments.heads import head_scores
from workbench.experiments.inference import adjusted, bootstrap, max_t, over_prompts, stack_prompts
from workbench.experiments.logit_lens import logit_lens
from workbench.experiments.metrics import kl_from, logit_difference, probability
from workbench.experiments.nodes import Node, Receiver, all_nodes, all_receivers
from workbench.experiments.patching import component_patching, patching_grid
from workbench.experiments.paths import path_patching
from workbench.experiments.routing import expert_load, routing
from workbench.experiments.tokens import tokens

__all__ = [
    "Node",
    "Receiver",
    "ablation_sweep",
    "adjusted",
    "all_nodes",
    "all_receivers",
    "attention",
    "attribution_patching",
    "bootstrap",
    "compare",
    "component_patching",
    "direct_logit_attribution",
    "edge_attribution",
    "effect",
    "expert_load",
    "feature_activations",
    "feature_logit_effect",
    "greedy_knock_out",
    "head_scores",
    "integrated_gradients",
    "kl_from",
    "logit_difference",
    "logit_lens",
    "max_t",
    "over_prompts",
    "patching_grid",
    "path_patching",
    "probability",
    "routing",
    "stack_prompts",
    "tokens",
    "top_edges",
    "top_tokens",
]
