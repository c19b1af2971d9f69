"""What stands in the folder beside the weights, and whether a run may write there."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from workbench.checkpoints.errors import CheckpointError
from workbench.checkpoints.synth.files import PARTIAL, Shard
from workbench.model.config import Config

# What was asked for: how a later run knows its own unfinished work.
PLAN = "workbench-synth.json"
# To be raised when the same options would give other bytes.
RECIPE = 1
_RESERVE = 50_000_000  # bytes left free for the small files and for whoever else writes


def plan_json(config: Config, form: str, seed: int, max_shard_bytes: int) -> dict[str, Any]:
    """Everything that the bytes depend on."""
    shape = {key: value for key, value in asdict(config).items() if key != "name"}
    plan = {"recipe": RECIPE, "form": form, "seed": seed, "max_shard_bytes": max_shard_bytes, "config": shape}
    return json.loads(json.dumps(plan))  # tuples become lists, as in the file


def check_place(folder: Path, plan: dict[str, Any]) -> None:
    """Whether the folder is free, or this plan's own.

    Raises:
        CheckpointError: if something else is there.
    """
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file: a checkpoint is a folder, so give another path")
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if not there - {PLAN + PARTIAL}:
        return
    if PLAN not in there:
        raise CheckpointError(
            f"{folder} holds something that `workbench synth` did not make, so it is left alone: "
            "give another path, or empty the folder first"
        )
    if (other := _read_plan(folder)) != plan:
        raise CheckpointError(
            f"{folder} holds the work of another `workbench synth`, which differs in {_difference(other, plan)}: "
            "give another path, or delete that folder first"
        )


def _read_plan(folder: Path) -> dict[str, Any]:
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        plan = None
    return plan if isinstance(plan, dict) else {}


def _difference(there: dict[str, Any], asked: dict[str, Any]) -> str:
    there, asked = there | (there.get("config") or {}), asked | asked["config"]
    fields = [key for key in asked if key != "config" and there.get(key) != asked[key]]
    return ", ".join(f"{key} ({there.get(key)!r:.60} there, {asked[key]!r:.60} asked)" for key in fields)


def check_room(folder: Path, shards: list[Shard]) -> None:
    """Whether the disk takes what is still missing.

    Raises:
        CheckpointError: with how much is needed, how much is free, and what to do.
    """
    missing = sum(shard.n_bytes - min(shard.n_bytes, _n_there(folder, shard)) for shard in shards)
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if missing and missing + _RESERVE > free:
        raise CheckpointError(
            f"{folder} needs {missing / 1e9:.2f} GB more and its disk has {free / 1e9:.2f} GB free: "
            "give a folder on another disk, make room, or ask for fewer layers or experts"
        )


def _n_there(folder: Path, shard: Shard) -> int:
    places = (folder / shard.file, folder / (shard.file + PARTIAL))
    return max((place.stat().st_size for place in places if place.is_file()), default=0)


def is_whole(folder: Path, shard: Shard) -> bool:
    """Whether a shard's file has its own name, which it gets when it is finished, and its full length."""
    file = folder / shard.file
    return file.is_file() and file.stat().st_size == shard.n_bytes


def as_text(content: dict[str, Any]) -> str:
    """As every JSON file of a checkpoint is written."""
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def write_once(file: Path, text: str) -> None:
    """A small file, whole or not at all; one that is there stays as it is."""
    if not file.exists():
        temporary = file.with_name(file.name + PARTIAL)
        temporary.write_text(text, encoding="utf-8", newline="\n")
        os.replace(temporary, file)
