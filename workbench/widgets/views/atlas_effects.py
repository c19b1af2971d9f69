"""What taking an expert out does on its contexts: the job, and what is known so far."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from workbench.atlases.contexts import Context
from workbench.atlases.queries import Atlas
from workbench.atlases.reading import up_to
from workbench.experiments.effects.expert_effects import Measured, expert_effects, gathered
from workbench.widgets.session import Session
from workbench.widgets.views.work import Kept, Progress, Told
from workbench.widgets.worker import Job

VIEW, KEY = "atlas", "effects"
REMEMBERED = 24  # experts
TOP = 10  # tokens raised, and lowered

Place = tuple[int, int]  # document, position


@dataclass(frozen=True)
class Study:
    """What is measured. Two are equal if the numbers of a context are.

    Attributes:
        serial: of which atlas, as this session opened it.
        control: an expert of about the same load, or None.
    """

    serial: int
    layer: int
    expert: int
    control: int | None
    policy: str

    @property
    def title(self) -> str:
        """The expert."""
        return f"L{self.layer}E{self.expert}"


@dataclass(eq=False)
class Found:
    """What is known of a study: context → numbers."""

    study: Study
    of: dict[Place, Measured] = field(default_factory=dict)

    def of_these(self, shown: list[Context]) -> list[tuple[Context, Measured]]:
        """Those of the contexts that are measured."""
        return [(each, self.of[place(each)]) for each in shown if place(each) in self.of]


class Effects:
    """All that was measured, and the work that measures more."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._lock = threading.RLock()
        self._found = Kept[Study, Found](REMEMBERED)
        self._made: tuple[tuple[Study, tuple[Place, ...]], xr.Dataset] | None = None

    def found(self, study: Study) -> Found:
        """What is known of a study; nothing at first."""
        return self._found.of(study, lambda: Found(study))

    def dataset(self, study: Study, shown: list[Context]) -> xr.Dataset | None:
        """What ``experiments.expert_effects`` returns of the contexts that are measured; None before the first."""
        measured = self.found(study).of_these(shown)
        if not measured:
            return None
        where = tuple(place(each) for each, _ in measured)
        with self._lock:
            if self._made is None or self._made[0] != (study, where):
                rows = [numbers for _, numbers in measured]
                made = gathered(self.session.model, rows, study.layer, study.expert, study.control, study.policy, TOP)
                columns = {name: ("context", np.array(where)[:, i]) for i, name in enumerate(("document", "position"))}
                self._made = (study, where), made.assign_coords(columns)
            return self._made[1]

    def measure(self, given: Atlas, study: Study, shown: list[Context]) -> Job | None:
        """Run the contexts that are not measured yet, in the background; None where all are."""
        found = self.found(study)
        left = [each for each in shown if place(each) not in found.of]
        if not left:
            return None
        return self.session.submit(
            lambda job: self._work(job, given, found, left),
            f"{len(left)} contexts with and without {study.title}",
            view=VIEW,
            total=len(left),
            replaces="atlas effects",
            resumable=lambda: self.measure(given, study, shown) or self._nothing(),
        )

    def _nothing(self) -> Job:
        return self.session.submit(lambda job: None, "all contexts are run", view=VIEW)

    def _work(self, job: Job, given: Atlas, found: Found, left: list[Context]) -> None:
        study = found.study
        rows, following = up_to(given, left)

        def told() -> Told:
            return {"layer": study.layer, "expert": study.expert, "done": len(found.of)}, {}

        def heard(i: int, numbers: Measured) -> None:
            found.of[place(left[i])] = numbers
            job.report(i + 1, len(left))
            show()

        with Progress(self.session, VIEW, KEY, told) as show:
            expert_effects(
                self.session.model, rows, study.layer, study.expert, study.control, following=following,
                policy=study.policy, cancel=job.breathe, on_result=heard, progress=False,
            )  # fmt: skip


def place(context: Context) -> Place:
    """Where in the corpus."""
    return context.document, context.position


def blocked(session: Session, given: Atlas) -> str | None:
    """Why this atlas' contexts cannot be run with the Bench's model; None where they can."""
    if not same_shape(session, given):
        have, want = (session.config.n_layers, session.config.n_experts), (len(given.layers), given.n_experts)
        sizes = "{} layers × {} experts"
        return f"the atlas is of {sizes.format(*want)}, the Bench's model has {sizes.format(*have)}"
    if not same_tokens(session, given):
        return "the atlas was made with another tokenizer, so that its token ids mean something else here"
    return None


def same_tokens(session: Session, given: Atlas) -> bool:
    """Whether token ids of the atlas are the model's."""
    mine = None if session.tokenizer is None else session.tokenizer.fingerprint
    return given.about["identity"].get("tokenizer") == mine


def same_shape(session: Session, given: Atlas) -> bool:
    """Whether an expert of the atlas is one of the model, by its number."""
    config = session.config
    return (config.n_layers, config.n_experts) == (len(given.layers), given.n_experts)


def numbers(data: xr.Dataset) -> dict[str, Any]:
    """The means of ``dataset`` as plain numbers."""
    ends = ("mean", "low", "high")
    made = {kind: [{end: float(data[f"{kind}_{end}"][i]) for end in ends} for i in range(data.sizes["ablated"])]
            for kind in ("loss_change", "kl")}  # fmt: skip
    counted = {"loss_change": int(np.isfinite(data.loss_change.values).all(0).sum()), "kl": data.sizes["context"]}
    return made | {"n": counted}
