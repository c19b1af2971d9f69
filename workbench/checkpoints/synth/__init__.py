"""Checkpoints of random weights in the real form on disk, to try hardware and code before a download."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from tqdm.auto import tqdm

from workbench.checkpoints import huggingface, openai
from workbench.checkpoints.errors import CheckpointError
from workbench.checkpoints.synth.files import plan_shards, write_shard
from workbench.checkpoints.synth.folder import PLAN, as_text, check_place, check_room, is_whole, plan_json, write_once
from workbench.checkpoints.synth.small_files import small_files
from workbench.checkpoints.synth.tokenizer import stand_in, with_special_ids
from workbench.checkpoints.weights import SHOW_PROGRESS_ABOVE
from workbench.model.config import Config, preset
from workbench.model.mxfp4 import BLOCK

SynthForm = Literal["huggingface-mxfp4", "openai"]
FORMS = {"huggingface-mxfp4": huggingface.PACKED, "openai": openai.PACKED}


def synthesise(
    shape: Config | str,
    path: str | Path,
    form: SynthForm = "huggingface-mxfp4",
    seed: int = 0,
    max_shard_bytes: int = 5_000_000_000,
) -> Path:
    """Write a checkpoint of random, well-scaled weights, tensor for tensor as the published ones are stored.

    Needs little memory: weights are made a piece at a time. Killed half-way, the same call goes on where it stopped,
    and the files come out the same to the byte: each weight follows from the shape, the seed, the tensor's name and
    its place in it, and is the same in every form. A folder that is finished is left as it is.

    Args:
        shape: a :class:`Config`, or a preset's name ("20b", "120b", "nano"); ``preset("20b").with_(n_layers=2)`` is a
            smaller one. Stored as bfloat16 and MXFP4, whatever its dtype.
        path: the folder, new or empty, or with this call's own unfinished work.
        form: "huggingface-mxfp4", or "openai", that of OpenAI's ``original/``.
        seed: another one gives other weights of the same kind.
        max_shard_bytes: more is split over several files.

    Returns:
        The folder. Its README.md says that the weights are random, and that the tokenizer is a stand-in.

    Raises:
        CheckpointError: if the folder holds anything else, the disk is too full, or the form cannot hold the shape.
    """
    if form not in FORMS:
        raise ValueError(f"form={form!r}: expected one of {list(FORMS)}")
    config = with_special_ids(preset(shape) if isinstance(shape, str) else shape).with_(dtype="bfloat16")
    _check_shape(config, form)
    folder = Path(path).expanduser().absolute()
    shards = plan_shards(FORMS[form], config, max_shard_bytes)
    plan = plan_json(config, form, seed, max_shard_bytes)
    check_place(folder, plan)
    check_room(folder, shards)
    folder.mkdir(parents=True, exist_ok=True)
    write_once(folder / PLAN, as_text(plan))
    total = sum(shard.n_bytes for shard in shards)
    with tqdm(
        total=total, desc=f"writing {config.name}", unit="B", unit_scale=True, disable=total <= SHOW_PROGRESS_ABOVE
    ) as bar:
        for shard in shards:
            if is_whole(folder, shard):
                bar.update(shard.n_bytes)
            else:
                write_shard(shard, folder, seed, bar.update)
    tokenizer = stand_in(config.d_vocab)
    if tokenizer is not None and not (folder / "config.json").exists():  # a finished folder may have been given another
        tokenizer.save(folder)
    for name, text in small_files(config, form, shards, seed):
        write_once(folder / name, text)
    return folder


def _check_shape(config: Config, form: str) -> None:
    for field in ("d_model", "d_mlp"):
        if getattr(config, field) % BLOCK:
            raise CheckpointError(
                f"{field}={getattr(config, field)}: expected a multiple of {BLOCK}, the block size of MXFP4"
            )
    if form == "openai":
        openai.config_json(config)  # says what its form has no key for
