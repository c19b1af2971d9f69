"""Long texts: attention in tiles is the attention it was, whoever listens, in memory linear in the length."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers.models.gpt_oss.modeling_gpt_oss import eager_attention_forward

from workbench.model import Config, HookedGptOss, Rope, random_weights, tiles
from workbench.model.attention import Attention
from workbench.model.config import FULL, SLIDING
from workbench.model.state import begin_pass
from workbench.model.streamed import heads_first, streamed
from workbench.model.tiles import tiling

QUERIES, KEYS, VALUES = "attn.hook_rot_q", "attn.hook_rot_k", "attn.hook_v"
SCORES, LOGIT, SINK, PATTERN, Z = (f"attn.hook_{n}" for n in ("attn_scores", "sink_logit", "sink", "pattern", "z"))
ONE_TILE = 2**60


def shape(window: int, *layer_types: str, heads: int = 4, kv_heads: int = 2, d_head: int = 16, **sizes: Any) -> Config:
    sizes = {
        "d_model": 24,
        "d_mlp": 8,
        "n_experts": 2,
        "experts_per_token": 1,
        "d_vocab": 40,
        "dtype": "float64",
    } | sizes
    return Config(
        name="long", n_layers=len(layer_types), layer_types=layer_types, sliding_window=window, n_heads=heads,
        n_key_value_heads=kv_heads, d_head=d_head, rope=Rope(factor=1.0), **sizes,
    )  # fmt: skip


@lru_cache(maxsize=64)
def built(config: Config, seed: int) -> HookedGptOss:
    return random_weights(HookedGptOss(config), seed)


def some_tokens(seed: int, *size: int) -> Tensor:
    return torch.randint(0, 40, size, generator=torch.Generator().manual_seed(seed))


@contextmanager
def tiled(room: int, least: int = 1, step: int = 1) -> Iterator[None]:
    """Tiles of about so many bytes, of no fewer than so many queries."""
    before = tiles.TILE_BYTES, tiles.LEAST_QUERIES, tiles.STEP
    tiles.TILE_BYTES, tiles.LEAST_QUERIES, tiles.STEP = {"cpu": room}, least, step
    try:
        yield
    finally:
        tiles.TILE_BYTES, tiles.LEAST_QUERIES, tiles.STEP = before


def seen(mask: Tensor, window: int | None, first: int = 0) -> Tensor:
    """[batch query_pos key_pos] by definition: both real, the key not later, fewer than ``window`` real tokens on."""
    column = torch.arange(mask.shape[1])
    nth = mask.long().cumsum(1)
    near = nth[:, :, None] - nth[:, None] < (mask.shape[1] + 1 if window is None else window)
    both = mask[:, :, None] & mask[:, None] & (column[None] <= column[:, None])
    return (near & both)[:, first:]


def dense(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """(z, pattern) in float64, from the formula: exp(q·k/√d) over its sum with exp(sink); 0 where that is 0/0."""
    k, v = (x.double().repeat_interleave(q.shape[2] // x.shape[2], 2) for x in (k, v))
    raised = (torch.einsum("bqhd,bkhd->bhqk", q.double(), k) / q.shape[3] ** 0.5).exp() * visible[:, None]
    total = raised.sum(-1, keepdim=True) + sinks.double().exp()[:, None, None]
    pattern = torch.where(total > 0, raised / total, 0.0)
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v), pattern


def relative(a: Tensor, b: Tensor) -> float:
    return float((a.double() - b.double()).abs().max() / b.double().abs().max())


@pytest.fixture(autouse=True)
def without_gradients() -> Iterator[None]:
    with torch.no_grad():
        yield


# ------------------------------------------------------------------------------------------------- exactness


@st.composite
def masks(draw: st.DrawFn, batch: int, n: int) -> Tensor | None:
    """None, or padding on the left, on the right, or anywhere; a row may be nothing but padding."""
    kind = draw(st.sampled_from((None, "left", "right", "anywhere")))
    if kind is None:
        return None
    if kind == "anywhere":
        return torch.tensor([draw(st.lists(st.booleans(), min_size=n, max_size=n)) for _ in range(batch)])
    column, pads = torch.arange(n), torch.tensor([[draw(st.integers(0, n))] for _ in range(batch)])
    return column >= pads if kind == "left" else column < n - pads


@settings(max_examples=40)
@given(st.data())
def test_z_is_the_values_weighed_by_a_softmax_over_the_visible_keys_and_the_sink(data: st.DataObject):
    draw, whole = data.draw, st.integers
    batch, n, kv_heads = draw(whole(1, 3)), draw(whole(1, 40)), draw(whole(1, 2))
    window, d_head = draw(st.one_of(whole(1, 6), whole(1, 50))), draw(st.sampled_from((2, 4, 6)))
    config = shape(window, SLIDING, FULL, heads=kv_heads * draw(whole(1, 3)), kv_heads=kv_heads, d_head=d_head)
    model, tokens, mask = built(config, 0), some_tokens(n, batch, n), draw(masks(batch, n))
    no_sink = torch.tensor([draw(st.booleans()) for _ in range(config.n_heads)])
    edit = (lambda name: name.endswith(LOGIT), lambda value, hook: value.masked_fill(no_sink, -torch.inf))
    read = [f"blocks.{layer}.{site}" for layer in (0, 1) for site in (QUERIES, KEYS, VALUES, Z)]
    with tiled(draw(st.sampled_from((1, 2000, 20_000))), draw(whole(1, 7)), draw(whole(1, 9))), model.hooks([edit]):
        _, cache = model.run_with_cache(tokens, attention_mask=mask, names_filter=read)
    real = torch.ones_like(tokens, dtype=torch.bool) if mask is None else mask
    for layer in (0, 1):
        q, k, v, z = (cache[f"blocks.{layer}.{site}"] for site in (QUERIES, KEYS, VALUES, Z))
        sinks = model.blocks[layer].attn.sinks.masked_fill(no_sink, -torch.inf)
        expected, _ = dense(q, k, v, sinks, seen(real, config.window(layer)))
        torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=20)
@given(st.data())
def test_behind_a_cache_z_is_that_of_the_queries_among_all_keys(data: st.DataObject):
    draw, whole = data.draw, st.integers
    n, window, pads = draw(whole(2, 40)), draw(whole(1, 12)), draw(whole(0, 10))
    cuts = [0, *sorted(draw(st.sets(whole(1, n - 1), max_size=4))), n]
    model, tokens = built(shape(window, SLIDING, FULL), 1), some_tokens(n, 2, n)
    real = torch.ones_like(tokens, dtype=torch.bool)
    real[1, :pads] = False
    past, pieces = model.new_cache(), []
    with tiled(1, draw(whole(1, 5))):
        for start, end in pairwise(cuts):
            _, cache = model.run_with_cache(
                tokens[:, start:end], past_kv_cache=past, attention_mask=real[:, start:end] if pads else None,
                names_filter=lambda name: name.endswith((QUERIES, KEYS, VALUES, Z)),
            )  # fmt: skip
            pieces.append(cache)
    for layer in (0, 1):
        q, k, v, z = (torch.cat([c[f"blocks.{layer}.{s}"] for c in pieces], 1) for s in (QUERIES, KEYS, VALUES, Z))
        expected, _ = dense(q, k, v, model.blocks[layer].attn.sinks, seen(real, model.config.window(layer)))
        torch.testing.assert_close(z, expected, rtol=1e-12, atol=1e-12)


class Layer:
    """One layer of 8 heads on 2, with queries, keys and values of order 1, and tiles as they are by default."""

    def __init__(self, seed: int, n: int, kind: str, dtype: torch.dtype) -> None:
        config = shape(128, kind, heads=8, d_head=64)
        self.attention = Attention(config, 0, dtype)
        draw = torch.Generator().manual_seed(seed)
        self.q, self.k, self.v = (torch.randn(1, n, h, 64, generator=draw).to(dtype) for h in (8, 2, 2))
        self.attention.sinks.copy_(torch.randn(8, generator=draw))
        self.this = begin_pass((1, n), torch.device("cpu"), None, None, "keep")
        self.visible = seen(torch.ones(1, n, dtype=torch.bool), self.attention.window)

    @property
    def n_tiles(self) -> int:
        return len(self.tiling().tiles)

    def tiling(self) -> tiles.Tiling:
        self.this.memo.clear()
        return tiling(self.this, self.attention.window, 0, 8 * self.q.element_size())

    def z(self) -> Tensor:
        over = self.tiling()
        attended = self.attention.streamed if len(over.tiles) > 1 else self.attention.shown
        return attended(over, self.q, heads_first(self.k), heads_first(self.v))

    def exact(self) -> Tensor:
        return dense(self.q, self.k, self.v, self.attention.sinks, self.visible)[0]

    def of_transformers(self) -> Tensor:
        """By transformers' eager attention, with the mask that its model would give it."""
        mask = torch.where(self.visible, 0.0, torch.finfo(self.q.dtype).min).to(self.q.dtype)[:, None]
        module = SimpleNamespace(num_key_value_groups=4, sinks=self.attention.sinks, training=False)
        q, k, v = (x.transpose(1, 2) for x in (self.q, self.k, self.v))
        return eager_attention_forward(module, q, k, v, mask, 64**-0.5)[0]


@pytest.mark.parametrize("kind", [SLIDING, FULL])
@pytest.mark.parametrize("n", [1, 127, 128, 129, 700, 1500])
def test_in_float32_tiles_are_within_1e_6_of_the_exact_and_of_transformers(seed: int, kind: str, n: int):
    layer = Layer(seed, n, kind, torch.float32)
    assert (layer.n_tiles > 1) == (n >= 700)
    assert relative(layer.z(), layer.exact()) < 1e-6
    assert relative(layer.z(), layer.of_transformers()) < 1e-6


@pytest.mark.parametrize("kind", [SLIDING, FULL])
def test_in_bfloat16_tiles_are_no_farther_from_the_exact_than_one_tile_and_transformers(seed: int, kind: str):
    layer = Layer(seed, 1500, kind, torch.bfloat16)
    z, exact, others = layer.z(), layer.exact(), [layer.of_transformers()]
    assert layer.n_tiles > 1
    with tiled(ONE_TILE):
        assert layer.n_tiles == 1
        others.append(layer.z())
    for other in others:
        assert (z - exact).pow(2).mean() <= 1.02 * (other - exact).pow(2).mean()


# ------------------------------------------------------------------------------------------------- reading is free


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def long(request: pytest.FixtureRequest, seed: int) -> tuple[HookedGptOss, Tensor]:
    """A model with the real model's heads and tokens of several tiles."""
    config = shape(100, SLIDING, FULL, heads=64, kv_heads=8, d_head=64, dtype=request.param)
    return built(config, seed % 7), some_tokens(seed, 1, 200)


READ = [[SCORES], [PATTERN], [SINK], [LOGIT], [SCORES, PATTERN], [SINK, PATTERN], [LOGIT, SINK, SCORES, PATTERN, Z]]


@pytest.mark.parametrize("sites", READ, ids=lambda sites: "+".join(name.split("_")[-1] for name in sites))
def test_listening_changes_no_bit_of_the_logits_over_several_tiles(long: tuple[HookedGptOss, Tensor], sites: list[str]):
    model, tokens = long
    plain = model(tokens)
    names = [f"blocks.{layer}.{site}" for layer in (0, 1) for site in sites]
    assert torch.equal(model.run_with_cache(tokens, names_filter=names)[0], plain)
    with torch.enable_grad(), model.hooks(bwd_hooks=[(name, lambda gradient, hook: None) for name in names]):
        assert torch.equal(model(tokens), plain)
    same = [(name, lambda value, hook: value.clone()) for name in names]
    assert torch.equal(model.run_with_hooks(tokens, fwd_hooks=same), plain)


EDITS: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "sink halved": (SINK, lambda sink, hook: sink / 2),
    "sink off": (LOGIT, lambda logit, hook: torch.full_like(logit, -torch.inf)),
    "values doubled": (VALUES, lambda value, hook: value * 2),
    "scores doubled": (SCORES, lambda scores, hook: scores * 2),
}


@pytest.mark.parametrize("edit", EDITS)
def test_listening_changes_no_bit_beside_an_edit_either(long: tuple[HookedGptOss, Tensor], edit: str):
    model, tokens = long
    site, change = EDITS[edit]
    with model.hooks([(lambda name: name.endswith(site), change)]):
        plain = model(tokens)
        assert not torch.equal(plain, built(model.config.with_(name="other"), 0)(tokens))
        for read in (PATTERN, SCORES, SINK):
            assert torch.equal(model.run_with_cache(tokens, names_filter=f"blocks.1.{read}")[0], plain), read


def test_with_gradients_on_the_logits_have_the_same_bits(long: tuple[HookedGptOss, Tensor]):
    model, tokens = long
    plain = model(tokens)
    with torch.enable_grad():
        assert torch.equal(model(tokens), plain)


@pytest.mark.parametrize("site", [SCORES, PATTERN, SINK, LOGIT])
@pytest.mark.parametrize("padded", [False, True])
def test_what_a_listener_sees_is_what_one_tile_shows(site: str, padded: bool):
    model, tokens, mask = built(shape(5, SLIDING, FULL), 3), some_tokens(3, 2, 23), None
    if padded:
        mask = torch.arange(23) >= torch.tensor([[0], [9]])
    names = [f"blocks.{layer}.{site}" for layer in (0, 1)]
    with tiled(ONE_TILE):
        whole = model.run_with_cache(tokens, attention_mask=mask, names_filter=names)[1]
    with tiled(1, 4):
        in_tiles = model.run_with_cache(tokens, attention_mask=mask, names_filter=names)[1]
    for name in names:
        torch.testing.assert_close(in_tiles[name], whole[name], rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------------------- edits


def shown_the_future(scores: Tensor, hook: Any) -> Tensor:
    """Every query of head 1 sees the last key and the first one."""
    scores = scores.clone()
    scores[:, 1, :, -1], scores[:, 1, :, 0] = 1.5, 0.5
    return scores


def evenly(pattern: Tensor, hook: Any) -> Tensor:
    return torch.full_like(pattern, 0.1)


MORE_EDITS = EDITS | {
    "hidden keys shown": (SCORES, shown_the_future),
    "all keys alike": (PATTERN, evenly),
    "sink all": (SINK, lambda sink, hook: torch.ones_like(sink)),
    "one sink off": (SINK, lambda sink, hook: sink * (torch.arange(sink.shape[1]) != 6)[:, None]),
    "rows turned": (PATTERN, lambda pattern, hook: pattern.flip(2)),
}


@pytest.mark.parametrize("edit", MORE_EDITS)
@pytest.mark.parametrize("cached", [False, True])
def test_an_edit_acts_in_several_tiles_as_it_does_in_one(edit: str, cached: bool):
    model, tokens = built(shape(5, SLIDING, FULL), 3), some_tokens(3, 2, 23)
    site, change = MORE_EDITS[edit]
    name = f"blocks.1.{site}" if cached else (lambda name: name.endswith(site))

    def edited() -> Tensor:
        past = None
        if cached:
            past = model.new_cache()
            model(tokens[:, :9], past_kv_cache=past)
        with model.hooks([(name, change)]):
            return model(tokens[:, 9:] if cached else tokens, past_kv_cache=past)

    with tiled(ONE_TILE):
        whole = edited()
    with tiled(1, 4):
        torch.testing.assert_close(edited(), whole, rtol=1e-11, atol=1e-11)


def test_a_pattern_put_where_no_query_looks_weighs_those_values():
    model, tokens = built(shape(5, SLIDING, FULL), 3), some_tokens(3, 2, 23)
    with tiled(1, 4), model.hooks([("blocks.0." + PATTERN, evenly)]):
        _, cache = model.run_with_cache(tokens, names_filter=[f"blocks.0.{site}" for site in (VALUES, Z)])
    expected = 0.1 * cache["blocks.0." + VALUES].sum(1).repeat_interleave(2, 1)
    torch.testing.assert_close(cache["blocks.0." + Z], expected[:, None].expand(2, 23, 4, 16))


def test_attention_to_keys_that_left_a_sliding_cache_is_refused_over_several_tiles_too():
    model, tokens, past = built(shape(5, SLIDING, FULL), 3), some_tokens(3, 2, 23), None
    past = model.new_cache()
    model(tokens[:, :9], past_kv_cache=past)
    with tiled(1, 4), pytest.raises(ValueError, match="have left this sliding layer's cache"):
        model.run_with_hooks(tokens[:, 9:], past_kv_cache=past, fwd_hooks=[("blocks.0." + PATTERN, evenly)])


# ------------------------------------------------------------------------------------------------- gradients


def inputs(seed: int, n: int) -> list[Tensor]:
    """q, keys, values, sink logits and how much sink is moved, of n queries in 2 rows; 2 heads on 1."""
    draw = torch.Generator().manual_seed(seed)
    sizes = (2, n, 2, 2), (2, n, 2), (2, n, 2), (2, n, 2), (2, n, 2)
    return [torch.randn(size, generator=draw, dtype=torch.float64).requires_grad_() for size in sizes]


def over(n: int, window: int | None, mask: Tensor | None = None) -> tiles.Tiling:
    with tiled(1, 2):
        return tiling(begin_pass((2, n), torch.device("cpu"), mask, None, "keep"), window, 0, 8)


@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("padded", [False, True])
def test_gradients_are_those_of_finite_differences_across_the_edges_of_tiles(
    seed: int, window: int | None, padded: bool
):
    tiles_of = over(5, window, torch.arange(5) >= torch.tensor([[0], [3]]) if padded else None)
    assert len(tiles_of.tiles) == 3
    with torch.enable_grad():
        # With and without an edit of the sink's mass.
        for given_to in (inputs(seed, 5), inputs(seed, 5)[:4]) if padded else (inputs(seed, 5),):
            assert torch.autograd.gradcheck(lambda *x: streamed(tiles_of, *x), given_to)


def test_second_derivatives_are_those_of_finite_differences_too(seed: int):
    tiles_of = over(3, None)
    assert len(tiles_of.tiles) == 2
    with torch.enable_grad():
        assert torch.autograd.gradgradcheck(lambda *x: streamed(tiles_of, *x), inputs(seed, 3)[:4])


@pytest.mark.parametrize("fixed", range(4))
def test_what_wants_no_gradient_gets_none_and_the_others_theirs(seed: int, fixed: int):
    tiles_of, x = over(5, 3), inputs(seed, 5)[:4]
    with torch.enable_grad():
        whole = torch.autograd.grad(sum(part.sum() for part in streamed(tiles_of, *x)), x)
        x[fixed].requires_grad_(False)
        rest = [part for part in x if part.requires_grad]
        found = torch.autograd.grad(sum(part.sum() for part in streamed(tiles_of, *x)), rest)
    for one, other in zip(found, [g for i, g in enumerate(whole) if i != fixed], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    ones = [torch.ones_like(part) for part in streamed(tiles_of, *x)]
    with torch.enable_grad():  # values alone: the sink's mass does not depend on them
        x = [part.detach().requires_grad_(i == 2) for i, part in enumerate(x)]
        alone, both = (torch.autograd.grad(streamed(tiles_of, *x)[:n], x[2], ones[:n])[0] for n in (1, 2))
        assert torch.equal(alone, both)


@pytest.mark.parametrize("listened", [[], [SINK], [PATTERN], [SCORES, LOGIT, SINK, PATTERN]])
def test_gradients_at_every_site_and_weight_are_those_of_one_tile(listened: list[str]):
    model, tokens = built(shape(5, SLIDING, FULL), 3), some_tokens(3, 2, 23)
    names = [f"blocks.{layer}.{site}" for layer in (0, 1) for site in (QUERIES, KEYS, VALUES, Z, *listened)]

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        found, forward, backward = model.get_caching_hooks(names, incl_bwd=True)
        with torch.enable_grad(), model.hooks(forward, backward):
            model(tokens, return_type="loss").backward()
        weights = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        return {name: g for name, g in found.items() if name.endswith("_grad")} | weights

    with tiled(ONE_TILE):
        whole = gradients()
    with tiled(1, 4):
        in_tiles = gradients()
    model.zero_grad()
    assert whole.keys() == in_tiles.keys() and {f"{name}_grad" for name in names} <= whole.keys()
    for name, expected in whole.items():
        torch.testing.assert_close(in_tiles[name], expected, rtol=1e-9, atol=1e-12, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_summed_over_tiles_are_as_near_to_the_exact_as_those_of_one_tile(seed: int, dtype: torch.dtype):
    layer = Layer(seed, 1000, FULL, dtype)
    upstream = torch.randn(1, 1000, 8, 64, generator=torch.Generator().manual_seed(seed)).to(dtype)

    def gradients(z: Callable[[], Tensor]) -> list[Tensor]:
        for x in (layer.q, layer.k, layer.v):
            x.requires_grad_()
        with torch.enable_grad():
            return list(torch.autograd.grad(z(), (layer.q, layer.k, layer.v), upstream))

    in_tiles = gradients(layer.z)
    exact = [g.double() for g in gradients(lambda: layer.exact().to(dtype))]
    with tiled(ONE_TILE):
        whole = gradients(layer.z)
    for one, other, true in zip(in_tiles, whole, exact, strict=True):
        far, reference = ((g.double() - true).pow(2).mean().sqrt() for g in (one, other))
        # In bfloat16 each tile's part is rounded before it joins the sum: once more than over one tile.
        assert far <= 1.5 * reference + 1e-7 * true.abs().max()


def test_hooks_run_once_though_backward_computes_tiles_again():
    model, tokens, fired = built(shape(5, SLIDING, FULL), 3), some_tokens(3, 2, 23), []
    unlistened = (SCORES, PATTERN)
    note = (lambda name: not name.endswith(unlistened), lambda value, hook: fired.append(hook.name))
    with tiled(1, 4), torch.enable_grad(), model.hooks([note]):
        model(tokens, return_type="loss").backward()
    model.zero_grad()
    assert fired == [name for name in model.sites if not name.endswith(unlistened)]


# ------------------------------------------------------------------------------------------------- memory and work


class Sizes(TorchDispatchMode):
    """Notes the elements of every tensor made, under the name that ``now`` has at the time."""

    def __init__(self) -> None:
        super().__init__()
        self.now, self.made = "", {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, Tensor):
                self.made[self.now] = max(self.made.get(self.now, 0), made.untyped_storage().nbytes())
        return out


def largest(n: int, sites: tuple[str, ...] = (), backward: bool = False, mask: Tensor | None = None) -> dict[str, int]:
    """The bytes of the largest tensor made in each block, when layer 1 of 3 (all see everything) is listened to."""
    model = built(shape(16, FULL, FULL, FULL, dtype="float32"), 0)
    noted = Sizes()

    def enter(value: Tensor, hook: Any) -> None:
        noted.now = f"layer {hook.layer()}"

    hooks = [(f"blocks.{layer}.hook_resid_pre", enter) for layer in range(3)]
    hooks += [(f"blocks.1.{site}", lambda value, hook: None) for site in sites]
    with tiled(2**12, 16), torch.set_grad_enabled(backward), model.hooks(hooks), noted:
        out = model(some_tokens(0, 1, n), return_type=None if not backward else "loss", attention_mask=mask)
        if backward:
            noted.now = "backward"
            out.backward()
    model.zero_grad()
    return noted.made


# A token's queries, 4 heads of 16 in float32, are 256 bytes, and 16 queries' scores for one key as many.
A_TOKEN = 256


@pytest.mark.parametrize("sites", [(), (LOGIT,), (SINK,), (QUERIES, VALUES, Z)])
@pytest.mark.parametrize("padded", [False, True])
def test_nothing_of_the_size_of_a_pattern_is_made_where_nobody_asks_for_one(sites: tuple[str, ...], padded: bool):
    n = 500  # even a mask of one byte for each pair would be 500 bytes a token
    mask = (torch.arange(n) >= 7)[None] if padded else None
    for where, size in largest(n, sites, backward=True, mask=mask).items():
        assert size <= (A_TOKEN + 1) * n, where


@pytest.mark.parametrize("site", [SCORES, PATTERN])
def test_listening_to_one_layer_makes_that_layers_pattern_and_no_other(site: str):
    n = 500
    made = largest(n, (site,))
    assert made["layer 1"] >= 4 * 4 * n * n
    assert max(made["layer 0"], made["layer 2"]) <= (A_TOKEN + 1) * n


def operations(kind: str, n: int, mask: Tensor | None = None) -> int:
    """Multiplications and additions of a layer's attention over n tokens, without its projections."""
    layer = Attention(shape(16, kind), 0, torch.float32).requires_grad_(False)
    batch = 1 if mask is None else mask.shape[0]
    this = begin_pass((batch, n), torch.device("cpu"), mask, None, "keep")
    with tiled(2**15), FlopCounterMode(display=False) as counter:
        layer(torch.zeros(batch, n, 24), this)
    return sum(count for op, count in counter.get_flop_counts()["Global"].items() if "bmm" in str(op))


@pytest.mark.parametrize("side", [None, "left", "right"])
def test_a_sliding_layer_does_work_linear_in_the_length_with_padding_too(side: str | None):
    def work(n: int) -> int:
        pads = torch.tensor([[0], [n // 2 + 3]])
        mask = {None: None, "left": torch.arange(n) >= pads, "right": torch.arange(n) < n - pads}[side]
        return operations(SLIDING, n, mask)

    assert 1.9 < work(2000) / work(1000) < 2.1


def test_a_full_layer_leaves_out_most_of_what_no_query_sees():
    n, per_pair = 1024, 2 * 2 * 4 * 16
    assert n * n / 2 * per_pair <= operations(FULL, n) < 0.6 * n * n * per_pair


@pytest.mark.parametrize("kind", [SLIDING, FULL])
def test_nothing_in_a_pass_waits_for_a_number_from_the_device(kind: str):
    # Tensors on meta hold no numbers: whoever asks for one is refused. On a GPU it would wait for all work before it.
    layer = Attention(shape(16, kind, dtype="float32"), 0, torch.float32, "meta")
    for n in (5, 1):
        this = begin_pass((1, n), torch.device("meta"), None, None, "keep")
        assert layer(torch.empty(1, n, 24, device="meta"), this).shape == (1, n, 24)
    with tiled(1, 4), pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiles, "TILE_BYTES_ELSEWHERE", 1)
        this = begin_pass((1, 50), torch.device("meta"), None, None, "keep")
        assert layer(torch.empty(1, 50, 24, device="meta"), this).shape == (1, 50, 24)
        assert len(tiling(this, layer.window, 0, 16).tiles) == 13


REAL_LAYERS = """
import json, os, resource, sys, torch
from workbench.model import preset
from workbench.model.state import begin_pass
from workbench.model.transformer import Block

config = preset("20b").with_(n_experts=1, experts_per_token=1)  # attention is whole; one expert a token instead of four
torch.set_grad_enabled(False)
blocks = [Block(config, layer, torch.bfloat16) for layer in (0, 1)]  # sliding, full
for parameter in (parameter for block in blocks for parameter in block.parameters()):
    parameter.uniform_(-0.02, 0.02)

def peak():
    # Not getrusage's: that of a forked process starts at its parent's.
    if os.path.exists("/proc/self/status"):
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

peaks = []
for n in (16, 2048, 8192):
    x = torch.randn(1, n, config.d_model).to(torch.bfloat16)
    for block in blocks:
        assert block(x, begin_pass((1, n), x.device, None, None, "keep")).isfinite().all()
    peaks.append(peak())
print(json.dumps(peaks))
"""


@pytest.mark.slow
def test_8192_tokens_go_through_layers_of_the_real_shape_within_six_gigabytes(root: Path):
    done = subprocess.run([sys.executable, "-c", REAL_LAYERS], capture_output=True, text=True, cwd=root, check=False)
    assert done.returncode == 0, done.stderr
    at_16, at_2048, at_8192 = json.loads(done.stdout.splitlines()[-1])
    assert at_8192 < 6e9
    # Four times the length takes about four times as much; of anything quadratic it would be sixteen times.
    assert at_8192 - at_16 < 6 * (at_2048 - at_16)
