"""Logits in float32 against transformers' GptOssForCausalLM and OpenAI's gpt_oss.torch, on random shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.forms import DENSE, NATIVE, each, held, through
from tests.golden.distances import largest
from tests.golden.measured import Measured
from tests.golden.references import openai_model, transformers_model
from tests.golden.routes import Implementation, flips, margins, sets
from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import Config, HookedGptOss, Rope
from workbench.model.config import FULL, SLIDING

TOLERANCE = 1e-4  # of logits of order 1
NEAR_TIE = 1e-4  # of router logits of order 1: where float32 may choose either expert
N_SHAPES, N_PACKED_SHAPES = 8, 3
Mistake = Callable[[HookedGptOss], HookedGptOss]


class Case:
    """One random model, both references around its weights, and a text below and one well above its window."""

    def __init__(self, seed: int, form: str) -> None:
        self.seed, self.form = seed, form
        self.config = random_shape(seed, form)
        self.k = self.config.experts_per_token
        exact = random_model(self.config, seed, form)
        self.model = held(exact, form)
        self.ours = Implementation(self.model)
        self.references = {
            "transformers": Implementation(transformers_model(exact)),
            "openai": Implementation(openai_model(exact)),
        }
        window = self.config.sliding_window
        self.texts = [random_tokens(self.config, seed + n, n) for n in (max(1, window - 1), 6 * window + 60)]

    def __str__(self) -> str:
        return f"{self.form}, seed {self.seed}, {self.config}"


@pytest.fixture(scope="module", params=each(dense=N_SHAPES, packed=N_PACKED_SHAPES))
def case(request: pytest.FixtureRequest, seed: int) -> Iterator[Case]:
    form, number = request.param
    with through(form):
        yield Case(seed + number, form)


def before_first_flip(flipped: Tensor) -> int:
    """Tokens of the row whose past has the same routes in both runs, given [layer pos]."""
    anywhere = flipped.any(0)
    return int(anywhere.long().argmax()) if bool(anywhere.any()) else len(anywhere)


def test_float32_logits_equal_both_references_below_and_above_the_window(case: Case, measured: Measured):
    for tokens in case.texts:
        logits, router_logits = case.ours.run(tokens)
        assert 0.5 < logits.std() < 2, f"logits are not of order 1: {case}"
        seen = {name: reference.run(tokens) for name, reference in case.references.items()}
        for name, (theirs, their_router_logits) in seen.items():
            flipped = flips(router_logits, their_router_logits, case.k)
            same = before_first_flip(flipped)
            distance = largest((logits - theirs)[:same])
            measured.record_in(case.form, "float32 logits, max |Δ|", name, distance)
            measured.record_in(case.form, "float32 flipped expert sets, share", name, flipped.float().mean().item())
            assert distance <= TOLERANCE, f"{name}, {len(tokens)} tokens, {case}"
            if same < len(tokens):  # only where float32 cannot tell two experts apart
                layer = int(flipped[:, same].long().argmax())
                assert margins(router_logits, case.k)[layer, same] <= NEAR_TIE, f"{name}, token {same}, {case}"
        (first, first_router), (second, second_router) = seen.values()
        flipped = flips(first_router, second_router, case.k)
        same = before_first_flip(flipped)
        measured.record_in(case.form, "float32 logits, max |Δ|", "between them", largest((first - second)[:same]))
        share = flipped.float().mean().item()
        measured.record_in(case.form, "float32 flipped expert sets, share", "between them", share)


def test_float32_logits_equal_everywhere_once_all_take_the_same_experts(case: Case, measured: Measured):
    for tokens in case.texts:
        _, router_logits = case.ours.run(tokens)
        routes = sets(router_logits, case.k)
        logits = case.ours.run_with(routes, tokens)
        for name, reference in case.references.items():
            distance = (logits - reference.run_with(routes, tokens)).abs().max().item()
            measured.record_in(case.form, "float32 logits, equal routes, max |Δ|", name, distance)
            assert distance <= TOLERANCE, f"{name}, {len(tokens)} tokens, {case}"


def test_experts_and_weights_of_a_reference_put_in_at_the_sites_give_its_logits(case: Case):
    tokens = case.texts[-1]
    for name, reference in case.references.items():
        theirs, router_logits = reference.run(tokens)
        values, indices = router_logits.topk(case.k, dim=-1)
        logits = case.model.run_with_hooks(tokens, fwd_hooks=put_in(indices, values.softmax(-1)))
        assert (logits[0] - theirs).abs().max() <= TOLERANCE, f"{name}, {case}"


def put_in(indices: Tensor, weights: Tensor) -> list:
    """Hooks that replace each layer's routes, [layer pos slot]."""
    layers = range(len(indices))
    sites = [("hook_expert_indices", indices), ("hook_expert_weights", weights)]
    return [
        (f"blocks.{layer}.mlp.{site}", lambda made, hook, new=values[layer][None]: new)
        for layer in layers
        for site, values in sites
    ]


def test_rows_of_a_batch_equal_transformers_batch_and_themselves_alone(case: Case):
    tokens = random_tokens(case.config, case.seed, 3, 2 * case.config.sliding_window + 5)
    routes = sets(case.ours.run(tokens)[1], case.k)
    logits = case.ours.run_with(routes, tokens)
    theirs = case.references["transformers"].run_with(routes, tokens)
    assert (logits - theirs).abs().max() <= TOLERANCE, case
    for row in range(3):
        alone = case.ours.run_with(routes[:, row], tokens[row])
        assert (alone - logits[row]).abs().max() <= TOLERANCE, case


# Shapes that OpenAI's code cannot take, so transformers is the only truth.
ONLY_TRANSFORMERS = {
    "every layer slides": {"n_layers": 3, "layer_types": (SLIDING,) * 3},
    "no layer slides": {"n_layers": 3, "layer_types": (FULL,) * 3},
    "full layers first": {"n_layers": 3, "layer_types": (FULL, SLIDING, SLIDING)},
    "whole corners": {"d_head": 32, "rope": Rope(10_000.0, 8.0, 512, truncate=True), "n_ctx": 4096},
    "another epsilon": {"rms_eps": 1e-2},
    "every expert": {"n_experts": 3, "experts_per_token": 3},
    "a window of one": {"sliding_window": 1},
    "plain rope": {"rope": Rope(factor=1.0), "n_ctx": 4096},
}


@pytest.mark.parametrize("shape", ONLY_TRANSFORMERS.values(), ids=ONLY_TRANSFORMERS.keys())
def test_float32_logits_equal_transformers_in_shapes_that_openai_never_made(form: str, seed: int, shape: dict):
    config = random_shape(seed, form, **shape)
    exact = random_model(config, seed, form)
    ours, theirs = Implementation(held(exact, form)), Implementation(transformers_model(exact))
    tokens = random_tokens(config, seed, 4 * config.sliding_window + 20)
    routes = sets(ours.run(tokens)[1], config.experts_per_token)
    distance = (ours.run_with(routes, tokens) - theirs.run_with(routes, tokens)).abs().max()
    assert distance <= TOLERANCE, f"{form}, seed {seed}, {config}"


def without(*names: str) -> Mistake:
    def change(model: HookedGptOss) -> HookedGptOss:
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith(names):
                    parameter.zero_()
        return model

    return change


def reshaped(**changes) -> Mistake:
    def change(model: HookedGptOss) -> HookedGptOss:
        state = model.state_dict()
        packed = any(name.endswith("_blocks") for name in state)
        other = HookedGptOss(model.config.with_(**changes), experts="packed" if packed else "dense")
        other.load_state_dict(state)
        return other

    return change


def with_rope(**changes) -> Mistake:
    return lambda model: reshaped(rope=replace(model.config.rope, **changes))(model)


def in_the_experts(part: str, change: Callable[[Tensor], Tensor]) -> Mistake:
    """Other numbers, or other bytes, in what the experts hold under names that contain ``part``."""

    def changed(model: HookedGptOss) -> HookedGptOss:
        with torch.no_grad():
            for block in model.blocks:
                for name, found in block.mlp.experts.state_dict().items():
                    if part in name:
                        found.copy_(change(found).clone())
        return model

    return changed


def in_halves(stacked: Tensor) -> Tensor:
    return torch.cat((stacked[:, 0::2], stacked[:, 1::2]), dim=1)


IN_EXPERTS: dict[str, Mistake] = {
    "no clamp": reshaped(swiglu_limit=float("inf")),
    "plain SiLU": reshaped(swiglu_alpha=1.0),
    "gate and up in halves": in_the_experts("gate_up", in_halves),
    "no bias of gate and up": without("b_gate_up"),
    "no bias of down": without("b_down"),
}
IN_BYTES: dict[str, Mistake] = {
    "the high nibble first": in_the_experts("_blocks", lambda blocks: blocks >> 4 | blocks << 4),
    "no signs": in_the_experts("_blocks", lambda blocks: blocks & 0x77),
    "a scale bias of 126": in_the_experts("_scales", lambda scales: scales + 1),
    "scales a row too late": in_the_experts("_scales", lambda scales: scales.roll(1, 1)),
    "scales a block too late": in_the_experts("gate_up_scales", lambda scales: scales.roll(1, 2)),
    "blocks a block too late": in_the_experts("gate_up_blocks", lambda blocks: blocks.roll(1, 2)),
    "another expert's bytes": in_the_experts("_blocks", lambda blocks: blocks.roll(1, 0)),
}
MISTAKES: dict[str, Mistake] = {
    "the window a key too wide": lambda model: reshaped(sliding_window=model.config.sliding_window + 1)(model),
    "the window a key too narrow": lambda model: reshaped(sliding_window=model.config.sliding_window - 1)(model),
    "odd layers slide": reshaped(layer_types=(FULL, SLIDING)),
    "YaRN's corners rounded": with_rope(truncate=True),
    "YaRN's fast corner moved": with_rope(beta_fast=24.0),
    "no YaRN": with_rope(factor=1.0),
    "another theta": with_rope(theta=12_000.0),
    "sinks of zero": without("sinks"),
    "no bias of the queries": without("attn.q.bias"),
    "no bias of the keys": without("attn.k.bias"),
    "no bias of the values": without("attn.v.bias"),
    "no bias of the output": without("attn.o.bias"),
    "no bias of the router": without("router.bias"),
}
# What is not in the experts is the same in every form.
SEEN = [(DENSE, name) for name in MISTAKES | IN_EXPERTS] + [(NATIVE, name) for name in IN_EXPERTS | IN_BYTES]


@pytest.mark.parametrize(("form", "mistake"), SEEN, indirect=["form"])
def test_this_comparison_sees_a_mistake_in_any_detail(form: str, mistake: str):
    rope = Rope(10_000.0, 16.0, 400)
    sizes = {} if form == DENSE else {"d_model": 64}  # two blocks a row
    config = random_shape(
        1, form, n_layers=2, d_head=32, rope=rope, n_ctx=6400, sliding_window=8, experts_per_token=2, **sizes
    )
    exact = random_model(config, 1, form)
    right = held(exact, form)
    tokens = random_tokens(config, 1, 60)
    _, router_logits = Implementation(right).run(tokens)
    routes = sets(router_logits, config.experts_per_token)
    theirs = Implementation(transformers_model(exact)).run_with(routes, tokens)
    assert (Implementation(right).run_with(routes, tokens) - theirs).abs().max() <= TOLERANCE
    change = (MISTAKES | IN_EXPERTS | IN_BYTES)[mistake]
    wrong = Implementation(change(held(random_model(config, 1, form), form))).run_with(routes, tokens)
    assert (wrong - theirs).abs().max() > 30 * TOLERANCE


def test_the_shapes_drawn_differ_in_every_size(seed: int):
    drawn: list[Config] = [random_shape(seed + n) for n in range(40)]
    for field in ("n_layers", "d_model", "n_heads", "n_key_value_heads", "d_head", "d_mlp", "n_experts"):
        assert len({getattr(config, field) for config in drawn}) > 1, field
    for field in ("experts_per_token", "d_vocab", "sliding_window", "rope"):
        assert len({getattr(config, field) for config in drawn}) > 1, field
