"""The shape of a gpt-oss model, as one frozen value, and the three shapes that we name."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal

LayerType = Literal["sliding_attention", "full_attention"]
SLIDING: LayerType = "sliding_attention"
FULL: LayerType = "full_attention"


class ConfigError(ValueError):
    """A model shape that gpt-oss cannot have. The message names the field, its value and what would be valid."""


def alternating_layers(n_layers: int) -> tuple[LayerType, ...]:
    """gpt-oss' own order: even layers (0, 2, …) slide, odd layers see everything."""
    return tuple(SLIDING if layer % 2 == 0 else FULL for layer in range(n_layers))


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding with YaRN's frequency interpolation (arXiv 2309.00071).

    ``factor`` 1 is plain RoPE. ``truncate`` rounds the interpolation's corner dimensions to integers: gpt-oss says
    False, while transformers' own default is True.
    """

    theta: float = 150_000.0
    factor: float = 32.0
    original_context: int = 4096
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = False

    @property
    def concentration(self) -> float:
        """YaRN's attention temperature, applied to cos and to sin: 0.1·ln(factor) + 1."""
        return 0.1 * math.log(self.factor) + 1.0 if self.factor > 1 else 1.0

    def corners(self, d_head: int) -> tuple[float, float]:
        """The two indices of d_head/2 between which YaRN ramps from extrapolation to interpolation."""

        def corner(rotations: float) -> float:
            ratio = self.original_context / (rotations * 2 * math.pi)
            return d_head / 2 * math.log(ratio) / math.log(self.theta)

        low, high = corner(self.beta_fast), corner(self.beta_slow)
        return (float(math.floor(low)), float(math.ceil(high))) if self.truncate else (low, high)


@dataclass(frozen=True)
class Config:
    """A gpt-oss shape. The defaults are gpt-oss-20b's.

    Raises:
        ConfigError: for a shape that the architecture cannot have (odd head size, more routes than experts,
            YaRN corners out of order, …).
    """

    n_layers: int = 24
    d_model: int = 2880
    n_heads: int = 64
    n_key_value_heads: int = 8
    d_head: int = 64
    d_mlp: int = 2880
    n_experts: int = 32
    experts_per_token: int = 4
    d_vocab: int = 201_088
    n_ctx: int = 131_072
    sliding_window: int = 128
    layer_types: tuple[str, ...] = ()
    rope: Rope = Rope()
    rms_eps: float = 1e-5
    swiglu_alpha: float = 1.702
    swiglu_limit: float = 7.0
    dtype: str = "bfloat16"
    bos_token_id: int | None = 199_998
    pad_token_id: int | None = 199_999
    eos_token_ids: tuple[int, ...] = (200_002, 199_999, 200_012)
    name: str = "gpt-oss"

    def __post_init__(self) -> None:
        if not self.layer_types:
            object.__setattr__(self, "layer_types", alternating_layers(self.n_layers))
        _check_sizes(self)
        _check_layers(self)
        _check_rope(self)

    @property
    def n_query_groups(self) -> int:
        """Query heads that share one key-value head."""
        return self.n_heads // self.n_key_value_heads

    @property
    def n_params(self) -> int:
        """Parameters of the whole model, embeddings and biases included."""
        return sum(math.prod(shape) for shape in self.shapes().values())

    @property
    def n_active_params(self) -> int:
        """Parameters that one token's forward reads: everything but the experts it is not routed to, and of the
        embedding only its own row."""
        layer = self.layer_shapes()
        expert = sum(math.prod(layer[name]) for name in layer if ".experts." in name) // self.n_experts
        idle = self.n_layers * expert * (self.n_experts - self.experts_per_token)
        return self.n_params - idle - (self.d_vocab - 1) * self.d_model

    def window(self, layer: int) -> int | None:
        """Keys that a query of this layer can see, itself included; None where it sees all."""
        return self.sliding_window if self.layer_types[layer] == SLIDING else None

    def layer_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every parameter of one block, experts as [expert, out, in]."""
        d, e, q = self.d_model, self.n_experts, self.n_heads * self.d_head
        kv = self.n_key_value_heads * self.d_head
        return {
            "ln1.w": (d,),
            "attn.q.weight": (q, d),
            "attn.q.bias": (q,),
            "attn.k.weight": (kv, d),
            "attn.k.bias": (kv,),
            "attn.v.weight": (kv, d),
            "attn.v.bias": (kv,),
            "attn.o.weight": (d, q),
            "attn.o.bias": (d,),
            "attn.sinks": (self.n_heads,),
            "ln2.w": (d,),
            "mlp.router.weight": (e, d),
            "mlp.router.bias": (e,),
            "mlp.experts.W_gate_up": (e, 2 * self.d_mlp, d),
            "mlp.experts.b_gate_up": (e, 2 * self.d_mlp),
            "mlp.experts.W_down": (e, d, self.d_mlp),
            "mlp.experts.b_down": (e, d),
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name → shape of every parameter of the model."""
        layer = self.layer_shapes()
        blocks = {f"blocks.{i}.{name}": shape for i in range(self.n_layers) for name, shape in layer.items()}
        outer = {"embed.weight": (self.d_vocab, self.d_model), "ln_final.w": (self.d_model,)}
        return outer | blocks | {"unembed.weight": (self.d_vocab, self.d_model)}

    def with_(self, **changes: object) -> Config:
        """A copy with some fields changed; a new ``n_layers`` gets the alternating layer types again."""
        if "n_layers" in changes and "layer_types" not in changes:
            changes["layer_types"] = ()
        return replace(self, **changes)  # type: ignore[arg-type]


def _check_sizes(config: Config) -> None:
    for field in ("n_layers", "d_model", "n_heads", "n_key_value_heads", "d_head", "d_mlp", "n_experts", "d_vocab"):
        value = getattr(config, field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ConfigError(f"{field}={value!r}: expected a positive whole number")
    for field in ("experts_per_token", "n_ctx", "sliding_window"):
        value = getattr(config, field)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{field}={value!r}: expected a whole number")
    if not 0 <= config.rms_eps < math.inf:
        raise ConfigError(f"rms_eps={config.rms_eps!r}: expected a number, 0 or more")
    if config.n_heads % config.n_key_value_heads:
        raise ConfigError(
            f"n_heads={config.n_heads} is not a multiple of n_key_value_heads={config.n_key_value_heads}: "
            "grouped-query attention shares each key-value head among the same number of query heads"
        )
    if config.d_head % 2:
        raise ConfigError(f"d_head={config.d_head} is odd: rotary embedding turns pairs of dimensions")
    if not 1 <= config.experts_per_token <= config.n_experts:
        raise ConfigError(
            f"experts_per_token={config.experts_per_token}: expected 1 to n_experts={config.n_experts}, the top-k"
        )
    if not (0 < config.swiglu_limit <= 65504 or config.swiglu_limit == math.inf):
        raise ConfigError(f"swiglu_limit={config.swiglu_limit!r}: expected a positive number that float16 has, or inf")
    if config.sliding_window < 1:
        raise ConfigError(f"sliding_window={config.sliding_window}: a query sees at least itself, so expected ≥ 1")
    if config.dtype not in ("bfloat16", "float32", "float16", "float64"):
        raise ConfigError(f"dtype={config.dtype!r}: expected 'bfloat16', 'float32', 'float16' or 'float64'")


def _check_layers(config: Config) -> None:
    if len(config.layer_types) != config.n_layers:
        raise ConfigError(f"layer_types names {len(config.layer_types)} layers, n_layers={config.n_layers}")
    unknown = sorted(set(config.layer_types) - {SLIDING, FULL})
    if unknown:
        raise ConfigError(f"layer_types has {unknown}: expected only {SLIDING!r} and {FULL!r}")


def _check_rope(config: Config) -> None:
    if not config.rope.factor >= 1:
        raise ConfigError(f"rope.factor={config.rope.factor!r}: expected ≥ 1; 1 is plain RoPE")
    if not config.rope.factor > 1:
        return
    low, high = config.rope.corners(config.d_head)
    # openai's reference asserts the same; out of order, the ramp has no meaning and the references disagree.
    if not 0 < low < high < config.d_head / 2 - 1:
        raise ConfigError(
            f"YaRN's corners are low={low:.2f}, high={high:.2f}: expected 0 < low < high < d_head/2 − 1 = "
            f"{config.d_head / 2 - 1:g}. Change theta={config.rope.theta:g}, "
            f"original_context={config.rope.original_context} or d_head={config.d_head}, or set factor=1 (plain RoPE)"
        )


GPT_OSS_20B = Config(name="gpt-oss-20b")
GPT_OSS_120B = Config(name="gpt-oss-120b", n_layers=36, n_experts=128)
NANO = Config(
    name="nano",
    n_layers=4,
    d_model=128,
    n_heads=8,
    n_key_value_heads=2,
    d_head=32,
    d_mlp=128,
    n_experts=8,
    experts_per_token=2,
    d_vocab=1024,
    n_ctx=4096,
    sliding_window=16,
    rope=Rope(theta=10_000.0, factor=16.0, original_context=256),
    dtype="float32",
    bos_token_id=0,
    pad_token_id=1,
    eos_token_ids=(2, 1, 8),
)
PRESETS = {config.name: config for config in (GPT_OSS_20B, GPT_OSS_120B, NANO)}


def preset(name: str) -> Config:
    """The shape that goes by this name: 'gpt-oss-20b' (or '20b'), 'gpt-oss-120b' (or '120b'), 'nano'.

    Raises:
        ConfigError: for a name that is none of them.
    """
    found = PRESETS.get(name) or PRESETS.get(f"gpt-oss-{name}")
    if found is None:
        near = get_close_matches(name, PRESETS, n=1)
        hint = f"; closest is {near[0]!r}" if near else ""
        raise ConfigError(f"no preset {name!r}{hint}; there are {sorted(PRESETS)}")
    return found
