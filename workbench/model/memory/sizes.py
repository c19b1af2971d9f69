"""Exact bytes of what stays: weights, kept sites, the KV cache. Plain arithmetic on a Config; nothing is allocated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from workbench.model.config import Config
from workbench.model.mxfp4 import BLOCK, BYTES_PER_BLOCK
from workbench.model.sites import Site

WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4, "float64": 8}  # bytes of one number
WIDE = 4  # norms and routing tables of half-precision models are worked out in float32
INDEX = 8  # torch counts in int64
PACKED_MATRICES = ("mlp.experts.W_gate_up", "mlp.experts.W_down")
_NORM_SITES = ("hook_scale", "hook_normalized")


@dataclass(frozen=True)
class Weights:
    """Bytes of a model's parameters and buffers.

    Attributes:
        private: memory that only this process has and that only ending it gives back.
        mapped: pages of the checkpoint's files. The system reads them when they are used and drops them when memory
            is short, so they need no room, only speed does: with all of them in memory nothing is read twice.
        on_disk: bytes of the checkpoint's tensors; None where there is no checkpoint to speak of.
        by_device: (device, bytes) of each device that holds some.
    """

    private: int
    mapped: int
    on_disk: int | None
    by_device: tuple[tuple[str, int], ...]

    @property
    def total(self) -> int:
        return self.private + self.mapped


def width(dtype: str) -> int:
    """Bytes of one number.

    Raises:
        ValueError: for a dtype that a model cannot have.
    """
    if dtype not in WIDTHS:
        raise ValueError(f"dtype={dtype!r}: expected one of {list(WIDTHS)}")
    return WIDTHS[dtype]


def held_width(name: str, dtype: str) -> int:
    """Bytes of one number of a parameter: norm gains are float32 in any dtype."""
    return WIDE if name.endswith(".w") else width(dtype)


@lru_cache(maxsize=32)
def weights_of(config: Config, dtype: str, experts: str, device: str = "cpu") -> Weights:
    """What ``wb.load`` of a checkpoint with this config will hold: private memory, and pages of its files.

    A tensor that is stored as it is used (the config's dtype, MXFP4 for packed experts) is mapped on the CPU; what is
    cast, unpacked or sent to another device is memory of its own. Norm gains are float32 in any dtype.
    """
    private = mapped = on_disk = 0
    for name, shape in config.shapes().items():
        numbers = math.prod(shape)
        is_matrix, held = name.endswith(PACKED_MATRICES), held_width(name, dtype)
        if is_matrix and experts == "packed":
            n_bytes = packed_bytes(numbers)
            on_disk, mapped = on_disk + n_bytes, mapped + n_bytes
            continue
        on_disk += numbers * width(config.dtype)
        # float16 and bfloat16 are as wide as each other and not the same; norm gains are kept as float32 alone.
        as_stored = config.dtype == ("float32" if name.endswith(".w") else dtype)
        if as_stored and not is_matrix:
            mapped += numbers * held
        else:
            private += numbers * held
    if device != "cpu":
        private, mapped = private + mapped, 0
    return Weights(private, mapped, on_disk, ((device, private + mapped),))


def packed_bytes(numbers: int) -> int:
    """MXFP4: 16 bytes and one scale for each 32 numbers."""
    return numbers // BLOCK * (BYTES_PER_BLOCK + 1)


@dataclass(frozen=True)
class Axes:
    """The size of every named axis of a pass: the key to the dims in ``model.sites``.

    ``past`` tokens are in a KV cache already; ``kept`` of the ``length`` positions are kept (``pos_slice``).
    """

    config: Config
    batch: int
    length: int
    past: int = 0
    kept: int | None = None

    def sizes(self, kept: bool = True) -> dict[str, int]:
        """Name of an axis → its size; with ``kept`` as the cache stores it, else as the site sees it."""
        c = self.config
        pos = self.length if self.kept is None or not kept else self.kept
        return {
            "batch": self.batch,
            "pos": pos,
            "query_pos": pos,
            "key_pos": self.past + self.length,
            "head": c.n_heads,
            "kv_head": c.n_key_value_heads,
            "d_head": c.d_head,
            "d_model": c.d_model,
            "d_mlp": c.d_mlp,
            "expert": c.n_experts,
            "slot": c.experts_per_token,
            "one": 1,
        }


class SiteSizes:
    """Bytes of sites in one pass; each kind is worked out once."""

    def __init__(self, axes: Axes, dtype: str, kept: bool = True) -> None:
        self._sizes, self._width = axes.sizes(kept), width(dtype)
        self._bytes: dict[str, int] = {}

    def __call__(self, site: Site) -> int:
        hook = site.name.rpartition(".")[2]  # sites of one last name are alike in every layer
        if hook not in self._bytes:
            self._bytes[hook] = math.prod(self._sizes[dim] for dim in site.dims) * self.width(site)
        return self._bytes[hook]

    def width(self, site: Site) -> int:
        """Bytes of one of its numbers: expert numbers are int64, what RMSNorm shows is at least float32."""
        if site.is_integer:
            return INDEX
        return max(self._width, WIDE) if site.name.endswith(_NORM_SITES) else self._width

    def of(self, sites: Iterable[Site]) -> dict[str, int]:
        return {site.name: self(site) for site in sites}


def kv_cache_bytes(config: Config, batch: int, tokens: int, dtype: str) -> int:
    """Keys and values after so many tokens: a sliding layer keeps the last ``window − 1`` columns, the others all."""
    column = 2 * batch * config.n_key_value_heads * config.d_head * width(dtype)
    windows = (config.window(layer) for layer in range(config.n_layers))
    return sum(column * (tokens if window is None else min(tokens, window - 1)) for window in windows)


def readable(n_bytes: int | float) -> str:
    """12_345_678 → '12.3 MB', in powers of ten, as disks and datasheets count."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if n_bytes >= 0.9995 * scale:
            digits = 0 if n_bytes >= 99.95 * scale else 1
            return f"{n_bytes / scale:,.{digits}f} {unit}"
    return f"{n_bytes:.0f} bytes"
