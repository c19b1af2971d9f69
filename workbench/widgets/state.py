"""What a Bench is, as frozen data: prompts, edits, and what is on screen. Undo, history and files follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.interventions import Intervention
from workbench.prompts.pair import Prompt as Input
from workbench.widgets.names import EDITED as EDITED
from workbench.widgets.selection import Selection

LAYOUTS = ("tabs", "side")


@dataclass(frozen=True)
class Prompt:
    """A text by its name.

    Attributes:
        input: text, a chat, or token ids.
        tokens: what the model reads.
    """

    name: str
    input: Input
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Chip:
    """An intervention on the Bench, on or off."""

    id: int
    spec: Intervention
    on: bool = True


@dataclass(frozen=True)
class State:
    """All that a Bench is, but for the numbers.

    Attributes:
        prompts: one, or two that are compared.
        subject: the prompt that the interventions act on.
        chips: the interventions.
        answer: the two tokens whose logits are weighed against each other; None: the two likeliest.
        vectors: name → recipe, plain data that says how a vector for Steer is made.
        shown: the run that the views show: a prompt's name, or "edited".
        selection: what is chosen, in every view.
        options: view → its options.
        open: the views on screen, in order.
        layout: "tabs" or "side" by side.
    """

    prompts: tuple[Prompt, ...]
    subject: str
    chips: tuple[Chip, ...] = ()
    answer: tuple[int, int] | None = None
    vectors: Mapping[str, Any] = field(default_factory=dict)
    shown: str = ""
    selection: Selection = field(default_factory=Selection)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    open: tuple[str, ...] = ()
    layout: str = "tabs"

    @property
    def specs(self) -> tuple[Intervention, ...]:
        """The interventions that are on, in order."""
        return tuple(chip.spec for chip in self.chips if chip.on)

    def prompt(self, name: str) -> Prompt:
        """A prompt by its name.

        Raises:
            ValueError: naming those that there are.
        """
        for prompt in self.prompts:
            if prompt.name == name:
                return prompt
        raise ValueError(f"there is no prompt {name!r:.80}; there are {', '.join(repr(p.name) for p in self.prompts)}")

    def chip(self, id: int) -> Chip:
        """A chip by its number.

        Raises:
            ValueError: naming those that there are.
        """
        for chip in self.chips:
            if chip.id == id:
                return chip
        raise ValueError(f"there is no intervention {id!r:.80}; there are {[chip.id for chip in self.chips]}")

    def with_specs(self, specs: tuple[Intervention, ...]) -> State:
        """Other interventions, all on."""
        first = max((chip.id for chip in self.chips), default=0) + 1
        return replace(self, chips=tuple(Chip(first + i, spec) for i, spec in enumerate(specs)))


STUDY = ("prompts", "subject", "chips", "answer", "vectors")
"""What undo takes back. The rest is a way of looking, which nobody wants undone with it."""


def study_of(state: State) -> tuple[Any, ...]:
    """The part of a state that its numbers depend on."""
    return tuple(getattr(state, name) for name in STUDY)


def with_study(state: State, study: tuple[Any, ...]) -> State:
    """A state with another's study, looked at in the same way as far as that is possible."""
    made = replace(state, **dict(zip(STUDY, study, strict=True)))
    shown = EDITED if made.specs else made.subject
    return replace(made, shown=shown, selection=made.selection.within(len(made.prompt(made.subject).tokens)))
