"""OpenAI's own PyTorch code, which gathers the weights of every token's experts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.bench.common.subjects.base import TorchSubject, frozen
from tests.golden.references import openai_code, openai_model


class Subject(TorchSubject):
    """From a folder in OpenAI's form by its own loader (bfloat16); from any other with our weights put in."""

    def __init__(self, path: str, dtype: str) -> None:
        config = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
        self.own_loader = "num_experts" in config
        if self.own_loader:
            self.model: Any = openai_code().Transformer.from_checkpoint(path, device="cpu")
        else:
            import workbench as wb

            self.model = openai_model(wb.load(path, dtype=dtype), getattr(torch, dtype))
        frozen(self.model)
        self.embedding = self.model.embedding

    def about(self) -> dict[str, Any]:
        return super().about() | {"own_loader": self.own_loader}

    def logits(self, tokens: Tensor) -> Tensor:
        return self.model(tokens[0])[None]  # it takes one row

    def generate(self, tokens: Tensor, count: int) -> Any:
        """Its own TokenGenerator's loop: without a cache, the whole text again for each token."""
        with torch.inference_mode():
            for _ in range(count):
                tokens = torch.cat((tokens, self.logits(tokens)[:, -1].argmax(-1)[:, None]), 1)
        return tokens


def gathered_bytes(config: Any, n_tokens: int) -> int:
    """bfloat16 bytes of the two weight matrices that its experts gather for every token and slot."""
    return n_tokens * config.experts_per_token * 3 * config.d_model * config.d_mlp * 2
