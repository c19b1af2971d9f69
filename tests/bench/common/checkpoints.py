"""The checkpoints that are measured, made once and kept."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.common.process import ROOT, Failed

NANO = ROOT / "data" / "nano"
LAYER_BYTES = 480_000_000  # of the real shape: experts in MXFP4, attention in bfloat16
OUTER_BYTES = 2_320_000_000  # embedding and unembedding


def random_model(folder: Path, dtype: str, quick: bool) -> Path:
    """512 wide, 8 layers, 16 experts, 110 million parameters; ``quick``: 4 layers, 25 million."""
    path = folder / f"random-{'25m' if quick else '110m'}-{dtype}"
    return _made(path, "random", dtype, "4" if quick else "8", "256" if quick else "512")


def synth_20b(path: Path, layers: int = 24) -> Path:
    """Random weights in the real 20b shape and on-disk form, by ``workbench synth``.

    Raises:
        Failed: if the disk has no room, or the command fails.
    """
    if (path / "config.json").is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    needed, free = OUTER_BYTES + layers * LAYER_BYTES, shutil.disk_usage(path.parent).free
    if free < 1.2 * needed:
        raise Failed(f"{path} is not there, and to make it takes {needed / 1e9:.1f} GB of {free / 1e9:.1f} GB free")
    _run([sys.executable, "-m", "workbench", "synth", "20b", "--layers", str(layers), "--out", str(path)])
    return path


def openai_form(source: Path) -> Path:
    """The same weights in OpenAI's own form, beside the source."""
    return _made(source.with_name(source.name + "-openai"), "openai", str(source))


def in_page_cache(path: Path) -> int:
    """Read a file, or a folder's weights, once, so that no subject pays for the disk; the bytes read."""
    total = 0
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        with file.open("rb", buffering=0) as stream:
            while block := stream.read(1 << 24):
                total += len(block)
    return total


def _made(path: Path, *how: str) -> Path:
    if not (path / "config.json").is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        _run([sys.executable, "-m", "tests.bench.common.make", how[0], str(path), *how[1:]])
    return path


def _run(command: list[str]) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:]
        raise Failed(f"{' '.join(command[1:4])} … failed: {''.join(last)[:300]}")
