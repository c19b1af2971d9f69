"""Sets of paired prompts: made from nano's own grammars, or read from a file."""

from workbench.prompts.check import PromptError, Refused, misfit
from workbench.prompts.files import Loaded, load_pairs, save_pairs
from workbench.prompts.pair import Pair, Stacked, stack, token_ids
from workbench.prompts.tasks import pairs, tasks

__all__ = [
    "Loaded",
    "Pair",
    "PromptError",
    "Refused",
    "Stacked",
    "load_pairs",
    "misfit",
    "pairs",
    "save_pairs",
    "stack",
    "tasks",
    "token_ids",
]
