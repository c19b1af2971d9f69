"""What the controls of the ablation bench say: which components, taken out how, and on what."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workbench.activations import Run
from workbench.interventions import Intervention
from workbench.widgets.session import Session
from workbench.widgets.state import EDITED
from workbench.widgets.views.ablation_parts import FROM_A_SOURCE, POLICIES, Part, shape, spec

COMPARES = ("prompts", "edited", "alone")


@dataclass(frozen=True, eq=False)
class Side:
    """One of the things that are compared.

    Attributes:
        name: of its run.
        title: as people see it.
        given: interventions that are on in it.
    """

    name: str
    title: str
    run: Run
    given: tuple[Intervention, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Of its text."""
        return tuple(self.run.tokens[0].tolist())


@dataclass(frozen=True, eq=False)
class Choice:
    """The options, as the screen had them when it asked."""

    session: Session
    options: Mapping[str, Any]

    @property
    def kind(self) -> str:
        """Which components: one of KINDS."""
        return self.options["kind"]

    @property
    def shape(self) -> tuple[int, int]:
        """(layers, components of each)."""
        return shape(self.kind, self.session.config)

    @property
    def policy(self) -> str:
        """How they are taken out."""
        given = self.options["policy"]
        return given if given in POLICIES[self.kind] else POLICIES[self.kind][0]

    @property
    def source(self) -> str | None:
        """Whose values "mean" and "resample" take; None for other policies."""
        if self.policy not in FROM_A_SOURCE:
            return None
        state, given = self.session.state, self.options["source"]
        names = [prompt.name for prompt in state.prompts]
        others = [name for name in names if name != state.subject]
        return given if given in names else (others or names)[0]

    @property
    def compares(self) -> list[str]:
        """What can be compared now, the default first."""
        state = self.session.state
        return [*(["prompts"] if len(state.prompts) > 1 else []), *(["edited"] if state.specs else []), "alone"]

    @property
    def compare(self) -> str:
        """What is compared."""
        there, given = self.compares, self.options["compare"]
        return given if given in there else there[0]

    def sides(self) -> list[Side]:
        """One or two, the left one first."""
        session, state = self.session, self.session.state
        if self.compare == "prompts":
            return [Side(prompt.name, prompt.name, session.run(prompt.name), ()) for prompt in state.prompts]
        both = self.compare == "edited"
        left = Side(state.subject, "unedited" if both else state.subject, session.base, ())
        if not both:
            return [left]
        edited = session.run(EDITED)
        return [left, Side(EDITED, EDITED, edited, edited.interventions)]

    def position(self, side: Side) -> int | None:
        """Where activation and norm are read; None for the mean over the text."""
        if self.options["over"] == "mean":
            return None
        last, chosen = side.run.tokens.shape[1] - 1, self.session.state.selection
        at = self.options.get("position", chosen.position if chosen.span is None else chosen.span[1] - 1)
        return last if type(at) is not int else min(max(at, 0), last)

    def group(self) -> list[Part]:
        """The chosen rows, in order."""
        layers, count = self.shape
        found = {(part[0], part[1]) for part in self.options["group"] if is_part(part)}
        return sorted(part for part in found if part[0] < layers and part[1] < count)

    def spec(self, part: Part) -> Intervention:
        """What takes a component out."""
        return spec(self.kind, part, self.policy, self.source)

    def metric(self, side: Side) -> float:
        """The difference of the answer's logits after the text."""
        right, wrong = self.session.metric()
        last = side.run.logits[0, -1].float()
        return float(last[right] - last[wrong])


def is_part(given: Any) -> bool:
    """Whether it is two whole numbers."""
    return isinstance(given, list | tuple) and len(given) == 2 and all(type(n) is int for n in given)
