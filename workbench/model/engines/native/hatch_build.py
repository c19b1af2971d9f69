"""Hatchling runs this when the package is installed or its wheel is built: it adds the native library.

Where there is no C compiler, or it fails, the install goes on without: every product then uses torch.
"""

from __future__ import annotations

import importlib.util
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

NATIVE = "workbench/model/engines/native"


class NativeLibraryHook(BuildHookInterface[Any]):
    """Editable: the library goes beside its sources. A wheel: built anew into it, the platform in the wheel's name."""

    scratch: tempfile.TemporaryDirectory[str] | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build = load_build(Path(self.root))
        try:
            if version == "editable":
                build.ensure_library()
                return
            self.scratch = tempfile.TemporaryDirectory(prefix="workbench-native-")
            library = build.compile_library(Path(self.scratch.name))
        except build.BuildError as error:
            reason = str(error).splitlines()[0].rstrip(":")
            self.app.display_warning(
                f"gpt-oss-workbench: installed without the native engine (torch is used): {reason}"
            )
            return
        build_data["force_include"][str(library)] = f"{NATIVE}/{library.name}"
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{platform_tag()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.scratch is not None:
            self.scratch.cleanup()


def load_build(root: Path) -> ModuleType:
    """build.py by its path: importing the package would need torch, which an installer's environment does not have."""
    spec = importlib.util.spec_from_file_location("workbench_native_build", root / NATIVE / "build.py")
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {root / NATIVE / 'build.py'}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def platform_tag() -> str:
    """This machine's own platform, as in linux_x86_64: the library knows nothing of Python's ABI, but all of the CPU's.

    manylinux would promise an old libc, which nobody has looked for.
    """
    return next(
        tag.platform for tag in sys_tags() if "manylinux" not in tag.platform and "musllinux" not in tag.platform
    )
