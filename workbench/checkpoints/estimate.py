"""What a run will take of memory: of a model in memory, a checkpoint on disk, or a shape alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from workbench.checkpoints.configs import read_config
from workbench.checkpoints.embedded import EMBEDDED
from workbench.checkpoints.errors import CheckpointError
from workbench.checkpoints.load import as_dtype
from workbench.checkpoints.resolve import resolve
from workbench.checkpoints.safetensors_file import TORCH_DTYPES
from workbench.checkpoints.shards import Shards
from workbench.checkpoints.tables import Row, Table, check_tensors, evaluate, sizes_of
from workbench.model.config import Config, ConfigError, preset
from workbench.model.memory import Asked, Estimate, Weights, estimate_of, positions_kept, sites_of
from workbench.model.memory.live import shape_of, weights_of_model
from workbench.model.memory.sizes import held_width, packed_bytes, weights_of
from workbench.model.mxfp4 import BLOCK
from workbench.model.transformer import HookedGptOss

Experts = Literal["packed", "dense"]
SitesFilter = str | Sequence[str] | Callable[[str], bool] | None


def estimate(
    model: HookedGptOss | Config | str | Path,
    batch: int = 1,
    length: int = 1024,
    sites: SitesFilter = None,
    grads: bool = False,
    *,
    dtype: torch.dtype | str | None = None,
    experts: Experts | None = None,
    device: torch.device | str | None = None,
    cache: bool = True,
    past: int = 0,
    pos_slice: Any = None,
    return_type: str | None = None,
) -> Estimate:
    """How many bytes a run will take, from shapes alone: nothing is loaded, run or downloaded.

    Args:
        model: a loaded model; a checkpoint's folder, or "nano"; a :class:`Config`; or the name of a published shape,
            "20b" or "120b".
        batch: rows, ``length`` tokens each.
        sites: those that are kept: None what ``wb.run`` keeps, "all" what ``run_with_cache`` does, () none, or a name,
            several, or a function of the name.
        grads: also run backward (of the loss), and keep the gradients of the kept sites and of the weights.
        dtype: of weights and activations; the checkpoint's own if None.
        experts: "packed" or "dense"; None as the checkpoint has them, of a Config packed where that can be.
        device: where the weights go; on "cpu", what is stored as it is used stays pages of the checkpoint's files.
        cache: count the KV cache that generating keeps. One that already holds ``past`` tokens is counted anyway.
        pos_slice: as in ``run_with_cache``, of the kept sites.
        return_type: of the forward; "loss" with grads and "logits" without if None.

    Raises:
        CheckpointError: for a checkpoint or a name that is none of these.
        UnknownSite: for a site that does not exist.
        ValueError: for a batch or length below 1, or another argument that cannot be.
    """
    if batch < 1 or length < 1 or past < 0:
        raise ValueError(f"batch={batch}, length={length}, past={past}: expected at least 1, 1 and 0")
    if experts not in (None, *get_args(Experts)):
        raise ValueError(f"experts={experts!r}: expected 'packed', 'dense' or None")
    asked_dtype = None if dtype is None else str(as_dtype(dtype)).removeprefix("torch.")
    if isinstance(model, HookedGptOss) and not (asked_dtype or experts or device):
        shape, weights, loaded = shape_of(model), weights_of_model(model), True
    else:
        shape, weights = _as_loaded(_source(model), asked_dtype, experts, torch.device(device or "cpu"))
        loaded = False
    chosen = () if isinstance(sites, tuple | list) and not sites else sites_of(shape["config"].n_layers).wanted(sites)
    asked = Asked(
        batch=batch,
        length=length,
        names=tuple(chosen),
        positions=positions_kept(pos_slice, length),
        graph=grads,
        backward=grads,
        returns=return_type or ("loss" if grads else "logits"),
        past=past,
        cache=cache or past > 0,
        **shape,
    )
    return estimate_of(asked, weights, loaded)


@dataclass(frozen=True)
class _Source:
    """A shape, and where its weights lie: in files, or nowhere yet."""

    config: Config
    table: Table | None = None
    shards: Shards | None = None

    @property
    def is_packed(self) -> bool:
        """Whether the experts can be held packed without packing them first."""
        if self.table is not None:
            return any(row.layout == "packed" for row in self.table.rows)
        return self.config.d_model % BLOCK == self.config.d_mlp % BLOCK == 0


def _source(model: HookedGptOss | Config | str | Path) -> _Source:
    if isinstance(model, HookedGptOss | Config):
        return _Source(model if isinstance(model, Config) else model.config)
    if str(model) not in EMBEDDED and not Path(model).expanduser().exists():
        try:
            return _Source(preset(str(model).removeprefix("openai/")))
        except ConfigError as error:
            raise CheckpointError(
                f"{str(model)!r} is neither a folder here nor a shape that is known by name ({error}). An estimate "
                "downloads nothing: give the folder of a copy, or a Config"
            ) from error
    folder, name = resolve(model)
    config, table = read_config(folder, name)
    shards = Shards(folder)
    check_tensors(table, config, shards, folder / "config.json")
    return _Source(config, table, shards)


def _as_loaded(
    source: _Source, dtype: str | None, experts: Experts | None, device: torch.device
) -> tuple[dict[str, Any], Weights]:
    """The shape and the weights that ``wb.load`` would give."""
    form = experts or ("packed" if source.is_packed else "dense")
    if form == "packed" and not source.is_packed:
        raise ValueError("experts='packed': this checkpoint has none; save_pretrained makes one that has")
    held = dtype or source.config.dtype
    if source.table is None or source.shards is None:
        weights = weights_of(source.config, held, form, str(device))
    else:
        weights = weights_in_files(source.table, source.config, source.shards, held, form, device)
    places = (str(device),) * (source.config.n_layers + 2)
    shape = {"config": source.config, "dtype": held, "packed": form == "packed", "trains": True, "devices": places}
    return shape, weights


def weights_in_files(
    table: Table, config: Config, shards: Shards, dtype: str, experts: Experts, device: torch.device
) -> Weights:
    """What ``wb.load`` of these files will hold, from their headers: memory of its own, and pages of the files."""
    private = mapped = 0
    shapes = config.shapes()
    for row in table.expanded(config.n_layers):
        numbers = math.prod(shapes[row.ours])
        if row.layout == "packed" and experts == "packed":
            n_bytes, as_stored = packed_bytes(numbers), True
        else:
            n_bytes = numbers * held_width(row.ours, dtype)
            as_stored = row.layout == "plain" and _lies_as_used(row, config, shards, dtype)
        if as_stored and device.type == "cpu":
            mapped += n_bytes
        else:
            private += n_bytes
    return Weights(private, mapped, shards.n_bytes, ((str(device), private + mapped),))


def _lies_as_used(row: Row, config: Config, shards: Shards, dtype: str) -> bool:
    """Whether a file holds the tensor in the dtype that the model has it in, and where torch can use it in place."""
    info = shards.info(row.theirs)
    held = TORCH_DTYPES[info.dtype]
    first = evaluate(row.part[0], sizes_of(config)) if row.part else 0
    start = info.start + first * (info.stop - info.start) // info.shape[0]
    wanted = "float32" if row.ours.endswith(".w") else dtype
    return held == getattr(torch, wanted) and start % held.itemsize == 0
