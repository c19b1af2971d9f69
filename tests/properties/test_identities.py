"""What holds for every shape, every weight and every text: drawn by hypothesis, in float64."""

from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from tests.forms import DENSE, EAGER, held_as
from tests.small import as_held, small_model
from workbench.model import Config, HookedGptOss, Rope
from workbench.model.config import FULL, SLIDING

form = held_as(DENSE, EAGER)  # the native engine takes no float64

CLOSE = {"rtol": 1e-11, "atol": 1e-11}
YARN, PLAIN = Rope(theta=10_000.0, factor=16.0, original_context=256), Rope(factor=1.0)
deep = settings(max_examples=12)


@dataclass(frozen=True)
class Case:
    """A model by its shape, form and seed, and what it reads."""

    shape: tuple[tuple[str, Any], ...]
    seed: int
    rows: tuple[tuple[int, ...], ...]
    mask: tuple[tuple[bool, ...], ...] | None
    form: str = DENSE

    def held(self, form: str) -> "Case":
        return replace(self, form=form)

    @property
    def config(self) -> Config:
        # Not made while drawing: the checks of types at run time use `random`, which hypothesis warns of.
        return as_held(Config(**dict(self.shape)), self.form)

    @property
    def model(self) -> HookedGptOss:
        return built(self.config, self.form, self.seed)

    @property
    def tokens(self) -> Tensor:
        return torch.tensor(self.rows)

    @property
    def real(self) -> Tensor:
        return torch.ones_like(self.tokens, dtype=torch.bool) if self.mask is None else torch.tensor(self.mask)

    def cache(self) -> dict[str, Tensor]:
        return self.model.run_with_cache(self.tokens, attention_mask=self.attention_mask)[1].cache_dict

    @property
    def attention_mask(self) -> Tensor | None:
        return None if self.mask is None else self.real


@lru_cache(maxsize=32)
def built(config: Config, form: str, seed: int) -> HookedGptOss:
    return small_model(config, form, seed)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[str, Any], ...]:
    yarn = draw(st.booleans())
    n_layers, kv_heads, n_experts = (draw(st.integers(1, n)) for n in (3, 2, 5))
    shape = dict(  # noqa: C408  as the call that it becomes
        name="drawn",
        n_layers=n_layers,
        d_model=draw(st.sampled_from((4, 12))),
        n_heads=kv_heads * draw(st.integers(1, 3)),
        n_key_value_heads=kv_heads,
        d_head=16 if yarn else draw(st.sampled_from((2, 6))),
        d_mlp=draw(st.sampled_from((1, 8))),
        n_experts=n_experts,
        experts_per_token=draw(st.integers(1, n_experts)),
        d_vocab=17,
        sliding_window=draw(st.integers(1, 5)),
        layer_types=tuple(draw(st.lists(st.sampled_from((SLIDING, FULL)), min_size=n_layers, max_size=n_layers))),
        rope=YARN if yarn else PLAIN,
        dtype="float64",
    )
    return tuple(shape.items())


@st.composite
def cases(draw: st.DrawFn) -> Case:
    batch, pos = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    row = st.tuples(*[st.integers(0, 16)] * pos)
    pads = st.tuples(st.integers(0, pos - 1), st.sampled_from(("left", "right")))
    mask = None
    if draw(st.booleans()):
        chosen = [draw(pads) for _ in range(batch)]
        mask = tuple(tuple((i >= n) if side == "left" else (i < pos - n) for i in range(pos)) for n, side in chosen)
    return Case(draw(shapes()), draw(st.integers(0, 3)), tuple(draw(row) for _ in range(batch)), mask)


@deep
@given(cases())
def test_pattern_and_sink_share_one_unit_of_attention(form: str, case: Case) -> None:
    case = case.held(form)
    cache, real = case.cache(), case.real
    for layer in range(case.config.n_layers):
        pattern, sink = cache[f"blocks.{layer}.attn.hook_pattern"], cache[f"blocks.{layer}.attn.hook_sink"]
        total = pattern.sum(-1).transpose(1, 2) + sink
        torch.testing.assert_close(total, torch.ones_like(total), **CLOSE)
        assert (pattern >= 0).all() and (sink > 0).all()
        # A padding token attends to nothing, nothing attends to it, and nobody looks ahead or beyond the window.
        assert not pattern.transpose(1, 2)[~real].any() and not pattern.permute(0, 3, 1, 2)[~real].any()
        window = case.config.window(layer) or pattern.shape[-1]
        assert torch.equal(pattern, pattern.tril()) and not pattern.tril(-window).any()


@deep
@given(cases())
def test_slots_hold_the_strongest_experts_in_order_and_their_weights_sum_to_one(form: str, case: Case) -> None:
    case = case.held(form)
    cache, k = case.cache(), case.config.experts_per_token
    for layer in range(case.config.n_layers):
        logits, indices, weights = (
            cache[f"blocks.{layer}.mlp.hook_{name}"] for name in ("router_logits", "expert_indices", "expert_weights")
        )
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]), **CLOSE)
        assert (weights.diff(dim=-1) <= 0).all() and (weights > 0).all()
        assert torch.equal(logits.gather(-1, indices), logits.sort(-1, descending=True).values[..., :k])
        assert all(len(set(slots)) == k for slots in indices.reshape(-1, k).tolist())


@deep
@given(cases())
def test_components_add_up_to_the_stream_at_each_layer_and_the_stream_to_the_logits(form: str, case: Case) -> None:
    case = case.held(form)
    cache, model = case.cache(), case.model
    stream = cache["hook_embed"]
    assert torch.equal(stream, model.embed.weight[case.tokens])
    for layer in range(case.config.n_layers):
        at = f"blocks.{layer}"
        torch.testing.assert_close(cache[f"{at}.hook_resid_pre"], stream, **CLOSE)
        heads = cache[f"{at}.attn.hook_result"].sum(2) + model.blocks[layer].attn.o.bias
        torch.testing.assert_close(cache[f"{at}.hook_attn_out"], heads, **CLOSE)
        torch.testing.assert_close(cache[f"{at}.hook_resid_mid"], stream + heads, **CLOSE)
        experts = cache[f"{at}.mlp.hook_expert_weights"][..., None] * cache[f"{at}.mlp.hook_expert_out"]
        torch.testing.assert_close(cache[f"{at}.hook_mlp_out"], experts.sum(2), **CLOSE)
        stream = stream + heads + experts.sum(2)
        torch.testing.assert_close(cache[f"{at}.hook_resid_post"], stream, **CLOSE)
    logits = cache["ln_final.hook_normalized"] * model.ln_final.w @ model.unembed.weight.T
    torch.testing.assert_close(model(case.tokens, attention_mask=case.attention_mask), logits, **CLOSE)


@deep
@given(cases(), st.integers(0, 8))
def test_each_site_fires_once_a_pass_in_the_order_listed_with_the_dims_it_declares(
    form: str, case: Case, seen: int
) -> None:
    case = case.held(form)
    config, model, fired = case.config, case.model, []
    seen = min(seen, case.tokens.shape[1] - 1)
    cache, mask = model.new_cache(), None  # some tokens may be in a KV cache already
    if seen:
        model(case.tokens[:, :seen], past_kv_cache=cache)
    else:
        mask = case.attention_mask if case.mask and all(row[-1] for row in case.mask) else None

    def note(value: Tensor, hook: HookPoint) -> None:
        fired.append((str(hook.name), tuple(value.shape), value.dtype))

    new = case.tokens[:, seen:]
    model.run_with_hooks(new, attention_mask=mask, past_kv_cache=cache, fwd_hooks=[(lambda name: True, note)])
    sizes = {
        "batch": new.shape[0], "pos": new.shape[1], "query_pos": new.shape[1], "key_pos": case.tokens.shape[1],
        "d_model": config.d_model, "head": config.n_heads, "kv_head": config.n_key_value_heads, "one": 1,
        "d_head": config.d_head, "expert": config.n_experts, "slot": config.experts_per_token, "d_mlp": config.d_mlp,
    }  # fmt: skip
    assert [name for name, _, _ in fired] == list(model.sites)
    assert max(Counter(name for name, _, _ in fired).values()) == 1
    for name, shape, dtype in fired:
        assert shape == tuple(sizes[dim] for dim in model.sites[name].dims), name
        assert (dtype == torch.int64) if model.sites[name].is_integer else (dtype == torch.float64), name


@settings(max_examples=20)
@given(cases(), st.data())
def test_reading_any_sites_forward_or_backward_changes_no_bit_of_the_logits(
    form: str, case: Case, data: st.DataObject
) -> None:
    case = case.held(form)
    model = case.model
    sites = data.draw(st.lists(st.sampled_from(list(model.sites)), min_size=1, max_size=6))
    plain = model(case.tokens, attention_mask=case.attention_mask)
    for names in (sites, None):
        read, _ = model.run_with_cache(case.tokens, names_filter=names, attention_mask=case.attention_mask)
        assert torch.equal(read, plain)
    listen = [(site, lambda gradient, hook: None) for site in sites if not model.sites[site].is_integer]
    with torch.enable_grad(), model.hooks(bwd_hooks=listen):
        assert torch.equal(model(case.tokens, attention_mask=case.attention_mask), plain)


@deep
@given(cases(), st.data())
def test_an_edit_that_returns_what_it_got_changes_no_bit(form: str, case: Case, data: st.DataObject) -> None:
    case = case.held(form)
    model = case.model
    same = data.draw(st.sampled_from((lambda v, hook: v, lambda v, hook: v.clone(), lambda v, hook: None)))
    edited = model.run_with_hooks(
        case.tokens, attention_mask=case.attention_mask, fwd_hooks=[(lambda name: True, same)]
    )
    assert torch.equal(edited, model(case.tokens, attention_mask=case.attention_mask))


@deep
@given(cases(), st.floats(-50, 50))
def test_a_constant_on_all_router_logits_of_a_layer_changes_nothing(form: str, case: Case, constant: float) -> None:
    case = case.held(form)
    model = case.model
    plain = model(case.tokens, attention_mask=case.attention_mask)
    for layer in range(case.config.n_layers):
        hook = (f"blocks.{layer}.mlp.hook_router_logits", lambda logits, hook: logits + constant)
        edited = model.run_with_hooks(case.tokens, attention_mask=case.attention_mask, fwd_hooks=[hook])
        torch.testing.assert_close(edited, plain, rtol=1e-9, atol=1e-9)


@deep
@given(cases(), st.randoms(use_true_random=False))
def test_permuting_the_rows_permutes_the_logits(form: str, case: Case, random: object) -> None:
    case = case.held(form)
    order = list(range(len(case.rows)))
    random.shuffle(order)
    mask = None if case.mask is None else case.real[order]
    permuted = case.model(case.tokens[order], attention_mask=mask)
    plain = case.model(case.tokens, attention_mask=case.attention_mask)
    torch.testing.assert_close(permuted, plain[order], **CLOSE)


@deep
@given(cases(), st.data())
def test_a_later_token_changes_nothing_before_it(form: str, case: Case, data: st.DataObject) -> None:
    case = case.held(form)
    n = case.tokens.shape[1]
    at = data.draw(st.integers(0, n - 1))
    changed = case.tokens.clone()
    changed[:, at:] = (changed[:, at:] + data.draw(st.integers(1, 16))) % 17
    plain, after = (case.model(tokens, attention_mask=case.attention_mask) for tokens in (case.tokens, changed))
    torch.testing.assert_close(after[:, :at], plain[:, :at], **CLOSE)
    assert not torch.equal(after[:, at:][case.real[:, at:]], plain[:, at:][case.real[:, at:]]) or not (
        case.real[:, at:].any()
    )


@deep
@given(cases())
def test_padding_changes_no_real_token(form: str, case: Case) -> None:
    case = case.held(form)
    padded = case.model(case.tokens, attention_mask=case.attention_mask)
    for row, tokens, real in zip(padded, case.tokens, case.real, strict=True):
        torch.testing.assert_close(row[real], case.model(tokens[real])[0], **CLOSE)


@deep
@given(cases(), st.data())
def test_a_key_outside_the_window_of_a_single_sliding_layer_changes_nothing(
    form: str, case: Case, data: st.DataObject
) -> None:
    case = case.held(form)
    config = case.config.with_(n_layers=1, layer_types=(SLIDING,))
    model, window, n = built(config, form, case.seed), config.sliding_window, 9
    tokens = torch.tensor([[data.draw(st.integers(0, 16)) for _ in range(n)]])
    at = data.draw(st.integers(0, n - 1))
    changed = tokens.clone()
    changed[0, at] = (changed[0, at] + 1) % 17
    moved = (model(changed) - model(tokens)).abs().amax((0, 2)) > 1e-9
    # The token is seen by the window's positions from its own on, and by no other.
    assert moved.tolist() == [at <= position < at + window for position in range(n)]
