"""Directions, against what a whole run holds."""

import pytest
import torch

import workbench as wb
from workbench.experiments.directions.vectors import (
    as_direction,
    expert_output,
    head_write,
    random_direction,
    unembedding_direction,
)

TEXT = "Anna gave a hat to Ben"


@pytest.fixture(scope="module")
def whole():
    return wb.run(wb.load("nano"), TEXT, sites="all")


def test_an_experts_output_and_a_heads_write_are_those_of_the_run(whole):
    model, tokens = whole.model, whole.tokens[0].tolist()
    for slot, expert in enumerate(whole["blocks.2.mlp.hook_expert_indices"][0, -1].tolist()):
        there = whole["blocks.2.mlp.hook_expert_out"][0, -1, slot]
        torch.testing.assert_close(expert_output(model, tokens, 2, expert), there, atol=1e-4, rtol=1e-4)
    there = whole["blocks.1.attn.hook_result"][0, 3, 5]
    torch.testing.assert_close(head_write(model, tokens[:4], 1, 5), there, atol=1e-4, rtol=1e-4)


def test_a_tokens_direction_is_its_row_and_a_copy_of_it(whole):
    made = unembedding_direction(whole.model, 7)
    assert (
        torch.equal(made, whole.model.unembed.weight[7]) and made.data_ptr() != whole.model.unembed.weight[7].data_ptr()
    )


def test_a_random_direction_has_the_length_that_is_asked_for_and_comes_back_with_its_seed():
    one, again, other = (random_direction(64, 3.0, seed) for seed in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other) and float(one.norm()) == pytest.approx(3, rel=1e-5)
    assert as_direction([1.0, 2.5]).tolist() == [1.0, 2.5]


def test_what_is_not_there_is_refused(whole):
    tokens = whole.tokens[0].tolist()
    for make in (
        lambda: unembedding_direction(whole.model, 5000),
        lambda: expert_output(whole.model, tokens, 1, 99),
        lambda: head_write(whole.model, tokens, 9, 0),
        lambda: head_write(whole.model, tokens, 1, 99),
    ):
        with pytest.raises(ValueError, match=r"there (is no|are 0 to)|0 to"):
            make()
