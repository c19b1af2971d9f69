"""The ablation bench: every head, expert, layer or sink with what it does, and what happens without it."""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.activations import Run
from workbench.interventions import Intervention
from workbench.widgets.session import Session
from workbench.widgets.state import EDITED, Chip, State
from workbench.widgets.views import ablation_forms as forms
from workbench.widgets.views.ablation_numbers import ACTIVATION, Numbers, numbers
from workbench.widgets.views.ablation_parts import FROM_A_SOURCE, KINDS, POLICIES, Part, name, part_of, shape
from workbench.widgets.views.ablation_sweep import (
    Group,
    Pusher,
    Study,
    Sweep,
    begun,
    check_among,
    counter,
    drawn,
    knock_out,
    measure,
    routed,
)
from workbench.widgets.views.base import Payload, View
from workbench.widgets.worker import Job

REMEMBERED = 12  # sweeps
COMPARES = ("prompts", "edited", "alone")
OVER = ("token", "mean")
MEASURES = ("logits", "kl")


@dataclass(frozen=True)
class Side:
    """One of the two things that are compared.

    Attributes:
        name: of its run.
        title: as people see it.
        given: interventions that are on in it.
    """

    name: str
    title: str
    run: Run
    given: tuple[Intervention, ...]


class Ablation(View):
    """A table of components, on two texts or before and after the interventions."""

    name, title = "ablation", "Ablation"
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

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._sweeps: OrderedDict[Study, Sweep] = OrderedDict()
        self._lock = threading.Lock()

    # ------------------------------------------------------------ asked and told

    def data(self, ask: dict[str, Any]) -> Payload:
        what = ask.get("what", "table")
        if what == "chips":
            return {"chips": self._chips()}, {}
        if what == "group":
            return self._group_payload(ask)
        sides = self.sides(ask)
        sweeps = [self.sweep(side, ask) for side in sides]
        about = self._about(ask, sides, sweeps)
        tables = [self.numbers(side, ask) for side in sides]
        arrays = {key: _stacked([getattr(table, key) for table in tables]) for key in ("activation", "norm", "direct")}
        arrays["able"] = np.stack([sweep.able for sweep in sweeps]).astype(np.uint8)
        return about | self._found(sweeps), arrays | self._totals(sweeps)

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind = action.get("kind")
        if kind == "run":
            return {"job": self.start(action).id}
        if kind == "knock_out":
            return {"job": self.start_group(action).id}
        if kind == "toggle":
            return self._toggle(action)
        if kind == "add_group":
            return self._add_group(action)
        return super().act(action)

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        known = {"kind": KINDS, "over": OVER, "measure": MEASURES, "compare": (None, *COMPARES)}
        for key, choices in known.items():
            if key in values and values[key] not in choices:
                raise ValueError(f"Ablation: {key}={values[key]!r}; expected one of {choices}")
        kind = values.get("kind", self.option("kind"))
        if values.get("policy") is not None and values["policy"] not in POLICIES[kind]:
            raise ValueError(f"Ablation: policy={values['policy']!r}; of a {kind} there are {POLICIES[kind]}")
        layers, count = shape(kind, self.session.config)
        for part in values.get("group", ()):
            if not _is_part(part) or not (0 <= part[0] < layers and 0 <= part[1] < count):
                raise ValueError(f"Ablation: group has {part!r}; expected [layer, {kind}] of {layers} × {count}")

    # ------------------------------------------------------------ what is on screen

    def kind(self, ask: dict[str, Any] | None = None) -> str:
        """Which components."""
        kind = (ask or {}).get("parts", self.option("kind"))
        if kind not in KINDS:
            raise ValueError(f"parts={kind!r}: expected one of {KINDS}")
        return kind

    def policy(self, ask: dict[str, Any] | None = None) -> str:
        """How they are taken out."""
        kind, given = self.kind(ask), (ask or {}).get("policy", self.option("policy"))
        return given if given in POLICIES[kind] else POLICIES[kind][0]

    def source(self, ask: dict[str, Any] | None = None) -> str | None:
        """Whose values "mean" and "resample" take; None for other policies."""
        if self.policy(ask) not in FROM_A_SOURCE:
            return None
        names = [prompt.name for prompt in self.session.state.prompts]
        given = (ask or {}).get("source", self.option("source"))
        return (
            given if given in names else next((each for each in names if each != self.session.state.subject), names[0])
        )

    def compares(self) -> list[str]:
        """What can be compared now, the default first."""
        state = self.session.state
        return [*(["prompts"] if len(state.prompts) > 1 else []), *(["edited"] if state.specs else []), "alone"]

    def compare(self, ask: dict[str, Any] | None = None) -> str:
        """What is compared."""
        there, given = self.compares(), (ask or {}).get("compare", self.option("compare"))
        return given if given in there else there[0]

    def sides(self, ask: dict[str, Any] | None = None) -> list[Side]:
        """One or two, the left one first."""
        state, how = self.session.state, self.compare(ask)
        if how == "prompts":
            return [Side(prompt.name, prompt.name, self.session.run(prompt.name), ()) for prompt in state.prompts]
        subject = state.subject
        left = Side(subject, "unedited" if how == "edited" else subject, self.session.base, ())
        if how == "alone":
            return [left]
        edited = self.session.run(EDITED)
        return [left, Side(EDITED, EDITED, edited, edited.interventions)]

    def numbers(self, side: Side, ask: dict[str, Any] | None = None) -> Numbers:
        """Activation, norm and direct effect of every component."""
        kind, position, answer = self.kind(ask), self.position(side, ask), self.session.metric()
        key = ("ablation", id(side.run), kind, position, answer)
        return self.session.memo(key, lambda: numbers(self.session, side.run, kind, position, answer))

    def position(self, side: Side, ask: dict[str, Any] | None = None) -> int | None:
        """Where activation and norm are read; None for the mean over the text."""
        if (ask or {}).get("over", self.option("over")) == "mean":
            return None
        last, chosen = side.run.tokens.shape[1] - 1, self.session.state.selection
        at = (ask or {}).get("position", chosen.position if chosen.span is None else chosen.span[1] - 1)
        return last if type(at) is not int else min(max(at, 0), last)

    def sweep(self, side: Side, ask: dict[str, Any] | None = None) -> Sweep:
        """The total effects of one side, as far as they are known. They outlast what does not concern them."""
        kind, tokens = self.kind(ask), tuple(side.run.tokens[0].tolist())
        study = Study.of(
            self.session, kind, self.policy(ask), self.source(ask), tokens, side.given, self.session.metric()
        )
        with self._lock:
            if study in self._sweeps:
                self._sweeps.move_to_end(study)
                return self._sweeps[study]
        used = routed(self.session, side.run) if kind == "expert" else np.ones(shape(kind, self.session.config), bool)
        made = begun(self.session, study, used, self.numbers(side, ask).direct)
        with self._lock:
            made = self._sweeps.setdefault(study, made)
            while len(self._sweeps) > REMEMBERED:
                self._sweeps.popitem(last=False)
            return made

    def group(self, ask: dict[str, Any] | None = None) -> list[Part]:
        """The chosen rows, in order."""
        layers, count = shape(self.kind(ask), self.session.config)
        found = {(part[0], part[1]) for part in (ask or {}).get("group", self.option("group")) if _is_part(part)}
        return sorted(part for part in found if part[0] < layers and part[1] < count)

    # ------------------------------------------------------------ long work

    def start(self, ask: dict[str, Any] | None = None) -> Job:
        """Put the components that are left into the line; a newer job takes its place."""
        sides = self.sides(ask)
        sweeps = [self.sweep(side, ask) for side in sides]
        key = self._key(ask, sides)
        push = Pusher(lambda: self.session.stream(self.name, "totals", self._found(sweeps) | key, self._totals(sweeps)))

        def work(job: Job) -> None:
            count = counter(job)
            for sweep in sweeps:
                measure(sweep, self.session, job, push, count)
                job.stop_if_cancelled()
            self.session.flush(self.name, "totals")

        label = f"ablate every {self.kind(ask)}, {self.policy(ask)}"
        left = sum(sweep.left for sweep in sweeps)
        return self.session.submit(
            work, label, view=self.name, total=left, replaces="ablation", resumable=lambda: self.start(ask)
        )

    def start_group(self, ask: dict[str, Any] | None = None) -> Job:
        """Take the chosen rows out together, and random groups of as many beside them."""
        chosen, sides, ask = self.group(ask), self.sides(ask), ask or {}
        if not chosen:
            raise ValueError("choose one row or more, to take them out together")
        sweeps = [self.sweep(side, ask) for side in sides]
        groups = [self._known_group(sweep, chosen, make=True) for sweep in sweeps]
        push = Pusher(lambda: self.session.stream(self.name, "group", *self._group_payload(ask)))

        def work(job: Job) -> None:
            count = counter(job)
            for sweep, group in zip(sweeps, groups, strict=True):
                assert group is not None
                knock_out(sweep, group, self.session, job, push, count)
                job.stop_if_cancelled()
            self.session.flush(self.name, "group")

        label = f"knock out {len(chosen)} {self.kind(ask)}{'s' if len(chosen) > 1 else ''} together"
        total = sum(int(np.isnan(group.effect).sum()) for group in groups if group is not None)
        return self.session.submit(
            work, label, view=self.name, total=total, replaces="ablation", resumable=lambda: self.start_group(ask)
        )

    def _known_group(self, sweep: Sweep, chosen: Sequence[Part], make: bool = False) -> Group | None:
        key = tuple(chosen)
        if key not in sweep.groups and make:
            check_among(self.session, sweep.study, chosen)
            impossible = [name(sweep.study.kind, part) for part in chosen if not sweep.able[part]]
            if impossible:
                raise ValueError(f"{', '.join(impossible)} cannot be taken out by policy {sweep.study.policy!r} here")
            groups = drawn(self.session, sweep, chosen)
            sweep.groups[key] = Group(groups, np.full(len(groups), np.nan), np.full(len(groups), np.nan))
        return sweep.groups.get(key)

    # ------------------------------------------------------------ chips

    def _chips(self) -> list[dict[str, Any]]:
        """The interventions on the Bench that take a component out."""
        found = []
        for chip in self.session.state.chips:
            part = part_of(chip.spec)
            if part is not None:
                found.append({"id": chip.id, "on": chip.on, "kind": part[0], "layer": part[1][0], "index": part[1][1]})
        return found

    def _toggle(self, action: dict[str, Any]) -> dict[str, Any]:
        """Take one component out, or put it back."""
        part = _part(action)
        kind = self.kind(action)
        same = [chip for chip in self.session.state.chips if part_of(chip.spec) == (kind, part)]
        if same:
            gone = {chip.id for chip in same}
            self.session.edit(_without(gone), f"put {name(kind, part)} back")
            return {"out": False}
        spec = Study(kind, self.policy(action), self.source(action), (), (), (), (0, 0)).spec(part)
        return {"out": True, "id": self.session.add(spec, f"take {name(kind, part)} out ({self.policy(action)})")}

    def _add_group(self, ask: dict[str, Any]) -> dict[str, Any]:
        """Take all chosen rows out on the Bench, as one step."""
        kind, chosen = self.kind(ask), self.group(ask)
        out = {part_of(chip.spec) for chip in self.session.state.chips if chip.on}
        study = Study(kind, self.policy(ask), self.source(ask), (), (), (), (0, 0))
        new = [study.spec(part) for part in chosen if (kind, part) not in out]
        if not new:
            raise ValueError("all chosen components are out already" if chosen else "choose one row or more")
        self.session.edit(_with(new), f"take {len(new)} {kind}{'s' if len(new) > 1 else ''} out ({study.policy})")
        return {"added": len(new)}

    # ------------------------------------------------------------ as the browser reads it

    def _about(self, ask: dict[str, Any], sides: list[Side], sweeps: list[Sweep]) -> dict[str, Any]:
        session, kind = self.session, self.kind(ask)
        layers, count = shape(kind, session.config)
        right, wrong = session.metric()
        position = self.position(sides[0], ask)
        said, unit = ACTIVATION[kind]
        return {
            "kind": kind,
            "layers": layers,
            "count": count,
            "policy": self.policy(ask),
            "policies": list(POLICIES[kind]),
            "source": self.source(ask),
            "sources": [prompt.name for prompt in session.state.prompts],
            "compare": self.compare(ask),
            "compares": self.compares(),
            "sides": [{"name": s.name, "title": s.title, "metric": self._metric(s)} for s in sides],
            "answer": {
                "right": session.word(right),
                "wrong": session.word(wrong),
                "given": session.state.answer is not None,
            },
            "position": position,
            "token": None if position is None else session.tokens(sides[0].run)[position],
            "activation": {"said": said, "unit": unit},
            **self._key(ask, sides),
        }

    def _metric(self, side: Side) -> float:
        right, wrong = self.session.metric()
        last = side.run.logits[0, -1].float()
        return float(last[right] - last[wrong])

    @staticmethod
    def _found(sweeps: list[Sweep]) -> dict[str, Any]:
        return {"left": [sweep.left for sweep in sweeps], "floor": [sweep.floor for sweep in sweeps],
                "total": [len(sweep.order) for sweep in sweeps]}  # fmt: skip

    @staticmethod
    def _totals(sweeps: list[Sweep]) -> dict[str, np.ndarray]:
        return {key: _stacked([getattr(sweep, key) for sweep in sweeps]) for key in ("effect", "kl")}

    def _group_payload(self, ask: dict[str, Any]) -> Payload:
        """What is known of the chosen rows together."""
        chosen, sides = self.group(ask), self.sides(ask)
        about: list[dict[str, Any] | None] = []
        for side in sides:
            found = self._known_group(self.sweep(side, ask), chosen) if chosen else None
            about.append(None if found is None else forms.group_words(found, side.title))
        return {"group": [list(part) for part in chosen], "sides": about, **self._key(ask, sides)}, {}

    def _key(self, ask: dict[str, Any] | None, sides: list[Side]) -> dict[str, Any]:
        """What numbers are about, for the screen to know its own."""
        about = [self.kind(ask), self.policy(ask), self.source(ask), *self.session.metric()]
        return {"key": json.dumps([*about, *((side.name, repr(side.given)) for side in sides)])}

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        return forms.page(self)

    def code(self) -> str:
        return forms.code(self)

    def table(self) -> xr.Dataset:
        return forms.table(self)

    def figure(self) -> go.Figure:
        return forms.figure(self)


def _stacked(tables: Sequence[np.ndarray]) -> np.ndarray:
    """[side, component] as float32."""
    return np.stack([table.reshape(-1) for table in tables]).astype(np.float32)


def _is_part(given: Any) -> bool:
    return isinstance(given, list | tuple) and len(given) == 2 and all(type(n) is int for n in given)


def _part(action: dict[str, Any]) -> Part:
    given = (action.get("layer"), action.get("index", 0))
    if not _is_part(given):
        raise ValueError(f"layer={given[0]!r}, index={given[1]!r}: expected whole numbers")
    return given  # type: ignore[return-value]


def _without(gone: set[int]) -> Callable[[State], State]:
    return lambda state: replace(state, chips=tuple(chip for chip in state.chips if chip.id not in gone))


def _with(specs: Sequence[Intervention]) -> Callable[[State], State]:
    def change(state: State) -> State:
        first = 1 + max((chip.id for chip in state.chips), default=0)
        return replace(state, chips=(*state.chips, *(Chip(first + i, spec) for i, spec in enumerate(specs))))

    return change
