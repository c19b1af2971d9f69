"""How much memory is free: of the machine, of the container, of a GPU."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil
import torch

_NO_LIMIT = 1 << 60  # cgroup v1 writes a number near 2^63 where there is none


@dataclass(frozen=True)
class Free:
    """Bytes that a run may still take on a device, and who says so: "the machine", "the container's limit", …"""

    n_bytes: int
    source: str


def free_memory(device: torch.device | str = "cpu") -> Free | None:
    """What a run can still take there; None for a kind of device that does not tell.

    Main memory: what the system calls available (file pages that it can drop are in it, swap is not), and not more
    than the container's limit leaves. CUDA: what the driver calls free, and what torch has reserved but does not use.
    """
    device = torch.device(device)
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return Free(torch.cuda.mem_get_info(device)[0] + unused, torch.cuda.get_device_name(device))
    if device.type != "cpu":
        return None
    machine = Free(psutil.virtual_memory().available, "the machine")
    container = container_free()
    return machine if container is None or container.n_bytes > machine.n_bytes else container


def container_free(root: Path = Path("/")) -> Free | None:
    """What the control groups (v2, v1) that this process is in leave it; None without a limit, and off Linux.

    Pages of files count against a group until they are dropped, which the kernel does before it ends a process.
    """
    left = []
    for folder, files in _groups(root):
        limit = _number(folder / files.limit)
        if limit is not None and limit < _NO_LIMIT:
            used = _number(folder / files.used) or 0
            left.append(max(0, limit - used + _file_pages(folder, files.prefix)))
    return Free(min(left), "the container's limit") if left else None


@dataclass(frozen=True)
class _Files:
    """How one version of control groups spells things; ``prefix`` is that of the counts which include sub-groups."""

    controller: str
    mounts: tuple[str, ...]
    limit: str
    used: str
    prefix: str


_V2 = _Files("", ("sys/fs/cgroup", "sys/fs/cgroup/unified"), "memory.max", "memory.current", "")
_V1 = _Files("memory", ("sys/fs/cgroup/memory",), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_")


@lru_cache
def _groups(root: Path) -> tuple[tuple[Path, _Files], ...]:
    """The folders of this process' groups and of those around them that can have a limit of memory."""
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        parts = Path(path.lstrip("/")).parts
        for files in (_V2, _V1):
            if files.controller not in controllers.split(","):
                continue
            # Seen from inside a container, the path may be the host's: then only the mount itself is there.
            folders = (root.joinpath(mount, *parts[:n]) for mount in files.mounts for n in range(len(parts), -1, -1))
            found += [(folder, files) for folder in folders if (folder / files.limit).is_file()]
    return tuple(found)


def _number(file: Path) -> int | None:
    """The number in a file; None for "max", or where there is no such file."""
    try:
        text = file.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _file_pages(folder: Path, prefix: str) -> int:
    """Bytes of file pages that the kernel can drop (not shared memory, which it cannot)."""
    try:
        lines = (folder / "memory.stat").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    stat = dict(line.split(" ", 1) for line in lines)
    return sum(int(stat.get(f"{prefix}{kind}_file", 0)) for kind in ("active", "inactive"))


class _MallocInfo(ctypes.Structure):
    """glibc's struct mallinfo2; fordblks is the free room inside the heap."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def heap_room() -> int:
    """Bytes that this process has freed and that glibc holds on to: the system counts them as used, and torch can
    have them again (with MALLOC_TRIM_THRESHOLD_ set high that is gigabytes). 0 where there is no glibc ≥ 2.33."""
    if sys.platform != "linux":
        return 0
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo2.restype = _MallocInfo
    return int(mallinfo2().fordblks)
