"""TransformerLens' hook methods on our model: what goes on, when it comes off, and what flows back."""

import warnings
from collections.abc import Callable

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from tests.small import without_gradients
from workbench.model import HookedGptOss, UnknownSite

__all__ = ["without_gradients"]

SITE = "blocks.1.hook_resid_mid"


def double_it(value: Tensor, hook: HookPoint) -> Tensor:
    return 2 * value


@pytest.fixture
def reset_after(model: HookedGptOss) -> object:
    yield
    model.reset_hooks()


def test_an_edit_acts_during_its_run_and_is_gone_after(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    edited = model.run_with_hooks(tokens, fwd_hooks=[(SITE, double_it)])
    assert not torch.equal(edited, plain)
    assert torch.equal(model(tokens), plain)


def test_hooks_act_inside_their_block_and_inner_blocks_end_on_their_own(
    model: HookedGptOss, tokens: Tensor, plain: Tensor
) -> None:
    once = model.run_with_hooks(tokens, fwd_hooks=[(SITE, double_it)])
    with model.hooks(fwd_hooks=[(SITE, double_it)]) as hooked:
        assert hooked is model and torch.equal(model(tokens), once)
        with model.hooks(fwd_hooks=[(SITE, lambda value, hook: value / 2)]):
            assert torch.equal(model(tokens), plain)  # doubling and halving are exact
        assert torch.equal(model(tokens), once)
    assert torch.equal(model(tokens), plain)


def test_hooks_of_one_site_run_in_order_unless_put_first(model: HookedGptOss, tokens: Tensor) -> None:
    seen: list[str] = []
    for name, prepend in (("first", False), ("second", False), ("before", True)):
        model.add_hook(SITE, lambda value, hook, name=name: seen.append(name), prepend=prepend)
    model(tokens)
    model.reset_hooks()
    assert seen == ["before", "first", "second"]


def test_an_added_hook_stays_until_hooks_are_reset(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    model.add_hook(SITE, double_it)
    edited = model(tokens)
    assert not torch.equal(edited, plain) and torch.equal(model(tokens), edited)
    assert list(model.list_hooks()) == [SITE]
    model.reset_hooks()
    assert torch.equal(model(tokens), plain)


def test_a_permanent_hook_stays_until_told_otherwise(model: HookedGptOss, tokens: Tensor, plain: Tensor) -> None:
    model.add_perma_hook(SITE, double_it)
    model.reset_hooks()
    assert not torch.equal(model(tokens), plain)
    model.reset_hooks(including_permanent=True)
    assert torch.equal(model(tokens), plain)


def test_a_hook_may_be_put_on_every_site_that_a_function_picks(model: HookedGptOss, tokens: Tensor) -> None:
    seen: list[tuple[str, int]] = []
    pick: Callable[[str], bool] = lambda name: name.endswith("hook_z")  # noqa: E731
    model.run_with_hooks(tokens, fwd_hooks=[(pick, lambda value, hook: seen.append((hook.name, hook.layer())))])
    assert seen == [(f"blocks.{layer}.attn.hook_z", layer) for layer in range(3)]


@pytest.mark.parametrize("name", ["blocks.1.hook_resid_mit", "blocks.1.mlp", "blocks.3.hook_resid_mid"])
def test_a_hook_on_no_site_is_refused_with_the_nearest_one_before_any_is_on(
    model: HookedGptOss, tokens: Tensor, name: str
) -> None:
    ways = [
        lambda: model.run_with_hooks(tokens, fwd_hooks=[(SITE, double_it), (name, double_it)]),
        lambda: model.run_with_hooks(tokens, bwd_hooks=[(name, double_it)]),
        lambda: model.hooks(fwd_hooks=[(SITE, double_it), (name, double_it)]).__enter__(),
        lambda: model.add_hook(name, double_it),
        lambda: model.add_perma_hook(name, double_it),
        lambda: model.generate(tokens[:1], fwd_hooks=[(SITE, double_it), (name, double_it)]),
    ]
    for way in ways:
        with pytest.raises(UnknownSite, match=rf"no activation '{name}'; closest is 'blocks\."):
            way()
        assert not model.list_hooks()


def test_a_function_that_picks_no_site_is_refused(model: HookedGptOss, tokens: Tensor) -> None:
    with pytest.raises(UnknownSite, match="matches none"):
        model.run_with_hooks(tokens, fwd_hooks=[(lambda name: "hook_mlp_post" in name, double_it)])


@pytest.mark.usefixtures("reset_after")
def test_caching_hooks_fill_their_dict_at_each_run(model: HookedGptOss, tokens: Tensor) -> None:
    cache = model.add_caching_hooks([SITE])
    assert cache == {}
    for given in (tokens, tokens.flip(1)):
        model(given)
        expected = model.run_with_cache(given, names_filter=SITE)[1][SITE]
        assert list(cache) == [SITE] and torch.equal(cache[SITE], expected)


def test_a_cached_run_inside_an_edit_shows_the_edited_values(model: HookedGptOss, tokens: Tensor) -> None:
    before = model.run_with_cache(tokens)[1]
    with model.hooks(fwd_hooks=[(SITE, double_it)]):
        after = model.run_with_cache(tokens)[1]
    assert torch.equal(after[SITE], 2 * before[SITE])
    assert torch.equal(after["attn_out", 1], before["attn_out", 1])
    assert not torch.equal(after["mlp_out", 1], before["mlp_out", 1])


# gradients


def test_cached_gradients_are_autograds_own(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    names = ["blocks.0.attn.hook_q_in", "blocks.1.hook_resid_pre", "blocks.1.attn.hook_sink", "blocks.2.attn.hook_z"]
    kept: dict[str, Tensor] = {}

    def retain(value: Tensor, hook: HookPoint) -> None:
        value.retain_grad()
        kept[hook.name] = value

    with torch.enable_grad():
        model.run_with_hooks(tokens, return_type="loss", fwd_hooks=[(name, retain) for name in names]).backward()
        cache = model.run_with_cache(tokens, names_filter=names, incl_bwd=True, return_type="loss")[1]
    for name in names:
        torch.testing.assert_close(cache[f"{name}_grad"], kept[name].grad, rtol=1e-5, atol=1e-8)


def test_a_backward_hook_sees_and_edits_the_gradient(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    seen: list[Tensor] = []
    with torch.enable_grad():
        with model.hooks(bwd_hooks=[("blocks.2.hook_resid_pre", lambda gradient, hook: seen.append(gradient.clone()))]):
            model(tokens, return_type="loss").backward()
        weights = model.blocks[1].attn.q.weight.grad.clone()
        model.zero_grad()
        with model.hooks(bwd_hooks=[("blocks.2.hook_resid_pre", lambda gradient, hook: 0 * gradient)]):
            model(tokens, return_type="loss").backward()
    assert seen[0].shape == (2, 14, 32) and seen[0].any()
    assert weights.any() and not model.blocks[1].attn.q.weight.grad.any()
    assert model.blocks[2].attn.q.weight.grad.any()


@pytest.mark.usefixtures("reset_after")
def test_caching_hooks_with_gradients_go_on_all_sites_without_a_warning(
    model: HookedGptOss, tokens: Int[Tensor, "batch pos"]
) -> None:
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("error")
        cache = model.add_caching_hooks(incl_bwd=True)
        model(tokens, return_type="loss").backward()
    assert len(cache) == 2 * 99 - 3  # expert numbers have no gradient
