"""The stored tensors → our state dict, one tensor at a time and in place: never two copies of the model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.shards import Shards
from workbench.checkpoints.tables import Row, Table, evaluate, sizes_of
from workbench.model.config import Config
from workbench.model.mxfp4 import PackedWeight, describe_nan_scales, has_nan_scales

SHOW_PROGRESS_ABOVE = 200_000_000  # bytes
_CHUNK = 32_000_000  # bytes read at a time


def read_weights(
    table: Table,
    config: Config,
    shards: Shards,
    like: Mapping[str, Tensor],
    device: torch.device,
    finite: bool = False,
) -> dict[str, Tensor]:
    """Every tensor of the state dict, in the dtypes of ``like`` (a state dict on the meta device will do).

    Args:
        finite: also look for NaN and infinite numbers, in everything.

    Raises:
        CheckpointError: for a NaN scale, and with ``finite`` for any number that is not finite.
    """
    reader = _Reader(table, shards, sizes_of(config), finite)
    weights: dict[str, Tensor] = {}
    quiet = shards.n_bytes <= SHOW_PROGRESS_ABOVE
    with tqdm(
        total=config.n_params, desc=f"loading {config.name}", unit=" weights", unit_scale=True, disable=quiet
    ) as bar:
        for row in table.expanded(config.n_layers):
            target = like[row.ours]
            weights[row.ours] = torch.empty(target.shape, dtype=target.dtype, device=device)
            reader.fill(weights[row.ours], row)
            bar.update(target.numel())
    return weights


def read_packed(table: Table, row: Row, shards: Shards, device: torch.device) -> PackedWeight:
    """A packed row as it is stored. Its scales are looked at when it is first unpacked."""
    blocks, scales = table.packed_pair(row)
    source = f"{shards.path(scales)}: tensor {scales!r}"
    return PackedWeight(shards.read(blocks).to(device), shards.read(scales).to(device), source)


class _Reader:
    def __init__(self, table: Table, shards: Shards, sizes: dict[str, int], finite: bool) -> None:
        self.table, self.shards, self.sizes, self.finite = table, shards, sizes, finite

    def fill(self, out: Tensor, row: Row) -> None:
        """Read a row's tensor into ``out``, cast to its dtype and moved to its device."""
        {"plain": self._plain, "transposed": self._transposed, "packed": self._packed}[row.layout](out, row)

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

    def _packed(self, out: Tensor, row: Row) -> None:
        weight = read_packed(self.table, row, self.shards, out.device)
        scales = self.table.packed_pair(row)[1]
        if has_nan_scales(weight.scales):
            found = describe_nan_scales(weight.scales)
            expected = "no scale of 255, which is NaN"
            raise CheckpointError(Problem(self.shards.path(scales), f"tensor {scales!r}", expected, found))
        weight.checked = True
        for expert in range(len(out)):
            self._put(out[expert], weight.unpack(out.dtype, expert), row)

    def _put(self, out: Tensor, numbers: Tensor, row: Row) -> None:
        out.copy_(numbers)
        if not self.finite or bool(torch.isfinite(out).all()):
            return
        name = self.table.packed_pair(row)[0] if row.layout == "packed" else row.theirs
        found = f"{int(out.isnan().sum())} NaN and {int(out.isinf().sum())} infinite (as {out.dtype})"
        raise CheckpointError(Problem(self.shards.path(name), f"tensor {name!r}", "finite numbers", found))
