"""Grouped-query attention with a learned sink per head and, on even layers, a sliding window."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import Config
from workbench.model.engines import Linear
from workbench.model.rope import cos_sin, for_both_halves, turn
from workbench.model.shown import edited_scores, mixed_as_edited
from workbench.model.state import Pass, listening, shown_apart
from workbench.model.streamed import heads_first, mix, scores_of, softmax_with_sink, streamed, with_sink_moved
from workbench.model.tiles import Tiling, tiling


class Attention(nn.Module):
    """gpt-oss attention. Sites are listed, with dims and meaning, in ``model.sites``.

    Softmax runs over the visible keys and one extra column, the head's sink logit, which is then dropped: a pattern row
    sums to 1 − sink.
    """

    def __init__(
        self, config: Config, layer: int, dtype: torch.dtype, device: torch.device | str | None = None
    ) -> None:
        super().__init__()
        self.config, self.layer, self.window = config, layer, config.window(layer)
        width, kv_width = config.n_heads * config.d_head, config.n_key_value_heads * config.d_head
        self.q = Linear(config.d_model, width, dtype=dtype, device=device)
        self.k = Linear(config.d_model, kv_width, dtype=dtype, device=device)
        self.v = Linear(config.d_model, kv_width, dtype=dtype, device=device)
        self.o = Linear(width, config.d_model, dtype=dtype, device=device)
        self.sinks = nn.Parameter(torch.zeros(config.n_heads, dtype=dtype, device=device))
        self.hook_q_in, self.hook_k_in, self.hook_v_in = HookPoint(), HookPoint(), HookPoint()
        self.hook_q, self.hook_k, self.hook_v = HookPoint(), HookPoint(), HookPoint()
        self.hook_rot_q, self.hook_rot_k = HookPoint(), HookPoint()
        self.hook_attn_scores, self.hook_sink_logit = HookPoint(), HookPoint()
        self.hook_sink, self.hook_pattern = HookPoint(), HookPoint()
        self.hook_z, self.hook_result = HookPoint(), HookPoint()

    def forward(self, x: Float[Tensor, "batch pos d_model"], this: Pass) -> Float[Tensor, "batch pos d_model"]:
        """What the layer adds to the residual stream, from the normalised stream x."""
        q, k, v = self.queries_keys_values(x, this)
        dropped = 0
        if this.cache is not None:
            k, v, dropped = this.cache.layers[self.layer].extend(k, v)
        over = tiling(this, self.window, dropped, q.shape[0] * q.shape[2] * q.element_size())
        attended = self.shown if len(over.tiles) == 1 or self.shows_scores_or_pattern else self.streamed
        return self.output(self.hook_z(attended(over, q, heads_first(k), heads_first(v))))

    def queries_keys_values(
        self, x: Float[Tensor, "batch pos d_model"], this: Pass
    ) -> tuple[
        Float[Tensor, "batch pos head d_head"],
        Float[Tensor, "batch pos kv_head d_head"],
        Float[Tensor, "batch pos kv_head d_head"],
    ]:
        """Queries and keys rotated to their positions, and values."""
        by_head = (*x.shape[:2], -1, self.config.d_head)
        q = self.hook_q(self.q(shown_apart(self.hook_q_in, x)).view(by_head))
        k = self.hook_k(self.k(shown_apart(self.hook_k_in, x)).view(by_head))
        v = self.hook_v(self.v(shown_apart(self.hook_v_in, x)).view(by_head))
        cos, sin = self.turns(this, q.dtype)
        return self.hook_rot_q(turn(q, cos, sin)), self.hook_rot_k(turn(k, cos, sin)), v

    def turns(
        self, this: Pass, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "#batch pos 1 d_head"], Float[Tensor, "#batch pos 1 d_head"]]:
        """RoPE's turns of this pass, which every layer shares."""
        key = ("turns", dtype)
        if key not in this.memo:
            cos, sin = cos_sin(self.config.rope, self.config.d_head, this.query_positions)
            this.memo[key] = for_both_halves(cos, sin, dtype)
        return this.memo[key]

    @property
    def shows_scores_or_pattern(self) -> bool:
        """Whether somebody listens to a site of [head query_pos key_pos]: only then is any made whole."""
        return listening(self.hook_attn_scores, self.hook_pattern)

    def streamed(
        self,
        over: Tiling,
        q: Float[Tensor, "batch pos head d_head"],
        keys: Float[Tensor, "rows key_pos d_head"],
        values: Float[Tensor, "rows key_pos d_head"],
    ) -> Float[Tensor, "batch pos head d_head"]:
        """z, in memory linear in the length."""
        sink_logit = self.sink_logits(q)
        z, sink = streamed(over, q, keys, values, sink_logit)
        moved = self.moved(sink)
        return z if moved is None else streamed(over, q, keys, values, sink_logit, moved)[0]

    def shown(
        self,
        over: Tiling,
        q: Float[Tensor, "batch pos head d_head"],
        keys: Float[Tensor, "rows key_pos d_head"],
        values: Float[Tensor, "rows key_pos d_head"],
    ) -> Float[Tensor, "batch pos head d_head"]:
        """z, by way of all scores and the whole pattern, after every edit of scores, sink logit, sink and pattern.

        Each is made when it is asked for, so that what nobody listens to is never whole.
        """
        columns = [(tile.first, tile.last) for tile in over.tiles]
        scores: Iterable[Tensor] = (
            scores_of(part, keys[:, tile.first : tile.last], over.bias(tile, q.dtype))
            for part, tile in zip(over.split(q, 1), over.tiles, strict=True)
        )
        if listening(self.hook_attn_scores):
            scores, columns = edited_scores(self.hook_attn_scores, over, scores, columns)
        sink_logits = over.split(self.sink_logits(q), 1)
        if listening(self.hook_sink):
            scores = list(scores)
            patterns, sinks = zip(*map(softmax_with_sink, scores, sink_logits), strict=True)
            moved = self.moved(torch.cat(sinks, 1))
            if moved is not None:
                patterns = map(with_sink_moved, patterns, scores, over.split(moved, 1))
        else:
            patterns = (softmax_with_sink(*both)[0] for both in zip(scores, sink_logits, strict=True))
        if listening(self.hook_pattern):
            z = mixed_as_edited(self.hook_pattern, over, patterns, columns, values)
        else:
            z = (mix(pattern, values[:, first:last]) for pattern, (first, last) in zip(patterns, columns, strict=True))
        return torch.cat(list(z), 1) if len(over.tiles) > 1 else next(iter(z))

    def moved(self, sink: Float[Tensor, "batch pos head"]) -> Float[Tensor, "batch pos head"] | None:
        """How much of the sink's mass an edit took from it; None where that is nothing, and no gradient is asked of it.

        Where it is nothing, the pattern is the same bits with it as without.
        """
        if not listening(self.hook_sink):
            return None
        moved = sink - self.hook_sink(sink.clone())
        return moved if moved.requires_grad or bool(moved.any()) else None

    def sink_logits(self, q: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos head"]:
        """The sink's logit as each query meets it, after every edit."""
        sink_logit = self.sinks.expand(q.shape[:3])
        # expand makes a view of the parameter, which a hook could not write into.
        return self.hook_sink_logit(sink_logit.clone() if listening(self.hook_sink_logit) else sink_logit)

    def output(self, z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos d_model"]:
        """The heads' contributions summed, plus b_O. Each head's own is materialised only where somebody listens."""
        out = self.o(z.flatten(2))
        if not listening(self.hook_result):
            return out
        result = einsum(z, self.W_O, "batch pos head d_head, head d_head d_model -> batch pos head d_model")
        # The difference is exactly 0 where nothing was edited: reading a site never changes a number.
        return out + (self.hook_result(result.clone()) - result).sum(2)

    @property
    def W_Q(self) -> Float[Tensor, "head d_model d_head"]:
        return rearrange(self.q.weight, "(head d_head) d_model -> head d_model d_head", d_head=self.config.d_head)

    @property
    def W_K(self) -> Float[Tensor, "kv_head d_model d_head"]:
        return rearrange(self.k.weight, "(head d_head) d_model -> head d_model d_head", d_head=self.config.d_head)

    @property
    def W_V(self) -> Float[Tensor, "kv_head d_model d_head"]:
        return rearrange(self.v.weight, "(head d_head) d_model -> head d_model d_head", d_head=self.config.d_head)

    @property
    def W_O(self) -> Float[Tensor, "head d_head d_model"]:
        return rearrange(self.o.weight, "d_model (head d_head) -> head d_head d_model", d_head=self.config.d_head)

    @property
    def b_Q(self) -> Float[Tensor, "head d_head"]:
        return rearrange(self.q.bias, "(head d_head) -> head d_head", d_head=self.config.d_head)

    @property
    def b_K(self) -> Float[Tensor, "kv_head d_head"]:
        return rearrange(self.k.bias, "(head d_head) -> head d_head", d_head=self.config.d_head)

    @property
    def b_V(self) -> Float[Tensor, "kv_head d_head"]:
        return rearrange(self.v.bias, "(head d_head) -> head d_head", d_head=self.config.d_head)

    @property
    def b_O(self) -> Float[Tensor, " d_model"]:
        return self.o.bias
