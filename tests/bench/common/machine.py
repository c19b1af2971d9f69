"""What the figures were measured on, and the settings that every process gets alike."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "transformer-lens", "gpt-oss-workbench")
# glibc gives a large buffer back to the system when it is freed, and the next one faults its pages in anew; tuned, it
# keeps them.
MALLOC = {
    "default": {},
    "tuned": {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000"},
}
_MALLOC_NAMES = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")


def environment(threads: int, malloc: str) -> dict[str, str]:
    """The environment of a measured process: this one's, with the same threads and the same malloc for all."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_MALLOC_NAMES)}
    counts = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    quiet = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TQDM_DISABLE": "1"}
    return kept | counts | quiet | MALLOC[malloc]


def describe(threads: int) -> dict[str, Any]:
    """Processor, memory, threads and versions."""
    return {
        "processor": _processor(),
        "instructions": _instructions(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": threads,
        "memory_bytes": memory_bytes("MemTotal"),
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "versions": {name: _version(name) for name in PACKAGES},
        "load_before": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def sentence(machine: dict[str, Any]) -> str:
    """The machine in one line."""
    memory = machine["memory_bytes"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if version)
    return (
        f"{machine['processor']} ({' '.join(machine['instructions']) or 'no wide vectors'}), "
        f"{machine['threads']} threads on {machine['cores']} cores, "
        f"{f'{memory / 2**30:.0f} GiB, ' if memory else ''}{machine['system']}; {versions}"
    )


def warning(machine: dict[str, Any]) -> str:
    """What to know before the figures are believed; empty on a quiet machine."""
    load = machine["load_before"] or 0.0
    return f"other work is running (load {load}): the figures and their ratios hold less\n" if load > 0.5 else ""


def memory_bytes(field: str) -> int | None:
    """A field of Linux's /proc/meminfo in bytes (MemTotal, MemAvailable), or None elsewhere."""
    return _kilobytes(Path("/proc/meminfo"), field)


def process_bytes(field: str) -> int | None:
    """A field of this process' /proc/self/status in bytes (VmHWM, RssAnon, RssFile), or None elsewhere."""
    return _kilobytes(Path("/proc/self/status"), field)


def _kilobytes(file: Path, field: str) -> int | None:
    try:
        lines = file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{field}:")]
    return int(found[0]) * 1024 if found else None


def _cpu_info(field: str) -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(field)), "")


def _processor() -> str:
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    family, model = _cpu_info("cpu family"), _cpu_info("model")
    return f"{name}, family {family} model {model}" if family else name


def _instructions() -> list[str]:
    flags = set(_cpu_info("flags").split())
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
