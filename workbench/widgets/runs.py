"""The runs of a session: made when the state needs them, and no more of each than what an edit can change."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from workbench.activations import Run, affordable_sites, record_of, rerun, run, same_record, site_of
from workbench.figures.text import visible
from workbench.model import HookedGptOss
from workbench.provenance import held, quiet
from workbench.results import labelled
from workbench.widgets import recipes
from workbench.widgets.history import History
from workbench.widgets.jobs import Jobs
from workbench.widgets.state import EDITED, Prompt, State
from workbench.widgets.worker import Cancelled, Job, in_words

LONGEST_TOKEN = 200  # characters that are shown of one
REMEMBERED = 256  # results of one revision
QUICK = 5e10  # multiplications and additions: about a second of two cores


class Runs(Jobs):
    """The runs of a state's prompts, and of its interventions.

    Attributes:
        revision: counts the changes of what the views look at.
        warning: about what the runs are of, in words; until the next change.
        on_settled: called when all runs of a state are there.
    """

    state: State
    history: History

    def __init__(self, model: HookedGptOss, runs: Mapping[str, Run]) -> None:
        super().__init__(model)
        self.model, self.config, self.tokenizer = model, model.config, model.tokenizer
        self.on_settled: Callable[[], None] = lambda: None
        self.revision = 0
        self.warning: str | None = None
        self._errors: dict[str, str] = {}  # of runs that failed
        self._runs: dict[str, Run] = dict(runs)
        self._pending: dict[str, Job] = {}
        self._recordings: dict[str, Any] = {}
        self._memo_lock = threading.RLock()
        self._memo: OrderedDict[Hashable, Any] = OrderedDict()

    # ------------------------------------------------------------ what there is

    @property
    def names(self) -> list[str]:
        """The runs that can be looked at."""
        return [prompt.name for prompt in self.state.prompts] + ([EDITED] if self.state.specs else [])

    @property
    def running(self) -> bool:
        """Whether runs are under way that will change what the views show."""
        return bool(self._pending)

    @property
    def error(self) -> str | None:
        """Why a run is not there, in words."""
        return next((self._errors[name] for name in self.names if name in self._errors), None)

    @property
    def base(self) -> Run:
        """The unedited run of the prompt that edits act on."""
        return self.run(self.state.subject)

    @property
    def edited(self) -> Run | None:
        """The run with the interventions that are on; None without any."""
        return self.run(EDITED) if self.state.specs else None

    @property
    def shown(self) -> Run:
        """The run that the views show."""
        return self.run(self.state.shown)

    @property
    def other(self) -> Run | None:
        """The unedited run of the other prompt."""
        others = [prompt.name for prompt in self.state.prompts if prompt.name != self.state.subject]
        return self.run(others[0]) if others else None

    def run(self, name: str, newest: bool = False) -> Run:
        """A run by its name: a prompt's, or "edited".

        Args:
            newest: wait for the run of the interventions as they are now; else the newest that is finished will do.

        Raises:
            ValueError: for a name that is not there.
            Exception: what made the run fail.
        """
        with self._lock:
            if name not in self.names and name not in self._runs:
                raise ValueError(f"there is no run {name!r}; there are {', '.join(map(repr, self.names))}")
            job, done = self._pending.get(name), self._runs.get(name)
        if done is not None and (job is None or not newest):
            return done
        if job is None:
            raise ValueError(self._errors.get(name) or f"the run {name!r} was cancelled")
        try:
            return job.result()
        except Cancelled:
            return self.run(name, newest)  # a newer one took its place

    # ------------------------------------------------------------ what is read of it

    @property
    def sources(self) -> dict[str, Any]:
        """What specs may name: the prompts' unedited runs, and the vectors."""
        return self.sources_of(self.state)

    def site(self, of: Run, site: str, row: int = 0, remember: bool = True) -> np.ndarray:
        """A site's values of one row of a run, without its batch axis: kept, or computed now (a layer is run again).

        Args:
            remember: keep what was computed until the runs change; False for what is too large for that.
        """
        if site in of.cache.cache_dict:
            return of.array(site, row).values
        if not remember:
            return self._computed(of, site)[row]
        return self.memo(("site", id(of), site), lambda: self._computed(of, site))[row]

    def array(self, of: Run, site: str, row: int = 0) -> xr.DataArray:
        """:meth:`site` with named axes and tokens."""
        meta = self.model.sites[site]
        return labelled(self.site(of, site, row), meta.dims[1:], of.str_tokens(row), site, {"meaning": meta.meaning})

    def tokens(self, of: Run | None = None) -> list[str]:
        """The tokens of a run, all in them made visible."""
        of = self.shown if of is None else of
        return self.memo(("tokens", id(of)), lambda: [visible(token, LONGEST_TOKEN) for token in of.str_tokens()])

    def word(self, token: int) -> str:
        """One token of the vocabulary, made visible; its id without a tokenizer."""
        if self.tokenizer is None or not 0 <= token < self.config.d_vocab:
            return str(token)
        return visible(self.tokenizer.str_tokens([token])[0], LONGEST_TOKEN)

    def metric(self) -> tuple[int, int]:
        """The two tokens whose logits are weighed: those chosen, or the two likeliest after the unedited text."""
        if self.state.answer is not None:
            return self.state.answer
        right, wrong = self.memo("two likeliest", lambda: self.base.logits[0, -1].topk(2).indices.tolist())
        return right, wrong

    def memo(self, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once for each revision."""
        whole = (self.revision, key)
        with self._memo_lock:
            if whole in self._memo:
                self._memo.move_to_end(whole)
                return self._memo[whole]
        made = make()
        with self._memo_lock:
            self._memo[whole] = made
            while len(self._memo) > REMEMBERED:
                self._memo.popitem(last=False)
        return made

    def known(self, key: Hashable) -> bool:
        """Whether ``memo`` has this already."""
        with self._memo_lock:
            return (self.revision, key) in self._memo

    def quick(self, passes: int) -> bool:
        """Whether so many passes of the shown prompt take a moment. A still form starts no work that takes longer.

        Counted, not timed: the same model and text always get the same answer.
        """
        c = self.config
        attention = 2 * c.d_model * (c.n_heads + c.n_key_value_heads) * c.d_head
        weights = c.n_layers * (attention + 3 * c.experts_per_token * c.d_model * c.d_mlp) + c.d_vocab * c.d_model
        return 2 * weights * self.base.tokens.shape[-1] * passes < QUICK

    def row(self, prompt: Prompt) -> Any:
        """A prompt's tokens [1 pos]."""
        return self.model.as_batch(list(prompt.tokens))[0]

    def sources_of(self, state: State) -> dict[str, Any]:
        """What the specs of a state name."""
        needed: dict[str, set[str]] = {}
        for spec in state.specs:
            for source, site in spec.reads(self.config):
                needed.setdefault(source, set()).update([] if site is None else [site])
        vectors = {name: recipes.make(recipe, self.model) for name, recipe in state.vectors.items() if name in needed}
        names = [prompt.name for prompt in state.prompts if prompt.name in needed]
        return vectors | {name: self.keeping(self.run(name, newest=True), needed[name]) for name in names}

    # ------------------------------------------------------------ how it is made

    def _start(self) -> None:
        """Put the runs into the line that this state needs and that are not there."""
        self.warning = None
        for prompt in self.state.prompts:
            there = self._runs.get(prompt.name)
            if there is not None and tuple(there.tokens[0].tolist()) != prompt.tokens:
                del self._runs[prompt.name]
                self._recordings.pop(prompt.name, None)
            if prompt.name not in self._runs:
                self._begin(prompt.name, lambda prompt=prompt: self._run_prompt(prompt), f"run {prompt.name}")
        for name in set(self._runs) - {prompt.name for prompt in self.state.prompts} - {EDITED}:
            del self._runs[name]
        if self.state.specs:
            state = self.state
            self._begin(EDITED, lambda: self._run_edited(state), "run with the interventions")
        else:
            self._runs.pop(EDITED, None)
            if (job := self._pending.pop(EDITED, None)) is not None:
                job.cancel()
            self._note(None)
            self._new_revision()

    def again(self) -> None:
        """Try the runs once more that failed."""
        with self._lock:
            self._start()
        self.tell()

    def _begin(self, name: str, make: Callable[[], Run], label: str) -> None:
        entry = self.history.now.id
        self._errors.pop(name, None)

        def work(job: Job) -> Run:
            job.stop_if_cancelled()
            with held() as records:
                made = make()
            if self._arrived(name, job, made, entry):
                records.keep()  # only what becomes part of the state leaves a record
            return made

        older = self._pending.get(name)
        job = self._pending[name] = self.submit(work, label, urgent=True)
        if older is not None:
            older.cancel()
        job.future.add_done_callback(lambda _: self._ended(name, job))

    def _run_prompt(self, prompt: Prompt) -> Run:
        sites = affordable_sites(self.model, len(prompt.tokens))
        return run(self.model, self.row(prompt), sites=sites, name=prompt.name)

    def _run_edited(self, state: State) -> Run:
        base = self.run(state.subject, newest=True)
        recording = self.recording(base)
        return rerun(base, state.specs, recording=recording, sources=self.sources_of(state), name=EDITED)

    def recording(self, of: Run) -> Any:
        """What runs of this prompt go on from; made when first needed."""
        name = of.name if of.name in self._runs else self.state.subject
        if name == EDITED:
            name = self.state.subject
        if name not in self._recordings:
            self._recordings[name] = record_of(self._runs[name])
        return self._recordings[name]

    def _computed(self, of: Run, site: str) -> np.ndarray:
        sources = {} if not of.interventions else self.sources
        made = self.on_worker(lambda: site_of(of, site, self.recording(of), sources=sources), f"compute {site}")
        made = made.detach().cpu()
        return made.float().numpy() if made.is_floating_point() else made.numpy()

    def keeping(self, of: Run, sites: set[str]) -> Run:
        """A run that kept these sites: as it is, or made again for them."""
        if sites <= set(of.cache.cache_dict):
            return of

        def again() -> Run:
            with quiet():
                made = run(self.model, of.tokens, sites=sorted(sites), name=of.name)
            return same_record(made, of)

        return self.memo(("keeping", of.name, frozenset(sites)), again)

    def _arrived(self, name: str, job: Job, made: Run, entry: int) -> bool:
        with self._lock:
            if self._pending.get(name) is not job or job.cancelled:
                return False  # a newer one is under way
            self._runs[name] = made
            if name == EDITED:
                self._note(made, entry)
            self._new_revision()
            return True

    def _ended(self, name: str, job: Job) -> None:
        error = job.future.exception()
        with self._lock:
            if self._pending.get(name) is job:
                del self._pending[name]
                if error is not None and not isinstance(error, Cancelled):
                    self._failed(name, in_words(error))
            settled = not self._pending
        self.tell()
        if settled:
            self.on_settled()

    def _failed(self, name: str, why: str) -> None:
        """Nothing is shown in the place of a run that is not there: not the run of other interventions either."""
        self._errors[name] = why
        self._runs.pop(name, None)
        self._new_revision()

    def _note(self, made: Run | None, entry: int | None = None) -> None:
        if made is None or made.kl is None or entry is None:
            return
        flipped = (made.logits[0].argmax(-1) != self.base.logits[0].argmax(-1)).sum()
        self.history.note(entry, float(made.kl.mean()), int(flipped))

    def _new_revision(self) -> None:
        self.revision += 1
        with self._memo_lock:
            self._memo.clear()
