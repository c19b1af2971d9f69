"""What a click on an expert does: the intervention that it means, and the chips that it takes the place of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from workbench.interventions import (
    AblateExpert,
    BiasExpert,
    ForceExpert,
    Intervention,
    PatchExpert,
    ReweightExpert,
    SwapExperts,
)
from workbench.widgets.state import Chip, State

Action = Mapping[str, Any]
OF_EXPERTS = (AblateExpert, BiasExpert, ForceExpert, PatchExpert, ReweightExpert, SwapExperts)


def _ablation(policy: Any) -> Callable[[Action], Intervention]:
    return lambda action: AblateExpert(*_where(action), policy, positions=_positions(action))


MAKE: dict[str, Callable[[Action], Intervention]] = {
    "ban": _ablation("reroute"),
    "zero": _ablation("zero"),
    "renormalise": _ablation("renormalise"),
    "force": lambda action: ForceExpert(*_where(action), positions=_positions(action)),
    "reweight": lambda action: ReweightExpert(*_where(action), float(action["factor"]), positions=_positions(action)),
    "swap": lambda action: SwapExperts(*_where(action), action["other"], positions=_positions(action)),
}
WORDS = {
    "ban": "ban",
    "zero": "zero",
    "renormalise": "renormalise without",
    "force": "force",
    "reweight": "reweight",
    "swap": "swap",
}


def _where(action: Action) -> tuple[int, int]:
    return action["layer"], action["expert"]


def _positions(action: Action) -> tuple[int, ...] | None:
    position = action.get("position")
    return None if position is None else (position,)


def spec_of(action: Action) -> Intervention:
    """The intervention that an action means.

    Raises:
        ValueError: for an action that is none, or without what it needs.
    """
    kind = action.get("kind")
    if kind not in MAKE:
        raise ValueError(f"Routing does not know how to {kind!r}; it knows {', '.join(MAKE)}")
    try:
        return MAKE[kind](action)
    except (KeyError, TypeError) as error:
        raise ValueError(f"to {kind} takes a layer, an expert{_MORE.get(kind, '')}: {error}") from None


_MORE = {"reweight": " and a factor", "swap": " and another expert"}


def label_of(action: Action) -> str:
    """What was done, in words."""
    position = action.get("position")
    more = {"reweight": f" × {action.get('factor')}", "swap": f" with E{action.get('other')}"}.get(
        str(action["kind"]), ""
    )
    where = "" if position is None else f" at {position}"
    return f"{WORDS[str(action['kind'])]} L{action['layer']}E{action['expert']}{more}{where}"


def with_spec(state: State, spec: Intervention) -> State:
    """A state with this intervention on, in the place of those that it makes meaningless.

    The same one once more takes it away again; a factor of 1 only takes the older factor away.
    """
    there = next((chip for chip in state.chips if chip.spec == spec), None)
    if there is not None and there.on:
        return replace(state, chips=tuple(chip for chip in state.chips if chip is not there))
    kept = tuple(chip for chip in state.chips if not replaces(spec, chip.spec) and chip is not there)
    if isinstance(spec, ReweightExpert) and spec.factor == 1:
        return replace(state, chips=kept)
    number = 1 + max((chip.id for chip in state.chips), default=0)
    return replace(state, chips=(*kept, Chip(number, spec)))


def without(state: State, layer: int, expert: int) -> State:
    """A state without any intervention on one expert."""

    def is_on_it(spec: Any) -> bool:
        return (
            isinstance(spec, OF_EXPERTS)
            and spec.layer == layer
            and expert in (spec.expert, getattr(spec, "other", None))
        )

    return replace(state, chips=tuple(chip for chip in state.chips if not is_on_it(chip.spec)))


def replaces(new: Any, old: Any) -> bool:
    """Whether of two interventions on one expert (or, forced, one slot) at the same positions only one can be meant."""
    if type(new) is not type(old) or (new.layer, new.positions) != (old.layer, old.positions):
        return False
    if isinstance(new, ForceExpert):
        return True  # both take the weakest slot
    if isinstance(new, SwapExperts):
        return {new.expert, new.other} == {old.expert, old.other}
    return new.expert == old.expert


def edits_of(state: State) -> list[dict[str, Any]]:
    """The interventions on experts, as the inspector lists them."""
    found = []
    for chip in state.chips:
        spec = chip.spec
        if isinstance(spec, OF_EXPERTS):
            about = {"id": chip.id, "on": chip.on, "layer": spec.layer, "expert": spec.expert, "kind": kind_of(spec)}
            about |= {name: getattr(spec, name, None) for name in ("other", "factor", "amount", "source")}
            found.append(about | {"positions": None if spec.positions is None else list(spec.positions)})
    return found


def kind_of(spec: Intervention) -> str:
    """The action that makes such an intervention, or what it is called."""
    if isinstance(spec, AblateExpert):
        return {"reroute": "ban"}.get(spec.policy, spec.policy)
    names = {
        ForceExpert: "force",
        ReweightExpert: "reweight",
        SwapExperts: "swap",
        BiasExpert: "bias",
        PatchExpert: "patch",
    }
    return names[type(spec)]
