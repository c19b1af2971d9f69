"""A second device for tests on a machine without a GPU: "elsewhere", whose numbers are kept on the CPU out of sight.

torch lets a device be written in Python. This one does every operation as the CPU does, bit for bit, and refuses to mix
with tensors of the CPU, as a GPU does. A tensor there is a shell without numbers; the numbers are found by its storage.
Importing this module registers the device for the whole process, so it is imported by scripts of their own only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as tree
from torch.utils import backend_registration as registration

NAME = "elsewhere"
_numbers: dict[int, Tensor] = {}


def _shell(numbers: Any) -> Any:
    """A tensor of this device for one of the CPU; anything else as it is."""
    if not isinstance(numbers, Tensor):
        return numbers
    make = torch._C._acc.create_empty_tensor  # pyright: ignore[reportAttributeAccessIssue]
    shell = make(numbers.shape, numbers.dtype)
    _numbers[shell.untyped_storage()._cdata] = numbers
    return shell


def _inside(shell: Tensor) -> Tensor:
    """The numbers of a tensor of this device, as it sees them: torch views a storage under other dtypes and shapes."""
    numbers = _numbers[shell.untyped_storage()._cdata]
    if numbers.dtype != shell.dtype:
        numbers = numbers.view(shell.dtype)
    return numbers.reshape(shell.shape) if numbers.numel() == shell.numel() else numbers


def _operate(operation: Any, *args: Any, **kwargs: Any) -> Any:
    name = operation._schema.name
    if name == "aten::_copy_from":
        source, target = (_inside(x) if x.device.type == NAME else x for x in args[:2])
        target.copy_(source)
        return args[1]
    if name == "aten::_local_scalar_dense":
        return _inside(args[0]).item()
    opened: list[tuple[Tensor, Tensor]] = []

    def enter(x: Any) -> Any:
        if isinstance(x, torch.device):
            return torch.device("cpu")
        if not isinstance(x, Tensor):
            return x
        if x.device.type != NAME:
            if x.ndim and not name.startswith("aten::index"):  # a GPU takes indices from the CPU too
                raise RuntimeError(f"{name}: a tensor on {x.device} among tensors {NAME}")
            return x
        opened.append((x, _inside(x)))
        return opened[-1][1]

    inner_args, inner_kwargs = tree.tree_map(enter, (args, kwargs))
    result = _on_cpu(operation, name, inner_args, inner_kwargs)
    for shell, numbers in opened:
        if shell.shape != numbers.shape:  # an operation with out= made it longer
            shell.data = _shell(numbers)
    if (device := kwargs.get("device")) is not None and device.type == "cpu":
        return result
    # In-place operations return the tensor that they were given.
    shells = {id(numbers): shell for shell, numbers in opened}
    return tree.tree_map(lambda x: shells[id(x)] if id(x) in shells else _shell(x), result)


def _on_cpu(operation: Any, name: str, args: Any, kwargs: Any) -> Any:
    if name in ("aten::view", "aten::_unsafe_view"):
        return args[0].reshape(args[1])
    if name == "aten::as_strided":  # every shell is contiguous, whatever its numbers are
        base = args[0].contiguous()
        return base.as_strided(args[1], args[2], base.storage_offset() + (args[3] if len(args) > 3 and args[3] else 0))
    return operation(*args, **kwargs)


registration._setup_privateuseone_for_python_backend(NAME)
_library = torch.library.Library("_", "IMPL")
_library.fallback(_operate, "PrivateUse1")
