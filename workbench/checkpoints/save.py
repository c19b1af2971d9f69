"""A model → a checkpoint folder, in any of the three forms."""

from __future__ import annotations

import filecmp
import json
import math
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from workbench.checkpoints import huggingface, openai
from workbench.checkpoints.errors import CheckpointError
from workbench.checkpoints.load import as_dtype
from workbench.checkpoints.tables import Row, Table, sizes_of
from workbench.checkpoints.weights import SHOW_PROGRESS_ABOVE
from workbench.model.config import Config
from workbench.model.interrupts import Hooked, finish_first
from workbench.model.mxfp4 import BLOCK, PackedWeight, pack
from workbench.model.packed import MATRICES, PackedExperts
from workbench.model.transformer import HookedGptOss

Weight = Tensor | PackedWeight
Form = Literal["huggingface", "huggingface-mxfp4", "openai"]
FORMS: dict[str, Table] = {
    "huggingface": huggingface.DENSE,
    "huggingface-mxfp4": huggingface.PACKED,
    "openai": openai.PACKED,
}


def save_pretrained(
    model: HookedGptOss,
    path: str | Path,
    form: Form = "huggingface",
    dtype: torch.dtype | str | None = None,
    max_shard_bytes: int = 5_000_000_000,
    overwrite: bool = False,
) -> Path:
    """Write a model as a checkpoint folder that :func:`load` reads, and transformers or OpenAI's code too.

    The folder appears whole or not at all: it is written beside its place and renamed.

    Args:
        form: "huggingface", dense, no loss; "huggingface-mxfp4" and "openai" round the experts' matrices to MXFP4 (no
            loss if that is what they came from). OpenAI's config has no key for the context length and the special ids.
        dtype: of what is stored dense; the model's own if None. Norm gains are always stored as float32.
        max_shard_bytes: a larger model is split; shards count from 00000, as the real ones do.
        overwrite: replace a checkpoint that is already there and differs, the whole folder.

    Returns:
        The folder.

    Raises:
        CheckpointError: if the place is taken, or the form cannot hold this model.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: expected one of {list(FORMS)}")
    path = Path(path).expanduser().absolute()
    stored = as_dtype(model.embed.weight.dtype if dtype is None else dtype)
    _check_place(path)
    files = _json_files(model.config, form, str(stored).removeprefix("torch."))
    pieces = list(_pieces(FORMS[form], model.config, _weights(model), stored))

    def write(folder: Path) -> None:
        for name, content in files.items():
            _write_json(folder / name, content)
        if model.tokenizer is not None:
            model.tokenizer.save(folder)
        _write_shards(folder, pieces, max_shard_bytes, model.config.name)

    _write_whole(path, overwrite, write)
    return path


def _weights(model: HookedGptOss) -> dict[str, Weight]:
    """The state dict; packed experts as one matrix each, under the names that dense ones have."""
    weights: dict[str, Weight] = dict(model.state_dict())
    for layer, block in enumerate(model.blocks):
        if isinstance(block.mlp.experts, PackedExperts):
            for name in MATRICES:
                weights[f"blocks.{layer}.mlp.experts.{name}"] = getattr(block.mlp.experts, name)
    return weights


def _json_files(config: Config, form: Form, dtype: str) -> dict[str, dict[str, Any]]:
    if form != "huggingface":
        for field in ("d_model", "d_mlp"):
            if getattr(config, field) % BLOCK:
                raise CheckpointError(
                    f"form={form!r} packs blocks of {BLOCK} numbers, so d_model and d_mlp must be multiples of it: "
                    f"{field}={getattr(config, field)}. form='huggingface' takes any size"
                )
    if form == "openai":
        return {"config.json": openai.config_json(config)}
    config_json = huggingface.config_json(config, dtype, packed=form == "huggingface-mxfp4")
    return {"config.json": config_json, "generation_config.json": huggingface.generation_json(config)}


@dataclass(frozen=True)
class _Piece:
    """Tensors that are made together, when their shard is written."""

    n_bytes: int
    make: Callable[[], dict[str, Tensor]]


def _pieces(table: Table, config: Config, state: Mapping[str, Weight], dtype: torch.dtype) -> Iterator[_Piece]:
    together: dict[str, list[Row]] = {}
    for row in table.expanded(config.n_layers):
        together.setdefault(row.theirs, []).append(row)
    stored, sizes = table.stored(config.n_layers), sizes_of(config)
    for name, rows in together.items():
        row, sources = rows[0], [state[row.ours] for row in rows]
        held = torch.float32 if row.ours.endswith(".w") else dtype
        if row.layout == "packed":
            names = table.packed_pair(row)
            n_bytes = sum(math.prod(stored[part].shape(sizes)) for part in names)
            yield _Piece(n_bytes, lambda n=names, s=sources[0]: dict(zip(n, _packed(s, n[0]), strict=True)))
        else:
            n_bytes = math.prod(stored[name].shape(sizes)) * held.itemsize
            turned = row.layout == "transposed"
            yield _Piece(n_bytes, lambda n=name, s=sources, t=turned, d=held: {n: _dense(s, t, d)})


def _dense(sources: list[Weight], transposed: bool, dtype: torch.dtype) -> Tensor:
    parts = [_plain(source, dtype) for source in sources]
    whole = torch.cat(parts) if len(parts) > 1 else parts[0]
    return (whole.transpose(1, 2) if transposed else whole).contiguous()


def _plain(source: Weight, dtype: torch.dtype) -> Tensor:
    if isinstance(source, PackedWeight):
        return source.unpack(dtype).cpu()
    return source.detach().to(device="cpu", dtype=dtype)


def _packed(weights: Weight, name: str) -> tuple[Tensor, Tensor]:
    if isinstance(weights, PackedWeight):
        return weights.blocks.cpu(), weights.scales.cpu()
    try:
        experts = [pack(expert) for expert in weights.detach().cpu()]  # one at a time: packing works in float32
    except ValueError as error:
        raise CheckpointError(f"tensor {name!r}: {error}") from error
    blocks, scales = zip(*experts, strict=True)
    return torch.stack(blocks), torch.stack(scales)


def _write_shards(folder: Path, pieces: list[_Piece], max_shard_bytes: int, name: str) -> None:
    shards: list[list[_Piece]] = [[]]
    for piece in pieces:
        if shards[-1] and sum(p.n_bytes for p in shards[-1]) + piece.n_bytes > max_shard_bytes:
            shards.append([])
        shards[-1].append(piece)
    total = sum(piece.n_bytes for piece in pieces)
    weight_map: dict[str, str] = {}
    bar = tqdm(total=total, desc=f"saving {name}", unit="B", unit_scale=True, disable=total <= SHOW_PROGRESS_ABOVE)
    with bar:
        for number, shard in enumerate(shards):
            single = len(shards) == 1
            file = "model.safetensors" if single else f"model-{number:05d}-of-{len(shards) - 1:05d}.safetensors"
            tensors = {key: tensor for piece in shard for key, tensor in piece.make().items()}
            save_file(tensors, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(tensors, file)
            bar.update(sum(piece.n_bytes for piece in shard))
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        _write_json(folder / "model.safetensors.index.json", index)


def _write_json(file: Path, content: dict[str, Any]) -> None:
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8", newline="\n")


def _check_place(path: Path) -> None:
    """Before anything is written: what stands there may be nothing, an empty folder, or a checkpoint."""
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path} is a file: a checkpoint is a folder, so give another path")
    if path.is_dir() and any(path.iterdir()) and not (path / "config.json").is_file():
        raise CheckpointError(
            f"{path} holds something that is no checkpoint, so it is never overwritten: give another path"
        )


def _write_whole(path: Path, overwrite: bool, write: Callable[[Path], None]) -> None:
    """Write into a new folder beside ``path`` that takes its place if all goes well, and is gone otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
    with Hooked(fresh, _Folder(fresh)):
        write(fresh)
        if path.is_dir() and any(path.iterdir()):
            if _same_files(fresh, path):
                return
            if not overwrite:
                raise CheckpointError(
                    f"{path} holds another checkpoint: give another path, or overwrite=True to replace it"
                )
            finish_first(lambda: _swap(fresh, path))
        else:
            if path.is_dir():
                path.rmdir()
            os.rename(fresh, path)


class _Folder(AbstractContextManager[None]):
    """A folder that is there in a block, and gone after it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._path.mkdir()

    def __exit__(self, *problem: object) -> None:
        shutil.rmtree(self._path, ignore_errors=True)


def _same_files(first: Path, second: Path) -> bool:
    names = sorted(file.name for file in first.iterdir())
    if names != sorted(file.name for file in second.iterdir()):
        return False
    return all(filecmp.cmp(first / name, second / name, shallow=False) for name in names)


def _swap(fresh: Path, path: Path) -> None:
    aside = fresh.with_suffix(".replaced")
    os.rename(path, aside)
    try:
        os.rename(fresh, path)
    except OSError:
        os.rename(aside, path)
        raise
    shutil.rmtree(aside)
