"""Experts that stay packed: MXFP4 bytes as they lie in the checkpoint, 4.25 bits a weight, unpacked only in passing."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from workbench.model.config import Config
from workbench.model.engines import packed_linear
from workbench.model.interrupts import without_gradients
from workbench.model.mxfp4 import BLOCK, BYTES_PER_BLOCK, PackedWeight, pack

MATRICES = ("W_gate_up", "W_down")


class PackedExperts(nn.Module):
    """The experts of a layer in MXFP4, answering what :class:`~workbench.model.moe.Experts` answers.

    The bytes are buffers, so they follow ``model.to(device)`` and no change of dtype; where they come from a checkpoint
    they are its memory-mapped pages. They are constants: activations and biases have gradients, the packed matrices
    have none. ``W_gate_up`` and ``W_down`` are :class:`PackedWeight`: ``W_down[3]`` unpacks expert 3's matrix.
    """

    W_gate_up_blocks: UInt8[Tensor, "expert twice_d_mlp group 16"]
    W_gate_up_scales: UInt8[Tensor, "expert twice_d_mlp group"]
    W_down_blocks: UInt8[Tensor, "expert d_model group 16"]
    W_down_scales: UInt8[Tensor, "expert d_model group"]

    def __init__(self, config: Config, dtype: torch.dtype, device: torch.device | str | None = None) -> None:
        super().__init__()
        e, d, m = config.n_experts, config.d_model, config.d_mlp
        for name, d_out, d_in in (("W_gate_up", 2 * m, d), ("W_down", d, m)):
            if d_in % BLOCK:
                raise ValueError(
                    f"MXFP4 packs {BLOCK} numbers to a block, so d_model and d_mlp must be multiples of it: "
                    f"d_model={d}, d_mlp={m}. Take experts='dense'"
                )
            sizes = (e, d_out, d_in // BLOCK)
            for part, shape in ((f"{name}_blocks", (*sizes, BYTES_PER_BLOCK)), (f"{name}_scales", sizes)):
                self.register_buffer(part, torch.zeros(shape, dtype=torch.uint8, device=device))
        self.b_gate_up = nn.Parameter(torch.zeros(e, 2 * m, dtype=dtype, device=device))
        self.b_down = nn.Parameter(torch.zeros(e, d, dtype=dtype, device=device))

    def gate_up(self, rows: Float[Tensor, "row d_model"], counts: list[int]) -> Float[Tensor, "row twice_d_mlp"]:
        """Gate and up of each row by its expert, interleaved: gate 0::2, up 1::2."""
        return packed_linear(rows, counts, self.W_gate_up_blocks, self.W_gate_up_scales, self.b_gate_up)

    def down(self, rows: Float[Tensor, "row d_mlp"], counts: list[int]) -> Float[Tensor, "row d_model"]:
        """What each row's expert writes, b_down included."""
        return packed_linear(rows, counts, self.W_down_blocks, self.W_down_scales, self.b_down)

    @property
    def W_gate_up(self) -> PackedWeight:
        return self._packed("W_gate_up")

    @property
    def W_down(self) -> PackedWeight:
        return self._packed("W_down")

    def _packed(self, name: str) -> PackedWeight:
        blocks, scales = self.get_buffer(f"{name}_blocks"), self.get_buffer(f"{name}_scales")
        return PackedWeight(blocks, scales, f"experts.{name}", dtype=self.b_down.dtype)

    @classmethod
    @without_gradients
    def from_dense(cls, experts: Any, config: Config) -> PackedExperts:
        """Pack a layer's dense experts: exact for weights that came out of MXFP4, rounded otherwise."""
        packed = cls(config, experts.b_down.dtype, "meta")
        parts: dict[str, Tensor] = {"b_gate_up": experts.b_gate_up.detach(), "b_down": experts.b_down.detach()}
        for name in MATRICES:
            parts[f"{name}_blocks"], parts[f"{name}_scales"] = pack(getattr(experts, name))
        packed.load_state_dict(parts, assign=True)
        return packed

    def __deepcopy__(self, memo: dict[int, Any]) -> PackedExperts:
        # The bytes are constants and may be 13 GB of mapped file: copies of a model share them.
        for name, buffer in self.named_buffers(recurse=False):
            memo[id(buffer)] = getattr(self, name)
        copied = self.__class__.__new__(self.__class__)
        memo[id(self)] = copied
        copied.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return copied
