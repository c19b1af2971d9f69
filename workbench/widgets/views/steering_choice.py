"""What the controls of the steering view say: which direction, where it is added, and how much of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from workbench.experiments.directions.vectors import random_direction
from workbench.figures.text import visible
from workbench.widgets import recipes
from workbench.widgets.selection import Selection
from workbench.widgets.session import Session
from workbench.widgets.views.steering_runs import Study, stream_norm

DIRECTIONS = ("difference", "token", "expert", "head", "vector")
SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
WHERE = ("all", "selected", "generated")
SEED = 0
REACH = 2.0  # the slider goes to at least so many times the length of what stands at the site
START = 0.5  # where it stands until somebody moves it


class Missing(ValueError):
    """Something is still to be filled in before there is a direction."""


@dataclass(frozen=True, eq=False)
class Choice:
    """Options and selection, as the screen had them when it asked."""

    session: Session
    options: Mapping[str, Any]
    selection: Selection

    @property
    def tokens(self) -> tuple[int, ...]:
        """Of the text."""
        state = self.session.state
        return state.prompt(state.subject).tokens

    @property
    def layer(self) -> int:
        """Where the vector is added: the layer that was chosen, else the selected one, else the middle."""
        return _first(self.options["layer"], self.selection.layer, self.session.config.n_layers // 2)

    @property
    def site(self) -> str:
        """Where the vector is added."""
        return f"blocks.{self.layer}.hook_{self.options['part']}"

    @property
    def token(self) -> int:
        """The token whose direction is taken: the one that was chosen, else the right answer."""
        given = self.options["token"]
        return self.session.metric()[0] if given is None else given

    def place(self) -> tuple[int, int, int]:
        """(layer, head or expert, position) of what writes the direction; what was not chosen is as selected."""
        config, chosen, last = self.session.config, self.selection, len(self.tokens) - 1
        of_expert = self.options["direction"] == "expert"
        layer = _first(self.options["of_layer"], chosen.layer, config.n_layers // 2)
        position = min(_first(self.options["of_position"], chosen.position, last), last)
        index = _first(self.options["of_index"], chosen.expert if of_expert else chosen.head)
        if index is not None and index < (config.n_experts if of_expert else config.n_heads):
            return layer, index, position
        site = f"blocks.{layer}.mlp.hook_expert_indices"
        strongest = int(self.session.site(self.session.base, site)[position][0]) if of_expert else 0
        return layer, strongest, position

    def positions(self) -> tuple[int, ...] | None:
        """Columns of the text at which the vector is added; None for all.

        Raises:
            Missing: where selected ones are asked for and none is selected.
        """
        if self.options["where"] == "all":
            return None
        if self.options["where"] == "generated":
            return (len(self.tokens) - 1,)
        found = self.selection.positions
        if found is None or max(found) >= len(self.tokens):
            raise Missing("Select a token, or several with shift: the vector is added there.")
        return found

    # ------------------------------------------------------------ the direction

    def recipe(self) -> tuple[str, dict[str, Any]]:
        """A short name and a recipe.

        Raises:
            Missing: saying what is still to be filled in.
        """
        kind = self.options["direction"]
        if kind == "difference":
            return self._difference()
        if kind == "token":
            return f"token {self.session.word(self.token)}", {"kind": "unembedding", "token": self.token}
        if kind == "vector":
            name, known = self.options["vector"], self.session.state.vectors
            if name not in known:
                raise Missing("Open a file with a vector, or put a direction on the Bench: it can be chosen here then.")
            return name, dict(known[name])
        layer, index, position = self.place()
        made = {"kind": "expert_output" if kind == "expert" else "head_write"}
        name = f"L{layer} {'E' if kind == 'expert' else 'H'}{index} @{position}"
        return name, made | {"tokens": list(self.tokens[: position + 1]), "layer": layer, kind: index}

    def _difference(self) -> tuple[str, dict[str, Any]]:
        sides = [lines(self.options[side]) for side in ("positive", "negative")]
        if not all(sides):
            raise Missing("Write at least one text on each side, one a line: the direction is the mean of the first "
                          "less the mean of the second.")  # fmt: skip
        name = " − ".join(visible(side[0].strip(), 12) + (" …" if len(side) > 1 else "") for side in sides)
        made = {"kind": "difference_of_means", "positive": sides[0], "negative": sides[1]}
        return name, made | {"site": self.site, "at": self.options["at"]}

    def study(self, scale: Any = None) -> Study:
        """What is tried.

        Args:
            scale: while a slider is dragged; None for the option's, or half of what stands at the site.

        Raises:
            Missing: where something is still to be filled in.
        """
        _, recipe = self.recipe()
        recipes.check(recipe, self.session.model)
        made = json.dumps(recipe, sort_keys=True)
        study = Study(self.tokens, made, self.site, self.options["where"], self.positions(), 0.0)
        given = self.options["scale"] if scale is None else scale
        if given is None:
            given = float(f"{START * self.stream(study) / float(self.vector(study).norm()):.2g}")
        return replace(study, scale=float(given))

    def vector(self, study: Study) -> Any:
        """The direction of a study, a tensor [d_model] on the CPU. What takes a run is made on the model's thread."""
        recipe, session = json.loads(study.recipe), self.session
        if recipes.KINDS[recipe["kind"]].runs:
            make = lambda: recipes.make(recipe, session.model)  # noqa: E731
            key = ("steering vector", study.recipe)
            made = session.memo(key, lambda: session.on_worker(make, "make the direction"))
        else:
            made = recipes.make(recipe, session.model)
        made = made.detach().float().cpu()
        if made.shape != (session.config.d_model,):
            raise ValueError(f"the vector has {made.numel()} numbers: this model's d_model is {session.config.d_model}")
        if not float(made.norm()) > 0:
            raise Missing("The direction has length 0: both sides are the same, or nothing is written there.")
        return made

    def random(self, study: Study, number: int = 0) -> Any:
        """A direction that means nothing, as long as the study's."""
        return random_direction(self.session.config.d_model, float(self.vector(study).norm()), SEED + number)

    def stream(self, study: Study) -> float:
        """The length of what stands where the vector is added."""
        key = ("steering stream", study.tokens, study.site, study.positions)
        return self.session.memo(key, lambda: stream_norm(self.session, self.session.base, study.site, study.positions))

    def reach(self, study: Study) -> float:
        """Where a slider for the scale ends."""
        longest = REACH * self.stream(study) / float(self.vector(study).norm())
        return rounded_up(max(longest, abs(study.scale)))


def lines(text: str) -> list[str]:
    """The texts of a field, one a line; empty lines are none."""
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def rounded_up(value: int | float) -> float:
    """1, 2 or 5 times a power of ten, at least as much as this."""
    power = 10.0 ** np.floor(np.log10(value)) if value > 0 else 1.0
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9)))


def _first(*given: int | None) -> Any:
    """The first that is not None."""
    return next((value for value in given if value is not None), None)
