"""Every view alone, in any cell: ``wb.view.attention(run)``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from workbench.activations import Run
from workbench.widgets.session import Session
from workbench.widgets.widget import LiveView
from workbench.widgets.worker import Job


class SingleView(LiveView):
    """One view of one run (or of two), live."""

    def __init__(self, name: str, run: Run, other: Run | None = None, **options: Any) -> None:
        runs = {_name(run, "run"): run}
        if other is not None:
            if _name(other, "other") in runs:
                raise ValueError(
                    f"both runs are named {_name(run, 'run')!r}; give one of them another name (wb.run(…, name=…))"
                )
            runs[_name(other, "other")] = other
        prompts = {key: tuple(of.tokens[0].tolist()) for key, of in runs.items()}
        session = Session(run.model, prompts, runs={key: replace(of, name=key) for key, of in runs.items()})
        super().__init__(session, single=name)
        session.look(open=(name,))
        if options:
            session.options(name, **options)

    @property
    def selection(self) -> Any:
        """What is chosen."""
        return self.session.selection

    @property
    def jobs(self) -> list[Job]:
        """Work under way, and the last that was."""
        return self.session.jobs

    @property
    def view(self) -> Any:
        """The view's side of Python: ``.table()``, ``.figure()``, ``.code()``, and what is its own."""
        return self.session.views[str(self._single)]

    def wait(self, timeout: int | float | None = None) -> None:
        """Wait until nothing is under way, and put what is on screen into the notebook's file."""
        self.session.wait(timeout)
        self.freeze()

    def __repr__(self) -> str:
        return f"{self._single}({self.session.base!r})"


def _name(run: Run, otherwise: str) -> str:
    return otherwise if run.name in (None, "edited") else str(run.name)


def tokens(run: Run, **options: Any) -> SingleView:
    """The text: each token by role, surprise or any value."""
    return SingleView("tokens", run, **options)


def logit_lens(run: Run, other: Run | None = None, **options: Any) -> SingleView:
    """What each layer would say next, at each token; with another run, what differs."""
    if other is not None:
        options.setdefault("compare", _name(other, "other"))
    return SingleView("logit_lens", run, other, **options)


def attention(run: Run, **options: Any) -> SingleView:
    """Every head's pattern, with its sink and its window."""
    return SingleView("attention", run, **options)


def routing(run: Run, **options: Any) -> SingleView:
    """Which experts each token goes to, and what changes if it does not."""
    return SingleView("routing", run, **options)


def patching(clean: Run, corrupt: Run, **options: Any) -> SingleView:
    """Where the answer travels: parts of one run put into the other."""
    return SingleView("patching", clean, corrupt, **options)


def ablation(run: Run, **options: Any) -> SingleView:
    """What each part is needed for."""
    return SingleView("ablation", run, **options)


def steering(run: Run, **options: Any) -> SingleView:
    """A direction, added; the text with and without it."""
    return SingleView("steering", run, **options)


def generation(run: Run, **options: Any) -> SingleView:
    """Token by token, with the alternatives, forked anywhere."""
    return SingleView("generation", run, **options)


def graph(run: Run, **options: Any) -> SingleView:
    """Which parts told which, up to the answer."""
    return SingleView("graph", run, **options)


def atlas(run: Run, atlas: Any = None, **options: Any) -> SingleView:
    """Where an expert fires over a corpus. ``atlas``: an Atlas, or its folder."""
    made = SingleView("atlas", run, **options)
    if atlas is not None:
        made.session.views["atlas"].show(atlas)
    return made


def history(run: Run, **options: Any) -> SingleView:
    """What was done, step by step."""
    return SingleView("history", run, **options)
