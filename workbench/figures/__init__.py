"""Labelled data → plotly figures: pure functions, no model, no torch, no state."""

from workbench.figures.attention import attention_pattern, head_scores
from workbench.figures.compare import next_token_bars
from workbench.figures.load_table import load_table
from workbench.figures.logit_lens import logit_lens_heatmap
from workbench.figures.routing import expert_load, routing_ribbon
from workbench.figures.tokens import token_values, tokens

__all__ = [
    "attention_pattern",
    "expert_load",
    "head_scores",
    "load_table",
    "logit_lens_heatmap",
    "next_token_bars",
    "routing_ribbon",
    "token_values",
    "tokens",
]
