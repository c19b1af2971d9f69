"""Which specs would undo each other in one order, and not in the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from workbench.interventions.experts import _OfExpert
from workbench.model import Config

ROUTES = ("hook_expert_indices", "hook_expert_weights")


def edits_slots(spec: Any, layer: int, config: Config, sites: Sequence[str] = ROUTES) -> bool:
    """Whether a spec changes what stands in the slots of a layer, after its router has chosen."""
    if isinstance(spec, _OfExpert):
        return spec.layer == layer and not spec.reroutes
    if hasattr(spec, "of"):  # FreezeRouting
        return layer in spec.of(config)
    return getattr(spec, "site", None) in {f"blocks.{layer}.mlp.{site}" for site in sites}


def places(spec: Any, specs: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """The specs before one and those after it."""
    at = list(specs).index(spec)
    return specs[:at], specs[at + 1 :]
