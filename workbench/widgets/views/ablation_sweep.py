"""The total effect of each component, found by taking it out: the work, and what is known so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from workbench import experiments
from workbench.interventions import Intervention
from workbench.widgets.session import Session
from workbench.widgets.views.ablation_parts import FROM_A_SOURCE, Part, name, shape, spec
from workbench.widgets.views.work import Progress
from workbench.widgets.worker import Job

MOVES = 20  # random moves of the stream that make the floor of a table
GROUPS = 20  # random groups beside the chosen one
AT_ONCE = 32  # components of one side, before it is the other's turn
SEED = 0


@dataclass(frozen=True)
class Study:
    """One side of the table. Two are equal if all their numbers are.

    Attributes:
        kind, policy, source: of the components; source None where the policy takes nothing from elsewhere.
        tokens: of the text.
        given: interventions that are on all the time.
        sources: what is taken from elsewhere, as data that can be compared.
        answer: the right and the wrong token, by id.
    """

    kind: str
    policy: str
    source: str | None
    tokens: tuple[int, ...]
    given: tuple[Intervention, ...]
    sources: tuple[tuple[str, Any], ...]
    answer: tuple[int, int]

    @classmethod
    def of(cls, session: Session, kind: str, policy: str, source: str | None, tokens: tuple[int, ...],
           given: tuple[Intervention, ...], answer: tuple[int, int]) -> Study:  # fmt: skip
        """With what it takes from elsewhere now."""
        source = source if policy in FROM_A_SOURCE else None
        names = {name for each in given for name, _ in each.reads(session.config)} | ({source} if source else set())
        state, held = session.state, []
        for each in sorted(names):
            recipe = state.vectors.get(each)
            held.append((each, json.dumps(recipe) if recipe is not None else state.prompt(each).tokens))
        return cls(kind, policy, source, tokens, given, tuple(held), answer)

    def spec(self, part: Part) -> Intervention:
        """What takes a component out."""
        return spec(self.kind, part, self.policy, self.source)


@dataclass(eq=False)
class Group:
    """Several components taken out together, beside random groups of as many.

    Attributes:
        groups: the chosen one first.
        effect, kl: of each group, NaN where not run yet.
        dataset: what the experiment returned, to go on from.
    """

    groups: list[list[Part]]
    effect: np.ndarray
    kl: np.ndarray
    dataset: xr.Dataset | None = None


@dataclass(eq=False)
class Sweep:
    """What is known of one side so far.

    Attributes:
        able: [layer index] components that can be taken out.
        used: those of them that do something in this text at all.
        effect: [layer index] difference of the answer's logits, without − with; NaN where not run yet.
        kl: KL(with ‖ without) of the next token, in nats.
        floor: the largest |effect| of MOVES random moves of the stream, each as long as that of a random component.
        order: components in the order in which they are run.
        groups: chosen components → what is known of them together.
    """

    study: Study
    able: np.ndarray
    used: np.ndarray
    order: list[Part]
    effect: np.ndarray = field(init=False)
    kl: np.ndarray = field(init=False)
    floor: float | None = None
    groups: dict[tuple[Part, ...], Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.effect, self.kl = np.full((2, *self.able.shape), np.nan)

    @property
    def left(self) -> int:
        """Components that are not run yet."""
        return sum(1 for part in self.order if np.isnan(self.effect[part]))


def begun(session: Session, study: Study, used: np.ndarray, importance: np.ndarray) -> Sweep:
    """A sweep before anything is run; the most important components come first.

    Args:
        used: [layer index] components that do something in this text.
        importance: [layer index] an estimate of |effect|.
    """
    able = np.ones(shape(study.kind, session.config), bool)
    if study.kind == "expert" and study.source is not None:
        able &= routed(session, session.run(study.source))
    for part in parts_where(able):
        able[part] = _can_be_out(session, study, [part])
    size = np.nan_to_num(np.abs(importance))
    return Sweep(study, able, able & used, sorted(parts_where(able), key=lambda part: -size[part]))


def parts_where(which: np.ndarray) -> list[Part]:
    """The components of a table [layer index] of truth values."""
    return [(layer, index) for layer, index in np.argwhere(which).tolist()]


def routed(session: Session, run: Any) -> np.ndarray:
    """[layer expert] whether any token of a run went there."""
    found = np.zeros((session.config.n_layers, session.config.n_experts), bool)
    for layer, row in enumerate(found):
        row[np.unique(session.site(run, f"blocks.{layer}.mlp.hook_expert_indices", remember=False))] = True
    return found


def check_among(session: Session, study: Study, parts: Sequence[Part]) -> None:
    """Refuse components that cannot be out together.

    Raises:
        ValueError: in words.
    """
    specs = (*study.given, *map(study.spec, parts))
    for each in specs:
        each.check(session.config, len(study.tokens))
        each.check_among(specs, session.config, len(study.tokens))


def drawn(session: Session, sweep: Sweep, chosen: Sequence[Part]) -> list[list[Part]]:
    """The chosen group, and random ones of as many components that do something, all of which can be out together."""
    draw, pool = np.random.default_rng(SEED), [part for part in sorted(sweep.order) if sweep.used[part]]
    groups, n = [sorted(chosen)], len(chosen)
    for _ in range(20 * GROUPS if len(pool) >= n else 0):
        group = sorted(pool[i] for i in draw.choice(len(pool), size=n, replace=False))
        if len(groups) <= GROUPS and group not in groups and _can_be_out(session, sweep.study, group):
            groups.append(group)
    return groups


def _can_be_out(session: Session, study: Study, parts: Sequence[Part]) -> bool:
    try:
        check_among(session, study, parts)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------- the work


def sources(session: Session, study: Study, specs: Sequence[Intervention]) -> dict[str, Any]:
    """What these take from elsewhere: runs that kept it, and vectors. On the model's thread."""
    return session.sources_of(session.state.with_specs((*study.given, *specs)))


def measure(sweeps: Sequence[Sweep], session: Session, job: Job, show: Progress) -> None:
    """The floors that are missing, and the components that are left: some of each side in turn."""
    for sweep in sweeps:
        if sweep.floor is None and sweep.used.any():
            find_floor(sweep, session, job)
            show(now=True)
            job.breathe()
        job.stop_if_cancelled()
    while any(sweep.left for sweep in sweeps):
        for sweep in sweeps:
            measure_some(sweep, session, job, show)
            job.stop_if_cancelled()
    show(now=True)


def measure_some(sweep: Sweep, session: Session, job: Job, show: Progress) -> None:
    """The next components that are left, AT_ONCE of them."""
    some = [part for part in sweep.order if np.isnan(sweep.effect[part])][:AT_ONCE]

    def heard(cell: Any, value: Any) -> None:
        part = some[cell["component"]]
        sweep.effect[part], sweep.kl[part] = float(value["effect"][0]), float(value["kl"][0])
        job.report(job.done + 1)
        show()
        job.breathe()

    if some:
        _swept(session, sweep.study, [sweep.study.spec(part) for part in some], job, on_result=heard)


def find_floor(sweep: Sweep, session: Session, job: Job) -> None:
    """Random moves of the stream, each as long as that of a component; left out where the job is cancelled before."""
    some, controls = movers(sweep)
    found = _swept(session, sweep.study, [sweep.study.spec(part) for part in some], job, controls=controls)
    if not job.cancelled:
        sweep.floor = float(found.floor.max())


def movers(sweep: Sweep) -> tuple[list[Part], int]:
    """The components whose lengths the random moves have, and how many moves there are of each."""
    pool = [part for part in sorted(sweep.order) if sweep.used[part]]
    some = [pool[i] for i in np.random.default_rng(SEED).permutation(len(pool))[:MOVES]]
    return some, -(-MOVES // max(1, len(some)))


def group_of(session: Session, sweep: Sweep, chosen: Sequence[Part]) -> Group:
    """What is known of these components together.

    Raises:
        ValueError: for components that cannot be out together.
    """
    key = tuple(chosen)
    if key not in sweep.groups:
        impossible = [name(sweep.study.kind, part) for part in chosen if not sweep.able[part]]
        if impossible:
            raise ValueError(f"{', '.join(impossible)} cannot be taken out by policy {sweep.study.policy!r} here")
        check_among(session, sweep.study, chosen)
        groups = drawn(session, sweep, chosen)
        sweep.groups[key] = Group(groups, np.full(len(groups), np.nan), np.full(len(groups), np.nan))
    return sweep.groups[key]


def knock_out(sweep: Sweep, group: Group, session: Session, job: Job, show: Progress) -> None:
    """The chosen group, then the random ones."""

    def heard(cell: Any, value: Any) -> None:
        at = cell["component"]
        group.effect[at], group.kl[at] = float(value["effect"][0]), float(value["kl"][0])
        job.report(job.done + 1)
        show()
        job.breathe()

    components = [[sweep.study.spec(part) for part in each] for each in group.groups]
    group.dataset = _swept(session, sweep.study, components, job, on_result=heard, resume=group.dataset)
    show(now=True)


def _swept(session: Session, study: Study, components: Sequence[Any], job: Job, **how: Any) -> xr.Dataset:
    flat = [each for part in components for each in (part if isinstance(part, list) else [part])]
    return experiments.ablation_sweep(
        session.model,
        [study.tokens],
        study.answer,
        components,
        sources=sources(session, study, flat),
        given=study.given,
        seed=SEED,
        progress=False,
        cancel=job.cancel_event,
        **how,
    )
