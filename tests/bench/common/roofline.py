"""The least time that a pass can take: its bytes at the rate that memory is read, or its operations at that of a GEMM.

Both rates are measured beside the subjects, in the same rounds, and the best of each counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.common.results import Part, duration
from tests.bench.common.rounds import Bench, Subject, Work

ROOF = "roofline"
PACKED_BYTES = 17 / 32  # a weight: half a byte, and a byte of scale for 32


@dataclass(frozen=True)
class Shape:
    """The sizes of a checkpoint that cost something, from its config.json."""

    n_layers: int
    d_model: int
    d_mlp: int
    d_attention: int
    d_key_value: int
    n_experts: int
    experts_per_token: int
    d_vocab: int
    windows: tuple[int | None, ...]
    weight_bytes: int
    expert_bytes: float

    @classmethod
    def of(cls, path: Path, dtype: str) -> Shape:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        item = {"float32": 4, "bfloat16": 2}[dtype]
        slides = [kind == "sliding_attention" for kind in config["layer_types"]]
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            config["intermediate_size"],
            config["num_attention_heads"] * config["head_dim"],
            config["num_key_value_heads"] * config["head_dim"],
            config["num_local_experts"],
            config["num_experts_per_tok"],
            config["vocab_size"],
            tuple(config["sliding_window"] if slide else None for slide in slides),
            item,
            PACKED_BYTES if "quantization_config" in config else item,
        )

    @property
    def one_expert(self) -> int:
        """Weights of one expert."""
        return 3 * self.d_model * self.d_mlp

    @property
    def around(self) -> int:
        """Weights of one layer outside its experts: q and o, k and v, router."""
        return self.d_model * (2 * self.d_attention + 2 * self.d_key_value + self.n_experts)

    def read_bytes(self, hits: Sequence[float], logits: bool = True) -> float:
        """Weight bytes of a pass, given how many experts each layer uses."""
        outer = self.d_vocab * self.d_model * self.weight_bytes if logits else 0
        return outer + sum(self.around * self.weight_bytes + hit * self.one_expert * self.expert_bytes for hit in hits)

    def operations(self, tokens: int, rows_of_logits: int | None = None) -> float:
        """Floating-point operations of a pass over so many tokens."""
        rows = tokens if rows_of_logits is None else rows_of_logits
        layers = self.n_layers * tokens * (self.around + self.experts_per_token * self.one_expert)
        seen = sum(sum(min(t + 1, window or tokens) for t in range(tokens)) for window in self.windows)
        return 2 * (layers + rows * self.d_vocab * self.d_model) + 4 * seen * self.d_attention


def subject(path: Path) -> Subject:
    """The process that measures the machine beside the others; its figures are rates, not a column."""
    return Subject(ROOF, "roofline", {"path": str(path)}, loads=False)


def works(dtype: str) -> list[tuple[Work, dict[str, Any]]]:
    """What it measures, with arguments."""
    return [(Work("read", 0, only=(ROOF,)), {}), (Work("gemm", 0, only=(ROOF,)), {"dtype": dtype})]


def measure(bench: Bench, dtype: str) -> None:
    """One turn of both rates."""
    for work, how in works(dtype):
        bench.measure(work, how, rounds=1, quiet=True)


def rates(part: Part) -> tuple[float, float] | None:
    """(bytes, operations) a second, the best of all turns."""
    read, gemm = part.cell("read", 0, ROOF).best, part.cell("gemm", 0, ROOF).best
    return (1 / read, 1 / gemm) if read and gemm else None


def least(part: Part, n_bytes: float, operations: float) -> float | None:
    """Seconds of the roofline."""
    found = rates(part)
    return max(n_bytes / found[0], operations / found[1]) if found else None


def note(part: Part, work: str, tokens: int, n_bytes: float, operations: float, who: str = "ours") -> float | None:
    """Put one fraction, the roofline over our best time, into the part; returns it."""
    bound, best = least(part, n_bytes, operations), part.cell(work, tokens, who).best
    if bound is None or best is None:
        return None
    found = rates(part)
    assert found is not None
    part.roofline[f"{work} {tokens} {who}"] = {
        "fraction": bound / best,
        "least_seconds": bound,
        "best_seconds": best,
        "bound_by": "reading" if n_bytes / found[0] >= operations / found[1] else "arithmetic",
        "bytes": n_bytes,
        "operations": operations,
    }
    return bound / best


def finish(part: Part) -> None:
    """Rates and fractions in words; the rates leave the table, for they are no times."""
    found = rates(part)
    if found:
        part.roofline["rates"] = {"bytes_a_second": found[0], "operations_a_second": found[1]}
        part.notes.append(
            f"roofline: {found[0] / 1e9:.1f} GB/s read from mapped pages, {found[1] / 1e9:.0f} GFLOP/s in products "
            "(best of the turns)"
        )
    for key in [key for key in part.cells if key[2] == ROOF]:
        del part.cells[key]
    for name, entry in part.roofline.items():
        if name != "rates":
            part.notes.append(
                f"{name}: {entry['fraction']:.2g} of the roofline ({duration(entry['least_seconds'])}, bound by "
                f"{entry['bound_by']}; best {duration(entry['best_seconds'])})"
            )
