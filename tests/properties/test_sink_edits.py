"""The sink has two sites: its logit, which joins the softmax, and its mass, which rescales the pattern."""

import pytest
import torch
from torch import Tensor

from tests.forms import DENSE, EAGER, held_as
from workbench.model import HookedGptOss

form = held_as(DENSE, EAGER)  # compared to the last digits of float64, which the native engine does not take
ATTENTION = "blocks.1.attn"
SCORES, LOGIT, SINK, PATTERN = (f"{ATTENTION}.hook_{name}" for name in ("attn_scores", "sink_logit", "sink", "pattern"))


@pytest.fixture(scope="module")
def before(model: HookedGptOss, tokens: Tensor) -> dict[str, Tensor]:
    with torch.no_grad():
        return model.run_with_cache(tokens)[1].cache_dict


def edited(model: HookedGptOss, tokens: Tensor, *hooks: tuple, **kwargs: object) -> dict[str, Tensor]:
    with model.hooks(fwd_hooks=list(hooks)):
        return model.run_with_cache(tokens, **kwargs)[1].cache_dict


def per_row(sink: Tensor) -> Tensor:
    """[batch pos head] → [batch head query_pos 1], to stand beside a pattern."""
    return sink.transpose(1, 2)[..., None]


def mixed(pattern: Tensor, v: Tensor) -> Tensor:
    return torch.einsum("bhqk,bkhd->bqhd", pattern, v.repeat_interleave(2, 2))


@pytest.mark.parametrize("new", [0.0, 0.3, 0.999, 1.0, "times 0.5"])
def test_a_new_mass_of_the_sink_rescales_the_pattern_of_its_row(
    model: HookedGptOss, tokens: Tensor, before: dict[str, Tensor], new: float | str
) -> None:
    def edit(sink: Tensor, hook: object) -> Tensor:
        return sink / 2 if isinstance(new, str) else torch.full_like(sink, new)

    after = edited(model, tokens, (SINK, edit))
    s, changed = before[SINK], edit(before[SINK], None)
    expected = before[PATTERN] * per_row((1 - changed) / (1 - s))
    torch.testing.assert_close(after[PATTERN], expected, rtol=1e-9, atol=1e-12)
    assert torch.equal(after[SINK], changed)
    torch.testing.assert_close(after[f"{ATTENTION}.hook_z"], mixed(expected, before[f"{ATTENTION}.hook_v"]))
    assert torch.equal(after[SCORES], before[SCORES]) and torch.equal(after[LOGIT], before[LOGIT])


def test_one_head_and_position_of_the_sink_acts_on_that_row_alone(
    model: HookedGptOss, tokens: Tensor, before: dict[str, Tensor]
) -> None:
    def edit(sink: Tensor, hook: object) -> None:
        sink[0, 5, 2] = 0.0

    after = edited(model, tokens, (SINK, edit))
    moved = (after[PATTERN] != before[PATTERN]).any(-1)
    assert moved.nonzero().tolist() == [[0, 2, 5]]
    assert float(after[PATTERN][0, 2, 5].sum()) == pytest.approx(1)


def test_a_pattern_edit_after_a_sink_edit_is_taken_as_it_stands(
    model: HookedGptOss, tokens: Tensor, before: dict[str, Tensor]
) -> None:
    flat = torch.full_like(before[PATTERN], 0.25)
    after = edited(
        model, tokens, (SINK, lambda sink, hook: torch.zeros_like(sink)), (PATTERN, lambda pattern, hook: flat)
    )
    assert torch.equal(after[PATTERN], flat)
    torch.testing.assert_close(after[f"{ATTENTION}.hook_z"], mixed(flat, before[f"{ATTENTION}.hook_v"]))


def test_a_pattern_edit_finds_the_pattern_that_the_sink_edit_left(
    model: HookedGptOss, tokens: Tensor, before: dict[str, Tensor]
) -> None:
    found: list[Tensor] = []
    edited(
        model,
        tokens,
        (PATTERN, lambda pattern, hook: found.append(pattern)),
        (SINK, lambda sink, hook: torch.zeros_like(sink)),
    )
    torch.testing.assert_close(found[0].sum(-1), torch.ones_like(found[0][..., 0]))


@pytest.mark.parametrize("shift", [3.0, -2.0, float("-inf")])
def test_a_new_logit_of_the_sink_acts_on_sink_and_pattern(
    model: HookedGptOss, tokens: Tensor, before: dict[str, Tensor], shift: float
) -> None:
    after = edited(model, tokens, (LOGIT, lambda logit, hook: logit + shift))
    exponential = before[SCORES].exp()
    own = per_row((before[LOGIT] + shift).exp())
    total = exponential.sum(-1, keepdim=True) + own
    torch.testing.assert_close(after[PATTERN], exponential / total)
    torch.testing.assert_close(per_row(after[SINK]), own / total)


def test_the_logit_starts_as_the_parameter_of_its_head(model: HookedGptOss, before: dict[str, Tensor]) -> None:
    assert torch.equal(before[LOGIT], model.blocks[1].attn.sinks.expand(2, 9, 4))


def test_a_sink_logit_edited_in_place_leaves_the_parameter_alone(model: HookedGptOss, tokens: Tensor) -> None:
    parameter = model.blocks[1].attn.sinks.clone()
    with torch.enable_grad():
        model.run_with_hooks(tokens, fwd_hooks=[(LOGIT, lambda logit, hook: logit.fill_(3.0))])
    assert torch.equal(model.blocks[1].attn.sinks, parameter)


@pytest.mark.parametrize("side", ["left", "right"])
def test_without_any_sink_padding_gives_nothing_to_nobody_and_no_nan(
    model: HookedGptOss, tokens: Tensor, side: str
) -> None:
    mask = torch.ones_like(tokens)
    mask[0, slice(0, 4) if side == "left" else slice(5, 9)] = 0
    removed = [(lambda name: name.endswith("sink_logit"), lambda logit, hook: torch.full_like(logit, float("-inf")))]
    padded = model.run_with_hooks(tokens, attention_mask=mask, fwd_hooks=removed)
    alone = model.run_with_hooks(tokens[:1][mask[:1].bool()][None], fwd_hooks=removed)
    assert torch.isfinite(padded).all()
    torch.testing.assert_close(padded[:1][mask[:1].bool()], alone[0])
    torch.testing.assert_close(padded[1:], model.run_with_hooks(tokens[1:], fwd_hooks=removed))
    with torch.enable_grad():
        loss = model.run_with_hooks(tokens, attention_mask=mask, return_type="loss", fwd_hooks=removed)
        gradients = torch.autograd.grad(loss, [model.embed.weight, model.blocks[0].attn.q.weight])
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_with_a_cache_edits_of_the_sink_act_as_without(model: HookedGptOss, tokens: Tensor) -> None:
    hooks = [
        (lambda name: name.endswith("hook_sink"), lambda sink, hook: sink / 2),
        (lambda name: name.endswith("hook_pattern"), lambda pattern, hook: pattern * 0.9),
    ]
    whole = model.run_with_hooks(tokens, fwd_hooks=hooks)
    cache = model.new_cache()
    steps = [model.run_with_hooks(tokens[:, i : i + 1], past_kv_cache=cache, fwd_hooks=hooks) for i in range(9)]
    torch.testing.assert_close(torch.cat(steps, 1), whole)
