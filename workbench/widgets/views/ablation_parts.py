"""The components that can be taken out, one by one: their names, their interventions, and which chips are theirs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from workbench.experiments.lenses.component_numbers import component_shape as shape
from workbench.interventions import AblateExpert, AblateHead, AblateLayer, EditSink, Intervention
from workbench.model import Config

Part = tuple[int, int]  # layer, and head or expert of it; 0 for a whole layer

POLICIES: Mapping[str, tuple[str, ...]] = {
    "head": ("zero", "mean", "resample"),
    "expert": ("reroute", "zero", "renormalise", "mean", "resample"),
    "layer": ("zero", "mean", "resample"),
    "sink": ("remove",),
}
KINDS = tuple(POLICIES)
FROM_A_SOURCE = ("mean", "resample")
_CLASSES = {"head": "AblateHead", "expert": "AblateExpert", "layer": "AblateLayer", "sink": "EditSink"}


def name(kind: str, part: Part) -> str:
    """A component in few characters: L3 H2, L2 E5, L4, L3 H2 sink."""
    layer, index = part
    return f"L{layer}" + {"head": f" H{index}", "expert": f" E{index}", "sink": f" H{index} sink"}.get(kind, "")


def spec(kind: str, part: Part, policy: str, source: str | None = None) -> Intervention:
    """What takes it out.

    Args:
        source: a run's name, for "mean" and "resample".
    """
    layer, index = part
    given = source if policy in FROM_A_SOURCE else None
    if kind == "head":
        return AblateHead(layer, index, policy, source=given)  # type: ignore[arg-type]
    if kind == "expert":
        return AblateExpert(layer, index, policy, source=given)  # type: ignore[arg-type]
    if kind == "layer":
        return AblateLayer(layer, policy, source=given)  # type: ignore[arg-type]
    return EditSink(layer, index, "remove")


def part_of(given: Any) -> tuple[str, Part] | None:
    """(kind, component) of an intervention that takes a component out everywhere; None for any other."""
    if isinstance(given, EditSink):
        gone = given.operation == "remove" and given.positions is None and given.head is not None
        return ("sink", (given.layer, given.head or 0)) if gone else None
    if not isinstance(given, AblateHead | AblateExpert | AblateLayer) or given.positions is not None:
        return None
    if isinstance(given, AblateHead):
        return "head", (given.layer, given.head)
    return ("expert", (given.layer, given.expert)) if isinstance(given, AblateExpert) else ("layer", (given.layer, 0))


def code_of(kind: str, policy: str, source: str | None, config: Config) -> str:
    """Python for all components of a kind, in order."""
    layers, count = shape(kind, config)
    more = f", {policy!r}" + (f", source={source!r}" if policy in FROM_A_SOURCE else "")
    if kind == "layer":
        return f"[wb.{_CLASSES[kind]}(layer{more}) for layer in range({layers})]"
    index = "expert" if kind == "expert" else "head"
    return f"[wb.{_CLASSES[kind]}(layer, {index}{more}) for layer in range({layers}) for {index} in range({count})]"
