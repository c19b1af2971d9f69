"""The forward pass of training: the model's own parameters and result, without sites, four times as fast on a CPU.

Several documents share a row (``document`` numbers them) and cannot see each other, so that each gets the logits that
the model gives it alone; tests prove both equalities.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from workbench.model.config import Config
from workbench.model.rope import cos_sin

Parameters = Mapping[str, Tensor]
HIDDEN = -1e9  # added to a score; finite, so that a chunk with no visible key has no NaN in its backward pass


@dataclass(frozen=True)
class Routing:
    """What the router of one layer said: logits [token expert] and the chosen experts [token slot]."""

    logits: Float[Tensor, "token expert"]
    chosen: Int[Tensor, "token slot"]


@dataclass(frozen=True)
class Masks:
    """What is added to scores, 0 where the query sees the key: ``full`` for layers that see all (column 0 is the sink),
    ``chunked`` for sliding layers, in chunks of ``window`` queries that see their own chunk and the one before."""

    full: Float[Tensor, "batch 1 query_pos key_pos_and_sink"]
    chunked: Float[Tensor, "batch 1 chunk 1 query key"]
    window: int

    @classmethod
    def of(cls, document: Int[Tensor, "batch pos"], window: int) -> "Masks":
        """Causal, and only within a document."""
        n = document.shape[1]
        at = torch.arange(n)
        seen = (document[:, :, None] == document[:, None, :]) & (at[None, :] <= at[:, None])
        chunks = document.view(-1, n // window, window)
        before = F.pad(chunks, (0, 0, 1, 0), value=-1)[:, :-1]
        same = chunks[:, :, :, None] == torch.cat((before, chunks), 2)[:, :, None, :]
        query, key = torch.arange(window)[:, None] + window, torch.arange(2 * window)[None]
        near = same & (key <= query) & (key > query - window)
        return cls(F.pad(_bias(seen), (1, 0))[:, None], _bias(near)[:, None, :, None], window)


def _bias(seen: Bool[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    return torch.zeros(seen.shape).masked_fill_(~seen, HIDDEN)


def forward(
    parameters: Parameters, config: Config, tokens: Int[Tensor, "batch pos"], document: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch pos d_model"], list[Routing]]:
    """The normalised last residual stream (times ``unembed.weight`` it is the logits), and each layer's routing.

    ``pos`` must be a multiple of the sliding window; positions count from the start of the row, which rotary embedding
    cannot tell from the start of the document.
    """
    if tokens.shape[1] % config.sliding_window:
        raise ValueError(
            f"rows of {tokens.shape[1]} tokens: expected a multiple of the window, {config.sliding_window}"
        )
    masks = Masks.of(document, config.sliding_window)
    turns = cos_sin(config.rope, config.d_head, torch.arange(tokens.shape[1])[None])
    resid = F.embedding(tokens, parameters["embed.weight"])
    routings = []
    for layer in range(config.n_layers):
        p = {name: parameters[f"blocks.{layer}.{name}"] for name in config.layer_shapes()}
        resid = resid + _attention(p, config, layer, _norm(resid, p["ln1.w"], config), masks, turns)
        written, routing = _experts(p, config, _norm(resid, p["ln2.w"], config))
        resid = resid + written
        routings.append(routing)
    return _norm(resid, parameters["ln_final.w"], config), routings


def _norm(x: Tensor, gain: Tensor, config: Config) -> Tensor:
    return x * (x.pow(2).mean(-1, keepdim=True) + config.rms_eps).rsqrt() * gain


def _rotate(
    x: Float[Tensor, "batch head pos d_head"], turns: tuple[Tensor, Tensor]
) -> Float[Tensor, "batch head pos d_head"]:
    cos, sin = turns
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def _attention(
    p: Parameters,
    config: Config,
    layer: int,
    x: Float[Tensor, "batch pos d_model"],
    masks: Masks,
    turns: tuple[Tensor, Tensor],
) -> Float[Tensor, "batch pos d_model"]:
    batch, pos, _ = x.shape
    flat = (F.linear(x, p[f"attn.{name}.weight"], p[f"attn.{name}.bias"]) for name in "qkv")
    q, k, v = (y.view(batch, pos, -1, config.d_head).transpose(1, 2) for y in flat)
    q, k = _rotate(q, turns), _rotate(k, turns)
    attend = _see_all if config.window(layer) is None else _see_window
    z = attend(q, k, v, p["attn.sinks"], masks)
    return F.linear(z.transpose(1, 2).reshape(batch, pos, -1), p["attn.o.weight"], p["attn.o.bias"])


def _see_all(q: Tensor, k: Tensor, v: Tensor, sinks: Float[Tensor, "head"], masks: Masks) -> Tensor:
    """Fused attention. The sink is a key of its own: one more dimension that only it has, in which every query is 1."""
    group, d = q.shape[1] // k.shape[1], q.shape[-1]
    k, v = (F.pad(t.repeat_interleave(group, 1), (0, 1, 1, 0)) for t in (k, v))
    sink_key = F.pad((sinks * d**0.5).view(1, -1, 1, 1), (d, 0, 0, k.shape[2] - 1))
    z = F.scaled_dot_product_attention(
        F.pad(q, (0, 1), value=1.0), k + sink_key, v, attn_mask=masks.full, scale=d**-0.5
    )
    return z[..., :d]


def _see_window(q: Tensor, k: Tensor, v: Tensor, sinks: Float[Tensor, "head"], masks: Masks) -> Tensor:
    """Attention in chunks as long as the window: queries of a chunk see keys of it and of the one before."""
    batch, n_heads, pos, d = q.shape
    n_kv, window, n = k.shape[1], masks.window, pos // masks.window
    group = n_heads // n_kv
    own = [x.reshape(batch, n_kv, n, window, d) for x in (k, v)]
    k, v = (torch.cat((F.pad(x, (0, 0, 0, 0, 1, 0))[:, :, :-1], x), 3) for x in own)
    queries = (
        q.reshape(batch, n_kv, group, n, window, d).transpose(2, 3).reshape(batch, n_kv, n, group * window, d) * d**-0.5
    )
    scores = (queries @ k.transpose(-1, -2)).view(batch, n_kv, n, group, window, 2 * window) + masks.chunked
    sink = sinks.view(1, n_kv, 1, group, 1, 1).expand(batch, n_kv, n, group, window, 1)
    pattern = torch.cat((scores, sink), -1).softmax(-1)[..., :-1]
    z = pattern.reshape(batch, n_kv, n, group * window, 2 * window) @ v
    return z.view(batch, n_kv, n, group, window, d).transpose(2, 3).reshape(batch, n_heads, pos, d)


def _experts(
    p: Parameters, config: Config, x: Float[Tensor, "batch pos d_model"]
) -> tuple[Float[Tensor, "batch pos d_model"], Routing]:
    rows = x.reshape(-1, config.d_model)
    logits = F.linear(rows, p["mlp.router.weight"], p["mlp.router.bias"])
    values, chosen = logits.topk(config.experts_per_token, dim=-1)
    order = chosen.flatten().argsort(stable=True)
    counts = torch.bincount(chosen.flatten(), minlength=config.n_experts).tolist()
    sorted_rows = rows.index_select(0, order // config.experts_per_token)
    out = torch.cat(list(_each_expert(p, config, sorted_rows.split(counts))))
    slots = out.index_select(0, order.argsort()).view(-1, config.experts_per_token, config.d_model)
    written = torch.bmm(values.softmax(-1)[:, None], slots)
    return written.view_as(x), Routing(logits, chosen)


def _each_expert(p: Parameters, config: Config, parts: tuple[Tensor, ...]):
    # Gate and up rows are interleaved; halves side by side multiply into contiguous memory.
    w_gate_up, b_gate_up = p["mlp.experts.W_gate_up"], p["mlp.experts.b_gate_up"]
    w_in = torch.cat((w_gate_up[:, 0::2], w_gate_up[:, 1::2]), 1).unbind(0)
    b_in = torch.cat((b_gate_up[:, 0::2], b_gate_up[:, 1::2]), 1).unbind(0)
    w_out, b_out = p["mlp.experts.W_down"].unbind(0), p["mlp.experts.b_down"].unbind(0)
    for e, part in enumerate(parts):
        if len(part):
            both = F.linear(part, w_in[e], b_in[e])
            yield F.linear(ClampedSwiGLU.apply(both, config.swiglu_alpha, config.swiglu_limit), w_out[e], b_out[e])


class ClampedSwiGLU(torch.autograd.Function):
    """(up + 1) · gate · σ(α·gate) of rows [gate | up], clamped; its own backward pass, to move less memory."""

    @staticmethod
    def forward(ctx, both: Float[Tensor, "row twice_d_mlp"], alpha: float, limit: float) -> Float[Tensor, "row d_mlp"]:
        gate, up = both.chunk(2, dim=-1)
        gate, up = gate.clamp(max=limit), up.clamp(-limit, limit).add_(1)
        share = torch.sigmoid(alpha * gate)
        ctx.save_for_backward(both, gate, up, share)
        ctx.alpha, ctx.limit = alpha, limit
        return (gate * share).mul_(up)

    @staticmethod
    def backward(ctx, grad: Float[Tensor, "row d_mlp"]) -> tuple[Float[Tensor, "row twice_d_mlp"], None, None]:
        both, gate, up, share = ctx.saved_tensors
        out = torch.empty_like(both)
        d_gate, d_up = out.chunk(2, dim=-1)
        torch.mul(grad, gate * share, out=d_up)
        slope = (1 - share).mul_(gate).mul_(ctx.alpha).add_(1).mul_(share)
        torch.mul(grad * up, slope, out=d_gate)
        raw_gate, raw_up = both.chunk(2, dim=-1)
        d_gate.masked_fill_(raw_gate > ctx.limit, 0.0)
        d_up.masked_fill_(raw_up.abs() > ctx.limit, 0.0)
        return out, None, None
