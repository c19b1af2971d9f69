"""Labelled data → plotly figures: pure functions, no model, no torch, no state."""

from workbench.figures.ablation import ablation_bars, ablation_heatmap, knock_out_curve
from workbench.figures.attention import attention_pattern, head_scores
from workbench.figures.compare import next_token_bars
from workbench.figures.direct import direct_logit_attribution
from workbench.figures.edges import top_edges
from workbench.figures.gradients import attribution_grid
from workbench.figures.load_table import load_table
from workbench.figures.logit_lens import logit_lens_heatmap
from workbench.figures.patching import patching_heatmap
from workbench.figures.routing import expert_load, routing_ribbon
from workbench.figures.tokens import token_values, tokens

__all__ = [
    "ablation_bars",
    "ablation_heatmap",
    "attention_pattern",
    "attribution_grid",
    "direct_logit_attribution",
    "expert_load",
    "head_scores",
    "knock_out_curve",
    "load_table",
    "logit_lens_heatmap",
    "next_token_bars",
    "patching_heatmap",
    "routing_ribbon",
    "token_values",
    "tokens",
    "top_edges",
]
