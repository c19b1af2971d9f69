"""A vector added to one prompt's run: what it does to the next token, and what the model goes on to say."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from workbench.activations import Run, rerun
from workbench.interventions import Steer
from workbench.widgets.session import Session
from workbench.widgets.views.effect_completion import Side, differing
from workbench.widgets.views.effect_numbers import bars
from workbench.widgets.worker import Job

NAME = "steering vector"
CONTROLS = 8
TEXTS = ("default", "steered", "control")


@dataclass(frozen=True)
class Study:
    """A vector at a place. Two are equal if they do the same.

    Attributes:
        tokens: of the text.
        recipe: the vector, as JSON.
        site: where it is added.
        where: "all", "selected" or "generated".
        positions: columns of the text at which it is added; None for all.
        scale: times the vector.
    """

    tokens: tuple[int, ...]
    recipe: str
    site: str
    where: str
    positions: tuple[int, ...] | None
    scale: float

    @property
    def name(self) -> str:
        """A short name of its own, for the screen to know its numbers."""
        return hashlib.sha256(repr(self).encode()).hexdigest()[:16]

    def spec(self, length: int = 0) -> Steer:
        """The intervention; ``length``: tokens that are generated, at which it is added too where it should be."""
        positions = self.positions
        if self.where == "generated" and length:
            positions = tuple(range(len(self.tokens) - 1, len(self.tokens) + length))
        return Steer(self.site, NAME, self.scale, positions)


def steered(session: Session, base: Run, study: Study, vector: Any) -> Run:
    """The text's run with the vector. On the model's thread."""
    routes = f"blocks.{session.config.n_layers - 1}.mlp.hook_expert_indices"  # a run must keep something
    recording = session.recording(base)
    return rerun(base, [study.spec()], recording=recording, sources={NAME: vector}, sites=[routes], name="steered")


def effect(session: Session, base: Run, done: Run) -> dict[str, Any]:
    """What changed: the next token after the text, KL, flipped tokens and routes."""
    assert done.kl is not None and done.flipped_routes is not None
    last = base.tokens.shape[1] - 1
    kl = done.kl[0].float().cpu().numpy()
    flipped = (done.logits[0].argmax(-1) != base.logits[0].argmax(-1)).cpu().numpy()
    shown = bars(base, done, last, session.state.answer or ())
    return {
        "bars": [{**bar, "text": session.word(bar["id"])} for bar in shown],
        "kl": float(kl[last]),
        "mean_kl": float(kl.mean()),
        "flipped": int(flipped.sum()),
        "n": len(kl),
        "routes": int(done.flipped_routes.sum()),
        "n_routes": int(done.flipped_routes.numel()),
    }


def stream_norm(session: Session, base: Run, site: str, positions: tuple[int, ...] | None) -> float:
    """The median length of what stands at a site, where it is steered (the first token's is often far larger)."""
    values = session.site(base, site, remember=False)
    some = values if positions is None else values[list(positions)]
    return float(np.median(np.linalg.norm(some, axis=-1)))


# ---------------------------------------------------------------- what the model goes on to say


@dataclass(eq=False)
class Texts:
    """Three texts of one study, token by token: without the vector, with it, and with a random one of its length."""

    study: Study
    length: int
    sides: dict[str, Side] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Tokens still to come, at most."""
        there = [self.sides.get(name) for name in TEXTS]
        return sum(
            self.length if side is None else 0 if side.is_over else max(0, self.length - len(side.ids))
            for side in there
        )

    def said(self, session: Session) -> dict[str, Any]:
        """As the browser shows it: tokens, and which of them differ from the default."""
        ids = {name: self.sides[name].ids[: self.length] if name in self.sides else [] for name in TEXTS}
        made: dict[str, Any] = {"length": self.length, "done": not self.left}
        # Once the default text has ended, whatever comes after its end differs from it.
        ended = not self.left or ("default" in self.sides and self.sides["default"].is_over)
        for name in TEXTS:
            marks = differing(ids["default"], ids[name], whole=ended)[1] if name != "default" else []
            tokens = [session.word(token) for token in ids[name]]
            over = name in self.sides and self.sides[name].is_over
            made[name] = {"tokens": tokens, "differs": marks or [0] * len(tokens), "over": over}
        return made


def generate(texts: Texts, begin: Callable[[str], Side], job: Job, show: Callable[[], None]) -> None:
    """All three, a token of each at a time. On the model's thread."""
    for name in TEXTS:
        if name not in texts.sides:
            texts.sides[name] = begin(name)
    total, going = texts.left, True
    while going:
        going = False
        for side in texts.sides.values():
            job.stop_if_cancelled()
            if side.step(texts.length):
                going = True
                job.report(total - texts.left, total)
                show()
                job.breathe()
