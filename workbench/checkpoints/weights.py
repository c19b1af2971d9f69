"""The stored tensors → our state dict, mapped, or one tensor at a time and in place: never two copies of the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checkpoints.destinations import OneDevice
from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.safetensors_file import TORCH_DTYPES
from workbench.checkpoints.shards import Shards
from workbench.checkpoints.tables import Row, Table, evaluate, sizes_of
from workbench.model.config import Config
from workbench.model.mxfp4 import BLOCK, describe_nan_scales, has_nan_scales, unpack

SHOW_PROGRESS_ABOVE = 200_000_000  # bytes
_CHUNK = 32_000_000  # bytes read at a time


def read_weights(
    table: Table,
    config: Config,
    shards: Shards,
    like: Mapping[str, Tensor],
    place: OneDevice,
    finite: bool = False,
) -> dict[str, Tensor]:
    """Every tensor of the state dict ``like`` (on the meta device will do), in its dtypes.

    On the CPU, what is stored as it is used is not read but mapped: see :meth:`SafetensorsFile.map`.

    Args:
        place: where each tensor goes.
        finite: also look for NaN and infinite numbers, in everything.

    Raises:
        CheckpointError: for a NaN scale, and with ``finite`` for any number that is not finite.
    """
    reader = _Reader(table, shards, sizes_of(config), place, finite)
    weights: dict[str, Tensor] = {}
    quiet = shards.n_bytes <= SHOW_PROGRESS_ABOVE
    with tqdm(
        total=config.n_params, desc=f"loading {config.name}", unit=" weights", unit_scale=True, disable=quiet
    ) as bar:
        for row in table.expanded(config.n_layers):
            if row.ours in like:
                weights[row.ours] = reader.tensor(row, like[row.ours])
                bar.update(like[row.ours].numel())
            else:
                blocks, scales = f"{row.ours}_blocks", f"{row.ours}_scales"
                weights[blocks], weights[scales] = reader.packed(row)
                bar.update(weights[scales].numel() * BLOCK)
    return weights


class _Reader:
    def __init__(self, table: Table, shards: Shards, sizes: dict[str, int], place: OneDevice, finite: bool) -> None:
        self.table, self.shards, self.sizes, self.place, self.finite = table, shards, sizes, place, finite

    def packed(self, row: Row) -> tuple[Tensor, Tensor]:
        """A packed row's blocks and scales as they are stored."""
        blocks, scales = (self._as_stored(name, self.place.device(row.ours)) for name in self.table.packed_pair(row))
        self._refuse_nan_scales(scales, row)
        if self.finite:
            for expert in range(len(scales)):
                self._refuse_not_finite(unpack(blocks[expert], scales[expert], torch.bfloat16), row)
        return blocks, scales

    def tensor(self, row: Row, like: Tensor) -> Tensor:
        """A row's tensor in the dtype of ``like``, mapped or read."""
        if row.layout == "plain" and (mapped := self._mapped(row, like)) is not None:
            return mapped
        out = self.place.empty(row.ours, like)
        {"plain": self._plain, "transposed": self._transposed, "packed": self._unpacked}[row.layout](out, row)
        return out

    def _mapped(self, row: Row, like: Tensor) -> Tensor | None:
        if self.place.device(row.ours).type != "cpu" or TORCH_DTYPES[self.shards.info(row.theirs).dtype] != like.dtype:
            return None
        first = evaluate(row.part[0], self.sizes) if row.part else 0
        mapped = self.shards.map(row.theirs, first, first + len(like))
        if mapped is not None and self.finite:
            self._refuse_not_finite(mapped, row)
        return mapped

    def _as_stored(self, name: str, device: torch.device) -> Tensor:
        mapped = self.shards.map(name) if device.type == "cpu" else None
        return self.shards.read(name).to(device) if mapped is None else mapped

    def _plain(self, out: Tensor, row: Row) -> None:
        first = evaluate(row.part[0], self.sizes) if row.part else 0
        info = self.shards.info(row.theirs)
        step = max(1, _CHUNK * info.shape[0] // max(1, info.stop - info.start))
        for start in range(0, len(out), step):
            stop = min(start + step, len(out))
            self._put(out[start:stop], self.shards.read(row.theirs, first + start, first + stop), row)

    def _transposed(self, out: Tensor, row: Row) -> None:
        for expert in range(len(out)):
            self._put(out[expert], self.shards.read(row.theirs, expert, expert + 1)[0].T, row)

    def _unpacked(self, out: Tensor, row: Row) -> None:
        blocks, scales = self.table.packed_pair(row)
        self._refuse_nan_scales(self.shards.read(scales), row)
        for expert in range(len(out)):
            read = [self.shards.read(name, expert, expert + 1)[0].to(out.device) for name in (blocks, scales)]
            self._put(out[expert], unpack(read[0], read[1], out.dtype), row)

    def _put(self, out: Tensor, numbers: Tensor, row: Row) -> None:
        out.copy_(numbers)
        if self.finite:
            self._refuse_not_finite(out, row)

    def _refuse_nan_scales(self, scales: Tensor, row: Row) -> None:
        if has_nan_scales(scales):
            name = self.table.packed_pair(row)[1]
            expected, found = "no scale of 255, which is NaN", describe_nan_scales(scales)
            raise CheckpointError(Problem(self.shards.path(name), f"tensor {name!r}", expected, found))

    def _refuse_not_finite(self, numbers: Tensor, row: Row) -> None:
        if bool(torch.isfinite(numbers).all()):
            return
        name = self.table.packed_pair(row)[0] if row.layout == "packed" else row.theirs
        found = f"{int(numbers.isnan().sum())} NaN and {int(numbers.isinf().sum())} infinite (as {numbers.dtype})"
        raise CheckpointError(Problem(self.shards.path(name), f"tensor {name!r}", "finite numbers", found))
