"""Where each weight is read to: one device, or a model's placement over several, with files for what is on disk."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from workbench.model.placement import DISK, Placement


class OneDevice:
    """Everything goes to one device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def device(self, name: str) -> torch.device:
        """Where the tensor of the state dict belongs; on the CPU it may be mapped instead of read."""
        return self._device

    def empty(self, name: str, like: Tensor) -> Tensor:
        """Room for a tensor that must be read."""
        return torch.empty(like.shape, dtype=like.dtype, device=self.device(name))


class Spread(OneDevice):
    """Everything goes where a placement says.

    Weights on "disk" stay in the checkpoint's own files where they lie there as they are used. The others (cast to
    another dtype, transposed, unpacked) get a file of their own in ``offload_folder``, mapped in its turn, so that none
    of them needs memory beyond what the system is free to drop.
    """

    def __init__(self, placement: Placement, offload_folder: str | Path | None = None) -> None:
        self.placement = placement
        self.folder = None if offload_folder is None else Path(offload_folder).expanduser()

    def device(self, name: str) -> torch.device:
        place = self.placement.of(name)
        return torch.device("cpu" if place == DISK else place)

    def empty(self, name: str, like: Tensor) -> Tensor:
        # Vectors (norm gains, cast to float32) are some kilobytes: no file is worth it.
        if self.placement.of(name) != DISK or like.ndim < 2:
            return super().empty(name, like)
        if self.folder is None:
            raise ValueError(
                f"{name} is to stay on disk, and the checkpoint does not hold it as it is used ({like.dtype} "
                f"{list(like.shape)}), so it needs a file of its own: give offload_folder=, a folder on a fast disk. "
                "Loaded in the checkpoint's own dtype and form (experts='packed'), nothing would"
            )
        return in_a_file(self.folder, like)


def in_a_file(folder: Path, like: Tensor) -> Tensor:
    """An empty tensor of the shape and dtype of ``like`` whose pages are a file's, not memory's.

    On Linux and macOS the file has no name any more when this returns: its room is given back with the tensor, also
    when the process is killed. On Windows it stays behind.

    Raises:
        OSError: if the disk has no room for it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_bytes = like.numel() * like.element_size()
    if n_bytes > shutil.disk_usage(folder).free:
        free = shutil.disk_usage(folder).free
        raise OSError(f"offload_folder {folder} has {free:,} bytes free, and the next weight needs {n_bytes:,}")
    with tempfile.NamedTemporaryFile(dir=folder, prefix="workbench-", suffix=".weight", delete=False) as file:
        if hasattr(os, "posix_fallocate"):
            # Room that is only promised would end the process when it is written to on a full disk.
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)
    tensor = torch.from_file(file.name, shared=True, size=like.numel(), dtype=like.dtype, device="cpu")
    if os.name == "posix":
        os.unlink(file.name)
    return tensor.view(like.shape)
