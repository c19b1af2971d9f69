"""A run with its routing, patterns and norm scales held: a model that is linear but for the experts.

Held that way, the stream is a sum of writes, every head is a linear map, and an expert is its Jacobian at what it read
plus a remainder. So a logit is a sum over paths from the embeddings, the biases and the experts' remainders.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.contrast import at_least_float32
from workbench.experiments.nodes import Node, head_writes
from workbench.experiments.readers import pulled_back, slots_out
from workbench.model import HookedGptOss

_ATTENTION = ("hook_resid_pre", "ln1.hook_scale", "attn.hook_pattern", "attn.hook_z")
_EXPERTS = ("hook_resid_mid", "ln2.hook_scale", *(f"mlp.hook_expert_{part}" for part in ("indices", "weights", "out")))


def frozen_sites(n_layers: int) -> list[str]:
    """What a run must keep to be held."""
    per_layer = [f"blocks.{layer}.{site}" for layer in range(n_layers) for site in (*_ATTENTION, *_EXPERTS)]
    return ["hook_embed", *per_layer, f"blocks.{n_layers - 1}.hook_resid_post", "ln_final.hook_scale"]


@dataclass(frozen=True, eq=False)
class Stage:
    """Nodes that read the stream at the same point: a head at all positions, a layer's experts, or the logits.

    Attributes:
        first: index of its first node; the others follow.
        sees: it reads the writes of the nodes before this index.
        reads: [node d_model] the gradient of the target at what each node reads, through that node alone.
        weight: [node pos] how much of a write at each position it reads, ÷ by the norm's scale there.
        activation: [node] what the node's write adds to the target, through all paths.
        bias, error: [node] how much of that comes from the biases, and from the remainder of an expert's linear part.
    """

    first: int
    sees: int
    reads: Float[Tensor, "node d_model"]
    weight: Float[Tensor, "node pos"]
    activation: Float[Tensor, " node"]
    bias: Float[Tensor, " node"]
    error: Float[Tensor, " node"]

    def edges(
        self, writes: Float[Tensor, "source d_model"], pos: Int[Tensor, " source"], nodes: Tensor | slice = slice(None)
    ) -> Float[Tensor, "node source"]:
        """What each of these writes adds to the target through each node; 0 where the node does not read it."""
        return (self.reads[nodes] @ writes.T) * self.weight[nodes][:, pos]


class Frozen:
    """The held model of one run, and the gradient of one direction of its last stream.

    Nodes are in the order in which they write: the embedding at each position; then, layer by layer, head by head at
    each position, and each position's experts by slot.

    Args:
        done: an unedited run of one row without padding, with :func:`frozen_sites`.
        direction: [d_model], what the target reads of the normalised last stream at the last position.
    """

    def __init__(self, done: Run, direction: Float[Tensor, " d_model"]) -> None:
        self.model: HookedGptOss = done.model
        self.done, self.n_pos = done, done.tokens.shape[1]
        self.nodes, self.writes = self._writes()
        self.pos = torch.tensor([node.pos for node in self.nodes])
        scale = at_least_float32(done["ln_final.hook_scale"][0, -1])
        self.direction = at_least_float32(direction) * self.model.ln_final.w / scale
        self.at_embed: Tensor = self.writes[: self.n_pos]  # the gradient there, once the stages are made
        self.stages = list(self._stages())[::-1]  # in the order in which they read

    @property
    def activations(self) -> Float[Tensor, " node"]:
        """What each node's write adds to the target, through all paths."""
        embed = (self.writes[: self.n_pos] * self.at_embed).sum(-1)
        return torch.cat([embed, *(stage.activation for stage in self.stages[:-1])])

    def site(self, layer: int, name: str) -> Tensor:
        """Row 0 of a site."""
        return at_least_float32(self.done[f"blocks.{layer}.{name}"][0])

    @property
    def target(self) -> float:
        """The value of the target."""
        last = at_least_float32(self.done[f"blocks.{self.model.config.n_layers - 1}.hook_resid_post"][0, -1])
        return float(last @ self.direction)

    def gain(self, layer: int, norm: str) -> Float[Tensor, " d_model"]:
        return at_least_float32(getattr(self.model.blocks[layer], norm).w)

    # -------------------------------------------------------------------------------------------------- what is written
    def _writes(self) -> tuple[list[Node], Float[Tensor, "node d_model"]]:
        config, positions = self.model.config, range(self.n_pos)
        nodes = [Node("embed", pos=pos) for pos in positions]
        writes = [at_least_float32(self.done["hook_embed"][0])]
        for layer in range(config.n_layers):
            nodes += [Node("head", layer, head, pos) for head in range(config.n_heads) for pos in positions]
            z = self.site(layer, "attn.hook_z")[None]
            writes.append(head_writes(self.model, layer, z)[0].transpose(0, 1).flatten(0, 1))
            chosen = self.site(layer, "mlp.hook_expert_indices").tolist()
            nodes += [Node("expert", layer, expert, pos) for pos in positions for expert in chosen[pos]]
            writes.append(self._expert_writes(layer).flatten(0, 1))
        return nodes, torch.cat(writes)

    def _expert_writes(self, layer: int) -> Float[Tensor, "pos slot d_model"]:
        return self.site(layer, "mlp.hook_expert_weights")[..., None] * self.site(layer, "mlp.hook_expert_out")

    # ----------------------------------------------------------------------------------------------------- what is read
    def _stages(self) -> Iterator[Stage]:
        """From the logits back, passing the gradient on: what a node reads gets it through that node."""
        config, first = self.model.config, len(self.nodes)
        biases = torch.stack([at_least_float32(block.attn.b_O) for block in self.model.blocks]).cumsum(0)
        yield self._logits(first, biases[-1])
        gradient = torch.zeros_like(self.writes[: self.n_pos])
        gradient[-1] = self.direction
        for layer in reversed(range(config.n_layers)):
            first -= self.n_pos * config.experts_per_token
            experts = self._experts(layer, first, gradient, biases[layer])
            gradient = gradient + experts.reads.view(self.n_pos, -1, config.d_model).sum(1) * self._unscaled(layer)
            yield experts
            before = biases[layer - 1] if layer else torch.zeros_like(biases[0])
            sees, passed = first - self.n_pos * config.n_heads, torch.zeros_like(gradient)
            for head in reversed(range(config.n_heads)):
                first -= self.n_pos
                stage = self._head(layer, head, first, sees, gradient, before)
                passed += stage.weight.T @ stage.reads
                yield stage
            gradient = gradient + passed
        self.at_embed = gradient

    def _unscaled(self, layer: int) -> Float[Tensor, "pos 1"]:
        return 1 / self.site(layer, "ln2.hook_scale")

    def _logits(self, first: int, bias: Float[Tensor, " d_model"]) -> Stage:
        weight = torch.zeros(1, self.n_pos).to(self.direction)
        weight[0, -1] = 1
        value = self.direction.new_tensor([self.target])
        through = (self.direction @ bias)[None]
        return Stage(first, first, self.direction[None], weight, value, through, torch.zeros_like(value))

    def _experts(
        self, layer: int, first: int, gradient: Float[Tensor, "pos d_model"], bias: Float[Tensor, " d_model"]
    ) -> Stage:
        stream, scale = self.site(layer, "hook_resid_mid"), self.site(layer, "ln2.hook_scale")
        reads = self.through_experts(layer, gradient) * self.gain(layer, "ln2")
        activation = einsum(self._expert_writes(layer), gradient, "pos slot d, pos d -> pos slot")
        linear = einsum(reads, stream / scale, "pos slot d, pos d -> pos slot")
        weight = torch.diag(1 / scale[:, 0]).repeat_interleave(reads.shape[1], 0)
        through = (reads @ bias / scale).flatten()
        rows = (activation.flatten(), through, (activation - linear).flatten())
        return Stage(first, first, reads.flatten(0, 1), weight, *rows)

    def through_experts(self, layer: int, gradient: Float[Tensor, "pos d_model"]) -> Float[Tensor, "pos slot d_model"]:
        """The gradient at what each slot's expert reads, from that at the stream it writes into."""
        model, block = self.model, self.model.blocks[layer]
        indices = self.done[f"blocks.{layer}.mlp.hook_expert_indices"]
        stream, scale = self.done[f"blocks.{layer}.hook_resid_mid"], self.done[f"blocks.{layer}.ln2.hook_scale"]
        read = (stream / scale * block.ln2.w).to(stream)[:, :, None].expand(-1, -1, indices.shape[-1], -1)
        arriving = self.done[f"blocks.{layer}.mlp.hook_expert_weights"][..., None] * gradient[None, :, None]
        found = pulled_back(lambda x: slots_out(block.mlp.experts, x, indices, model.config), read, arriving.to(stream))
        return at_least_float32(found[0])

    def _head(
        self,
        layer: int,
        head: int,
        first: int,
        sees: int,
        gradient: Float[Tensor, "pos d_model"],
        bias: Float[Tensor, " d_model"],
    ) -> Stage:
        attn, group = self.model.blocks[layer].attn, head // self.model.config.n_query_groups
        at_z = gradient @ at_least_float32(attn.W_O[head]).T
        reads = at_z @ at_least_float32(attn.W_V[group]).T * self.gain(layer, "ln1")
        pattern = self.site(layer, "attn.hook_pattern")[head]
        weight = pattern / self.site(layer, "ln1.hook_scale")[:, 0]
        through = (reads @ bias) * weight.sum(1) + (at_z @ at_least_float32(attn.b_V[group])) * pattern.sum(1)
        activation = (self.writes[first : first + self.n_pos] * gradient).sum(-1)
        return Stage(first, sees, reads, weight, activation, through, torch.zeros_like(activation))
