"""How large the random weights are, so that a deep random model stays finite and lively.

Every matrix starts from 1/√fan-in, which keeps a unit input at unit size, and gets one factor that is explained where
it is set. The normalised stream that attention and experts read has unit size by itself, whatever the depth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from workbench.model.config import Config

# Everything that all tokens share makes routing lopsided, layer by layer more so: biases, what a broad attention
# averages, and growth of the stream by these. Hence small biases, sharp scores and slow growth.
BIAS = 0.05  # of a bias, in units of what it is added to
GAIN_SPREAD = 0.1  # of the norm gains around 1
# Attention scores' standard deviation: of 128 keys about ten matter, neither all nor one.
SCORES = 2.0
# The sink logits lie so far below the log-sum-exp of a full window's scores: sinks take from 1 to 80 percent.
SINK_BELOW, SINK_SPREAD = 2.0, 1.5
ROUTER = 1.5  # logits: wide enough that the k experts of a token get different weights
LOGITS = 2.0
# The 2 · n_layers writes to the stream together add this much variance to the embedding's 1.
GROWTH = 1.0

# What the parts do to the size of unit inputs, measured once on models made by this recipe.
ATTENTION_AVERAGE = 0.32  # of values, by a pattern with such scores over about 100 keys
SWIGLU = 0.92  # gate and up → act
ROUTED_SUM = 1.12  # of k experts with softmax weights, in units of 1/√k: a little more than an even mean's


@dataclass(frozen=True)
class Normal:
    """What the numbers of one tensor are drawn from."""

    std: float
    mean: float = 0.0


def scales(config: Config) -> dict[str, Normal]:
    """Name of a parameter (of a block's, without ``blocks.{i}.``) → the distribution of its weights.

    Fan-in: matrices scale with the inverse root of what they sum over. Depth: what attention and experts write to the
    stream has standard deviation √(1 / (2 · n_layers)), attention's part like the experts', so that the stream grows
    to about 1.5 times the embedding's size whatever the depth (GPT-2's rule).
    """
    write = math.sqrt(GROWTH / (2 * config.n_layers))
    expert = write * math.sqrt(config.experts_per_token) / ROUTED_SUM
    # Queries and keys share the score's size; RoPE multiplies both by YaRN's concentration.
    head = math.sqrt(SCORES) / config.rope.concentration
    keys = min(config.sliding_window, config.n_ctx)
    from_stream = config.d_model**-0.5
    gain = Normal(GAIN_SPREAD, mean=1.0)
    return {
        "embed.weight": Normal(1.0),
        "ln_final.w": gain,
        "unembed.weight": Normal(LOGITS * from_stream),
        "ln1.w": gain,
        "attn.q.weight": Normal(head * from_stream),
        "attn.q.bias": Normal(BIAS * head),
        "attn.k.weight": Normal(head * from_stream),
        "attn.k.bias": Normal(BIAS * head),
        "attn.v.weight": Normal(from_stream),
        "attn.v.bias": Normal(BIAS),
        "attn.o.weight": Normal(write / ATTENTION_AVERAGE * (config.n_heads * config.d_head) ** -0.5),
        "attn.o.bias": Normal(BIAS * write),
        "attn.sinks": Normal(SINK_SPREAD, mean=math.log(keys) + SCORES**2 / 2 - SINK_BELOW),
        "ln2.w": gain,
        "mlp.router.weight": Normal(ROUTER * from_stream),
        "mlp.router.bias": Normal(BIAS * ROUTER),
        "mlp.experts.W_gate_up": Normal(from_stream),
        "mlp.experts.b_gate_up": Normal(BIAS),
        "mlp.experts.W_down": Normal(expert / SWIGLU * config.d_mlp**-0.5),
        "mlp.experts.b_down": Normal(BIAS * expert),
    }
