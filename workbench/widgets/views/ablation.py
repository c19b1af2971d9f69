"""The ablation bench: every head, expert, layer or sink with what it does, and what happens without it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np

from workbench.experiments.lenses.component_numbers import ACTIVATION, component_numbers
from workbench.interventions import Intervention
from workbench.widgets.session import Session
from workbench.widgets.state import Chip, State
from workbench.widgets.streams import INTERVAL
from workbench.widgets.views import ablation_forms
from workbench.widgets.views.ablation_choice import COMPARES, Choice, Side, is_part
from workbench.widgets.views.ablation_parts import KINDS, POLICIES, name, part_of, shape
from workbench.widgets.views.ablation_sweep import (
    Study,
    Sweep,
    begun,
    group_of,
    knock_out,
    measure,
    routed,
)
from workbench.widgets.views.base import Formed, Payload
from workbench.widgets.views.work import Kept, Progress
from workbench.widgets.worker import Job

REMEMBERED = 12  # sweeps
NUMBERS = ("activation", "norm", "direct")
OPTIONS = ("policy", "source", "compare", "over", "position", "group")  # that an ask may bring itself


class Ablation(Formed):
    """A table of components, on two texts or before and after the interventions."""

    name, title, forms = "ablation", "Ablation", ablation_forms
    defaults: ClassVar[dict[str, Any]] = {
        "kind": "head",
        "policy": None,
        "source": None,
        "compare": None,
        "over": "token",
        "measure": "logits",
        "sort": "part",
        "down": False,
        "group": [],
    }
    choices: ClassVar[dict[str, Any]] = {
        "kind": KINDS,
        "over": ("token", "mean"),
        "measure": ("logits", "kl"),
        "compare": (None, *COMPARES),
    }

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._sweeps = Kept[Study, Sweep](REMEMBERED)

    # ------------------------------------------------------------ asked and told

    def data(self, ask: dict[str, Any]) -> Payload:
        what, choice = ask.get("what", "table"), self.choice(ask)
        if what == "chips":
            return {"chips": self._chips()}, {}
        if what == "group":
            return self._group(choice), {}
        sides = choice.sides()
        sweeps, tables = [self.sweep(choice, side) for side in sides], [self.numbers(choice, side) for side in sides]
        arrays = {key: _stacked([table[key] for table in tables]) for key in NUMBERS}
        able = np.stack([sweep.able.reshape(-1) for sweep in sweeps]).astype(np.uint8)
        return self._about(choice, sides) | _found(sweeps), arrays | _totals(sweeps) | {"able": able}

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind = action.get("kind")
        if kind in ("run", "knock_out"):
            return {"job": (self.start if kind == "run" else self.start_group)(self.choice(action)).id}
        if kind == "toggle":
            return self._toggle(self.choice(action), (action.get("layer"), action.get("index")))
        if kind == "add_group":
            return self._add_group(self.choice(action))
        return super().act(action)

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        kind = values.get("kind", self.option("kind"))
        if values.get("policy") is not None and values["policy"] not in POLICIES[kind]:
            raise ValueError(f"Ablation: policy={values['policy']!r}; of a {kind} there are {POLICIES[kind]}")
        layers, count = shape(kind, self.session.config)
        for part in values.get("group", ()):
            if not is_part(part) or not (0 <= part[0] < layers and 0 <= part[1] < count):
                raise ValueError(f"Ablation: group has {part!r}; expected [layer, {kind}] of {layers} × {count}")

    def choice(self, ask: dict[str, Any] | None = None) -> Choice:
        """What the options say, or those of an ask in their place (its ``parts`` is the kind of component)."""
        given = ask or {}
        own = {key: given[key] for key in OPTIONS if key in given}
        own |= {"kind": given["parts"]} if "parts" in given else {}
        self.check_options({key: value for key, value in own.items() if key != "position"})
        return Choice(self.session, {key: self.option(key) for key in self.defaults} | own)

    # ------------------------------------------------------------ numbers

    def numbers(self, choice: Choice, side: Side) -> dict[str, np.ndarray]:
        """Activation, norm and direct effect of every component, each [layer index]."""
        about = self._subject(choice, side)

        def make() -> dict[str, np.ndarray]:
            found = component_numbers(
                side.run, *about, read=lambda site: self.session.site(side.run, site, remember=False)
            )
            return {name: found[name].values for name in NUMBERS}

        return self.session.memo(("ablation", id(side.run), *about), make)

    def _subject(self, choice: Choice, side: Side) -> tuple[Any, ...]:
        return choice.kind, self.session.metric(), choice.position(side)

    def ready(self, choice: Choice) -> bool:
        """Whether the numbers are there, or will be in a moment."""
        keys = [("ablation", id(side.run), *self._subject(choice, side)) for side in choice.sides()]
        return all(map(self.session.known, keys)) or self.session.quick(len(keys))

    def sweep(self, choice: Choice, side: Side) -> Sweep:
        """The total effects of one side, as far as they are known. They outlast what does not concern them."""
        how = choice.kind, choice.policy, choice.source
        study = Study.of(self.session, *how, side.tokens, side.given, self.session.metric())

        def make() -> Sweep:
            used = routed(self.session, side.run) if choice.kind == "expert" else np.ones(choice.shape, bool)
            return begun(self.session, study, used, self.numbers(choice, side)["direct"])

        return self._sweeps.of(study, make)

    # ------------------------------------------------------------ long work

    def start(self, choice: Choice) -> Job:
        """Put the components that are left into the line; a newer job takes its place."""
        sides = choice.sides()
        sweeps, key = [self.sweep(choice, side) for side in sides], self._key(choice, sides)
        show = Progress(self.session, self.name, "totals", lambda: (_found(sweeps) | key, _totals(sweeps)), INTERVAL)

        def work(job: Job) -> None:
            with show:
                measure(sweeps, self.session, job, show)

        label = f"ablate every {choice.kind}, {choice.policy}"
        how = {"view": self.name, "total": sum(sweep.left for sweep in sweeps), "replaces": "ablation"}
        return self.session.submit(work, label, resumable=lambda: self.start(choice), **how)

    def start_group(self, choice: Choice) -> Job:
        """Take the chosen rows out together, and random groups of as many beside them."""
        chosen, sides = choice.group(), choice.sides()
        if not chosen:
            raise ValueError("choose one row or more, to take them out together")
        sweeps = [self.sweep(choice, side) for side in sides]
        groups = [group_of(self.session, sweep, chosen) for sweep in sweeps]
        show = Progress(self.session, self.name, "group", lambda: (self._group(choice), {}), INTERVAL)

        def work(job: Job) -> None:
            with show:
                for sweep, group in zip(sweeps, groups, strict=True):
                    knock_out(sweep, group, self.session, job, show)
                    job.stop_if_cancelled()

        label = f"knock out {len(chosen)} {choice.kind}{'s' if len(chosen) > 1 else ''} together"
        total = sum(int(np.isnan(group.effect).sum()) for group in groups)
        how = {"view": self.name, "total": total, "replaces": "ablation"}
        return self.session.submit(work, label, resumable=lambda: self.start_group(choice), **how)

    def _group(self, choice: Choice) -> dict[str, Any]:
        """What is known of the chosen rows together."""
        chosen, sides = choice.group(), choice.sides()
        about: list[dict[str, Any] | None] = []
        for side in sides:
            found = self.sweep(choice, side).groups.get(tuple(chosen)) if chosen else None
            about.append(None if found is None else ablation_forms.group_words(found, side.title))
        return {"group": [list(part) for part in chosen], "sides": about, **self._key(choice, sides)}

    # ------------------------------------------------------------ chips

    def _chips(self) -> list[dict[str, Any]]:
        """The interventions on the Bench that take a component out."""
        parts = [(chip, part_of(chip.spec)) for chip in self.session.state.chips]
        return [
            {"id": chip.id, "on": chip.on, "kind": part[0], "layer": part[1][0], "index": part[1][1]}
            for chip, part in parts
            if part is not None
        ]

    def _toggle(self, choice: Choice, part: Any) -> dict[str, Any]:
        """Take one component out, or put it back."""
        if not is_part(part):
            raise ValueError(f"layer={part[0]!r}, index={part[1]!r}: expected whole numbers")
        called = name(choice.kind, part)
        gone = {chip.id for chip in self.session.state.chips if part_of(chip.spec) == (choice.kind, part)}

        def back(state: State) -> State:
            return replace(state, chips=tuple(chip for chip in state.chips if chip.id not in gone))

        if gone:
            self.session.edit(back, f"put {called} back")
            return {"out": False}
        return {"out": True, "id": self.session.add(choice.spec(part), f"take {called} out ({choice.policy})")}

    def _add_group(self, choice: Choice) -> dict[str, Any]:
        """Take all chosen rows out on the Bench, as one step."""
        chosen = choice.group()
        out = {part_of(chip.spec) for chip in self.session.state.chips if chip.on}
        new = [choice.spec(part) for part in chosen if (choice.kind, part) not in out]
        if not new:
            raise ValueError("all chosen components are out already" if chosen else "choose one row or more")
        label = f"take {len(new)} {choice.kind}{'s' if len(new) > 1 else ''} out ({choice.policy})"
        self.session.edit(lambda state: _with(state, new), label)
        return {"added": len(new)}

    # ------------------------------------------------------------ as the browser reads it

    def _about(self, choice: Choice, sides: list[Side]) -> dict[str, Any]:
        session, (layers, count), (right, wrong) = self.session, choice.shape, self.session.metric()
        position, (said, unit) = choice.position(sides[0]), ACTIVATION[choice.kind]
        given = session.state.answer is not None
        return {
            "kind": choice.kind,
            "layers": layers,
            "count": count,
            "policy": choice.policy,
            "policies": list(POLICIES[choice.kind]),
            "source": choice.source,
            "sources": [prompt.name for prompt in session.state.prompts],
            "compare": choice.compare,
            "compares": choice.compares,
            "sides": [{"name": side.name, "title": side.title, "metric": choice.metric(side)} for side in sides],
            "answer": {"right": session.word(right), "wrong": session.word(wrong), "given": given},
            "position": position,
            "token": None if position is None else session.tokens(sides[0].run)[position],
            "activation": {"said": said, "unit": unit},
            **self._key(choice, sides),
        }

    def _key(self, choice: Choice, sides: list[Side]) -> dict[str, Any]:
        """What numbers are about, for the screen to know its own."""
        about = [choice.kind, choice.policy, choice.source, *self.session.metric()]
        return {"key": json.dumps([*about, *((side.name, repr(side.given)) for side in sides)])}


def _stacked(tables: Sequence[np.ndarray]) -> np.ndarray:
    """[side component] as float32."""
    return np.stack([table.reshape(-1) for table in tables]).astype(np.float32)


def _found(sweeps: list[Sweep]) -> dict[str, Any]:
    return {
        "left": [sweep.left for sweep in sweeps],
        "floor": [sweep.floor for sweep in sweeps],
        "total": [len(sweep.order) for sweep in sweeps],
    }


def _totals(sweeps: list[Sweep]) -> dict[str, np.ndarray]:
    return {key: _stacked([getattr(sweep, key) for sweep in sweeps]) for key in ("effect", "kl")}


def _with(state: State, specs: Sequence[Intervention]) -> State:
    """With more interventions on."""
    first = 1 + max((chip.id for chip in state.chips), default=0)
    return replace(state, chips=(*state.chips, *(Chip(first + i, spec) for i, spec in enumerate(specs))))
