"""What one run is asked to do, and what that takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from workbench.model.config import Config
from workbench.model.memory.ledger import Sizes
from workbench.model.memory.sizes import WIDE, Axes, SiteSizes, kv_cache_bytes, width
from workbench.model.memory.walk import Backward, Peak, Walk
from workbench.model.sites import BLOCK, Sites


@dataclass(frozen=True)
class Asked:
    """A run, as far as memory is concerned.

    Attributes:
        names: the sites that are kept.
        heard: further sites that somebody listens to, and keeps nothing of.
        positions: how many positions of each site are kept (pos_slice); None for all.
        keep_on: the device that kept sites are copied to; None where they stay where they were made.
        graph: whether autograd saves tensors for backward; ``trains``: whether for the weights' gradients too.
        backward: whether backward is run, and the gradient of each kept site kept.
        returns: the forward's ``return_type``.
        last_logits: whether ``logits_at="last"``.
        compared: whether an unedited run follows, whose predictions are compared with this one's (``wb.run``).
        past: tokens in the KV cache that is given; ``cache``: whether there is one.
        devices: where the embedding, each block and the unembedding run.
        visitors: bytes of weights of each of those that come to their device only while they run.
    """

    config: Config
    batch: int
    length: int
    dtype: str
    packed: bool
    names: tuple[str, ...] = ()
    heard: tuple[str, ...] = ()
    positions: int | None = None
    keep_on: str | None = None
    graph: bool = False
    trains: bool = True
    backward: bool = False
    returns: str | None = "logits"
    last_logits: bool = False
    compared: bool = False
    past: int = 0
    cache: bool = False
    devices: tuple[str, ...] = ()
    visitors: tuple[int, ...] = ()

    @property
    def places(self) -> tuple[str, ...]:
        """The device of the embedding, each block and the unembedding."""
        return self.devices or ("cpu",) * (self.config.n_layers + 2)

    @cached_property
    def kept(self) -> dict[str, int]:
        """Site → bytes of what is kept of it."""
        sites = sites_of(self.config.n_layers)
        axes = Axes(self.config, self.batch, self.length, self.past, self.positions)
        return SiteSizes(axes, self.dtype).of(map(sites.__getitem__, self.names))

    @cached_property
    def gradients(self) -> dict[str, int]:
        """Site → bytes of its gradient, where that is kept."""
        sites = sites_of(self.config.n_layers)
        return {name: n for name, n in self.kept.items() if not sites[name].is_integer} if self.backward else {}

    @cached_property
    def kv_cache(self) -> int:
        tokens = self.past + self.length
        return kv_cache_bytes(self.config, self.batch, tokens, self.dtype) if self.cache else 0

    @cached_property
    def walk(self) -> Walk:
        """The walk through this run."""
        kind = self.places[-1].partition(":")[0]
        sizes = Sizes(self.config, self.batch, self.length, self.past, self.dtype, self.packed, kind, self.last_logits)
        walk = Walk(sizes, self._heard(), self.graph, self.trains, self.returns, self.places, self.visitors)
        if self.backward:
            walk.backward(Backward(self.trains, dict.fromkeys(self.gradients, 0) if self.keep_on else self.gradients))
        return walk

    def _heard(self) -> Mapping[str, int | None]:
        others = dict.fromkeys(self.heard, 0)
        if self.keep_on is not None:
            return others | dict.fromkeys(self.names, 0)
        return others | (dict.fromkeys(self.names) if self.positions is None else self.kept)

    @cached_property
    def peaks(self) -> dict[str, Peak]:
        """Device → the most bytes that the run adds there at once: all but weights, a KV cache that grows included."""
        peaks = dict(self.walk.peaks)
        grown = self.kv_cache - (kv_cache_bytes(self.config, self.batch, self.past, self.dtype) if self.past else 0)
        last = self.places[-1]
        if self.compared:
            # Two logits, two log-probabilities of them, and three steps on the way to their divergence.
            n = self.batch * self.length * self.config.d_vocab
            second = peaks[last].left + n * width(self.dtype) + 5 * n * max(width(self.dtype), WIDE)
            if second > peaks[last].n_bytes:
                peaks[last] = Peak(second, "comparison with the unedited run", second)
        peaks[last] = peaks[last].plus(grown)
        if self.keep_on is not None:
            here = peaks.get(self.keep_on, Peak(0, "kept sites", 0))
            peaks[self.keep_on] = here.plus(sum(self.kept.values()) + sum(self.gradients.values()))
        return peaks


@lru_cache(maxsize=8)
def sites_of(n_layers: int) -> Sites:
    """The sites of a model with so many layers."""
    return Sites(n_layers)


def at_most(config: Config, batch: int, length: int, past: int, dtype: str) -> int:
    """A number of bytes that no run of this size exceeds, gradients of activations included: some products."""
    per_token, per_pair = _numbers(config)
    tokens, keys = batch * length, past + length
    return 4 * width(dtype) * tokens * (per_token + keys * per_pair)


@lru_cache(maxsize=8)
def _numbers(config: Config) -> tuple[int, int]:
    """Numbers of all sites and the logits for one token, and for one token and key."""
    sizes = Axes(config, 1, 1).sizes()
    pairs = sum("key_pos" in dims for dims, _ in BLOCK.values()) * config.n_heads * config.n_layers
    numbers = 0
    for dims, _ in BLOCK.values():
        n = 1
        for dim in dims:
            n *= sizes[dim]
        numbers += 2 * n  # float32 for the norms' sites, int64 for the routes'
    return 2 * numbers * config.n_layers + 4 * config.d_vocab, 4 * pairs
