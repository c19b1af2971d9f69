"""What a user names → a folder on this disk: an embedded model, a folder, or a Hugging Face hub id."""

from __future__ import annotations

import re
from difflib import get_close_matches
from pathlib import Path

from workbench.checkpoints.embedded import EMBEDDED, embedded_path
from workbench.checkpoints.errors import CheckpointError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
# The top folder only: gpt-oss' own repositories hold the same weights twice more, in original/ and metal/.
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt"]
_HUB_SKIPPED = ["*/*"]


def resolve(path_or_name: str | Path) -> tuple[Path, str]:
    """The checkpoint's folder, and what to call the model.

    Raises:
        CheckpointError: if it is none of these. The message lists what was tried.
    """
    if str(path_or_name) in EMBEDDED and isinstance(path_or_name, str):
        try:
            return embedded_path(path_or_name), path_or_name
        except FileNotFoundError as error:
            raise CheckpointError(str(error)) from error
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return _checkpoint_folder(path), _folder_name(path)
    if path.is_file():
        raise CheckpointError(f"{path} is a file: give the checkpoint's folder, {str(path.parent)!r}")
    if isinstance(path_or_name, str) and _HUB_ID.fullmatch(path_or_name):
        return _download(path_or_name), path_or_name
    near = get_close_matches(str(path_or_name), EMBEDDED, n=1)
    hint = f" (closest is {near[0]!r})" if near else ""
    raise CheckpointError(
        f"no checkpoint {str(path_or_name)!r}. Tried: an embedded model, of which there are {list(EMBEDDED)}{hint}; "
        f"a folder, but {str(path.absolute())!r} is none; a Hugging Face hub id, which is written 'organisation/name'"
    )


def _folder_name(path: Path) -> str:
    path = path.resolve()
    return path.parent.name if path.name == "original" else path.name


def _checkpoint_folder(path: Path) -> Path:
    """The folder itself where it has a config.json, else its ``original/``. With both, the top one counts."""
    if not (path / "config.json").is_file() and (path / "original" / "config.json").is_file():
        return path / "original"
    return path


def _download(hub_id: str) -> Path:
    from huggingface_hub import constants, snapshot_download  # late: only this way of loading needs it

    telling = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True  # else each request says which packages are installed here
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_HUB_FILES, ignore_patterns=_HUB_SKIPPED))
    except Exception as error:  # of whatever type: the hub client's own change with the http library that it uses
        reason = " ".join(str(error).split())[:300]
        raise CheckpointError(
            f"no checkpoint {hub_id!r}. Tried: a folder, but there is none; the Hugging Face hub, which said "
            f"{type(error).__name__}: {reason}. Check the name and the connection, or give the folder of a copy"
        ) from error
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = telling
