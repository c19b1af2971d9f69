"""Counting bytes through a forward: a ledger of what is alive, and the sizes of a pass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from workbench.model.config import Config
from workbench.model.memory.sizes import WIDE, width


@dataclass
class Ledger:
    """Bytes alive, and the most that were alive at once, in one stretch of the forward.

    Attributes:
        listened: site → what keeping it takes beside the tensor itself: None where that very tensor is kept, the bytes
            of a slice that is kept in its place, 0 where a copy goes to another device or nothing is kept.
        graph: whether tensors that autograd saves for backward stay.
        trains: whether weights want gradients too: then also what they were multiplied with stays.
    """

    listened: Mapping[str, int | None] = field(default_factory=dict)
    graph: bool = False
    trains: bool = False
    live: int = 0
    saved: int = 0
    peak: int = 0
    moment: str = ""

    def take(self, n_bytes: int, moment: str = "") -> int:
        """New tensors of so many bytes; gives the number back, for :meth:`drop`."""
        self.live += n_bytes
        if self.live > self.peak:
            self.peak, self.moment = self.live, moment
        return n_bytes

    def drop(self, n_bytes: int, saved: bool = False) -> None:
        """Tensors that nothing refers to any more, unless autograd has ``saved`` them."""
        if saved and self.graph:
            self.saved += n_bytes
        else:
            self.live -= n_bytes

    def save(self, n_bytes: int) -> None:
        """Tensors that only autograd asked for."""
        if self.graph:
            self.saved += self.take(n_bytes)

    def pass_by(self, n_bytes: int, moment: str = "") -> None:
        """Tensors that live for one expression."""
        self.drop(self.take(n_bytes, moment))

    def show(self, site: str, n_bytes: int) -> int:
        """A tensor passes a site; what is to be dropped when the forward is done with it."""
        if site not in self.listened:
            return n_bytes
        extra = self.listened[site]
        return 0 if extra is None else n_bytes + 0 * self.take(extra)

    def show_apart(self, site: str, n_bytes: int) -> int:
        """A site that gets a copy where somebody listens; what is to be dropped of the copy."""
        return self.show(site, self.take(n_bytes)) if site in self.listened else 0


@dataclass(frozen=True)
class Sizes:
    """Bytes of the tensors of a pass. ``half``: the stream is narrower than float32, where norms are worked out.
    ``last_logits``: only each row's last token is unembedded.
    """

    config: Config
    batch: int
    length: int
    past: int
    dtype: str
    packed: bool
    device: str = "cpu"
    last_logits: bool = False

    @property
    def tokens(self) -> int:
        return self.batch * self.length

    @property
    def unembedded(self) -> int:
        return self.batch if self.last_logits else self.tokens

    @property
    def half(self) -> bool:
        return width(self.dtype) < WIDE

    @property
    def stream(self) -> int:
        return self.of(self.tokens, self.config.d_model)

    def of(self, *axes: int) -> int:
        n = width(self.dtype)
        for axis in axes:
            n *= axis
        return n

    def wide(self, *axes: int) -> int:
        """In float32 at least."""
        return self.of(*axes) * (2 if self.half else 1)
