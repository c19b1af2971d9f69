"""Seeded weights: random ones for tests and hardware trials, fresh ones for training."""

from __future__ import annotations

import torch

from workbench.model.interrupts import without_gradients
from workbench.model.transformer import HookedGptOss


@without_gradients
def random_weights(model: HookedGptOss, seed: int) -> HookedGptOss:
    """Well-scaled random weights in place: every parameter non-zero, biases, gains and sinks too; logits of order 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name.endswith(("ln1.w", "ln2.w", "ln_final.w")):
            values = 1 + 0.1 * noise
        elif name == "embed.weight" or name.endswith("sinks"):
            values = noise
        elif parameter.ndim == 1 or name.endswith(("b_gate_up", "b_down")):
            values = 0.1 * noise
        else:
            values = noise * parameter.shape[-1] ** -0.5
        parameter.copy_(values)
    return model


@without_gradients
def fresh_weights(model: HookedGptOss, seed: int, std: float = 0.02) -> HookedGptOss:
    """Weights to train from, in place: normal(0, std) matrices, writes to the stream smaller by √(2·layers),
    biases and sinks zero, gains one (GPT-2's recipe)."""
    generator = torch.Generator().manual_seed(seed)
    depth = (2 * model.config.n_layers) ** -0.5
    for name, parameter in model.named_parameters():
        if name.endswith(".w"):
            parameter.fill_(1.0)
        elif parameter.ndim == 1 or name.endswith(("b_gate_up", "b_down")):
            parameter.zero_()
        else:
            scale = std * depth if name.endswith(("attn.o.weight", "W_down")) else std
            parameter.copy_(scale * torch.randn(parameter.shape, generator=generator))
    return model
