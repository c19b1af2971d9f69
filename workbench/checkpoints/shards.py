"""A checkpoint folder's safetensors files, sharded or not, as one mapping from tensor name to data."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath

from torch import Tensor

from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.safetensors_file import SafetensorsFile, TensorInfo

PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.ckpt")


class Shards:
    """Every tensor of the folder, and the file it is in.

    With an index (``*.safetensors.index.json``) exactly the files that it names are read, else all ``*.safetensors``.

    Raises:
        CheckpointError: for a folder without safetensors (pickles are refused), an index that names a file that is not
            there or lies elsewhere, a tensor in two files, an index and files that disagree, or a damaged file.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.index, weight_map = _read_index(directory)
        # Without hidden files: macOS leaves ._model.safetensors beside a copy on some disks.
        paths = sorted(path for path in directory.glob("*.safetensors") if path.is_file() and path.name[0] != ".")
        if self.index is not None:
            paths = _indexed_paths(self.index, weight_map, paths)
        if not paths:
            raise _nothing_to_read(directory)
        self._file_of: dict[str, SafetensorsFile] = {}
        for path in paths:
            self._add(SafetensorsFile(path))
        if self.index is not None:
            self._compare_with_index(self.index, weight_map)

    @property
    def names(self) -> set[str]:
        """All tensor names."""
        return set(self._file_of)

    @property
    def n_bytes(self) -> int:
        """Bytes of all tensors, as stored."""
        return sum(info.stop - info.start for info in map(self.info, self._file_of))

    def path(self, name: str) -> Path:
        """The file that holds a tensor."""
        return self._file_of[name].path

    def info(self, name: str) -> TensorInfo:
        """What that file's header says of a tensor."""
        return self._file_of[name].tensors[name]

    def read(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor:
        """A tensor, or rows of it; see :meth:`SafetensorsFile.read`."""
        return self._file_of[name].read(name, start, stop)

    def map(self, name: str, start: int | None = None, stop: int | None = None) -> Tensor | None:
        """A tensor as pages of its file, where that can be; see :meth:`SafetensorsFile.map`."""
        return self._file_of[name].map(name, start, stop)

    def _add(self, file: SafetensorsFile) -> None:
        for name in file.tensors:
            if name in self._file_of:
                expected = f"it in one file (it is in {self.path(name).name})"
                raise CheckpointError(Problem(file.path, f"tensor {name!r}", expected, "it here a second time"))
            self._file_of[name] = file

    def _compare_with_index(self, index: Path, weight_map: dict[str, str]) -> None:
        problems = []
        for name, file_name in weight_map.items():
            there = self.path(name).name if name in self._file_of else "no file"
            if there != file_name:
                problems.append(Problem(index, f"tensor {name!r}", f"it in {file_name}", f"it in {there}"))
        problems += [
            Problem(self.path(name), f"tensor {name!r}", f"it in {index.name}", "it unlisted")
            for name in sorted(self._file_of.keys() - weight_map.keys())
        ]
        if problems:
            raise CheckpointError(problems, f"{index}: the index and the files disagree")


def _read_index(directory: Path) -> tuple[Path | None, dict[str, str]]:
    found = sorted(directory.glob("*.safetensors.index.json"))
    if not found:
        return None, {}
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise CheckpointError(Problem(directory, "", "one *.safetensors.index.json", names))
    try:
        weight_map = json.loads(found[0].read_text(encoding="utf-8"))["weight_map"]
        sane = all(isinstance(file, str) for file in weight_map.values()) and bool(weight_map)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_weight_map(found[0], f"{type(error).__name__}: {error}") from error
    if not sane:
        raise _no_weight_map(found[0], f"{weight_map!r:.80}")
    return found[0], weight_map


def _no_weight_map(index: Path, found: str) -> CheckpointError:
    return CheckpointError(Problem(index, "weight_map", "a JSON object {tensor: file}", found))


def _indexed_paths(index: Path, weight_map: dict[str, str], present: list[Path]) -> list[Path]:
    names = sorted(set(weight_map.values()))
    for name in names:
        tensor = next(tensor for tensor, file in weight_map.items() if file == name)
        # A name with a folder in it, in either system's spelling, could point anywhere on the disk.
        if name in ("", ".", "..") or PurePosixPath(name).name != name or PureWindowsPath(name).name != name:
            expected = f"a file name in {index.parent}"
            raise CheckpointError(Problem(index, f"tensor {tensor!r}", expected, repr(name)))
        if not name.endswith(".safetensors"):
            raise CheckpointError(Problem(index, f"tensor {tensor!r}", "a *.safetensors file", repr(name)))
        if not _is_file(index.parent / name):
            there = ", ".join(path.name for path in present) or "no *.safetensors at all"
            hint = "Finish the download, or copy the missing file"
            raise CheckpointError(Problem(index, f"tensor {tensor!r}", f"the file {name}", there, hint))
    extra = sorted({path.name for path in present} - set(names))
    if extra:
        hint = "Two sets of weights in one folder: move the one that you do not mean elsewhere"
        found = f"{', '.join(extra)} unlisted"
        raise CheckpointError(Problem(index, "weight_map", "every *.safetensors of the folder", found, hint))
    return [index.parent / name for name in names]


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name that no file can have: too long, or with a NUL in it
        return False


def _nothing_to_read(directory: Path) -> CheckpointError:
    pickles = sorted(path.name for pattern in PICKLES for path in directory.glob(pattern))
    if not pickles:
        return CheckpointError(Problem(directory, "", "*.safetensors files", "none"))
    why = "A pickle can run any code when it is opened, so it is never read: convert it to safetensors first"
    return CheckpointError(
        Problem(directory, "", "*.safetensors files", f"only pickles ({', '.join(pickles[:3])})", why)
    )
