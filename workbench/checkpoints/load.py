"""A checkpoint → a model: nano, a folder in any of the three forms, or a Hugging Face hub id."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch

from workbench.checkpoints import huggingface, openai
from workbench.checkpoints.configs import read_config
from workbench.checkpoints.destinations import OneDevice, Spread
from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.recipe import Recipe
from workbench.checkpoints.resolve import resolve
from workbench.checkpoints.shards import Shards
from workbench.checkpoints.tables import Table, check_tensors
from workbench.checkpoints.weights import read_weights
from workbench.model.config import Config
from workbench.model.mxfp4 import BLOCK
from workbench.model.placement import DeviceMap, MaxMemory, dispatch, plan
from workbench.model.transformer import HookedGptOss
from workbench.text import Tokenizer

_TABLES = (huggingface.PACKED, huggingface.DENSE, openai.PACKED)


def load(
    path_or_name: str | Path,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    check: Literal["auto", "full"] = "auto",
    experts: Literal["auto", "packed", "dense"] = "auto",
    device_map: DeviceMap | None = None,
    max_memory: MaxMemory | None = None,
    offload_folder: str | Path | None = None,
) -> HookedGptOss:
    """Load a model.

    Every name, shape and dtype is compared with the config before a weight is read, and any fault stops the whole load.
    Only safetensors are read. The tokenizer comes along where the folder has one. On the CPU, weights that are stored
    as they are used are mapped from the files, not read: do not write into a checkpoint's files while a model uses it.

    Args:
        path_or_name: "nano", the embedded trained model; a folder: Hugging Face form (MXFP4, or dense) or OpenAI's
            ``original/`` (of a folder with both, the top one); or a Hugging Face hub id, "openai/gpt-oss-20b".
        dtype: of weights and activations; the checkpoint's own if None. MXFP4 experts are multiplied in it: in bfloat16
            and float32 their weights lose nothing.
        device: where the weights go; torch's default device if None. With ``device_map``: where what that leaves on
            "cpu" or "disk" is computed; its first GPU if None.
        check: "auto" refuses NaN scales of MXFP4; "full" also any weight that is NaN or infinite.
        experts: "packed" keeps the experts' matrices in MXFP4, 13 GB of the 20b in place of 40, and needs an MXFP4
            checkpoint; "dense" unpacks them, so that they can be edited and trained; "auto" is packed where it can be.
        device_map: spreads the model over devices with accelerate: "auto", or module → device, as in
            ``{"": 0, "blocks.20": "cpu", "unembed": "disk"}``. See docs/devices.md.
        max_memory: what "auto" may use of each device, as in ``{0: "20GiB", "cpu": "50GiB"}``; what is free if None.
        offload_folder: where weights on "disk" go that the checkpoint does not hold as they are used.

    Raises:
        CheckpointError: naming the file, the tensor or config key, what was expected and what was found.
        ValueError: for an argument that is none of these, or a device that this machine does not have.

    >>> model = wb.load("nano")
    >>> model.config.n_layers, model.config.n_experts
    (4, 8)
    """
    if check not in ("auto", "full"):
        raise ValueError(f"check={check!r}: expected 'auto' or 'full'")
    if experts not in ("auto", "packed", "dense"):
        raise ValueError(f"experts={experts!r}: expected 'auto', 'packed' or 'dense'")
    for name, given in (("max_memory", max_memory), ("offload_folder", offload_folder)):
        if device_map is None and given is not None:
            raise ValueError(f"{name} was given without a device_map, which alone uses it; add device_map='auto'")
    asked = None if dtype is None else as_dtype(dtype)
    directory, name = resolve(path_or_name)
    config, table = read_config(directory, name)
    config_file = directory / "config.json"
    shards = Shards(directory)
    _check_form(table, config, shards, config_file)
    packed = _is_packed(table)
    if experts == "packed" and not packed:
        expected = "an MXFP4 checkpoint, for experts='packed' was asked for"
        hint = "save_pretrained(model, path, form='huggingface-mxfp4') makes one; experts='auto' loads this one dense"
        raise CheckpointError(Problem(config_file, "", expected, f"the {table.form} form", hint))
    check_tensors(table, config, shards, config_file)
    tokenizer = _tokenizer(directory, config)
    config = _with_special_ids(config, tokenizer)
    if asked is not None:
        config = config.with_(dtype=str(asked).removeprefix("torch."))
    form = "packed" if packed and experts != "dense" else "dense"
    model = HookedGptOss(config, tokenizer, device="meta", experts=form)
    placement = None if device_map is None else plan(model, device_map, max_memory, device)
    if placement is None:
        place = OneDevice(torch.get_default_device() if device is None else torch.device(device))
    else:
        place = Spread(placement, offload_folder)
    weights = read_weights(table, config, shards, model.state_dict(), place, finite=check == "full")
    model.load_state_dict(weights, assign=True)
    recipe = _recipe(path_or_name, asked, device, experts)
    model.loaded_by = recipe.code() if device_map is None else f"{recipe.code()[:-1]}, device_map={device_map!r})"
    here = directory.resolve() if Path(path_or_name).expanduser().exists() else path_or_name
    model.recipe = _recipe(here, asked, device, experts) if device_map is None else None
    return model if placement is None else dispatch(model, placement)


def _recipe(path: str | Path, dtype: torch.dtype | None, device: object, experts: str) -> Recipe:
    """What loads this model again."""
    return Recipe(
        str(path),
        dtype=None if dtype is None else str(dtype).removeprefix("torch."),
        device=None if device is None else str(device),
        experts=experts,
    )


def as_dtype(dtype: torch.dtype | str) -> torch.dtype:
    """A dtype that a model can have, from itself or its name.

    Raises:
        ValueError: for any other.
    """
    found = getattr(torch, dtype.removeprefix("torch."), None) if isinstance(dtype, str) else dtype
    if found not in (torch.bfloat16, torch.float32, torch.float16):
        raise ValueError(f"dtype={dtype!r}: expected torch.bfloat16, torch.float32 or torch.float16, or its name")
    return found


def _check_form(table: Table, config: Config, shards: Shards, config_file: Path) -> None:
    """Whether the tensors are of the form that config.json announces, before their names are compared one by one."""
    present = {other.form: len(other.stored(config.n_layers).keys() & shards.names) for other in _TABLES}
    best = max(present, key=lambda form: (present[form], form == table.form))
    if best != table.form:
        key = "quantization_config" if {best, table.form} <= {t.form for t in _TABLES[:2]} else ""
        expected = f"the {best} form, which the tensors in {shards.directory.name}/ have"
        raise CheckpointError(Problem(config_file, key, expected, f"a config of the {table.form} form"))
    if _is_packed(table):
        for field in ("d_model", "d_mlp"):
            if getattr(config, field) % BLOCK:
                expected = f"a multiple of {BLOCK}, for MXFP4 packs blocks of {BLOCK} numbers"
                raise CheckpointError(Problem(config_file, table.keys[field], expected, str(getattr(config, field))))


def _is_packed(table: Table) -> bool:
    return any(row.layout == "packed" for row in table.rows)


def _tokenizer(directory: Path, config: Config) -> Tokenizer | None:
    """The folder's tokenizer; that of the folder above for ``original/``, which has none of its own."""
    places = (directory, directory.resolve().parent) if directory.resolve().name == "original" else (directory,)
    for place in places:
        file = place / "tokenizer.json"
        if file.is_file():
            try:
                tokenizer = Tokenizer.from_directory(place)
            except (ValueError, OSError) as error:
                raise CheckpointError(str(error)) from error
            if tokenizer.vocab_size > config.d_vocab:
                expected = f"ids below the embedding's {config.d_vocab} rows"
                raise CheckpointError(Problem(file, "", expected, f"{tokenizer.vocab_size} ids"))
            tokenizer.n_ids = config.d_vocab  # the model may write ids that no text encodes to
            return tokenizer
    return None


def _with_special_ids(config: Config, tokenizer: Tokenizer | None) -> Config:
    """OpenAI's config.json names no special tokens: take them from the tokenizer by gpt-oss' spellings."""
    if tokenizer is None or config.eos_token_ids:
        return config
    ids = tokenizer.special
    ends = tuple(ids[name] for name in ("<|return|>", "<|endoftext|>", "<|call|>") if name in ids)
    begin, pad = ids.get("<|startoftext|>"), ids.get("<|pad|>", ids.get("<|endoftext|>"))
    return config.with_(
        eos_token_ids=ends,
        bos_token_id=begin if config.bos_token_id is None else config.bos_token_id,
        pad_token_id=pad if config.pad_token_id is None else config.pad_token_id,
    )
