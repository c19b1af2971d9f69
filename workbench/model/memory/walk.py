"""A whole pass, layer by layer and device by device: how much is alive at its fullest moment."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from workbench.model.config import Config
from workbench.model.memory.forward import block, returned
from workbench.model.memory.ledger import Ledger, Sizes
from workbench.model.memory.sizes import PACKED_MATRICES, held_width

Heard = Mapping[str, int | None]


@dataclass(frozen=True)
class Peak:
    """The most bytes alive at once on a device, weights apart; when that is; how many are left at the end."""

    n_bytes: int
    moment: str
    left: int

    def plus(self, n_bytes: int) -> Peak:
        """With so many more from beginning to end."""
        return Peak(self.n_bytes + n_bytes, self.moment, self.left + n_bytes)


@dataclass(frozen=True)
class Backward:
    """What backward adds: whether weights get gradients, and the bytes of each kept site's gradient there."""

    weights: bool
    sites: Mapping[str, int] = field(default_factory=dict)


class Walk:
    """Goes through a pass once.

    Args:
        sizes: of the pass.
        heard: site → what keeping it takes; see :class:`Ledger`.
        graph: whether autograd saves tensors for backward; ``trains``: whether for the weights too.
        returns: the forward's ``return_type``.
        devices: where the embedding, each block and the unembedding run; by default all on one.
        visitors: bytes of weights of each of those that come to their device only while they run.
    """

    def __init__(
        self,
        sizes: Sizes,
        heard: Heard,
        graph: bool = False,
        trains: bool = True,
        returns: str | None = "logits",
        devices: tuple[str, ...] = (),
        visitors: tuple[int, ...] = (),
    ) -> None:
        self.sizes, self.graph, self.trains = sizes, graph, trains
        self.devices = devices or ("cpu",) * (sizes.config.n_layers + 2)
        self.visitors = visitors or (0,) * len(self.devices)
        self.heard = by_layer(heard)
        self.live: Counter[str] = Counter()
        self.best: dict[str, tuple[int, str]] = dict.fromkeys(self.devices, (0, ""))
        self.weight_gradients = 0
        self.done: list[Ledger] = []
        self._blocks: dict[object, tuple[Ledger, int]] = {}
        self._forward(returns)

    @property
    def peaks(self) -> dict[str, Peak]:
        return {device: Peak(*best, self.live[device]) for device, best in self.best.items()}

    @property
    def saved(self) -> int:
        """Bytes that autograd keeps for backward, on all devices."""
        return sum(ledger.saved for ledger in self.done)

    def _forward(self, returns: str | None) -> None:
        s, outer = self.sizes, self.heard.get("", {})
        turns = 2 * s.of(s.length, s.config.d_head)  # RoPE's, which all layers share
        start = self._ledger(outer)
        start.take(turns)
        stream = start.show("hook_embed", start.take(s.stream, "embedding"))
        self._went_through(start, self.devices[0], "")
        for layer, (before, device) in enumerate(pairwise(self.devices[:-1])):
            if before != device:
                self.live[before] -= stream
                self.live[device] += s.stream
                stream = s.stream
            ledger, stream = self._block(layer, stream)
            self._went_through(ledger, device, f" in layer {layer}")
        self.live[self.devices[0]] -= turns
        end = self._ledger(outer)
        returned(end, s, returns, stream)
        self._went_through(end, self.devices[-1], "")

    def _ledger(self, heard: Heard) -> Ledger:
        return Ledger(heard, self.graph, self.graph and self.trains)

    def _block(self, layer: int, stream: int) -> tuple[Ledger, int]:
        window, heard = self.sizes.config.window(layer), self.heard.get(str(layer), {})
        key = (window, stream, tuple(heard.items()))
        if key not in self._blocks:
            ledger = self._ledger(heard)
            self._blocks[key] = ledger, block(ledger, self.sizes, window, stream)
        return self._blocks[key]

    def _went_through(self, ledger: Ledger, device: str, where: str) -> None:
        self._see(device, ledger.peak + self.visitors[len(self.done)], ledger.moment + where)
        self.live[device] += ledger.live
        self.done.append(ledger)

    def _see(self, device: str, n_bytes: int, moment: str) -> None:
        if self.live[device] + n_bytes > self.best[device][0]:
            self.best[device] = self.live[device] + n_bytes, moment

    def backward(self, what: Backward) -> None:
        """Go back through it: each layer lets go of what was saved, and leaves the gradients of its weights and sites.

        While it does so it makes tensors as large as forward's, and dense experts' gradients twice: first one by one,
        then joined.
        """
        s, gradients = self.sizes, by_layer(what.sites)
        names = ["", *map(str, range(s.config.n_layers)), "end"]
        for name, device, ledger in reversed(list(zip(names, self.devices, self.done, strict=True))):
            of_weights = weight_bytes(s.config, s.dtype, s.packed, name) if what.weights else 0
            self.weight_gradients += of_weights
            made = sum(n or 0 for n in gradients.get(name, {}).values()) + of_weights
            passing = self._passing(int(name)) if name.isdecimal() else 0
            if what.weights and not s.packed and name.isdecimal():
                passing = max(passing, s.of(s.config.n_experts, 2 * s.config.d_mlp, s.config.d_model))
            self._see(device, made + passing - (ledger.saved if name.isdecimal() else 0), "backward")
            self.live[device] += made - ledger.saved

    def _passing(self, layer: int) -> int:
        """What a forward of this layer makes and lets go."""
        window, heard = self.sizes.config.window(layer), self.heard.get(str(layer), {})
        key = ("passing", window, tuple(heard))
        if key not in self._blocks:
            ledger = Ledger(dict.fromkeys(heard, 0))
            self._blocks[key] = ledger, block(ledger, self.sizes, window, 0)
        return self._blocks[key][0].peak


def by_layer(values: Mapping[str, int | None]) -> dict[str, dict[str, int | None]]:
    """ "blocks.3.attn.hook_z" → under "3", as "attn.hook_z"; what is in no block under ""."""
    layers: dict[str, dict[str, int | None]] = {}
    for (layer, site), value in zip(_split(tuple(values)), values.values(), strict=True):
        layers.setdefault(layer, {})[site] = value
    return layers


@lru_cache(maxsize=8)
def _split(names: tuple[str, ...]) -> list[tuple[str, str]]:
    """Layer and the site's name there; most runs ask for the same sites as the one before."""
    return [tuple(n.split(".", 2)[1:]) if n.startswith("blocks.") else ("", n) for n in names]  # pyright: ignore[reportReturnType]


@lru_cache(maxsize=64)
def weight_bytes(config: Config, dtype: str, packed: bool, part: str) -> int:
    """Bytes of the parameters of a block, or of the embedding (""), or of the unembedding and the last norm ("end")."""
    if part.isdecimal():
        shapes = config.layer_shapes()
    else:
        outer = {"": ("embed.weight",), "end": ("ln_final.w", "unembed.weight")}[part]
        shapes = {name: shape for name, shape in config.shapes().items() if name in outer}
    return sum(
        math.prod(shape) * held_width(name, dtype)
        for name, shape in shapes.items()
        if not (packed and name.endswith(PACKED_MATRICES))
    )
