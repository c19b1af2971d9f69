"""The parts of one random model and of both references around the same weights, fed with the same stream."""

from __future__ import annotations

from contextlib import ExitStack

import torch
from torch import Tensor

from tests.forms import held
from tests.golden.references import openai_model, transformers_model
from tests.golden.routes import Implementation, sets
from tests.golden.shapes import model_in, normal, random_model, random_shape, rounded
from workbench.model.state import begin_pass


class Parts:
    """Layer 0 slides, layer 1 is full. Each method gives, by implementation, the stream [pos d_model] after a part.

    OpenAI's parts take the stream and norm it themselves, so norm and residual are in all three.
    """

    def __init__(self, seed: int, dtype: torch.dtype, form: str) -> None:
        self.config = random_shape(seed, form, n_layers=2)
        exact = rounded(random_model(self.config, seed, form))
        self.ours = held(model_in(exact, dtype), form)
        self.transformers = transformers_model(exact, dtype)
        self.openai = openai_model(exact, dtype)
        self.n = 3 * self.config.sliding_window + 10
        self.stream = normal(seed, 1, self.n, self.config.d_model).to(dtype)
        self.this = begin_pass((1, self.n), torch.device("cpu"), None, None, "keep")
        self.turns = self.transformers.model.rotary_emb(self.stream, torch.arange(self.n)[None])

    def __str__(self) -> str:
        return str(self.config)

    def visible(self, layer: int) -> Tensor:
        """[query_pos key_pos], from the definition."""
        query, key = torch.arange(self.n)[:, None], torch.arange(self.n)[None]
        seen = key <= query
        return seen & (key > query - self.config.sliding_window) if layer == 0 else seen

    def mask(self, layer: int) -> Tensor:
        """The same, added to scores, as transformers' attention takes it."""
        dtype = self.stream.dtype
        return torch.where(self.visible(layer), 0.0, torch.finfo(dtype).min).to(dtype)[None, None]

    def attention(self, layer: int) -> dict[str, Tensor]:
        """After attention."""
        block = self.ours.blocks[layer]
        return {
            "ours": (self.stream + block.attn(block.ln1(self.stream), self.this))[0],
            "transformers": (self.stream + self.transformers_attention(layer)[0])[0],
            "openai": self.openai.block[layer].attn(self.stream[0]),
        }

    def transformers_attention(self, layer: int) -> tuple[Tensor, Tensor]:
        """transformers' attention output and its pattern [batch head query_pos key_pos]."""
        block = self.transformers.model.layers[layer]
        normed = block.input_layernorm(self.stream)
        return block.self_attn(normed, position_embeddings=self.turns, attention_mask=self.mask(layer))

    def pattern_and_sink(self, layer: int) -> tuple[Tensor, Tensor]:
        """Our pattern [batch head query_pos key_pos] and sink [batch pos head]."""
        seen: dict[str, Tensor] = {}
        block = self.ours.blocks[layer]
        sites = [f"blocks.{layer}.attn.hook_pattern", f"blocks.{layer}.attn.hook_sink"]
        with self.ours.hooks(fwd_hooks=[(site, lambda x, hook: seen.update({hook.name: x})) for site in sites]):
            block.attn(block.ln1(self.stream), self.this)
        return seen[sites[0]], seen[sites[1]]

    def experts(self, layer: int) -> dict[str, Tensor]:
        """After router and experts, on equal routes."""
        block, their_block = self.ours.blocks[layer], self.transformers.model.layers[layer]
        with self.equal_routes(layer, self.stream):
            theirs, _ = their_block.mlp(their_block.post_attention_layernorm(self.stream))
            return {
                "ours": (self.stream + block.mlp(block.ln2(self.stream), self.this))[0],
                "transformers": (self.stream + theirs)[0],
                "openai": self.openai.block[layer].mlp(self.stream[0]),
            }

    def block(self, layer: int) -> dict[str, Tensor]:
        """After a whole block, on equal routes."""
        block, their_block = self.ours.blocks[layer], self.transformers.model.layers[layer]
        mid = self.stream + block.attn(block.ln1(self.stream), self.this)
        with self.equal_routes(layer, mid):
            theirs = their_block(self.stream, attention_mask=self.mask(layer), position_embeddings=self.turns)
            return {
                "ours": block(self.stream, self.this)[0],
                "transformers": theirs[0],
                "openai": self.openai.block[layer](self.stream[0]),
            }

    def equal_routes(self, layer: int, mid: Tensor) -> ExitStack:
        """All three take the experts that our layer chooses at this stream."""
        block = self.ours.blocks[layer]
        chosen = sets(block.mlp.router(block.ln2(mid))[0], self.config.experts_per_token)
        routes = chosen.expand(self.config.n_layers, *chosen.shape)
        stack = ExitStack()
        for model in (self.ours, self.transformers, self.openai):
            stack.enter_context(Implementation(model).taking(routes))
        return stack
