"""Build the native library: ``python -m workbench.model.engines.native.build [directory]``.

No torch and no Python headers are needed, so that this file also runs in an installer's empty environment.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = HERE / "c"
# No -march: files for one instruction set say so themselves, and the library asks the machine when it runs. No
# -ffast-math: NaN and inf must survive. Contraction only joins a product and a sum into one rounding.
FLAGS = (
    *("-O3", "-std=c11", "-D_POSIX_C_SOURCE=200809L", "-ffp-contract=fast"),
    *("-fvisibility=hidden", "-fPIC", "-shared"),
)
LIBRARY = {"win32": "workbench_native.dll", "darwin": "libworkbench_native.dylib"}.get(
    sys.platform, "libworkbench_native.so"
)


class BuildError(RuntimeError):
    """There is no C compiler, or it failed; the message has its words."""


def compiler() -> list[str]:
    """The command in CC, or the first C compiler on the path.

    Raises:
        BuildError: if there is none.
    """
    if chosen := os.environ.get("CC"):
        return shlex.split(chosen)
    for name in ("cc", "gcc", "clang"):  # not cl: it would take the generic path alone, without threads
        if found := shutil.which(name):
            return [found]
    raise BuildError("no C compiler found (tried cc, gcc and clang; set CC to name another)")


def source_digest() -> str:
    """A digest of every source file, which the library carries: so a library of other sources is known for one."""
    digest = hashlib.sha256()
    for path in sorted(SOURCES.glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:32]


def compile_library(directory: Path, flags: tuple[str, ...] = ()) -> Path:
    """Compile the sources into a shared library in ``directory``; a few seconds.

    Args:
        directory: is made if it does not exist. A library that is there is replaced in one step: programs that have it
            open keep the old one.
        flags: more compiler flags, after our own.

    Raises:
        BuildError: if there is no compiler, or it fails, or the directory cannot be written to.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".build-") as scratch:
            built = Path(scratch) / LIBRARY
            _run([*_command(built), *flags], built.parent)
            return built.replace(directory / LIBRARY)
    except OSError as error:
        raise BuildError(f"cannot build in {directory}: {error}") from error


def _command(target: Path) -> list[str]:
    sources = [str(path) for path in sorted(SOURCES.glob("*.c"))]
    digest = f'-DWB_SOURCE_DIGEST="{source_digest()}"'
    return [*compiler(), *FLAGS, digest, *sources, "-pthread", "-o", str(target)]


def _run(command: list[str], directory: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", cwd=directory)
    except OSError as error:
        raise BuildError(f"the C compiler {command[0]} cannot be run: {error.strerror}") from error
    if done.returncode:
        raise BuildError(f"the C compiler {command[0]} failed:\n{done.stdout}{done.stderr}{shlex.join(command)}")


def digest_of(library: Path) -> str:
    """The digest of the sources that a library was built from; "" where it cannot be loaded or carries none."""
    try:
        read = ctypes.CDLL(str(library)).wb_source_digest
    except (OSError, AttributeError):
        return ""
    read.restype = ctypes.c_char_p
    return read().decode()


def ensure_library(directory: Path = HERE) -> Path:
    """The library in ``directory``, built if there is none, or one of other sources or another machine.

    Raises:
        BuildError: as ``compile_library``.
    """
    library = directory / LIBRARY
    is_fresh = library.exists() and digest_of(library) == source_digest()
    return library if is_fresh else compile_library(directory)


if __name__ == "__main__":
    print(compile_library(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE))
