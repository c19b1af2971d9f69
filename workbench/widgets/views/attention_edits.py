"""What is done to a head by hand: its sink, edges of its pattern, all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from workbench.interventions import AblateHead, EditSink, Intervention, KnockOut
from workbench.widgets.state import Chip, State

Action = Mapping[str, Any]
SINK = -1  # as a key
OF_HEADS = (AblateHead, EditSink, KnockOut)


def with_action(state: State, action: Action) -> State:
    """A state in which the action is done.

    ``sink`` {operation, value}: "restore" takes the edit away. ``edge`` {query, key, freed}: cut, or whole again where
    it was cut; the key −1 is the sink, a query of None all of them. ``ablate``: on, or off again.

    Raises:
        ValueError: for an action that is none, or without what it needs.
    """
    kind = action.get("kind")
    if kind not in _DONE:
        raise ValueError(f"Attention does not know how to {kind!r}; it knows {', '.join(_DONE)}")
    try:
        return _DONE[kind](state, action)
    except KeyError as error:
        raise ValueError(f"to edit the {kind} of a head takes {error}") from None


def label_of(action: Action) -> str:
    """What was done, in words."""
    head = f"L{action['layer']}H{action['head']}"
    if action["kind"] == "sink":
        operation, value = action["operation"], action.get("value")
        how = {"scale": f"× {value:.3g}" if value is not None else "", "set": f"= {value}", "remove": "removed"}
        return f"sink of {head} {how.get(operation, 'as learned')}"
    if action["kind"] == "ablate":
        return f"ablate {head}"
    query = "every query" if action.get("query") is None else action["query"]
    return f"edge of {head}: {query} → {'sink' if action['key'] == SINK else action['key']}"


def _sink(state: State, action: Action) -> State:
    layer, head = action["layer"], action["head"]
    old = _find(
        state, lambda spec: isinstance(spec, EditSink) and _where(spec) == (layer, head) and spec.positions is None
    )
    if action["operation"] == "restore":
        return _swapped(state, old, None)
    return _swapped(state, old, EditSink(layer, head, action["operation"], action.get("value")))


def _edge(state: State, action: Action) -> State:
    layer, head, key = action["layer"], action["head"], action["key"]
    query = action.get("query")
    if key == SINK:
        return _sink_edge(state, layer, head, query)
    edge, freed = (query, key), action.get("freed", "redistribute")
    for chip in state.chips:
        spec = chip.spec
        if not isinstance(spec, KnockOut) or _where(spec) != (layer, head) or not chip.on:
            continue
        if edge in spec.edges:
            left = tuple(other for other in spec.edges if other != edge)
            return _swapped(state, chip, replace(spec, edges=left) if left else None)
    for chip in state.chips:
        spec = chip.spec
        if isinstance(spec, KnockOut) and (*_where(spec), spec.freed) == (layer, head, freed) and chip.on:
            return _swapped(state, chip, replace(spec, edges=(*spec.edges, edge)))
    return _swapped(state, None, KnockOut(layer, (edge,), head, freed))


def _sink_edge(state: State, layer: int, head: int, query: int | None) -> State:
    """The sink taken from one query, or from all."""
    positions = None if query is None else (query,)
    wanted = EditSink(layer, head, "remove", positions=positions)
    there = _find(state, lambda spec: spec == wanted)
    return _swapped(state, there, None if there is not None and there.on else wanted)


def _ablate(state: State, action: Action) -> State:
    wanted = AblateHead(action["layer"], action["head"])
    there = _find(state, lambda spec: isinstance(spec, AblateHead) and spec == wanted)
    return _swapped(state, there, None if there is not None and there.on else wanted)


_DONE = {"sink": _sink, "edge": _edge, "ablate": _ablate}


def _where(spec: Any) -> tuple[int, int | None]:
    return spec.layer, spec.head


def _find(state: State, fits: Any) -> Chip | None:
    return next((chip for chip in state.chips if fits(chip.spec)), None)


def _swapped(state: State, old: Chip | None, spec: Intervention | None) -> State:
    """One chip's intervention in the place of another's; without an old one at the end, without a new one gone."""
    if old is None:
        number = 1 + max((chip.id for chip in state.chips), default=0)
        return state if spec is None else replace(state, chips=(*state.chips, Chip(number, spec)))
    chips = (replace(chip, spec=spec, on=True) if chip is old and spec is not None else chip for chip in state.chips)
    return replace(state, chips=tuple(chip for chip in chips if spec is not None or chip is not old))


# ---------------------------------------------------------------- what is on


def edits_of(state: State, layer: int, head: int) -> dict[str, Any]:
    """What is done to a head now, as its controls show it.

    Returns:
        ablated; sink {operation, value} of every query or None; cut [query, key, freed] with null for every query, the
        sink's −1 with freed null.
    """
    on = [
        spec for spec in state.specs if isinstance(spec, OF_HEADS) and spec.layer == layer and spec.head in (head, None)
    ]
    sinks = [spec for spec in on if isinstance(spec, EditSink)]
    whole = next((spec for spec in reversed(sinks) if spec.positions is None), None)
    cut: list[list[Any]] = [[*edge, spec.freed] for spec in on if isinstance(spec, KnockOut) for edge in spec.edges]
    cut += [[query, SINK, None] for spec in sinks if spec.operation == "remove" for query in spec.positions or ()]
    return {
        "ablated": any(isinstance(spec, AblateHead) for spec in on),
        "sink": None if whole is None else {"operation": whole.operation, "value": whole.value},
        "cut": cut,
    }


def touched(state: State, layer: int, n_heads: int) -> dict[int, str]:
    """The heads of a layer that something is done to, and what, in words."""
    made = {}
    for head in range(n_heads):
        found = edits_of(state, layer, head)
        words = ["ablated"] if found["ablated"] else []
        if found["sink"] is not None:
            value = found["sink"]["value"]
            words.append(
                {"scale": f"sink × {value}", "set": f"sink set to {value}"}.get(found["sink"]["operation"], "no sink")
            )
        if found["cut"]:
            words.append(f"{len(found['cut'])} edge{'s' * (len(found['cut']) > 1)} cut")
        if words:
            made[head] = ", ".join(words)
    return made
