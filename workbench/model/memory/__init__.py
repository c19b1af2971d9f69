"""Memory, known before it is used: what a run takes, what is free, and the refusal of what cannot fit."""

from workbench.model.memory.asked import Asked, sites_of
from workbench.model.memory.check import NotEnoughMemory, check_call, check_memory, positions_kept
from workbench.model.memory.estimate import Estimate, estimate_of
from workbench.model.memory.free import Free, free_memory
from workbench.model.memory.sizes import Weights, kv_cache_bytes, readable, weights_of

__all__ = [
    "Asked",
    "Estimate",
    "Free",
    "NotEnoughMemory",
    "Weights",
    "check_call",
    "check_memory",
    "estimate_of",
    "free_memory",
    "kv_cache_bytes",
    "positions_kept",
    "readable",
    "sites_of",
    "weights_of",
]
