"""Grouped-query attention with a learned sink per head and, on even layers, a sliding window."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from workbench.model.config import Config
from workbench.model.rope import cos_sin, rotate
from workbench.model.state import Pass, listening, shown_apart


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
        self.q = nn.Linear(config.d_model, width, dtype=dtype, device=device)
        self.k = nn.Linear(config.d_model, kv_width, dtype=dtype, device=device)
        self.v = nn.Linear(config.d_model, kv_width, dtype=dtype, device=device)
        self.o = nn.Linear(width, config.d_model, dtype=dtype, device=device)
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
        first = 0
        if this.cache is not None:
            k, v, first = this.cache.layers[self.layer].extend(k, v)
        visible = this.visible(self.window, first)
        pattern = self.pattern(q, k, visible, first)
        z = self.hook_z(_mix(pattern, v))
        return self.output(z)

    def queries_keys_values(
        self, x: Float[Tensor, "batch pos d_model"], this: Pass
    ) -> tuple[
        Float[Tensor, "batch pos head d_head"],
        Float[Tensor, "batch pos kv_head d_head"],
        Float[Tensor, "batch pos kv_head d_head"],
    ]:
        """Queries and keys rotated to their positions, and values."""
        split = "batch pos (head d_head) -> batch pos head d_head"
        d_head = self.config.d_head
        q = self.hook_q(rearrange(self.q(shown_apart(self.hook_q_in, x)), split, d_head=d_head))
        k = self.hook_k(rearrange(self.k(shown_apart(self.hook_k_in, x)), split, d_head=d_head))
        v = self.hook_v(rearrange(self.v(shown_apart(self.hook_v_in, x)), split, d_head=d_head))
        cos, sin = cos_sin(self.config.rope, d_head, this.query_positions)
        return self.hook_rot_q(rotate(q, cos, sin)), self.hook_rot_k(rotate(k, cos, sin)), v

    def pattern(
        self,
        q: Float[Tensor, "batch query_pos head d_head"],
        k: Float[Tensor, "batch key_pos kv_head d_head"],
        visible: Bool[Tensor, "#batch 1 query_pos key_pos"],
        first_column: int = 0,
    ) -> Float[Tensor, "batch head query_pos key_pos"]:
        """Attention of each query over the keys, after every edit of scores, sink logit, sink mass and pattern.

        ``first_column`` is the absolute column of the first key: a sliding layer's cache has dropped the
        earlier ones, and sites are shown all columns, so that key_pos is always the position in the sequence.
        """
        scores = _scores(q, k) * self.config.d_head**-0.5
        scores = scores.masked_fill(~visible, float("-inf"))
        scores = _at_all_columns(self.hook_attn_scores, scores, first_column, float("-inf"))
        sink_logit = repeat(self.sinks, "head -> batch pos head", batch=q.shape[0], pos=q.shape[1])
        # repeat makes a view of the parameter, which a hook could not write into.
        sink_logit = self.hook_sink_logit(sink_logit.clone() if listening(self.hook_sink_logit) else sink_logit)
        pattern, sink = softmax_with_sink(scores, sink_logit)
        if listening(self.hook_sink):
            pattern = _with_sink_edit(pattern, scores, sink, self.hook_sink(sink.clone()))
        return _at_all_columns(self.hook_pattern, pattern, first_column, 0.0)

    def output(self, z: Float[Tensor, "batch pos head d_head"]) -> Float[Tensor, "batch pos d_model"]:
        """The heads' contributions summed, plus b_O. Each head's own is materialised only where somebody listens."""
        out = self.o(rearrange(z, "batch pos head d_head -> batch pos (head d_head)"))
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


def softmax_with_sink(
    scores: Float[Tensor, "batch head query_pos key_pos"], sink_logit: Float[Tensor, "batch query_pos head"]
) -> tuple[Float[Tensor, "batch head query_pos key_pos"], Float[Tensor, "batch query_pos head"]]:
    """Softmax over the keys and the sink's extra column → (pattern, mass of the sink); together each row is 1.

    A query that sees no key (padding) gives everything to its sink, and no NaN; without a sink either (an edit to −inf)
    it gives nothing.
    """
    column = rearrange(sink_logit, "batch query_pos head -> batch head query_pos 1")
    logits = torch.cat((scores, column), dim=-1)
    if bool(torch.isneginf(column).any()):
        blind = torch.isneginf(logits).all(-1, keepdim=True)
        probabilities = torch.softmax(logits.masked_fill(blind, 0.0), dim=-1).masked_fill(blind, 0.0)
    else:
        probabilities = torch.softmax(logits, dim=-1)
    return probabilities[..., :-1], rearrange(probabilities[..., -1], "batch head query_pos -> batch query_pos head")


def _scores(
    q: Float[Tensor, "batch query_pos head d_head"], k: Float[Tensor, "batch key_pos kv_head d_head"]
) -> Float[Tensor, "batch head query_pos key_pos"]:
    # Query heads are grouped under their key-value head, so keys are never repeated in memory.
    grouped = rearrange(q, "batch pos (kv_head group) d_head -> batch kv_head (group pos) d_head", kv_head=k.shape[2])
    scores = grouped @ rearrange(k, "batch key_pos kv_head d_head -> batch kv_head d_head key_pos")
    return rearrange(scores, "batch kv_head (group pos) key_pos -> batch (kv_head group) pos key_pos", pos=q.shape[1])


def _mix(
    pattern: Float[Tensor, "batch head query_pos key_pos"], v: Float[Tensor, "batch key_pos kv_head d_head"]
) -> Float[Tensor, "batch query_pos head d_head"]:
    kv_heads, queries = v.shape[2], pattern.shape[2]
    grouped = rearrange(
        pattern, "batch (kv_head group) pos key_pos -> batch kv_head (group pos) key_pos", kv_head=kv_heads
    )
    z = grouped @ rearrange(v, "batch key_pos kv_head d_head -> batch kv_head key_pos d_head")
    return rearrange(z, "batch kv_head (group pos) d_head -> batch pos (kv_head group) d_head", pos=queries)


def _with_sink_edit(
    pattern: Float[Tensor, "batch head query_pos key_pos"],
    scores: Float[Tensor, "batch head query_pos key_pos"],
    sink: Float[Tensor, "batch query_pos head"],
    edited: Float[Tensor, "batch query_pos head"],
) -> Float[Tensor, "batch head query_pos key_pos"]:
    """The pattern after the sink's mass went from s to s′: each row times (1 − s′)/(1 − s).

    Written as pattern + (s − s′)·softmax(scores): the same where 1 − s > 0, exactly the pattern where nothing
    was edited, and right where the sink had everything and the quotient is 0/0.
    """
    blind = torch.isneginf(scores).all(-1, keepdim=True)  # padding: softmax over no key would be NaN, backward too
    keys_only = torch.softmax(scores.masked_fill(blind, 0.0), dim=-1).masked_fill(blind, 0.0)
    moved = rearrange(sink - edited, "batch query_pos head -> batch head query_pos 1")
    return pattern + moved * keys_only


def _at_all_columns(point: HookPoint, x: Tensor, first_column: int, fill: float) -> Tensor:
    """Run a site on x as if no key column had been dropped from the cache; refuse an edit of a dropped one."""
    if not first_column or not listening(point):
        return point(x)
    shown = point(F.pad(x, (first_column, 0), value=fill))
    if bool((shown[..., :first_column] != fill).any()):
        raise ValueError(
            f"{point.name}: the edit gives attention to key positions before {first_column}, which have left "
            f"this sliding "
            "layer's cache; edit only visible keys, or run the whole sequence without a cache"
        )
    return shown[..., first_column:]
