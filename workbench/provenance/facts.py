"""What a number depends on besides the model and its input: versions and machine."""

from __future__ import annotations

import os
import platform
import sys
import uuid
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "transformers", "transformer-lens")


@lru_cache(1)
def versions() -> dict[str, str]:
    """Of Python, this package and those that numbers depend on; read from their metadata, nothing is imported."""
    found = {"python": platform.python_version(), "workbench": sys.modules["workbench"].__version__}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@lru_cache(1)
def machine() -> dict[str, Any]:
    """What the process runs on: system, processor, cores, memory in bytes."""
    import psutil

    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "memory": psutil.virtual_memory().total,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def environment(**more: Any) -> dict[str, Any]:
    """Versions, machine (with ``more``: threads, engine, device) and the notebook, if a kernel says which."""
    return {"versions": versions(), "machine": machine() | more, "notebook": os.environ.get("JPY_SESSION_NAME")}


@lru_cache(2)
def _session(pid: int) -> str:
    return uuid.uuid4().hex[:8]


def session() -> str:
    """This process among all: 8 hex digits, another after a fork."""
    return _session(os.getpid())
