"""What a patching grid asks: which prompt gives, which one takes, what is patched, and how it is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from workbench import experiments
from workbench.activations import Run
from workbench.interventions import Intervention, Patch, PatchExpert
from workbench.model import Config

STREAM = ("resid_pre", "attn_out", "mlp_out")
PARTS = (*STREAM, "head", "expert")
METRICS = ("logit_difference", "probability", "kl")
OVER = ("together", "position")


@dataclass(frozen=True)
class Study:
    """One grid. Two of them are equal if they have the same cells with the same numbers.

    Attributes:
        source, target: names of the prompts: what is patched in comes from the source.
        source_tokens, target_tokens: their ids.
        metric: one of METRICS.
        right, wrong: the answer's tokens.
        part: one of PARTS.
        over: of heads and experts: "together", at all positions at once; "position", at each, in one layer.
        layer: that layer; None where the grid has all.
        config: the model's.
    """

    source: str
    target: str
    source_tokens: tuple[int, ...]
    target_tokens: tuple[int, ...]
    metric: str
    right: int
    wrong: int
    part: str
    over: str
    layer: int | None
    config: Config

    @property
    def dims(self) -> tuple[str, str]:
        """What its rows and its columns are."""
        if self.part in STREAM:
            return "layer", "pos"
        return ("layer", self.part) if self.over == "together" else (self.part, "pos")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        config = self.config
        sizes = {
            "layer": config.n_layers,
            "pos": len(self.target_tokens),
            "head": config.n_heads,
            "expert": config.n_experts,
        }
        return sizes[self.dims[0]], sizes[self.dims[1]]

    @property
    def layers(self) -> list[int]:
        """The layers that it patches."""
        return list(range(self.config.n_layers)) if self.layer is None else [self.layer]

    @property
    def first(self) -> int:
        """The first position where the prompts differ; their length where they do not."""
        pairs = zip(self.source_tokens, self.target_tokens, strict=True)
        return next((i for i, (a, b) in enumerate(pairs) if a != b), len(self.target_tokens))

    @property
    def experiment(self) -> str:
        """The experiment that measures it."""
        if self.part in STREAM:
            return "patching_grid"
        return "joint_patching" if self.over == "together" else "component_patching"

    @property
    def grid_dims(self) -> tuple[str, ...]:
        """The dims of its numbers in that experiment: one of size 1 before the rows, but for ``joint_patching``."""
        extra = {"patching_grid": ("site",), "component_patching": ("layer",), "joint_patching": ()}
        return (*extra[self.experiment], *self.dims)

    def place(self, row: int, column: int) -> dict[str, int]:
        """Layer, and position, head or expert of a cell.

        Raises:
            ValueError: for a cell that is not there.
        """
        if not (0 <= row < self.shape[0] and 0 <= column < self.shape[1]):
            raise ValueError(f"there is no cell {row}, {column}; the grid has {self.shape[0]} × {self.shape[1]}")
        found = {self.dims[0]: row, self.dims[1]: column}
        return {"layer": self.layer} | found if self.layer is not None else found

    def spec(self, row: int, column: int) -> Intervention:
        """The intervention that a cell is."""
        at = self.place(row, column)
        positions = (at["pos"],) if "pos" in at else None
        if self.part == "expert":
            return PatchExpert(at["layer"], at["expert"], self.source, positions)
        if self.part == "head":
            return Patch(f"blocks.{at['layer']}.attn.hook_z", self.source, positions, component=at["head"])
        return Patch(f"blocks.{at['layer']}.hook_{self.part}", self.source, positions)

    def words(self, row: int, column: int) -> str:
        """A cell in words."""
        at = self.place(row, column)
        what = f"{self.part} {at[self.part]} of" if self.part not in STREAM else f"{self.part} of"
        where = f"at position {at['pos']}" if "pos" in at else "at all positions"
        return f"{what} layer {at['layer']} {where}"

    def sites(self) -> list[str]:
        """What the source's run must have kept."""
        kinds = {
            "head": ("attn.hook_z",),
            "expert": tuple(f"mlp.hook_expert_{k}" for k in ("indices", "weights", "out")),
        }
        return [f"blocks.{i}.{kind}" for i in self.layers for kind in kinds.get(self.part, (f"hook_{self.part}",))]

    def measure(self, source: Run) -> Any:
        """The metric as experiments take it."""
        if self.metric == "kl":
            return experiments.kl_from(source.logits[:, -1])
        if self.metric == "probability":
            return experiments.probability(self.right)
        return experiments.logit_difference(self.right, self.wrong)


def aligned(source: Sequence[int], target: Sequence[int]) -> list[tuple[int, int]]:
    """Pairs of positions that belong together, in order; −1 where one text has nothing.

    Texts of one length are aligned position by position, as a grid patches them; others by what they share.
    """
    if len(source) == len(target):
        return [(i, i) for i in range(len(source))]
    pairs: list[tuple[int, int]] = []
    for _, a, a_end, b, b_end in SequenceMatcher(None, source, target, len(source) > 500).get_opcodes():
        longest = range(max(a_end - a, b_end - b))
        pairs += [(a + i if a + i < a_end else -1, b + i if b + i < b_end else -1) for i in longest]
    return pairs
