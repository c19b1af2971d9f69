"""Generation: the same tokens as transformers, with hooks that are on during each step and off in between."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import Tensor

from tests.golden.references import transformers_model
from tests.model.settled import Settled, clockwork, settled
from workbench.model import HookedGptOss, UnknownSite

RESID = "blocks.0.hook_resid_post"


@pytest.fixture(scope="module")
def case(seed: int) -> Settled:
    return settled(seed)


def hooks_on(model: HookedGptOss) -> list[str]:
    """Sites that have a hook of any kind."""
    return [
        name
        for name, point in model.hook_dict.items()
        if point.fwd_hooks or point.bwd_hooks or point._forward_hooks or point._backward_hooks
    ]


def nothing(value: Tensor, hook) -> None:
    """A hook that only listens."""


# ------------------------------------------------------------------------------------------------ which tokens
@pytest.mark.parametrize("use_cache", [True, False])
def test_greedy_tokens_are_the_likeliest_of_the_whole_text_each_time(case: Settled, use_cache: bool):
    for prompt, expected in zip(case.prompts, case.continuations, strict=True):
        made = case.model.generate(prompt, case.n_new, stop_at_eos=False, use_cache=use_cache).finish()
        assert torch.equal(made.new_tokens[0], expected), case.config
        assert torch.equal(made.tokens[0], torch.cat((prompt, expected)))


def test_greedy_tokens_are_those_of_transformers_generate(case: Settled):
    theirs = transformers_model(case.model)
    for prompt, ours in zip(case.prompts, case.continuations, strict=True):
        made = theirs.generate(prompt[None], do_sample=False, max_new_tokens=case.n_new, eos_token_id=None)
        assert torch.equal(made[0, len(prompt) :], ours), case.config


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_continues_each_row_as_it_would_alone(case: Settled, side: str):
    tokens, mask = case.padded(side)
    made = case.model.generate(tokens, case.n_new, stop_at_eos=False, attention_mask=mask).finish()
    assert torch.equal(made.new_tokens, case.continuations), case.config
    # Whichever side it came from, the padding now stands left, so that new tokens follow the text.
    left, _ = case.padded("left")
    assert torch.equal(made.tokens[:, : made.prompt_length], left)


def test_a_left_padded_batch_continues_as_in_transformers_generate(case: Settled):
    tokens, mask = case.padded("left")
    theirs = transformers_model(case.model).generate(
        tokens, attention_mask=mask.long(), do_sample=False, max_new_tokens=case.n_new, eos_token_id=None
    )
    assert torch.equal(theirs[:, tokens.shape[1] :], case.continuations), case.config


def test_rows_stop_at_their_own_end_tokens_as_in_transformers_generate(case: Settled):
    tokens, mask = case.padded("left")
    ends = sorted({int(case.continuations[0, 3]), int(case.continuations[1, 6])})
    made = case.model.generate(tokens, case.n_new, stop_at_eos=ends, attention_mask=mask).finish()
    theirs = transformers_model(case.model).generate(
        tokens, attention_mask=mask.long(), do_sample=False, max_new_tokens=case.n_new, eos_token_id=ends
    )
    assert torch.equal(made.tokens, theirs), f"ends {ends}, {case.config}"


def test_logits_and_logprobs_of_a_step_are_the_models_own(case: Settled):
    text = case.prompts[0]
    for step, expected in zip(case.model.generate(text, 5, stop_at_eos=False), case.continuations[0], strict=False):
        assert (step.logits - case.model(text)[:, -1]).abs().max() <= 1e-4
        text = torch.cat((text, step.tokens))
        assert step.token == expected and step.position == len(text) - 1


def test_a_logprob_is_the_models_own_whatever_the_temperature(case: Settled):
    for step in case.model.generate(case.prompts[0], 5, temperature=1.7, top_k=9, seed=3, stop_at_eos=False):
        assert step.logprobs[0].item() == pytest.approx(step.logits[0].log_softmax(-1)[step.token].item())


# ------------------------------------------------------------------------------------------------------- where it ends
CIRCLE = {1: 2, 2: 3, 3: 4, 4: 5, 5: 1}


def test_it_stops_after_an_end_token_of_the_config():
    model = clockwork(CIRCLE, 8, eos_token_ids=(4, 7), bos_token_id=None, pad_token_id=0)
    steps = list(model.generate(torch.tensor([1]), 50))
    assert [step.token for step in steps] == [2, 3, 4]
    assert [bool(step.finished) for step in steps] == [False, False, True]


def test_it_goes_on_past_an_end_token_if_asked_to():
    model = clockwork(CIRCLE, 8, eos_token_ids=(4, 7), bos_token_id=None, pad_token_id=0)
    made = model.generate(torch.tensor([1]), 7, stop_at_eos=False).finish()
    assert made.new_tokens.tolist() == [[2, 3, 4, 5, 1, 2, 3]]
    made = model.generate(torch.tensor([1]), 50, stop_at_eos=[5]).finish()
    assert made.new_tokens.tolist() == [[2, 3, 4, 5]]


def test_rows_that_ended_are_filled_with_padding_until_the_last_ends():
    model = clockwork(CIRCLE, 8, eos_token_ids=(4,), bos_token_id=None, pad_token_id=0)
    made = model.generate(torch.tensor([[3], [1], [5]]), 50)
    finished = [step.finished.tolist() for step in made]
    assert made.new_tokens.tolist() == [[4, 0, 0, 0], [2, 3, 4, 0], [1, 2, 3, 4]]
    assert finished == [[True, False, False]] * 2 + [[True, True, False]] + [[True, True, True]]


def test_a_prompt_that_ends_in_an_end_token_is_continued():
    model = clockwork(CIRCLE, 8, eos_token_ids=(4,), bos_token_id=None, pad_token_id=0)
    assert model.generate(torch.tensor([3, 4]), 3).finish().new_tokens.tolist() == [[5, 1, 2]]


def test_no_new_tokens_are_no_steps(case: Settled):
    assert list(case.model.generate(case.prompts[0], 0)) == []


@pytest.mark.parametrize(
    "options",
    [{"max_new_tokens": -1}, {"temperature": -0.5}, {"temperature": float("inf")}, {"temperature": float("nan")},
     {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}],
)  # fmt: skip
def test_options_out_of_range_are_refused_before_anything_runs(case: Settled, options: dict):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f"{name}.*expected"):
        case.model.generate(case.prompts[0], **options)


def test_a_hook_on_no_site_is_refused_before_anything_runs(case: Settled):
    with pytest.raises(UnknownSite, match=r"closest is 'blocks\.0\.hook_resid_post'"):
        case.model.generate(case.prompts[0], fwd_hooks=[("blocks.0.hook_resid_pots", nothing)])


def test_a_row_of_padding_alone_is_refused(case: Settled):
    tokens, mask = case.padded("left")
    mask[1] = False
    with pytest.raises(ValueError, match="without a real token"):
        case.model.generate(tokens, attention_mask=mask)


# --------------------------------------------------------------------------------------------------------------- hooks
@pytest.mark.parametrize("use_cache", [True, False])
def test_hooks_act_in_every_step(case: Settled, use_cache: bool):
    unembed, gain = case.model.unembed.weight.detach(), case.model.ln_final.w.detach()
    token = int((unembed**2 * gain).sum(1).argmax())  # of all tokens, its own direction raises none more than it
    last = f"blocks.{case.config.n_layers - 1}.hook_resid_post"
    options = {"fwd_hooks": [(last, lambda value, hook: value + 1e4 * unembed[token])], "use_cache": use_cache}
    made = case.model.generate(case.prompts[0], 6, stop_at_eos=False, **options).finish()
    assert made.new_tokens.tolist() == [[token] * 6]


@pytest.mark.parametrize("use_cache", [True, False])
def test_hooked_generation_is_that_of_the_hooked_model_on_the_whole_text(seed: int, use_cache: bool):
    def turn(value: Tensor, hook) -> Tensor:
        return value * 0.5 + value.roll(1, dims=-1) * 0.5

    edits = [("blocks.1.attn.hook_k", turn), ("blocks.0.mlp.hook_expert_out", turn)]
    edited = settled(seed, 6, edits)
    tokens, mask = edited.padded("left")
    options = {"fwd_hooks": edits, "use_cache": use_cache, "stop_at_eos": False}
    made = edited.model.generate(tokens, 6, attention_mask=mask, **options).finish()
    assert torch.equal(made.new_tokens, edited.continuations), edited.config


def test_a_hook_sees_the_new_token_only_and_where_it_is(case: Settled):
    seen = []

    def look(value: Tensor, hook) -> None:
        seen.append((value.shape[1], case.model.positions.tolist()))

    case.model.generate(case.prompts[1], 3, stop_at_eos=False, fwd_hooks=[(RESID, look)]).finish()
    n = len(case.prompts[1])
    assert seen == [(n, [list(range(n))]), (1, [[n]]), (1, [[n + 1]])]


def test_hooks_are_on_during_a_step_and_off_between_steps_and_after(case: Settled):
    during = []
    hooks = [(RESID, lambda value, hook: during.append(hooks_on(case.model)))]
    for _ in case.model.generate(case.prompts[0], 3, stop_at_eos=False, fwd_hooks=hooks):
        assert hooks_on(case.model) == []
    assert during == [[RESID]] * 3
    assert hooks_on(case.model) == []


def test_a_generation_that_is_abandoned_leaves_no_hook(case: Settled):
    steps = case.model.generate(case.prompts[0], 9, stop_at_eos=False, fwd_hooks=[(RESID, nothing)])
    for step in steps:
        if step.position == len(case.prompts[0]) + 1:
            break
    assert hooks_on(case.model) == []
    del steps
    gc.collect()
    assert hooks_on(case.model) == []
    assert torch.equal(case.model.generate(case.prompts[0], 3, stop_at_eos=False).finish().new_tokens[0],
                       case.continuations[0, :3])  # fmt: skip


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_hook_that_raises_leaves_no_hook_and_the_generation_can_go_on(case: Settled, error: type[BaseException]):
    calls = []

    def fail_once(value: Tensor, hook) -> None:
        calls.append(value.shape)
        if len(calls) == 3:
            raise error("the third step")

    steps = case.model.generate(case.prompts[0], case.n_new, stop_at_eos=False, fwd_hooks=[(RESID, fail_once)])
    next(steps), next(steps)
    with pytest.raises(error, match="the third step"):
        next(steps)
    assert hooks_on(case.model) == []
    assert steps.new_tokens.shape[1] == 2
    assert torch.equal(steps.finish().new_tokens[0], case.continuations[0])


def test_hooks_that_were_on_before_act_and_stay(case: Settled):
    calls = []
    case.model.add_hook(RESID, lambda value, hook: calls.append(value.shape[1]))
    try:
        case.model.generate(case.prompts[1], 2, stop_at_eos=False, fwd_hooks=[(RESID, nothing)]).finish()
        assert calls == [len(case.prompts[1]), 1]
        assert hooks_on(case.model) == [RESID]
    finally:
        case.model.reset_hooks()
    with case.model.hooks(fwd_hooks=[(RESID, lambda value, hook: calls.append(value.shape[1]))]):
        next(case.model.generate(case.prompts[1], 2))
    assert calls[2:] == [len(case.prompts[1])]


def test_generation_keeps_no_graph(case: Settled):
    step = next(case.model.generate(case.prompts[0], 1))
    assert not step.logits.requires_grad
