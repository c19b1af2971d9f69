"""The library itself: found, loaded, and what it says of this machine."""

from __future__ import annotations

import ctypes
import os
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

ABI_VERSION = 3
ISAS = ("auto", "generic", "avx2", "avx512", "avx512_bf16")
MAX_THREADS = 256
DTYPES = {torch.float32: 0, torch.bfloat16: 1}


class Buffer(ctypes.Structure):
    """A tensor's own bytes, as the library takes them where arguments are few."""

    _fields_ = (("data", ctypes.c_void_p), ("bytes", ctypes.c_int64))

    @classmethod
    def of(cls, tensor: Tensor | None) -> Buffer:
        return cls(*span(tensor))


def span(tensor: Tensor | None) -> tuple[int, int]:
    """Where a tensor starts, and the bytes from its first to its last number (views of experts may have gaps)."""
    if tensor is None or tensor.numel() == 0:
        return 0, 0
    if tensor.is_contiguous():
        return tensor.data_ptr(), tensor.nbytes
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return tensor.data_ptr(), (last + 1) * tensor.element_size()


def library_path() -> Path:
    """Where the library is looked for: beside this file, unless WORKBENCH_NATIVE_LIBRARY says otherwise."""
    from workbench.model.engines.native.build import LIBRARY  # not above: build is also run as a program

    chosen = os.environ.get("WORKBENCH_NATIVE_LIBRARY")
    return Path(chosen) if chosen else Path(__file__).parent / LIBRARY


@lru_cache(maxsize=1)
def load() -> tuple[ctypes.CDLL | None, str]:
    """The library and "", or None and why there is none."""
    path = library_path()
    if not path.exists():
        return None, f"{path} is not there: it was not built when the package was installed"
    try:
        library = ctypes.CDLL(str(path))
        if reason := _unfit(library, path):
            return None, reason
        _declare(library)
    except (OSError, AttributeError) as error:
        return None, f"{path} cannot be loaded: {error}"
    _lend_threads(library)
    return library, ""


def _unfit(library: ctypes.CDLL, path: Path) -> str:
    """Why a library that loads may not be used: it was built for another version of this package."""
    from workbench.model.engines.native import build

    version = library.wb_abi_version()
    if version != ABI_VERSION:
        return f"{path} speaks version {version} of the interface, this package version {ABI_VERSION}"
    library.wb_source_digest.restype = ctypes.c_char_p
    is_ours = not os.environ.get("WORKBENCH_NATIVE_LIBRARY")
    if is_ours and library.wb_source_digest().decode() != build.source_digest():
        return f"{path} was built from other sources than those beside it"
    return ""


def _declare(library: ctypes.CDLL) -> None:
    for name in ("wb_strerror", "wb_isa_name"):
        function = getattr(library, name)
        function.argtypes, function.restype = (ctypes.c_int32,), ctypes.c_char_p
    library.wb_isa_supported.argtypes = (ctypes.c_int32,)
    library.wb_mxfp4_unpack.argtypes = (Buffer, Buffer, ctypes.c_int64, Buffer) + (ctypes.c_int32,) * 3
    library.wb_mxfp4_grouped_linear.argtypes = library.wb_dense_linear.argtypes = (ctypes.c_void_p,)
    library.wb_use_team.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    library.wb_use_team.restype = library.wb_release_scratch.restype = None


def _lend_threads(library: ctypes.CDLL) -> None:
    """Let the library run on torch's own OpenMP threads, where torch has them and WORKBENCH_NATIVE_POOL is not "own".

    After each of torch's loops its threads spin for milliseconds, on the cores that a second pool would need.
    """
    if os.environ.get("WORKBENCH_NATIVE_POOL") == "own":
        return
    try:  # a symbol is looked for in a library and in all that it was linked with
        torch_library = ctypes.CDLL(torch._C.__file__)
        team = torch_library.GOMP_parallel, torch_library.omp_get_max_threads
    except (OSError, AttributeError):
        return
    library.wb_use_team(*(ctypes.cast(function, ctypes.c_void_p) for function in team))


def available() -> bool:
    """Whether the library was built and can be loaded."""
    return load()[0] is not None


def why_not() -> str:
    """Why ``available()`` is false, for the one warning; "" where it is true."""
    return load()[1]


def library() -> ctypes.CDLL:
    """The loaded library.

    Raises:
        RuntimeError: if there is none, saying why.
    """
    found, reason = load()
    if found is None:
        raise RuntimeError(
            f"the native engine is not available: {reason}. `python -m workbench.model.engines.native.build` builds it "
            "anew; the eager engine needs no library"
        )
    return found


def isas() -> list[str]:
    """The instruction sets that run here, worst first."""
    return [name for code, name in enumerate(ISAS) if code and library().wb_isa_supported(code)]


def isa() -> str:
    """The instruction set in use: WORKBENCH_NATIVE_ISA's, or the best of this machine."""
    return ISAS[isa_code(None) or library().wb_isa_best()]


def isa_code(name: str | None) -> int:
    """The library's number for an instruction set; 0, the best, for None unless WORKBENCH_NATIVE_ISA names one.

    Raises:
        ValueError: if this machine or build does not have it.
    """
    wanted = name or os.environ.get("WORKBENCH_NATIVE_ISA") or "auto"
    if wanted == "auto":
        return 0
    if wanted not in isas():
        raise ValueError(f"instruction set {wanted!r} (WORKBENCH_NATIVE_ISA): this machine and build have {isas()}")
    return ISAS.index(wanted)


def thread_count(threads: int | None) -> int:
    """torch's number of threads for None; at least one, at most what the library takes."""
    return max(1, min(torch.get_num_threads() if threads is None else threads, MAX_THREADS))


def raise_for(status: int, what: str) -> None:
    """The library's own words for a status that is not fine.

    Raises:
        ValueError: unless status is 0.
    """
    if status:
        raise ValueError(f"native {what}: {library().wb_strerror(status).decode()}")


def release_scratch() -> None:
    """Give back the memory that calls keep for each other (at most 96 MB)."""
    library().wb_release_scratch()
