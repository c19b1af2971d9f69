"""Where a session's patterns come from, and what of them is remembered: little, for those of a long text are large."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from workbench import experiments
from workbench.activations import Run
from workbench.experiments.rows import with_sites
from workbench.widgets.session import Session
from workbench.widgets.views.attention_reduce import (
    THUMB,
    ZOOM,
    as_bytes,
    block_size,
    change_bytes,
    largest,
    strongest,
)

KINDS = ("previous_token", "duplicate_token", "induction", "sink")
QUICK = 2**22  # cells of a layer's patterns, of which a summary takes no time to speak of
REMEMBERED = 160_000_000  # bytes, of heads and of blocks of whole layers
SITES = ("hook_pattern", "hook_sink")


@dataclass(frozen=True)
class Summary:
    """A layer's heads, each as a thumbnail and four numbers.

    Attributes:
        thumbs: bytes, see attention_reduce.
        scores: (kind, head) of KINDS; NaN where no query has such a place.
        limit: the change that the ends of the scale stand for; None where the thumbnails show attention itself.
    """

    thumbs: UInt8[np.ndarray, "head row col"]
    scores: Float[np.ndarray, "kind head"]
    limit: float | None = None


class Patterns:
    """Reads patterns. What a run did not keep is worked out for one layer at a time, made small, and let go of."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self._small, self._large = Remembered(REMEMBERED), Remembered(REMEMBERED)
        self._one = threading.Lock()

    def keeps(self, run: Run) -> bool:
        """Whether a run kept all its patterns."""
        layers = range(self.session.config.n_layers)
        return all(name in run.cache.cache_dict for layer in layers for name in names(layer))

    def known(self, run: Run, layer: int, before: Run | None = None) -> bool:
        """Whether a layer's summary can be had at once."""
        cells = self.session.config.n_heads * run.tokens.shape[1] ** 2
        quick = cells <= QUICK and self.keeps(run) and (before is None or self.keeps(before))
        return quick or self._small.has(run, _key(layer, before))

    def cheap(self, run: Run, layer: int, head: int, before: Run | None = None) -> bool:
        """Whether a layer and one head of it can be drawn without running the model."""
        if self.keeps(run) and (before is None or self.keeps(before)):
            return True
        if before is None:
            return self._small.has(run, _key(layer, None)) and self.has_blocks(run, layer, head)
        heads = all(self.has_head(of, layer, head) for of in (run, before))
        return heads and self._small.has(run, _key(layer, before))

    def has_head(self, run: Run, layer: int, head: int) -> bool:
        """Whether one head's whole pattern can be had without running the model."""
        return _kept(run, layer) or self._large.has(run, (layer, head))

    def has_blocks(self, run: Run, layer: int, head: int) -> bool:
        """The same of its blocks."""
        return self.has_head(run, layer, head) or self._large.has(run, ("blocks", layer))

    def summary(self, run: Run, layer: int, before: Run | None = None) -> Summary:
        """A layer's heads; how they changed, with the run ``before``."""
        if before is not None:
            make = lambda: self._alone(run, lambda: self._changed(run, layer, before))  # noqa: E731
        else:
            make = lambda: self._worked_out(run, layer)[0]  # noqa: E731
        return self._small.get(run, _key(layer, before), make)

    def head(self, run: Run, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        """One head's pattern (query, key) and sink (query)."""
        if _kept(run, layer):
            pattern = self._pattern(run, layer)[head]
        else:
            make = lambda: self._alone(run, lambda: np.array(self._pattern(run, layer)[head]))  # noqa: E731
            pattern = self._large.get(run, (layer, head), make)
        return pattern, self.sink(run, layer)[:, head]

    def blocks(self, run: Run, layer: int, head: int) -> np.ndarray:
        """One head's pattern in at most ZOOM × ZOOM blocks; of a layer that must be worked out, with all its heads."""
        block = block_size(run.tokens.shape[1], ZOOM)
        if block == 1 or _kept(run, layer) or self._large.has(run, (layer, head)):
            return largest(self.head(run, layer, head)[0], block)
        coarse = self._large.get(run, ("blocks", layer), lambda: self._worked_out(run, layer)[1])
        return coarse[head] / np.float32(65535)

    # ------------------------------------------------------------ inside

    def _pattern(self, run: Run, layer: int) -> np.ndarray:
        """A layer's patterns (head, query, key): whoever calls this must soon let go of them."""
        return _values(run, names(layer)[0], lambda site: self.session.site(run, site, remember=False))

    def sink(self, run: Run, layer: int) -> np.ndarray:
        return _values(run, names(layer)[1], lambda site: self.session.site(run, site))

    def _alone(self, run: Run, work: Callable[[], Any]) -> Any:
        """Work on a layer that must be worked out: one at a time, so that only one is in memory."""
        if self.session.worker.here or self.keeps(run):
            return work()  # the worker does one thing at a time; it must not wait for one who waits for it
        with self._one:
            return work()

    def _worked_out(self, run: Run, layer: int) -> tuple[Summary, np.ndarray | None]:
        """A layer's summary, and of a long text that kept no patterns its blocks: both of one pass, both remembered."""
        if _kept(run, layer):
            return self._summed(run, layer, self._pattern(run, layer)), None

        def work() -> tuple[Summary, np.ndarray | None]:
            summary, blocks = self._small.find(run, _key(layer, None)), self._large.find(run, ("blocks", layer))
            if summary is not None and blocks is not None:
                return summary, blocks  # another reader has made them meanwhile
            patterns = self._pattern(run, layer)
            blocks = self._large.get(run, ("blocks", layer), lambda: _coarse(patterns))
            return self._small.get(run, _key(layer, None), lambda: self._summed(run, layer, patterns)), blocks

        return self._alone(run, work)

    def _summed(self, run: Run, layer: int, patterns: np.ndarray) -> Summary:
        block = block_size(patterns.shape[-1], THUMB)
        thumbs = np.stack([as_bytes(largest(head, block)) for head in patterns])
        return Summary(thumbs, self._scores(run, layer, patterns))

    def _changed(self, run: Run, layer: int, before: Run) -> Summary:
        after, earlier = self._pattern(run, layer), self._pattern(before, layer)
        block = block_size(after.shape[-1], THUMB)
        change = np.stack([strongest(new - old, block) for new, old in zip(after, earlier, strict=True)])
        limit = float(np.nanmax(np.abs(change), initial=0.0))
        return Summary(change_bytes(change, limit), self._scores(run, layer, after), limit)

    def _scores(self, run: Run, layer: int, patterns: np.ndarray) -> Float[np.ndarray, "kind head"]:
        """What each head of a layer does on this text, by KINDS."""
        if not _kept(run, layer):
            run = with_sites(run, dict(zip(names(layer), (patterns[None], self.sink(run, layer)[None]), strict=True)))
        found = experiments.head_matches(run, layers=[layer]).isel(layer=0)
        parts = [*(found["mean"].sel(kind=kind).values for kind in KINDS[:-1]), found.sink.values]
        return np.stack(parts).astype(np.float32)


def names(layer: int) -> tuple[str, str]:
    """The sites of a layer's pattern and of its sinks."""
    return f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.attn.hook_sink"


def _kept(run: Run, layer: int) -> bool:
    return names(layer)[0] in run.cache.cache_dict


def _values(run: Run, site: str, otherwise: Callable[[str], np.ndarray]) -> np.ndarray:
    """A site's numbers as the run kept them, not copied where that can be."""
    kept = run.cache.cache_dict.get(site)
    return otherwise(site) if kept is None else kept[0].detach().float().cpu().numpy()


def _key(layer: int, before: Run | None) -> tuple[Any, ...]:
    return ("summary", layer) if before is None else ("change", layer, id(before))


def _coarse(patterns: np.ndarray) -> np.ndarray:
    """Blocks of all heads, to 1/65535."""
    block = block_size(patterns.shape[-1], ZOOM)
    return np.stack([np.rint(np.nan_to_num(largest(head, block)) * 65535).astype(np.uint16) for head in patterns])


class Remembered:
    """What was made of a run, as long as the run lives and there is room; the longest unused goes first."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._there: OrderedDict[Hashable, tuple[weakref.ref[Any], Any, int]] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, run: Run, key: Hashable) -> Any:
        """It, or None."""
        with self._lock:
            return self._find(run, key)

    def has(self, run: Run, key: Hashable) -> bool:
        """Whether it is there."""
        return self.find(run, key) is not None

    def get(self, run: Run, key: Hashable, make: Callable[[], Any]) -> Any:
        """What ``make`` gives, made once."""
        with self._lock:
            if (found := self._find(run, key)) is not None:
                self._there.move_to_end((id(run), key))
                return found
        made = make()
        with self._lock:
            self._there[id(run), key] = (weakref.ref(run), made, _size(made))
            self._tidy()
        return made

    def _find(self, run: Run, key: Hashable) -> Any:
        of, made, _ = self._there.get((id(run), key), (None, None, 0))
        return made if of is not None and of() is run else None

    def _tidy(self) -> None:
        for whole in [whole for whole, (of, *_) in self._there.items() if of() is None]:
            del self._there[whole]
        total = sum(size for *_, size in self._there.values())
        while total > self._most and len(self._there) > 1:
            total -= self._there.popitem(last=False)[1][2]


def _size(made: Any) -> int:
    if isinstance(made, Summary):
        return made.thumbs.nbytes + made.scores.nbytes
    return int(getattr(made, "nbytes", 0))
