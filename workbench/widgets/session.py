"""A session: a model, its prompts, what is done to them, and the runs that follow. It knows no browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from workbench.activations import Run
from workbench.interventions import Intervention
from workbench.model import HookedGptOss
from workbench.model.interrupts import finish_first
from workbench.prompts.pair import Prompt as Input
from workbench.prompts.pair import token_ids
from workbench.widgets import recipes
from workbench.widgets.history import MOST, Entry, History
from workbench.widgets.names import check_name
from workbench.widgets.runs import Runs
from workbench.widgets.selection import Selection
from workbench.widgets.state import EDITED, LAYOUTS, Chip, Prompt, State, study_of, with_study

Change = Callable[[State], State] | Sequence[Any]


class Session(Runs):
    """All that views share.

    Runs are made on the model's worker thread. ``base``, ``edited``, ``shown`` and ``other`` are the newest that are
    finished, and wait only where there is none yet; what they raise is the error of that run.

    Args:
        prompts: one or two, by name.
        answer: two tokens, right and wrong, as ids.
        interventions: on the first prompt.
        vectors: name → recipe, for ``Steer`` (see recipes.py).
        runs: finished runs in the place of prompts, by name.
        steps: of the history that are kept.
    """

    def __init__(
        self,
        model: HookedGptOss,
        prompts: Mapping[str, Input],
        answer: tuple[int, int] | None = None,
        interventions: Sequence[Any] = (),
        vectors: Mapping[str, Any] | None = None,
        runs: Mapping[str, Run] | None = None,
        steps: int = MOST,
    ) -> None:
        super().__init__(model, runs or {})
        self.views: dict[str, Any] = {}  # name → View; filled by whoever shows this session
        made = tuple(self._prompt(name, given) for name, given in prompts.items())
        first = made[0].name
        state = State(made, first, answer=answer, vectors=dict(vectors or {}), shown=first)
        self.state = state.with_specs(_interventions(interventions))
        self.check(self.state)
        self.history = History(study_of(self.state), "opened", steps)
        if self.state.specs:
            self.state = replace(self.state, shown=EDITED)
        self._start()

    # ------------------------------------------------------------ what is studied

    def edit(self, change: Change, label: str, subject: str | None = None, instead_of: int | None = None) -> None:
        """Change what is studied: a step in the history, and a run of what depends on it.

        Args:
            change: other interventions, or a function of the state.
            label: what was done, in words.
            subject: the prompt to act on from now on.
            instead_of: the id of the newest entry of the history, if this only goes on with that step (a slider that is
                still dragged): one undo takes back both.

        Raises:
            ValueError: for what the model or the text does not have; nothing is changed then.
        """
        with self._lock:
            before = self.state
            start = before if subject is None else replace(before, subject=before.prompt(subject).name)
            made = change(start) if callable(change) else start.with_specs(_interventions(change))
            if study_of(made) == study_of(before):
                return
            self.check(made)

            def commit() -> None:
                if instead_of == self.history.now.id and self.history.can_undo:
                    self.history.step(-1)
                self.history.push(study_of(made), label)
                self._become(with_study(made, study_of(made)))

            finish_first(commit)

    def add(self, spec: Any, label: str | None = None, subject: str | None = None) -> int:
        """Put one more intervention on, and give its chip's number."""
        (spec,) = _interventions((spec,))
        with self._lock:  # two that add at once must not take one number
            chip = Chip(1 + max((chip.id for chip in self.state.chips), default=0), spec)
            self.edit(lambda state: replace(state, chips=(*state.chips, chip)), label or f"add {spec}", subject)
        return chip.id

    def toggle(self, id: int) -> None:
        """Turn an intervention off, or on again."""
        chip = self.state.chip(id)

        def change(state: State) -> State:
            return replace(state, chips=tuple(replace(c, on=not chip.on) if c.id == id else c for c in state.chips))

        self.edit(change, f"{'off' if chip.on else 'on'}: {chip.spec}")

    def remove(self, id: int) -> None:
        """Take an intervention away."""
        chip = self.state.chip(id)

        def change(state: State) -> State:
            return replace(state, chips=tuple(c for c in state.chips if c.id != id))

        self.edit(change, f"remove {chip.spec}")

    def set_prompts(self, prompts: Mapping[str, Input], label: str = "another prompt") -> None:
        """Other texts; interventions at positions that these do not have are refused."""
        made = tuple(self._prompt(name, given) for name, given in prompts.items())

        def change(state: State) -> State:
            subject = state.subject if state.subject in prompts else made[0].name
            return replace(state, prompts=made, subject=subject)

        self.edit(change, label)

    def set_vector(self, name: str, recipe: Any) -> None:
        """A vector that ``Steer`` can name.

        Raises:
            ValueError: for a recipe that is none.
        """
        check_name(name, "vector")
        recipes.check(recipe, self.model)
        self.edit(lambda state: replace(state, vectors={**state.vectors, name: recipe}), f"vector {name}")

    def travel(self, step: Callable[[History], Entry]) -> None:
        """Go elsewhere in the history: ``travel(lambda history: history.step(-1))``."""
        with self._lock:
            finish_first(lambda: self._become(with_study(self.state, step(self.history).study)))

    def restore(self, state: State, history: Sequence[tuple[int, str, tuple[Any, ...]]], at: int, dropped: int) -> None:
        """Become a state from a file, with its history (see there)."""
        with self._lock:
            self.check(state)
            finish_first(lambda: (self.history.restore(history, at, dropped), self._become(state)))

    # ------------------------------------------------------------ how it is looked at

    def select(self, **changes: Any) -> Selection:
        """Choose something in every view; None clears.

        Raises:
            ValueError: for what the model or the text does not have.
        """
        with self._lock:
            made = self.state.selection.merged(changes)
            made.check(self.config, self._length())
            self.state = replace(self.state, selection=made)
        self.tell()
        return self.selection

    @property
    def selection(self) -> Selection:
        """What is chosen, able to read its values."""
        return replace(self.state.selection, _session=self)

    @selection.setter
    def selection(self, given: Selection) -> None:
        given.check(self.config, self._length())
        with self._lock:
            self.state = replace(self.state, selection=replace(given, _session=None))
        self.tell()

    def options(self, view: str, **values: Any) -> None:
        """Set options of a view.

        Raises:
            ValueError: for a view or an option that is not there.
        """
        if view not in self.views:
            raise ValueError(f"there is no view {view!r}; there are {', '.join(self.views)}")
        self.views[view].check_options(values)
        with self._lock:
            mine = {**self.state.options.get(view, {}), **values}
            self.state = replace(self.state, options={**self.state.options, view: mine})
        self.tell()

    def look(self, shown: str | None = None, open: Sequence[str] | None = None, layout: str | None = None) -> None:
        """Change what is on screen: the run that is shown, the views that are open, tabs or side by side.

        Raises:
            ValueError: for a run, a view or a layout that is not there.
        """
        with self._lock:
            now = self.state
            if shown is not None and shown not in self.names:
                raise ValueError(f"there is no run {shown!r}; there are {', '.join(map(repr, self.names))}")
            if unknown := [name for name in open or () if name not in self.views]:
                raise ValueError(f"there is no view {unknown[0]!r}; there are {', '.join(self.views)}")
            if layout is not None and layout not in LAYOUTS:
                raise ValueError(f"layout={layout!r}: expected one of {LAYOUTS}")
            self.state = replace(
                now,
                shown=now.shown if shown is None else shown,
                open=now.open if open is None else tuple(dict.fromkeys(open)),
                layout=now.layout if layout is None else layout,
            )
            if shown is not None and shown != now.shown:
                self._new_revision()
        self.tell()

    def close(self) -> None:
        """Stop what is under way and let go of the runs."""
        self.stop()
        self._runs.clear()
        self._recordings.clear()
        self._memo.clear()

    # ------------------------------------------------------------ inside

    def _prompt(self, name: str, given: Input) -> Prompt:
        return Prompt(check_name(name), given, token_ids(given, self.tokenizer))

    def _length(self) -> int:
        return len(self.state.prompt(self.state.subject).tokens)

    def check(self, state: State) -> None:
        """Refuse a state that cannot be run.

        Raises:
            ValueError: for an empty prompt, tokens that the model does not know, or interventions that the model, the
                text or the sources do not have.
        """
        for prompt in state.prompts:
            self._check_tokens(prompt)
        n_pos = len(state.prompt(state.subject).tokens)
        known = {prompt.name for prompt in state.prompts} | set(state.vectors)
        for spec in state.specs:
            spec.check(self.config, n_pos)
            spec.check_among(state.specs, self.config, n_pos)
            for source, _ in spec.reads(self.config):
                if source not in known:
                    raise ValueError(
                        f"{spec!r:.300}: there is no source {source!r:.100}; there are {sorted(known)!s:.500}"
                    )

    def _check_tokens(self, prompt: Prompt) -> None:
        if not prompt.tokens:
            raise ValueError(f"the prompt {prompt.name!r} has no tokens; write something")
        size = self.config.d_vocab
        if not 0 <= min(prompt.tokens) <= max(prompt.tokens) < size:
            wrong = next(token for token in prompt.tokens if not 0 <= token < size)
            raise ValueError(f"the prompt {prompt.name!r} has token {wrong}; this model has ids from 0 to {size - 1}")

    def _become(self, state: State) -> None:
        self.state = state
        self._start()
        self.tell()


def _interventions(given: Sequence[Any]) -> tuple[Intervention, ...]:
    for spec in given:
        if not isinstance(spec, Intervention):
            raise ValueError(
                f"{spec!r:.80} is no intervention; expected wb.AblateExpert(…), wb.Patch(…) or another spec"
            )
    return tuple(given)
