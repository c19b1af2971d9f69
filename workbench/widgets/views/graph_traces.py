"""Graphs that were traced, as far as they are known, and the work that finds them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import xarray as xr

from workbench.experiments.graphs.trace import Trace
from workbench.widgets.session import Session
from workbench.widgets.views.graph_arrays import Arrays, arrays_of, checked, summary
from workbench.widgets.views.graph_study import Study
from workbench.widgets.views.work import Kept
from workbench.widgets.worker import Job

REMEMBERED = 8  # traces
LARGEST = 256_000_000  # bytes of a held run that is kept for more questions
Edges = Sequence[tuple[str, str]]
_numbers = itertools.count(1)


class Traced:
    """One trace, and what it shows with each number of nodes.

    Attributes:
        asked: edges that were confirmed by name, beside the strongest.
        confirmed: how many of the strongest were asked for.
    """

    def __init__(self, study: Study) -> None:
        self.id, self.study = next(_numbers), study
        self.trace: Trace | None = None
        self.confirmed, self.asked = 0, list[tuple[str, str]]()
        self._known: dict[int, tuple[xr.Dataset, Arrays]] = {}
        self._lock = threading.Lock()

    def known(self, n_nodes: int) -> tuple[xr.Dataset, Arrays] | None:
        """The dataset with so many nodes, and its arrays; None where it was not made."""
        with self._lock:
            return self._known.get(n_nodes)

    def note(self, n_nodes: int, words: str) -> None:
        """Take down what the trace knows now."""
        assert self.trace is not None
        data = self.trace.dataset()
        data.attrs["target"] = words
        with self._lock:
            old = self._known.get(n_nodes)
            self._known[n_nodes] = data, arrays_of(data) if old is None else old[1]


class Traces:
    """Those of one session."""

    def __init__(self, session: Session, view: str) -> None:
        self.session, self.view = session, view
        self._all = Kept[Any, Traced](REMEMBERED)
        self._newest: tuple[Any, Job] | None = None
        self._lock = threading.Lock()

    def of(self, study: Study) -> Traced:
        """The trace of a study, begun or not."""
        return self._all.of(study.key, lambda: Traced(study))

    def known(self, study: Study) -> tuple[xr.Dataset, Arrays] | None:
        """What is there of a study."""
        return self.of(study).known(study.n_nodes)

    # ------------------------------------------------------------ long work

    def start(self, study: Study, confirm: int) -> Job:
        """Trace it, and confirm its strongest edges."""
        return self._submit(f"trace {study.words(self.session)}", study, confirm, ())

    def confirm(self, study: Study, confirm: int, edges: Edges = ()) -> Job:
        """Confirm so many of the strongest edges, or the named ones."""
        one = f"{edges[0][0]} → {edges[0][1]}" if len(edges) == 1 else f"{len(edges) or confirm} edges"
        return self._submit(f"confirm {one}", study, confirm, edges)

    def _submit(self, label: str, study: Study, confirm: int, edges: Edges) -> Job:
        asked = (study, confirm, tuple(edges))
        with self._lock:
            before, newest = self._newest or (None, None)
            if newest is not None and before == asked and not newest.future.done() and not newest.cancelled:
                return newest
            job = self.session.submit(
                lambda job: self._work(job, study, confirm, edges),
                label,
                view=self.view,
                replaces="graph",
                resumable=lambda: self._submit(label, study, confirm, edges),
            )
            self._newest = asked, job
            return job

    def _work(self, job: Job, study: Study, confirm: int, edges: Edges) -> None:
        traced, words = self.of(study), study.words(self.session)
        trace = traced.trace
        if trace is None:
            step = self._step(job)
            tokens = list(study.tokens)
            trace = Trace(self.session.model, tokens, study.target, study.n_nodes, on_step=step)
            traced.trace = trace
        elif len(trace.kept.nodes) != study.n_nodes or traced.known(study.n_nodes) is None:
            trace.prune(study.n_nodes)
        traced.note(study.n_nodes, words)
        self._tell("traced", traced, study)
        traced.confirmed = max(traced.confirmed, confirm)
        traced.asked = list(dict.fromkeys([*traced.asked, *edges]))
        try:
            for wanted in (traced.confirmed, traced.asked):
                if wanted:
                    trace.confirm(self._there(trace, wanted), self._step(job, lambda: self._noted(traced, study)))
        finally:
            self._noted(traced, study, now=True)
            self._let_go(traced)
        job.resumable = None  # it came to its end

    def _there(self, trace: Trace, wanted: Any) -> Any:
        """Edges by name that are between the nodes that are kept now."""
        if isinstance(wanted, int):
            return wanted
        names = {str(name) for name in trace.kept.coords()["source"][1]}
        return [pair for pair in wanted if set(pair) <= names]

    def _step(self, job: Job, then: Callable[[], None] | None = None) -> Callable[[int, int], None]:
        def step(done: int, total: int) -> None:
            job.report(done, total)
            if then is not None:
                then()
            job.breathe()
            job.stop_if_cancelled()

        return step

    def _noted(self, traced: Traced, study: Study, now: bool = False) -> None:
        traced.note(study.n_nodes, study.words(self.session))
        self._tell("checked", traced, study)
        if now:
            self.session.flush(self.view, "checked")

    def _tell(self, key: str, traced: Traced, study: Study) -> None:
        known = traced.known(study.n_nodes)
        assert known is not None
        about = {"id": traced.id, "n_nodes": study.n_nodes, **summary(known[0])}
        self.session.stream(self.view, key, about, checked(*known))
        if key == "traced":
            self.session.flush(self.view, key)

    def _let_go(self, newest: Traced) -> None:
        """Only the newest held run stays, and only a small one."""
        for traced in self._all.all():
            if traced is not newest and traced.trace is not None:
                traced.trace.release()
        if newest.trace is not None and newest.trace.cost.n_bytes > LARGEST:
            newest.trace.release()
