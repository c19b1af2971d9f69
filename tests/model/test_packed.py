"""A model with packed experts is the model with dense ones: at every site, read, edited and differentiated."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from tests.forms import DENSE, EAGER, NATIVE, held, held_as, packable, through
from tests.golden.routes import flips, margins
from tests.small import SMALL, rows
from workbench.model import HookedGptOss, Sites, random_weights

# Two blocks of 32 a row, padding, a batch, a window, routes that differ from token to token.
SHAPE = SMALL.with_(d_model=64, d_mlp=64, dtype="float32")
SITES = list(Sites(SHAPE.n_layers))
# Of the gradient's own size: float32 sums in another order, through three layers.
RELATIVE = 1e-5
NEAR_TIE = 1e-4  # of router logits and logits of order 1: where float32 may choose either

form = held_as(EAGER, NATIVE)


@pytest.fixture(scope="module")
def dense(seed: int) -> HookedGptOss:
    return packable(random_weights(HookedGptOss(SHAPE), seed))


@pytest.fixture(scope="module")
def packed(dense: HookedGptOss, form: str) -> HookedGptOss:
    return held(dense, form)


ROUTERS = [site for site in SITES if site.endswith("hook_router_logits")]


def run(model: HookedGptOss, tokens: Tensor, *hooks: tuple) -> tuple[Tensor, Tensor]:
    """Logits, and router logits [layer batch pos expert] as they were after the hooks."""
    seen: list[Tensor] = []
    listen = [(site, lambda value, hook: seen.append(value)) for site in ROUTERS]
    with torch.no_grad():
        logits = model.run_with_hooks(tokens, fwd_hooks=[*hooks, *listen])
    return logits, torch.stack(seen)


@pytest.fixture(scope="module")
def tokens(dense: HookedGptOss, seed: int) -> Tensor:
    """Rows whose routes hang on no rounding."""
    tried = (rows(SHAPE, seed + attempt) for attempt in range(100))
    return next(found for found in tried if margins(run(dense, found)[1], SHAPE.experts_per_token).min() > NEAR_TIE)


@pytest.fixture(scope="module")
def mask(tokens: Tensor) -> Tensor:
    """The first row has two tokens of padding."""
    mask = torch.ones_like(tokens, dtype=torch.bool)
    mask[0, :2] = False
    return mask


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp(min=1e-12))


# ---------------------------------------------------------------- read
def test_every_site_fires_in_order_and_holds_what_it_holds_with_dense_experts(
    dense: HookedGptOss, packed: HookedGptOss, tokens: Tensor, mask: Tensor
) -> None:
    expected_logits, expected = dense.run_with_cache(tokens, attention_mask=mask)
    logits, found = packed.run_with_cache(tokens, attention_mask=mask)
    assert list(found) == list(expected) == SITES
    torch.testing.assert_close(logits, expected_logits)
    for site in SITES:
        assert found[site].dtype == expected[site].dtype
        torch.testing.assert_close(found[site], expected[site], msg=lambda text, site=site: f"{site}: {text}")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_eager_engine_gives_every_site_the_bits_of_dense_experts(
    dense: HookedGptOss, tokens: Tensor, dtype: torch.dtype
) -> None:
    other = HookedGptOss(SHAPE, dtype=dtype)
    other.load_state_dict(dense.state_dict())
    with through(EAGER):
        expected = other.run_with_cache(tokens)[1]
        found = held(other, EAGER).run_with_cache(tokens)[1]
    differing = [site for site in SITES if not torch.equal(found[site], expected[site])]
    assert not differing


def test_reading_and_listening_backward_change_no_bit(packed: HookedGptOss, tokens: Tensor) -> None:
    plain = packed(tokens)
    read, _ = packed.run_with_cache(tokens, incl_bwd=False)
    assert torch.equal(read, plain)
    listen = [(site, lambda gradient, hook: None) for site in SITES if not packed.sites[site].is_integer]
    with packed.hooks(bwd_hooks=listen):
        assert torch.equal(packed(tokens), plain)
    with torch.no_grad():
        assert torch.equal(packed(tokens), plain)


# ---------------------------------------------------------------- edited
def edit(value: Tensor, hook: HookPoint) -> Tensor:
    """Noise of the site's own; other experts in the slots of indices."""
    if not value.is_floating_point():
        return (value + 1) % SHAPE.n_experts
    draw = torch.Generator().manual_seed(SITES.index(str(hook.name)))
    return value + torch.randn(value.shape, generator=draw).to(value.dtype)


def test_an_edit_at_every_site_gives_the_logits_that_it_gives_with_dense_experts(
    dense: HookedGptOss, packed: HookedGptOss, tokens: Tensor
) -> None:
    k, (plain, _) = SHAPE.experts_per_token, run(packed, tokens)
    for site in SITES:
        expected, expected_routers = run(dense, tokens, (site, edit))
        found, routers = run(packed, tokens, (site, edit))
        assert not torch.equal(found, plain), site
        flipped = flips(routers, expected_routers, k)
        if flipped.any():  # the first layer where, as rounding had it
            first = int(flipped.flatten(1).any(1).long().argmax())
            assert margins(expected_routers, k)[first][flipped[first]].max() <= NEAR_TIE, site
            continue
        assert relative(found, expected) <= RELATIVE, site
    assert torch.equal(run(packed, tokens)[0], plain)


def widened(value: Tensor, hook: HookPoint) -> Tensor:
    """One column for all: a view without memory of its own."""
    return value[..., :1].expand_as(value)


def turned(value: Tensor, hook: HookPoint) -> Tensor:
    """The same numbers, the last two axes swapped in memory."""
    return value.mT.contiguous().mT


@pytest.mark.parametrize("view", [widened, turned])
def test_what_a_hook_returns_may_lie_anyhow_in_memory(
    dense: HookedGptOss, packed: HookedGptOss, tokens: Tensor, view: Callable
) -> None:
    for end in ("expert_in", "expert_gate", "expert_up", "expert_act", "expert_out"):
        hook = (f"blocks.2.mlp.hook_{end}", view)
        assert relative(run(packed, tokens, hook)[0], run(dense, tokens, hook)[0]) <= RELATIVE, end


# ---------------------------------------------------------------- differentiated
def test_the_gradient_at_every_site_and_parameter_is_that_of_dense_experts(
    dense: HookedGptOss, packed: HookedGptOss, tokens: Tensor, mask: Tensor
) -> None:
    caches = []
    for model in (dense, packed):
        model.zero_grad()
        caches.append(model.run_with_cache(tokens, attention_mask=mask, return_type="loss", incl_bwd=True)[1])
    expected, found = caches
    names = [f"{site}_grad" for site in SITES if not packed.sites[site].is_integer]
    assert set(names) <= set(found) and set(found) == set(expected)
    for name in names:
        assert relative(found[name], expected[name]) <= RELATIVE, name
    theirs = dict(dense.named_parameters())
    for name, parameter in packed.named_parameters():
        assert relative(parameter.grad, theirs.pop(name).grad) <= RELATIVE, name
    # Constants: the packed matrices, and nothing else, have no gradient.
    matrices = ("mlp.experts.W_gate_up", "mlp.experts.W_down")
    assert set(theirs) == {f"blocks.{layer}.{name}" for layer in range(3) for name in matrices}
    assert not any(buffer.requires_grad for buffer in packed.buffers())


def test_a_gradient_edited_on_its_way_back_goes_on_edited(
    dense: HookedGptOss, packed: HookedGptOss, tokens: Tensor
) -> None:
    ends = ("hook_expert_out", "hook_expert_act", "hook_expert_gate", "hook_expert_in")
    for site in [f"blocks.1.mlp.{end}" for end in ends]:
        found = []
        for model in (dense, packed):
            model.zero_grad()
            with model.hooks(bwd_hooks=[(site, lambda gradient, hook: (gradient.roll(1, -1) * 3,))]):
                model(tokens, return_type="loss").backward()
            found.append(model.embed.weight.grad.clone())
        assert relative(found[1], found[0]) <= RELATIVE, site


# ---------------------------------------------------------------- run on
def test_a_kv_cache_gives_the_logits_of_the_whole_text(packed: HookedGptOss, tokens: Tensor) -> None:
    with torch.no_grad():
        whole, cache = packed(tokens), packed.new_cache()
        pieces = [packed(part, past_kv_cache=cache) for part in tokens.split([4, 1, 1, 3], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole)


HALF = [("blocks.1.mlp.hook_expert_out", lambda value, hook: value / 2)]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize("hooks", [[], HALF], ids=["plain", "edited"])
def test_generation_says_what_the_dense_model_says(
    dense: HookedGptOss, packed: HookedGptOss, seed: int, hooks: list, use_cache: bool
) -> None:
    options = {"use_cache": use_cache, "stop_at_eos": False}
    prompts, expected = settled(dense, seed, hooks, options)
    steps = packed.generate(prompts, 8, fwd_hooks=hooks, **options)
    for found, (logits, tokens) in zip(steps, expected, strict=True):
        torch.testing.assert_close(found.logits, logits)
        assert torch.equal(found.tokens, tokens)


def settled(model: HookedGptOss, seed: int, hooks: list, options: dict) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Prompts where no expert and no token hangs on a rounding, and each step's logits and tokens."""
    for attempt in range(100):
        least: list[Tensor] = []
        listen = [
            (site, lambda value, hook, least=least: least.append(margins(value, SHAPE.experts_per_token).min()))
            for site in ROUTERS
        ]
        prompts = rows(SHAPE, seed + attempt)
        steps = list(model.generate(prompts, 8, fwd_hooks=[*hooks, *listen], **options))
        least += [margins(step.logits, 1).min() for step in steps]
        if min(least) > NEAR_TIE:
            return prompts, [(step.logits, step.tokens) for step in steps]
    raise AssertionError(f"no settled prompts, seed {seed}")


def test_one_token_and_one_row_run_as_the_same_token_among_others(packed: HookedGptOss, tokens: Tensor) -> None:
    with torch.no_grad():
        whole = packed(tokens)
        torch.testing.assert_close(packed(tokens[:1, :1]), whole[:1, :1])
        torch.testing.assert_close(packed(tokens[1:]), whole[1:])


@pytest.fixture(autouse=True)
def left_as_found(dense: HookedGptOss, packed: HookedGptOss) -> Iterator[None]:
    yield
    assert not dense.list_hooks() and not packed.list_hooks()


def test_the_forms_are_what_their_names_say(dense: HookedGptOss, packed: HookedGptOss) -> None:
    assert held(dense, DENSE) is dense and not list(dense.buffers())
    assert len(list(packed.buffers())) == 4 * SHAPE.n_layers
