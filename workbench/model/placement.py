"""A model spread over several devices, by accelerate: its device maps, its hooks.

A block stays whole: its parts share the residual stream. What a map puts on "cpu" or "disk" beside a GPU is offloaded:
its weights come to the computing device for the moment in which their block runs. Between passes each module holds its
stored weights and not the empty ones that accelerate leaves behind, so that all weights can be read at any time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from workbench.model.transformer import HookedGptOss

DeviceMap = str | Mapping[str, int | str | torch.device]
MaxMemory = Mapping[int | str, int | str]
STRATEGIES = ("auto", "balanced", "balanced_low_0", "sequential")
DISK = "disk"
WHOLE = ["Block"]  # classes that no map may split


@dataclass(frozen=True)
class Placement:
    """Where each part of a model lives, and where it computes.

    Attributes:
        units: "embed", each "blocks.N", "ln_final" and "unembed" → "cpu", "disk" or a device such as "cuda:0".
        main: where tokens come in, and where what is on "cpu" or "disk" is computed.
    """

    units: dict[str, str]
    main: str

    @property
    def offloaded(self) -> list[str]:
        """The units whose weights are elsewhere than where they compute; those on "disk" always count."""
        elsewhere = (DISK,) if self.main == "cpu" else (DISK, "cpu")
        return [unit for unit, device in self.units.items() if device in elsewhere]

    @property
    def is_one_device(self) -> bool:
        """Whether a plain model on ``main`` does the same."""
        return set(self.units.values()) == {self.main}

    def of(self, tensor_name: str) -> str:
        """Where a tensor of the state dict lives."""
        return next(device for unit, device in self.units.items() if tensor_name.startswith(f"{unit}."))


def unit_names(model: nn.Module) -> list[str]:
    """What a device map places: the modules with weights, each block as one."""
    names = []
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            names += [f"{name}.{index}" for index in range(len(child))]
        elif child.state_dict():
            names.append(name)
    return names


def plan(
    model: HookedGptOss,
    device_map: DeviceMap,
    max_memory: MaxMemory | None = None,
    compute_on: torch.device | str | None = None,
) -> Placement:
    """The placement that a device map describes; the model may be on the meta device.

    Args:
        device_map: "auto" (the same as "balanced"), "balanced", "balanced_low_0" or "sequential", as in transformers;
            or module name → device, as in ``{"": 0, "blocks.3": "cpu"}``. The longest name that fits a module counts.
        max_memory: device → bytes, or text like "20GiB", for the maps that are worked out; what is free if None.
        compute_on: where what is on "cpu" or "disk" is computed; the map's first GPU if None, else the CPU.

    Raises:
        ValueError: for a map that names no module, splits a block or leaves a module out, or a device that is not here.
    """
    if isinstance(device_map, str):
        chosen = infer(model, device_map, max_memory)
    elif max_memory is not None:
        raise ValueError(f"max_memory is for a device_map that is worked out, one of {STRATEGIES}; leave it out")
    else:
        chosen = _by_unit(model, device_map)
    units = {unit: _device(device, f"device_map[{unit!r}]") for unit, device in chosen.items()}
    gpus = [device for device in units.values() if device not in ("cpu", DISK)]
    main = (gpus or ["cpu"])[0] if compute_on is None else _device(str(compute_on), "device")
    if main == DISK:
        raise ValueError("device='disk': nothing can be computed there; give 'cpu' or a GPU")
    return Placement(units, main)


def infer(model: nn.Module, strategy: str, max_memory: MaxMemory | None = None) -> dict[str, int | str]:
    """accelerate's own choice: unit → device, filling GPUs first, then the CPU, then the disk.

    Raises:
        ValueError: for a strategy that is not there.
    """
    from accelerate import infer_auto_device_map
    from accelerate.utils import get_balanced_memory, get_max_memory

    if strategy not in STRATEGIES:
        near = get_close_matches(strategy, STRATEGIES, n=1)
        hint = f" (closest is {near[0]!r})" if near else ""
        raise ValueError(f"device_map={strategy!r}: expected one of {STRATEGIES}{hint}, or module name → device")
    given: Any = None if max_memory is None else dict(max_memory)
    if strategy == "sequential":
        memory = get_max_memory(given)
    else:
        memory = get_balanced_memory(model, given, WHOLE, low_zero=strategy == "balanced_low_0")
    found = infer_auto_device_map(model, memory, WHOLE, offload_buffers=True)  # pyright: ignore[reportArgumentType]
    return _by_unit(model, found)


def _by_unit(model: nn.Module, device_map: Mapping[str, Any]) -> dict[str, Any]:
    units = unit_names(model)
    for name in device_map:
        _check_name(name, units, model)
    chosen: dict[str, Any] = {}
    for unit in units:
        fitting = [name for name in device_map if not name or unit == name or unit.startswith(f"{name}.")]
        if fitting:
            chosen[unit] = device_map[max(fitting, key=len)]
    missing = [unit for unit in units if unit not in chosen]
    if missing:
        raise ValueError(
            f"device_map says nothing of {', '.join(missing[:4])}{' …' if len(missing) > 4 else ''}; add "
            f'them, or "" for everything that no other name fits. The modules are {_shown(units)}'
        )
    return chosen


def _check_name(name: str, units: list[str], model: nn.Module) -> None:
    if name in units or any(not name or unit.startswith(f"{name}.") for unit in units):
        return
    modules = dict(model.named_modules())
    if name in modules and not modules[name].state_dict() and "." not in name:
        return  # a site: it has no weights, and goes where its input is
    inside = next((unit for unit in units if name.startswith(f"{unit}.")), None)
    if inside is not None and (name in modules or name in model.state_dict()):
        raise ValueError(
            f"device_map[{name!r}] is a part of {inside!r}, which stays whole: what is in it works on one stream. "
            f"Place {inside!r}"
        )
    near = get_close_matches(name, ["blocks", *units], n=1)
    hint = f"; closest is {near[0]!r}" if near else ""
    raise ValueError(f"device_map[{name!r}]: no such module{hint}. The modules are {_shown(units)}")


def _shown(units: list[str]) -> str:
    blocks = [unit for unit in units if unit.startswith("blocks.")]
    others = [unit for unit in units if unit not in blocks]
    return f"{others[0]}, {blocks[0]} to {blocks[-1]}, {', '.join(others[1:])}"


def _device(device: Any, where: str) -> str:
    """A device of this machine by its full name, or "disk"."""
    if str(device) == DISK:
        return DISK
    here = torch.accelerator.current_accelerator()
    count = torch.accelerator.device_count() if here is not None else 0
    there = "the CPU" + (f" and {count} × {here.type}" if here is not None else " and no GPU")
    try:
        known = torch.device(device) if here is not None or not isinstance(device, int) else None
    except (RuntimeError, TypeError):
        raise ValueError(f"{where}={device!r}: expected a GPU's number, 'cpu', 'disk' or a torch.device") from None
    if known is not None and known.type == "cpu":
        return "cpu"
    if known is None or here is None or known.type != here.type or (known.index or 0) >= count:
        raise ValueError(f"{where}={device!r}: this machine has {there}")
    return f"{known.type}:{known.index or 0}"


def dispatch(model: HookedGptOss, placement: Placement) -> HookedGptOss:
    """Put accelerate's hooks on a model whose weights lie where the placement says; those of "disk" on the CPU.

    Weights that lie on the CPU as mapped pages of a file stay that: accelerate is given them as they are, and copies
    none. ``model.hf_device_map`` says afterwards what is where.
    """
    if placement.is_one_device:
        return model
    from accelerate import dispatch_model
    from accelerate.hooks import add_hook_to_module

    stored = {unit: _tensors(model.get_submodule(unit)) for unit in placement.offloaded}
    flat = {f"{unit}.{name}": x.detach() for unit, tensors in stored.items() for name, x in tensors.items()}
    with _quiet("accelerate.big_modeling"):  # it warns of what was just asked for
        dispatch_model(
            model,
            placement.units,  # pyright: ignore[reportArgumentType]
            main_device=placement.main,  # pyright: ignore[reportArgumentType]
            state_dict=flat,
            # Not None: "disk" is then not written out a second time, for the state dict has it.
            offload_index={},
            offload_buffers=True,
            preload_module_classes=WHOLE,
            force_hooks=True,
        )
    for unit, tensors in stored.items():
        add_hook_to_module(model.get_submodule(unit), _at_rest(tensors), append=True)
    return model


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(module.named_parameters()) | dict(module.named_buffers())


def _at_rest(stored: dict[str, Tensor]) -> Any:
    """A hook that gives an offloaded module its stored weights back once accelerate has taken the computed-on ones."""
    from accelerate.hooks import ModelHook

    class AtRest(ModelHook):
        def init_hook(self, module: nn.Module) -> nn.Module:
            for name, tensor in stored.items():
                path, _, leaf = name.rpartition(".")
                owner = module.get_submodule(path)
                kind: Literal["_parameters", "_buffers"] = "_parameters" if leaf in owner._parameters else "_buffers"
                getattr(owner, kind)[leaf] = tensor
            return module

        def post_forward(self, module: nn.Module, output: Any) -> Any:
            self.init_hook(module)
            return output

    return AtRest()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
