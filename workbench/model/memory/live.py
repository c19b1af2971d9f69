"""What a model that is in memory tells of itself: its weights, where it computes, what it would be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from workbench.model.memory.sizes import Weights
from workbench.model.packed import PackedExperts

if TYPE_CHECKING:
    from workbench.model.transformer import HookedGptOss


def weights_of_model(model: HookedGptOss) -> Weights:
    """Bytes of its parameters and buffers, each counted once.

    Memory that torch was given and cannot resize is taken for pages of a file: that is how ``wb.load`` maps them.
    """
    mapped, by_device = 0, dict[str, int]()
    seen = {(tensor.data_ptr(), tensor.shape): tensor for tensor in (*model.parameters(), *model.buffers())}
    for tensor in seen.values():
        device = str(tensor.device)
        by_device[device] = by_device.get(device, 0) + tensor.nbytes
        mapped += tensor.nbytes if is_mapped(tensor) else 0
    return Weights(sum(by_device.values()) - mapped, mapped, None, tuple(by_device.items()))


def is_mapped(tensor: Tensor) -> bool:
    """Whether it lies in memory that is not torch's own."""
    return tensor.device.type == "cpu" and not tensor.untyped_storage().resizable()


def shape_of(model: HookedGptOss) -> dict[str, Any]:
    """The part of :class:`Asked` that the model settles."""
    weight = model.embed.weight
    return {
        "config": model.config,
        "dtype": str(weight.dtype).removeprefix("torch."),
        "packed": isinstance(model.blocks[0].mlp.experts, PackedExperts),
        "trains": model.blocks[0].attn.q.weight.requires_grad,
        **_places(model),
    }


def wants_graph(model: HookedGptOss) -> bool:
    """Whether a forward would now save tensors for backward."""
    weights = (model.embed.weight, model.blocks[0].attn.q.weight, model.unembed.weight)
    return torch.is_grad_enabled() and any(weight.requires_grad for weight in weights)


def _places(model: HookedGptOss) -> dict[str, tuple]:
    modules = [model.embed, *model.blocks, model.unembed]
    if not hasattr(model, "hf_device_map"):
        return {"devices": (str(model.embed.weight.device),) * len(modules)}
    devices = tuple(map(_computes_on, modules))
    rest = (_at_rest(module, device) for module, device in zip(modules, devices, strict=True))
    return {"devices": devices, "visitors": tuple(rest)}


def _computes_on(module: nn.Module) -> str:
    """The device that accelerate's hooks bring a module's input to; without them, where its weights are."""
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        device = getattr(each, "execution_device", None)
        if device is not None:
            return str(torch.device(device))
    return str(next(module.parameters()).device)


def _at_rest(module: nn.Module, device: str) -> int:
    """Bytes of the weights that come to the device when the module runs."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(tensor.nbytes for tensor in tensors if str(tensor.device) != device)
