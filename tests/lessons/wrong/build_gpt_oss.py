"""What students hand in for lesson 1, and the hint that each deserves."""

import math

import torch
import torch.nn.functional as F

# ------------------------------------------------------------ rms_norm


def layer_norm(x, gain, eps):
    x = x - x.mean(-1, keepdim=True)
    return x / (x.var(-1, keepdim=True, unbiased=False) + eps).sqrt() * gain


def no_gain(x, gain, eps):
    return x * torch.rsqrt((x * x).mean(-1, keepdim=True) + eps)


def by_length(x, gain, eps):
    return gain * x / torch.sqrt((x**2).sum(-1, keepdim=True) + eps)


def without_eps(x, gain, eps):
    return gain * x / x.square().mean(-1, keepdim=True).sqrt()


def over_tokens(x, gain, eps):
    return x / torch.sqrt(x.pow(2).mean(0) + eps) * gain


# ------------------------------------------------------------ yarn_frequencies


def plain_rope(d_head, theta, factor, low, high):
    return 1.0 / theta ** (torch.arange(0, d_head, 2) / d_head)


def wrong_way(d_head, theta, factor, low, high):
    f = 1.0 / theta ** (torch.arange(0, d_head, 2) / d_head)
    t = torch.clip((torch.arange(len(f)) - low) / (high - low), 0, 1)
    return t * f + (1 - t) * f / factor


def interpolation(d_head, theta, factor, low, high):
    return 1.0 / (factor * theta ** (torch.arange(0, d_head, 2) / d_head))


def no_clamp(d_head, theta, factor, low, high):
    f = 1.0 / theta ** (torch.arange(0, d_head, 2) / d_head)
    t = (torch.arange(d_head // 2) - low) / (high - low)
    return f + t * (f / factor - f)


def half_the_exponent(d_head, theta, factor, low, high):
    f = 1.0 / theta ** (torch.arange(d_head // 2) / d_head)
    t = torch.clip((torch.arange(d_head // 2) - low) / (high - low), 0, 1)
    return (1 - t) * f + t * f / factor


# ------------------------------------------------------------ rotate


def neighbours(x, angles, scale):
    out = torch.empty_like(x)
    cos, sin = scale * torch.cos(angles).unsqueeze(1), scale * torch.sin(angles).unsqueeze(1)
    out[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., ::2] * sin
    return out


def clockwise(x, angles, scale):
    h = x.shape[-1] // 2
    cos, sin = scale * torch.cos(angles).unsqueeze(1), scale * torch.sin(angles).unsqueeze(1)
    return torch.cat([x[..., :h] * cos + x[..., h:] * sin, x[..., h:] * cos - x[..., :h] * sin], dim=-1)


def unscaled(x, angles, scale):
    h = x.shape[-1] // 2
    cos, sin = torch.cos(angles).unsqueeze(1), torch.sin(angles).unsqueeze(1)
    return torch.cat([x[..., :h] * cos - x[..., h:] * sin, x[..., h:] * cos + x[..., :h] * sin], dim=-1)


def two_plusses(x, angles, scale):
    h = x.shape[-1] // 2
    cos, sin = scale * torch.cos(angles).unsqueeze(1), scale * torch.sin(angles).unsqueeze(1)
    return torch.cat([x[..., :h] * cos + x[..., h:] * sin, x[..., h:] * cos + x[..., :h] * sin], dim=-1)


# ------------------------------------------------------------ visible_keys


def one_more(n, window):
    mask = torch.ones(n, n).tril().bool()
    return mask if window is None else mask & (torch.ones(n, n).triu(-window) == 1)


def one_less(n, window):
    mask = torch.ones(n, n).tril().bool()
    return mask if window is None else mask & (torch.ones(n, n).triu(-window + 2) == 1)


def both_sides(n, window):
    q, k = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    return torch.ones(n, n, dtype=torch.bool) if window is None else q - k < window


def upper(n, window):
    mask = torch.ones(n, n).triu().bool()
    return mask if window is None else mask & (torch.ones(n, n).tril(window - 1) == 1)


def only_causal(n, window):
    return torch.ones(n, n).tril() == 1


# ------------------------------------------------------------ attend


def _scores(q, k, visible, scale=None, fill=float("-inf")):
    group = q.size(1) // k.size(1)
    scores = torch.einsum("qhd,khd->hqk", q, torch.repeat_interleave(k, group, dim=1))
    scores = scores / math.sqrt(q.size(-1)) if scale is None else scores * scale
    return torch.where(visible, scores, torch.full_like(scores, fill))


def _mixed(pattern, v):
    group = pattern.size(0) // v.size(1)
    return torch.einsum("hqk,khd->qhd", pattern, torch.repeat_interleave(v, group, dim=1))


def _with_sink(scores, sinks):
    powers = scores.exp()
    return powers / (powers.sum(-1, keepdim=True) + sinks.exp()[:, None, None])


def no_sink(q, k, v, sinks, visible):
    return _mixed(F.softmax(_scores(q, k, visible), dim=-1), v)


def scaled_sink(q, k, v, sinks, visible):
    return _mixed(_with_sink(_scores(q, k, visible), sinks / math.sqrt(q.size(-1))), v)


def unscaled_scores(q, k, v, sinks, visible):
    return _mixed(_with_sink(_scores(q, k, visible, scale=1.0), sinks), v)


def heads_in_turn(q, k, v, sinks, visible):
    times = q.size(1) // k.size(1)
    k, v = torch.cat([k] * times, dim=1), torch.cat([v] * times, dim=1)
    scores = torch.einsum("qhd,khd->hqk", q, k) / q.size(-1) ** 0.5
    return torch.einsum("hqk,khd->qhd", _with_sink(scores.masked_fill(~visible, float("-inf")), sinks), v)


def zero_mask(q, k, v, sinks, visible):
    return _mixed(_with_sink(_scores(q, k, visible, fill=0.0), sinks), v)


def over_queries(q, k, v, sinks, visible):
    return _mixed(F.softmax(_scores(q, k, visible), dim=1), v)


# ------------------------------------------------------------ route


def softmax_then_topk(logits, k):
    probabilities = F.softmax(logits, dim=-1)
    best = torch.topk(probabilities, k)
    return best.indices, best.values


def weights_first(logits, k):
    best = torch.topk(logits, k)
    return F.softmax(best.values, dim=-1), best.indices


def raw_logits(logits, k):
    best = torch.topk(logits, k)
    return best.indices, best.values


def ascending(logits, k):
    indices = logits.argsort(-1)[:, -k:]
    return indices, logits.gather(1, indices).softmax(1)


def each_alone(logits, k):
    best = torch.topk(logits, k)
    return best.indices, 1 / (1 + torch.exp(-best.values))


# ------------------------------------------------------------ swiglu


def in_halves(x):
    n = x.size(-1) // 2
    gate, up = torch.minimum(x[..., :n], torch.tensor(7.0)), torch.clip(x[..., n:], -7, 7)
    return gate / (1 + torch.exp(-1.702 * gate)) * (up + 1)


def no_one(x):
    gate, up = torch.minimum(x[..., ::2], torch.tensor(7.0)), torch.clip(x[..., 1::2], -7, 7)
    return gate / (1 + torch.exp(-1.702 * gate)) * up


def unclamped(x):
    gate, up = x[..., ::2], x[..., 1::2]
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


def clamped_below(x):
    gate, up = torch.clip(x[..., ::2], -7, 7), torch.clip(x[..., 1::2], -7, 7)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


def silu(x):
    gate, up = torch.clip(x[..., ::2], max=7), torch.clip(x[..., 1::2], -7, 7)
    return F.silu(gate) * (up + 1)


def up_first(x):
    up, gate = torch.clip(x[..., ::2], -7, 7), torch.clip(x[..., 1::2], max=7)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


# ------------------------------------------------------------ mix_experts


def _act(x):
    gate, up = torch.clip(x[..., ::2], max=7), torch.clip(x[..., 1::2], -7, 7)
    return gate * torch.sigmoid(1.702 * gate) * (up + 1)


def _written(x, chosen, W_gate_up, b_gate_up, W_down, b_down):
    act = _act((W_gate_up[chosen] @ x[:, None, :, None])[..., 0] + b_gate_up[chosen])
    return (W_down[chosen] @ act[..., None])[..., 0] + b_down[chosen]


def plain_sum(x, chosen, weights, *parameters):
    return _written(x, chosen, *parameters).sum(1)


def bias_beside(x, chosen, weights, W_gate_up, b_gate_up, W_down, b_down):
    without = _written(x, chosen, W_gate_up, b_gate_up, W_down, torch.zeros_like(b_down))
    return (weights[..., None] * without).sum(1) + b_down[chosen].sum(1)


def no_down_bias(x, chosen, weights, W_gate_up, b_gate_up, W_down, b_down):
    return (weights[..., None] * _written(x, chosen, W_gate_up, b_gate_up, W_down, torch.zeros_like(b_down))).sum(1)


def no_up_bias(x, chosen, weights, W_gate_up, b_gate_up, W_down, b_down):
    return (weights[..., None] * _written(x, chosen, W_gate_up, torch.zeros_like(b_gate_up), W_down, b_down)).sum(1)


def averaged(x, chosen, weights, *parameters):
    return (weights[..., None] * _written(x, chosen, *parameters)).mean(1)


# ------------------------------------------------------------ gpt_oss


def _norm(x, gain, eps):
    return x * (x.square().mean(-1, keepdim=True) + eps).rsqrt() * gain


def _turn(x, c):
    rope, half = c.rope, c.d_head // 2
    f = 1.0 / rope.theta ** (torch.arange(0, c.d_head, 2) / c.d_head)
    low, high = rope.corners(c.d_head)
    t = torch.clip((torch.arange(half) - low) / (high - low), 0, 1)
    angle = (torch.arange(len(x))[:, None] * ((1 - t) * f + t * f / rope.factor))[:, None]
    cos, sin = rope.concentration * angle.cos(), rope.concentration * angle.sin()
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _attention(x, w, c, window):
    n, d = len(x), c.d_head
    q, k, v = (F.linear(x, w[f"attn.{p}.weight"], w[f"attn.{p}.bias"]).view(n, -1, d) for p in "qkv")
    mask = torch.ones(n, n).tril() * (1 if window is None else torch.ones(n, n).triu(1 - window))
    pattern = _with_sink(_scores(_turn(q, c), _turn(k, c), mask == 1), w["attn.sinks"])
    return F.linear(_mixed(pattern, v).flatten(1), w["attn.o.weight"], w["attn.o.bias"])


def _experts(x, w, c):
    best = F.linear(x, w["mlp.router.weight"], w["mlp.router.bias"]).topk(c.experts_per_token)
    parameters = [w[f"mlp.experts.{name}"] for name in ("W_gate_up", "b_gate_up", "W_down", "b_down")]
    return (best.values.softmax(-1)[..., None] * _written(x, best.indices, *parameters)).sum(1)


def _layer(weights, i):
    return {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith(f"blocks.{i}.")}


def _model(tokens, weights, c, *, keep=1, norm=True, gain="ln2.w", windows=None, side_by_side=False):
    x = weights["embed.weight"][tokens]
    for i in range(c.n_layers):
        w = _layer(weights, i)
        window = c.window(i) if windows is None else windows(c, i)
        before = x
        x = keep * x + _attention(_norm(x, w["ln1.w"], c.rms_eps), w, c, window)
        read = before if side_by_side else x
        x = keep * x + _experts(_norm(read, w[gain], c.rms_eps), w, c)
    x = _norm(x, weights["ln_final.w"], c.rms_eps) if norm else x
    return x @ weights["unembed.weight"].T


def no_final_norm(tokens, weights, config):
    return _model(tokens, weights, config, norm=False)


def no_stream(tokens, weights, config):
    return _model(tokens, weights, config, keep=0)


def same_gain(tokens, weights, config):
    return _model(tokens, weights, config, gain="ln1.w")


def odd_layers_slide(tokens, weights, config):
    return _model(tokens, weights, config, windows=lambda c, i: c.sliding_window if i % 2 else None)


def no_windows(tokens, weights, config):
    return _model(tokens, weights, config, windows=lambda c, i: None)


def parallel(tokens, weights, config):
    return _model(tokens, weights, config, side_by_side=True)


def tied(tokens, weights, config):
    return _model(tokens, {**weights, "unembed.weight": weights["embed.weight"]}, config)


WRONG = {
    "rms_norm": [
        (layer_norm, "LayerNorm"),
        (no_gain, "the gain is missing"),
        (by_length, "vector's length"),
        (without_eps, "not for tiny ones"),
        (over_tokens, "average over the tokens"),
    ],
    "yarn_frequencies": [
        (plain_rope, "RoPE's own frequencies. YaRN"),
        (wrong_way, "runs the wrong way"),
        (interpolation, "position interpolation"),
        (no_clamp, "clamp it"),
        (half_the_exponent, "Look at the exponent"),
    ],
    "rotate": [
        (neighbours, "turn neighbours"),
        (clockwise, "clockwise"),
        (unscaled, "Right at scale 1"),
        (two_plusses, "One sign of the four"),
    ],
    "visible_keys": [
        (one_more, "One key too many"),
        (one_less, "One key too few"),
        (both_sides, "Later tokens are visible"),
        (upper, "axes are exchanged"),
        (only_causal, "window is ignored"),
    ],
    "attend": [
        (no_sink, "rows sum to 1 over the keys"),
        (scaled_sink, "It is a logit already"),
        (unscaled_scores, "scores are not scaled"),
        (heads_in_turn, "wrong heads share keys"),
        (zero_mask, "Hidden keys still get attention"),
        (over_queries, "softmax runs over the queries"),
    ],
    "route": [
        (softmax_then_topk, "take the softmax over all experts and then choose"),
        (weights_first, "exchanged"),
        (raw_logits, "still logits"),
        (ascending, "weakest first"),
        (each_alone, "sigmoid"),
    ],
    "swiglu": [
        (in_halves, "You cut in halves"),
        (no_one, "+1 is missing"),
        (unclamped, "Right for small numbers"),
        (clamped_below, "clamped above only"),
        (silu, "plain SiLU"),
        (up_first, "Gate and up are exchanged"),
    ],
    "mix_experts": [
        (plain_sum, "sum the experts as they are"),
        (bias_beside, "multiplies after the down bias"),
        (no_down_bias, "bias of the down projection is missing"),
        (no_up_bias, "bias of the first projection is missing"),
        (averaged, "divide by the number of slots"),
    ],
    "gpt_oss": [
        (no_final_norm, "normalised once more"),
        (no_stream, "must *add* to it"),
        (same_gain, "Both norms use"),
        (odd_layers_slide, "windows stand in the wrong layers"),
        (no_windows, "sees everything"),
        (parallel, "as it was before attention"),
        (tied, "does not tie them"),
    ],
}
