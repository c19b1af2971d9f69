"""What the logit lens reads of one run, or of two: a grid of tokens and layers that fills block by block."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

import numpy as np
import xarray as xr

from workbench.activations import Run
from workbench.experiments.lenses.lens_difference import MEANING, numbers_apart, partners
from workbench.experiments.lenses.logit_lens import EMBEDDING, lens_logits, lens_numbers, single_target
from workbench.experiments.rows import numpy, provenance, row_coords
from workbench.experiments.texts import token_texts as texts_of
from workbench.widgets.worker import Job

CHUNK = 64  # positions of one block: at 20b's size about half a second
AT_ONCE = 3e9  # multiplications of a grid that is read while one waits for it
NUMBERS = ("top_id", "top_probability", "target_probability", "target_rank", "entropy", "kl")


class Grid:
    """The numbers of ``experiments.logit_lens`` (of one run) or ``lens_difference`` (of two), by position and stage.

    Stage 0 is the embedding, stage n the stream after layer n − 1. What is not read yet is NaN, or −1 for an id.

    Attributes:
        numbers: name → [pos stage].
        targets: [pos] the token that is followed.
        partner: [pos] the position in the other run, −1 without one; None with one run.
        job: reads it, where that takes long.
        key: what it was made for.
    """

    def __init__(self, run: Run, other: Run | None, target: int | None) -> None:
        self._run, self._other = ref(run), None if other is None else ref(other)
        n, self.n_stages = run.tokens.shape[1], run.model.config.n_layers + 1
        self.key = key_of(run, other, target)
        self.targets = single_target(run.model, target, run.logits[0])
        self.partner = None if other is None else partners(run.tokens[0].tolist(), other.tokens[0].tolist())
        self.numbers = {name: _empty(name, n, self.n_stages) for name in (NUMBERS if other is None else MEANING)}
        self.job: Job | None = None
        self._todo, self._filling = _blocks(n, self.n_stages), threading.Lock()
        self.total = len(self._todo)
        sizes = run.model.config
        self.cost = n * self.n_stages * sizes.d_model * sizes.d_vocab * (1 if other is None else 2)

    @property
    def done(self) -> int:
        """Blocks that are read."""
        return self.total - len(self._todo)

    @property
    def is_whole(self) -> bool:
        """Whether nothing is missing."""
        return not self._todo

    def is_of(self, run: Run, other: Run | None) -> bool:
        """Whether it is of these very runs: another run may have got the id of one that is gone."""
        return self._run() is run and (self._other() if self._other else None) is other

    def prefer(self, position: int | None) -> None:
        """Read what is near a position first; None: from the beginning."""
        near = 0 if position is None else position
        # A new list: fill() may be reading the old one. A block that comes back in between is read twice, no harm.
        self._todo = sorted(self._todo, key=lambda block: max(block[1] - near, near - block[2] + 1, 0))

    def fill(self, job: Job | None = None, told: Callable[[], None] = lambda: None) -> None:
        """Read what is missing, until the job is cancelled.

        Raises:
            ValueError: when the run is gone.
        """
        run, other = self._runs()
        with self._filling:
            while self._todo:
                if job is not None and job.cancelled:
                    return
                block = self._todo[0]
                self._read(*block, run, other)
                self._todo.remove(block)
                if job is not None:
                    job.report(self.done, self.total)
                    told()
                    job.breathe()

    def dataset(self) -> xr.Dataset:
        """As the experiments give it, with the likeliest token of each cell alone."""
        run, other = self._runs()
        layers = np.arange(EMBEDDING, self.n_stages - 1)
        stages = ["embedding", *(f"layer {layer}" for layer in layers[1:])]
        coords = row_coords(run, 0) | {"layer": layers, "stage": ("layer", stages)}
        dims = ("pos", "layer")
        variables: dict[str, Any] = {name: (dims, values) for name, values in self.numbers.items()}
        variables["target_token"] = ("pos", texts_of(run.model, numpy(self.targets)))
        variables["top_token"] = (dims, texts_of(run.model, self.numbers["top_id"]))
        if other is not None:
            variables["other_token"] = (dims, texts_of(run.model, self.numbers["other_id"]))
            variables["other_pos"] = ("pos", self.partner)
        made = xr.Dataset(variables, coords, provenance(run, "logit_lens" if other is None else "lens_difference", 0))
        if other is not None:
            return made.assign_attrs(other=other.name or "other")
        top = {name: made[name].expand_dims(rank=[1], axis=-1) for name in ("top_id", "top_token", "top_probability")}
        return made.assign(top)

    def _runs(self) -> tuple[Run, Run | None]:
        run, other = self._run(), self._other() if self._other else None
        if run is None or (self._other and other is None):
            raise ValueError("the run that this lens was reading is gone; open the view again")
        return run, other

    def _read(self, stage: int, start: int, stop: int, run: Run, other: Run | None) -> None:
        """One block: a layer's stream at some positions."""
        layer, columns = stage + EMBEDDING, run.tokens.new_tensor(range(start, stop))
        if other is None:
            found = lens_numbers(lens_logits(run, 0, columns, layer), run.logits[0, columns], self.targets[columns], 1)
            found |= {name: found[name][:, 0] for name in ("top_id", "top_probability")}
        else:
            assert self.partner is not None
            paired = start + np.flatnonzero(self.partner[start:stop] >= 0)
            if not len(paired):
                return
            columns, theirs = run.tokens.new_tensor(paired), other.tokens.new_tensor(self.partner[paired])
            logits = (lens_logits(run, 0, columns, layer), lens_logits(other, 0, theirs, layer))
            found = numbers_apart(*logits, self.targets[columns])
        where = numpy(columns)
        for name, values in self.numbers.items():
            values[where, stage] = numpy(found[name])


def key_of(run: Run, other: Run | None, target: int | None) -> tuple[int, int, int | None]:
    """What a grid is remembered by."""
    return id(run), 0 if other is None else id(other), target


def _empty(name: str, n: int, stages: int) -> np.ndarray:
    if name.endswith("_id"):
        return np.full((n, stages), -1, np.int32)
    return np.full((n, stages), np.nan, np.float32)


def _blocks(n: int, stages: int) -> list[tuple[int, int, int]]:
    """(stage, start, stop): chunk by chunk, in each the last layer first."""
    starts = range(0, n, CHUNK)
    return [(stage, start, min(start + CHUNK, n)) for start in starts for stage in reversed(range(stages))]
