"""llama.cpp for this processor, from the source archive of llama-cpp-python, in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tests.bench.common.process import ROOT, Failed

PACKAGES = ("llama-cpp-python==0.3.36", "gguf==0.19.0", "numpy==2.4.6")
CMAKE = "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"


def python() -> Path:
    """The interpreter of the environment, which is built the first time (some minutes) and then kept.

    Raises:
        Failed: with the last line of whatever went wrong.
    """
    base = Path(os.environ.get("WORKBENCH_TEST_CACHE") or Path.home() / ".cache" / "workbench-tests")
    folder = base / PACKAGES[0].replace("==", "-")
    interpreter = folder / "bin" / "python"
    if not _works(interpreter):
        start = time.perf_counter()
        _run([sys.executable, "-m", "venv", str(folder)])
        install = [str(interpreter), "-m", "pip", "install", "--quiet", "--no-cache-dir"]
        _run([*install, "--no-binary", "llama-cpp-python", *PACKAGES])
        if not _works(interpreter):
            raise Failed("llama-cpp-python was built and cannot be imported")
        about = {"build_seconds": round(time.perf_counter() - start), "cmake": CMAKE, "packages": PACKAGES}
        (folder / "built.json").write_text(json.dumps(about), encoding="utf-8")
    return interpreter


def gguf(interpreter: Path, source: Path) -> Path:
    """The checkpoint as a GGUF file beside it."""
    file = source.with_name(source.name + ".gguf")
    if not file.is_file():
        _run([str(interpreter), "-m", "tests.bench.common.gguf_file", str(source), str(file)])
    return file


def _works(interpreter: Path) -> bool:
    if not interpreter.exists():
        return False
    check = [str(interpreter), "-c", "import llama_cpp, gguf"]
    return subprocess.run(check, capture_output=True, check=False).returncode == 0


def _run(command: list[str]) -> None:
    environment = os.environ | {"CMAKE_ARGS": CMAKE, "CMAKE_BUILD_PARALLEL_LEVEL": str(os.cpu_count() or 1)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines()
        said = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "")
        raise Failed(f"{Path(command[0]).name} {' '.join(command[1:4])} … failed: {said[:300]}")
