"""What can be measured: each experiment takes a run or a model and returns a labelled dataset. None shows anything."""

from workbench.experiments.attention import attention
from workbench.experiments.compare import compare
from workbench.experiments.effect import effect
from workbench.experiments.heads import head_scores
from workbench.experiments.logit_lens import logit_lens
from workbench.experiments.patching import patching_grid
from workbench.experiments.routing import expert_load, routing
from workbench.experiments.tokens import tokens

__all__ = [
    "attention",
    "compare",
    "effect",
    "expert_load",
    "head_scores",
    "logit_lens",
    "patching_grid",
    "routing",
    "tokens",
]
