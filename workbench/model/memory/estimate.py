"""What a run will take, known before it runs."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from workbench.model.config import Config
from workbench.model.memory.asked import Asked
from workbench.model.memory.free import free_memory
from workbench.model.memory.sizes import Weights, readable

Experts = Literal["packed", "dense"]


@dataclass(frozen=True, repr=False)
class Estimate:
    """Bytes that a run takes, worked out from shapes alone. ``print`` it for a table.

    Attributes:
        config: the shape of the model.
        batch: rows; ``length``: tokens in each; ``dtype``: of weights and activations; ``experts``: "packed", "dense".
        weights: private memory, and pages of the checkpoint's files.
        sites: site → bytes that are kept of it, exact.
        peaks: (device, bytes, when), the most that the run adds at once on each device: kept sites, what the forward
            makes and lets go, what backward needs, the growth of a KV cache. On a CPU what torch's allocator counts is
            within 10 % of it, and with gradients within 20 %.
        saved: of that, what autograd keeps for backward.
        gradients: of that, the gradients of kept sites and of weights.
        kv_cache: of that, keys and values, exact; sliding layers keep their window.
        loaded: whether the weights are in memory already, and so not in what is free.
    """

    config: Config
    batch: int
    length: int
    dtype: str
    experts: str
    weights: Weights
    peaks: tuple[tuple[str, int, str], ...]
    sites: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    saved: int = 0
    gradients: int = 0
    kv_cache: int = 0
    loaded: bool = False

    @property
    def kept(self) -> int:
        """Bytes of all kept sites."""
        return sum(self.sites.values())

    @property
    def run(self) -> int:
        """Bytes that the run adds to the weights, at its fullest moment."""
        return sum(n_bytes for _, n_bytes, _ in self.peaks)

    @property
    def total(self) -> int:
        """The run and the weights' private memory. Pages of files are not in it: the system drops them when it must."""
        return self.weights.private + self.run

    @property
    def by_kind(self) -> dict[str, int]:
        """Kind of site, all layers together → bytes, the largest first: {"attn.hook_pattern": …}."""
        return by_kind(self.sites)

    def fits(self, free: int | None = None) -> bool:
        """Whether it fits in so many free bytes; None: in what is free now, on each device.

        Of a loaded model only the run must fit, for its weights are not in the free memory any more.
        """
        if free is not None:
            return (self.run if self.loaded else self.total) <= free
        weights = {} if self.loaded else dict(self.weights.by_device)
        if not self.loaded and "cpu" in weights:
            weights["cpu"] -= self.weights.mapped
        needs = weights | {device: n + weights.get(device, 0) for device, n, _ in self.peaks}
        there = {device: free_memory(device) for device in needs}
        return all((found := there[device]) is None or n <= found.n_bytes for device, n in needs.items())

    def rows(self) -> list[tuple[str, int, str]]:
        """(what, bytes, remark) of each line of the table; lines that begin with "of which" are parts of another."""
        w = self.weights
        pages = f"and {readable(w.mapped)} of file pages, which the system may drop" if w.mapped else ""
        kinds = ", ".join(f"{kind} {readable(n)}" for kind, n in list(self.by_kind.items())[:3])
        rows = [("weights", w.private, pages)]
        rows += [("kept sites", self.kept, f"{len(self.sites)}: {kinds}")] if self.sites else []
        for device, n_bytes, when in self.peaks:
            where = f"run on {device}" if len(self.peaks) > 1 else "run"
            rows.append((where, n_bytes, f"kept sites included; fullest: {when}"))
        parts = (("of which KV cache", self.kv_cache), ("of which saved for backward", self.saved))
        parts += (("of which gradients", self.gradients),)
        rows += [(what, n_bytes, "") for what, n_bytes in parts if n_bytes]
        return [*rows, ("in all", self.total, "weights and run, without file pages")]

    @property
    def title(self) -> str:
        tokens = f"{self.batch:,} × {self.length:,} tokens"
        return f"{self.config.name}: {tokens}, {self.dtype}, {self.experts} experts"

    def __repr__(self) -> str:
        rows = self.rows()
        wide = max(len(what) for what, _, _ in rows)
        lines = [f"{what:{wide}} {readable(n):>9}  {remark}".rstrip() for what, n, remark in rows]
        return "\n".join([self.title, *lines])

    def _repr_html_(self) -> str:
        cells = "".join(
            f"<tr><th style='text-align:left'>{html.escape(what)}</th><td style='text-align:right'>{readable(n)}</td>"
            f"<td style='text-align:left'>{html.escape(remark)}</td></tr>"
            for what, n, remark in self.rows()
        )
        return f"<table><caption>{html.escape(self.title)}</caption><tbody>{cells}</tbody></table>"


def by_kind(sites: Mapping[str, int]) -> dict[str, int]:
    """Bytes of sites, those of all layers together, the largest first."""
    kinds: dict[str, int] = {}
    for name, n_bytes in sites.items():
        kind = kind_of(name)
        kinds[kind] = kinds.get(kind, 0) + n_bytes
    return dict(sorted(kinds.items(), key=lambda item: -item[1]))


def kind_of(name: str) -> str:
    """The site's name within its layer."""
    return name.split(".", 2)[2] if name.startswith("blocks.") else name


def estimate_of(asked: Asked, weights: Weights, loaded: bool) -> Estimate:
    """The estimate of a run."""
    walk = asked.walk
    return Estimate(
        config=asked.config,
        batch=asked.batch,
        length=asked.length,
        dtype=asked.dtype,
        experts="packed" if asked.packed else "dense",
        weights=weights,
        peaks=tuple((device, peak.n_bytes, peak.moment) for device, peak in asked.peaks.items()),
        sites=MappingProxyType(asked.kept),
        saved=walk.saved,
        gradients=sum(asked.gradients.values()) + walk.weight_gradients,
        kv_cache=asked.kv_cache,
        loaded=loaded,
    )
