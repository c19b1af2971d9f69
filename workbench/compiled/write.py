"""How to write heads and experts by hand.

The stream is kept simple, so that what is written can be worked out on paper:

- ``Stream`` gives each kind of content coordinates of its own, and holds |x| at √d_model by one large constant
  coordinate. RMSNorm then divides by 1, within a few per cent after a layer has added its part.
- Content is compared in RoPE's slowest pairs, which hardly turn over a prompt; position in its fastest.
- What stands between "this key" and "no key" is the sink: its logit is half-way, so a head that finds nothing writes
  nothing.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.model import Config, HookedGptOss, Rope
from workbench.model.rope import inverse_frequencies

ROPE = Rope(theta=1e8, factor=1.0)  # plain; so slow at its end that content is compared across the whole prompt
FAST_PAIRS = 4  # of RoPE's pairs, that tell positions apart


def shape(name: str, **sizes: object) -> Config:
    """A small gpt-oss shape: 4 heads on 2 key-value heads, 4 experts of which 1 is chosen, all layers full, unless
    ``sizes`` say otherwise."""
    base = Config(
        name=name,
        n_layers=1,
        d_model=64,
        n_heads=4,
        n_key_value_heads=2,
        d_head=32,
        d_mlp=8,
        n_experts=4,
        experts_per_token=1,
        d_vocab=32,
        n_ctx=256,
        sliding_window=8,
        layer_types=("full_attention",),
        rope=ROPE,
        dtype="float32",
        bos_token_id=None,
        pad_token_id=0,
        eos_token_ids=(),
    )
    n_layers = sizes.get("n_layers", 1)
    assert isinstance(n_layers, int)
    return base.with_(**{"layer_types": ("full_attention",) * n_layers, **sizes})


def blank(config: Config) -> HookedGptOss:
    """A model that writes nothing: all zeros, gains 1, and sinks so low that they take no attention."""
    model = HookedGptOss(config)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(False)  # while it is written; `finished` undoes it
        parameter.fill_(1.0 if name.endswith(".w") else 0.0)
    for block in model.blocks:
        block.attn.sinks.fill_(-1e4)
    return model


def finished(model: HookedGptOss) -> HookedGptOss:
    """As any other model: its parameters can be asked for gradients."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model.eval()


class Stream:
    """The coordinates of the residual stream by content; ``stream["token"]`` is its unit rows [size d_model].

    Args:
        d_model: of the model.
        turned: turn all content by a random rotation, so that no coordinate means anything alone.
        sizes: how many coordinates each content takes; one more is the constant.

    Raises:
        ValueError: if they do not fit in d_model.
    """

    def __init__(self, d_model: int, turned: int | None = None, **sizes: int) -> None:
        if sum(sizes.values()) + 1 > d_model:
            raise ValueError(f"{sizes} and the constant take {sum(sizes.values()) + 1} coordinates of {d_model}")
        basis = torch.eye(d_model)
        if turned is not None:
            drawn = torch.randn(d_model, d_model, generator=torch.Generator().manual_seed(turned), dtype=torch.float64)
            basis = torch.linalg.qr(drawn)[0].float()
        starts = [sum(list(sizes.values())[:i]) for i in range(len(sizes))]
        self._rows = {n: basis[s : s + size] for (n, size), s in zip(sizes.items(), starts, strict=True)}
        self.constant = basis[-1]
        self.d_model = d_model

    def __getitem__(self, name: str) -> Float[Tensor, "size d_model"]:
        return self._rows[name]

    def steady(self, content: Float[Tensor, "vocab d_model"]) -> Float[Tensor, "vocab d_model"]:
        """The same with as much of the constant as brings each row's norm to √d_model."""
        missing = self.d_model - content.pow(2).sum(-1, keepdim=True)
        return content + missing.sqrt() * self.constant


# ------------------------------------------------------------------------------------------------------------- heads


def write_head(
    model: HookedGptOss,
    layer: int,
    head: int,
    query: Float[Tensor, "content d_model"],
    key: Float[Tensor, "content d_model"],
    value: Float[Tensor, "moved d_model"],
    write: Float[Tensor, "moved d_model"],
    sink: float,
) -> None:
    """A head that attends by content: its score is Σ (query_i·x_q)(key_i·x_k), whatever the distance.

    It moves value_i·x_k onto write_i. ``sink`` is the sink's logit, in the units of that score. The key and the value
    are those of all query heads that share its key-value head.
    """
    attn, d_head = model.blocks[layer].attn, model.config.d_head
    slow = d_head // 2 - 1 - torch.arange(len(query))
    if len(query) > d_head // 2 - FAST_PAIRS:
        raise ValueError(
            f"{len(query)} contents to compare; a head of {d_head} has {d_head // 2 - FAST_PAIRS} slow pairs"
        )
    q, k, _, _ = _views(model, layer, head)
    q[slow] = query * math.sqrt(d_head)
    k[slow] = key
    _write_values(model, layer, head, value, write)
    attn.sinks[head] = sink


def write_offset_head(
    model: HookedGptOss,
    layer: int,
    head: int,
    offset: int,
    margin: float,
    value: Float[Tensor, "moved d_model"],
    write: Float[Tensor, "moved d_model"],
) -> float:
    """A head that attends ``offset`` tokens back, by RoPE alone; where there is no such token, to its sink.

    Its query and key are biases: the fastest pairs, turned so that they meet at that offset. A neighbour's score is
    ``margin`` lower, and the sink's logit is half-way between.

    Returns:
        the score at the offset.
    """
    attn, config = model.blocks[layer].attn, model.config
    speeds = inverse_frequencies(config.rope, config.d_head)[:FAST_PAIRS]
    gain = margin / float((1 - speeds.cos()).sum())
    half, group = config.d_head // 2, head // config.n_query_groups
    first = torch.arange(FAST_PAIRS)
    q = attn.q.bias.view(config.n_heads, -1)[head]
    k = attn.k.bias.view(config.n_key_value_heads, -1)[group]
    phase = -offset * speeds
    q[first], q[first + half] = (gain * math.sqrt(config.d_head) * f(phase) for f in (torch.cos, torch.sin))
    k[first] = 1.0
    _write_values(model, layer, head, value, write)
    attn.sinks[head] = FAST_PAIRS * gain - margin / 2
    return FAST_PAIRS * gain


def _views(model: HookedGptOss, layer: int, head: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of q, k and v, and the columns of o, of one head: views, to write into."""
    attn, config = model.blocks[layer].attn, model.config
    group, d = head // config.n_query_groups, config.d_head
    own, shared = slice(head * d, (head + 1) * d), slice(group * d, (group + 1) * d)
    return attn.q.weight[own], attn.k.weight[shared], attn.v.weight[shared], attn.o.weight[:, own]


def _write_values(model: HookedGptOss, layer: int, head: int, value: Tensor, write: Tensor) -> None:
    _, _, v, o = _views(model, layer, head)
    v[: len(value)] = value
    o[:, : len(write)] = write.T


# ------------------------------------------------------------------------------------------------------------ experts


def swish(gate: float, alpha: float = 1.702) -> float:
    """gate · σ(alpha·gate): what a neuron gives whose up is 0, as gpt-oss adds 1 to it."""
    return gate / (1 + math.exp(-alpha * gate))


def write_expert(
    model: HookedGptOss,
    layer: int,
    expert: int,
    read: Float[Tensor, "neuron d_model"],
    write: Float[Tensor, "neuron d_model"],
    gate: float = 4.0,
    bias: float = 0.0,
) -> None:
    """An expert that writes write_i where read_i·x is 1, and nothing of it where that is 0.

    Neuron i's gate is ``gate``·(read_i·x) + ``bias``; its up is 0. The down projection divides by what the neuron
    gives at 1.
    """
    experts, n = model.blocks[layer].mlp.experts, len(read)
    if n > model.config.d_mlp:
        raise ValueError(f"{n} neurons, and d_mlp={model.config.d_mlp}")
    experts.W_gate_up[expert, 0 : 2 * n : 2] = gate * read
    experts.b_gate_up[expert, 0 : 2 * n : 2] = bias
    given = swish(min(gate + bias, model.config.swiglu_limit), model.config.swiglu_alpha)
    experts.W_down[expert, :, :n] = write.T / given
