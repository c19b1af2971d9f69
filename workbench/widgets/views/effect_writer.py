"""Writes what follows a text, with interventions and without, on the model's thread, for as long as it is wanted."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any
from weakref import ref

from workbench.activations import Run
from workbench.widgets.state import State
from workbench.widgets.views.effect_completion import Completion, Side
from workbench.widgets.views.work import Progress, Told
from workbench.widgets.worker import Job

if TYPE_CHECKING:
    from workbench.widgets.session import Session


class Writer:
    """Makes the completions of one session, and streams them to a view."""

    def __init__(self, session: Session, view: str) -> None:
        self.session, self.view = session, view
        self._lock = threading.RLock()
        self._completion: Completion | None = None
        self._plain: tuple[Any, Side] | None = None  # the unedited text, which most edits leave as it is

    def complete(self, length: int) -> Job | None:
        """Generate both texts; None where they are there or under way, or no intervention is on."""
        state = self.session.state
        if not state.specs:
            return None
        of = _study(state)
        with self._lock:
            now = self._completion
            if now is not None and (now.of, now.length) == (of, length):
                return None if now.is_settled else self._go(now)
            before = self._unedited(self.session.base)
            kept = now.after if now is not None and now.of == of else None
            self._completion = Completion(of, length, before, kept)
            return self._go(self._completion)

    def _go(self, completion: Completion) -> Job:
        completion.job = self.session.submit(
            lambda job: self._generate(completion, job),
            "completion, before and after",
            view=self.view,
            total=completion.steps_left,
            replaces="completion",
            resumable=lambda: self._go(completion),
        )
        return completion.job

    def _generate(self, completion: Completion, job: Job) -> None:
        with Progress(self.session, self.view, "completion", lambda: self._told(completion)) as show:
            try:
                if completion.after is None:
                    completion.after = self._edited(completion.of[2])
                self._steps(completion, completion.after, job, show)
            except Exception:
                if self._is_wanted(completion):  # else what it needed is gone, and so is the need
                    raise

    def _steps(self, completion: Completion, after: Side, job: Job, show: Progress) -> None:
        """Token by token, in turns, until both are whole, somebody cancels, or the interventions are others."""
        total, going = completion.steps_left, True
        while going:
            going = False
            for side in (completion.before, after):
                if job.cancelled or not self._is_wanted(completion):
                    return
                if side.step(completion.length):
                    going = True
                    job.report(total - completion.steps_left, total)
                    show()
                    job.breathe()

    def _is_wanted(self, completion: Completion) -> bool:
        return completion.of == _study(self.session.state)

    def _told(self, completion: Completion) -> Told | None:
        """Both texts so far; None of a completion that other interventions have outlived."""
        revision = self.session.revision
        if completion is not self._completion or not self._is_wanted(completion):
            return None
        return completion.said(self.session.model) | {"revision": revision}, {}

    def _unedited(self, base: Run) -> Side:
        if self._plain is None or self._plain[0]() is not base:
            self._plain = (ref(base), Side(self.session.model.generate(base.tokens)))
        return self._plain[1]

    def _edited(self, specs: tuple[Any, ...]) -> Side:
        # Hooks are on during each step alone: as under model.edited, but others may use the model between two steps.
        model, sources = self.session.model, self.session.sources
        hooks = [hook for spec in specs for hook in spec.as_hooks(model, sources, specs)]
        return Side(model.generate(self.session.base.tokens, fwd_hooks=hooks))

    def said(self) -> dict[str, Any] | None:
        """The texts of the interventions as they are now, as far as they have come; None without any."""
        now = self._completion
        if now is None or now.of != _study(self.session.state):
            return None
        return now.said(self.session.model)


def _study(state: State) -> tuple[Any, ...]:
    """What a completion follows from."""
    return state.prompts, state.subject, state.specs, dict(state.vectors)
