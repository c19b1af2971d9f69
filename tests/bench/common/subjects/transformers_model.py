"""transformers' own GptOssForCausalLM, with its default experts or its eager ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GptOssForCausalLM
from transformers.utils import logging
from transformers.utils.quantization_config import Mxfp4Config

from tests.bench.common.subjects.base import TorchSubject, difference, frozen

logging.set_verbosity_error()


def load(path: str, dtype: str) -> Any:
    """from_pretrained; MXFP4 is unpacked, for on a CPU transformers has no other way."""
    packed = "quantization_config" in json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    unpack: dict[str, Any] = {"quantization_config": Mxfp4Config(dequantize=True)} if packed else {}
    return GptOssForCausalLM.from_pretrained(path, dtype=getattr(torch, dtype), attn_implementation="eager", **unpack)


class Subject(TorchSubject):
    """Eager attention, the only one on a CPU that knows gpt-oss' sinks. ``experts``: "grouped_mm" (transformers' own
    choice) or "eager"."""

    def __init__(self, path: str, dtype: str) -> None:
        self.model: Any = load(path, dtype)
        frozen(self.model)
        self.default = self.model.config._experts_implementation
        self.embedding = self.model.model.embed_tokens

    def about(self) -> dict[str, Any]:
        return super().about() | {"experts": self.default}

    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens, use_cache=False).logits

    def generate(self, tokens: Tensor, count: int) -> Any:
        exact = {"max_new_tokens": count, "min_new_tokens": count, "do_sample": False}
        return self.model.generate(tokens, attention_mask=torch.ones_like(tokens), **exact)

    def cache_outputs(self, tokens: list[int]) -> Callable[[], Any]:
        """Everything that its forward can return."""
        row = torch.tensor([tokens])
        wanted = dict.fromkeys(("output_hidden_states", "output_attentions", "output_router_logits"), True)

        @torch.no_grad()
        def run() -> Any:
            return self.model(row, use_cache=False, **wanted)

        return run

    def grid(self, tokens: list[int], corrupted: list[int], answers: tuple[int, int]) -> Callable[[], Tensor]:
        """A forward for each cell, with a plain torch hook before the layer."""
        clean, broken, metric = torch.tensor([tokens]), torch.tensor([corrupted]), difference(answers)
        layers = self.model.model.layers

        @torch.no_grad()
        def run() -> Tensor:
            streams = self.model(clean, use_cache=False, output_hidden_states=True).hidden_states
            cells = torch.empty(len(layers), len(tokens))
            for layer in range(len(layers)):
                for position in range(len(tokens)):
                    handle = layers[layer].register_forward_pre_hook(_patch(streams[layer], position))
                    cells[layer, position] = metric(self.logits(broken))
                    handle.remove()
            return cells

        return run

    def use_experts(self, name: str) -> dict[str, Any]:
        """Switch between its ways to multiply with experts."""
        self.model.set_experts_implementation(self.default if name == "default" else name)
        return {}


def _patch(clean: Tensor, position: int) -> Callable[[Any, tuple], tuple]:
    def hook(_module: Any, inputs: tuple) -> tuple:
        stream = inputs[0].clone()
        stream[:, position] = clean[:, position]
        return (stream, *inputs[1:])

    return hook
