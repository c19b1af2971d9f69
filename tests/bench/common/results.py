"""What was measured: cells, parts, demands; as lines, as a table, as JSON."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

WORKS = {
    "load": "load",
    "forward": "forward, all logits",
    "first_token": "first token of a reply",
    "decode": "decode, a token",
    "cache_shared": "run_with_cache, the sites both have",
    "cache_everything": "run_with_cache, all that each has",
    "cache_outputs": "hidden states, attentions, router logits",
    "cache_stream": "run_with_cache: residual, attention, routing",
    "cache_over_forward": "run_with_cache over the plain forward",
    "backward": "forward and backward",
    "grid": "patching grid, layers × positions",
    "layer": "MoE layer",
}


@dataclass
class Cell:
    """One subject at one work: seconds of each repetition of each round, processor seconds (all threads together) of a
    repetition in each round, and peak memory in bytes."""

    rounds: list[list[float]] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    resident: int | None = None
    private: int | None = None
    error: str | None = None

    @property
    def median(self) -> float | None:
        flat = [second for turn in self.rounds for second in turn]
        return statistics.median(flat) if flat else None

    @property
    def best(self) -> float | None:
        return min((second for turn in self.rounds for second in turn), default=None)

    def see_memory(self, answer: dict[str, Any]) -> None:
        """Take over the peaks that a process measured."""
        self.resident, self.private = answer["resident"], answer["private"]

    def ratios(self, ours: Cell) -> list[float]:
        """How many times as long as ours it took, round by round."""
        return [statistics.median(a) / statistics.median(b) for a, b in zip(self.rounds, ours.rounds, strict=False)]

    def as_json(self, ours: Cell | None) -> dict[str, Any]:
        found: dict[str, Any] = {"median": self.median, "best": self.best, "rounds": len(self.rounds)}
        if self.processor:
            found["processor_seconds"] = statistics.median(self.processor)
        if self.resident is not None:
            found |= {"peak_bytes": self.resident, "private_peak_bytes": self.private}
        if self.error is not None:
            found["error"] = self.error
        ratios = self.ratios(ours) if ours is not None and ours is not self else []
        if ratios:
            found |= {"ratio": statistics.median(ratios), "ratio_range": [min(ratios), max(ratios)]}
        return found


@dataclass
class Demand:
    """One thing that is asked of us: ``value`` compared with ``target`` (None: it could not be measured)."""

    text: str
    value: float | None
    target: float
    at_least: bool = True
    unit: str = "×"
    why: str = ""

    @property
    def mark(self) -> str:
        if self.value is None:
            return "not measured"
        met = self.value >= self.target if self.at_least else self.value <= self.target
        return "pass" if met else "short"

    def line(self) -> str:
        sign, why = "≥" if self.at_least else "≤", f" ({self.why})" if self.why else ""
        value = "–" if self.value is None else f"{self.value:.3g}{self.unit}"
        return f"[{self.mark}] {self.text}: {value}, asked for {sign} {self.target:g}{self.unit}{why}"

    def as_json(self) -> dict[str, Any]:
        return {"text": self.text, "value": self.value, "target": self.target, "mark": self.mark, "why": self.why}


@dataclass
class Part:
    """One comparison: (work, tokens, subject) → cell."""

    name: str
    title: str
    subjects: list[str]
    cells: dict[tuple[str, int, str], Cell] = field(default_factory=dict)
    about: dict[str, dict[str, Any]] = field(default_factory=dict)
    agreement: dict[str, dict[str, Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    demands: list[Demand] = field(default_factory=list)
    roofline: dict[str, Any] = field(default_factory=dict)

    def cell(self, work: str, tokens: int, subject: str) -> Cell:
        """The cell, made when first asked for."""
        return self.cells.setdefault((work, tokens, subject), Cell())

    def median(self, work: str, tokens: int, subject: str = "ours") -> float | None:
        """Of a cell that may not be there."""
        cell = self.cells.get((work, tokens, subject))
        return None if cell is None else cell.median

    def ratio(self, work: str, tokens: int, subject: str) -> float | None:
        """The median over rounds of the subject's time over ours."""
        theirs, ours = self.cells.get((work, tokens, subject)), self.cells.get((work, tokens, "ours"))
        ratios = theirs.ratios(ours) if theirs and ours else []
        return statistics.median(ratios) if ratios else None

    def least_ratio(self, work: str, tokens: int, subjects: list[str]) -> float | None:
        """That of the fastest of several subjects."""
        found = [ratio for subject in subjects if (ratio := self.ratio(work, tokens, subject)) is not None]
        return min(found, default=None)

    def rows(self) -> list[tuple[str, int]]:
        """(work, tokens) in the order measured."""
        return list(dict.fromkeys((work, tokens) for work, tokens, _ in self.cells))

    def line(self, work: str, tokens: int) -> str:
        """One row in words."""
        return f"{row_name(work, tokens):48}  " + "  ".join(
            f"{subject} {self.figure(work, tokens, subject)}" for subject in self.subjects
        )

    def figure(self, work: str, tokens: int, subject: str) -> str:
        """A cell as text: the median, and how many times ours that is."""
        cell = self.cells.get((work, tokens, subject))
        if cell is None:
            return "–"
        if cell.median is None:
            return "–" if cell.error is None else f"({cell.error[:60]})"
        ratio = None if subject == "ours" else self.ratio(work, tokens, subject)
        return speed(work, cell.median) + (f" ({ratio:.3g}×)" if ratio is not None else "")

    def as_json(self) -> dict[str, Any]:
        cells = [
            {"work": work, "tokens": tokens, "subject": subject} | cell.as_json(self.cells.get((work, tokens, "ours")))
            for (work, tokens, subject), cell in self.cells.items()
        ]
        return {
            "title": self.title,
            "cells": cells,
            "about": self.about,
            "agreement": self.agreement,
            "roofline": self.roofline,
            "notes": self.notes,
            "acceptance": [demand.as_json() for demand in self.demands],
        }


def row_name(work: str, tokens: int) -> str:
    """A row in words."""
    plural = "" if tokens == 1 else "s"
    return WORKS.get(work, work) + (f", {tokens} token{plural}" if tokens and work != "decode" else "")


def speed(work: str, seconds: float) -> str:
    """Seconds as text; of decoding, tokens a second; of a ratio, itself."""
    if work == "cache_over_forward":
        return f"{seconds:.3g}×"
    if work == "decode":
        return f"{1 / seconds:.3g}/s"
    return duration(seconds)


def duration(seconds: float) -> str:
    """Three digits, in a fitting unit."""
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}" if seconds * factor < 1000 else f"{seconds * factor:.0f} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def gigabytes(n_bytes: int | None) -> str:
    """Bytes as text."""
    if n_bytes is None:
        return "–"
    return f"{n_bytes / 1e9:.2f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.3g} MB"
