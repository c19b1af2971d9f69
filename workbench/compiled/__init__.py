"""Models whose weights were written by hand, so that what is true of them is known exactly.

Each function gives a :class:`Compiled`: the model, its truth, and prompts that show it.
"""

from workbench.compiled.backdoor import backdoor
from workbench.compiled.busy import busy_expert
from workbench.compiled.compiled import Compiled, Component, Truth
from workbench.compiled.induction import induction
from workbench.compiled.saturated import saturated
from workbench.compiled.sinks import sink_head
from workbench.compiled.steering import steering_direction
from workbench.compiled.token_class import routed_by_attention, token_class_router
from workbench.compiled.window import retrieval_beyond_window

__all__ = [
    "Compiled",
    "Component",
    "Truth",
    "backdoor",
    "busy_expert",
    "induction",
    "retrieval_beyond_window",
    "routed_by_attention",
    "saturated",
    "sink_head",
    "steering_direction",
    "token_class_router",
]
