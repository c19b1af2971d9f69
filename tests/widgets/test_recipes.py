"""Vectors as plain data: each kind is what it says, its Python makes the same, and what is no recipe is refused."""

import pytest
import torch

import workbench as wb
from workbench import experiments
from workbench.widgets import recipes, workspace

TEXT = "Anna gave a hat to Ben"
SITE = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def tokens(nano):
    return nano.to_tokens(TEXT)[0].tolist()


@pytest.fixture(scope="module")
def every(tokens):
    return {
        "numbers": {"kind": "numbers", "values": [0.5 - i for i in range(128)]},
        "unembedding": {"kind": "unembedding", "token": 7},
        "difference_of_means": {
            "kind": "difference_of_means",
            "positive": ["Anna is glad", "Anna sings"],
            "negative": ["Ben is sad"],
            "site": SITE,
            "at": "mean",
        },
        "expert_output": {"kind": "expert_output", "tokens": tokens, "layer": 2, "expert": 5},
        "head_write": {"kind": "head_write", "tokens": tokens, "layer": 1, "head": 3},
    }


@pytest.mark.parametrize("kind", recipes.KINDS)
def test_the_python_of_a_recipe_makes_the_very_vector(nano, every, kind):
    recipes.check(every[kind], nano)
    made = recipes.make(every[kind], nano)
    again = eval(recipes.code(every[kind]), {"wb": wb, "torch": torch, "experiments": experiments, "model": nano})
    assert torch.equal(made, again) and made.shape == (128,) and not made.requires_grad


def test_a_difference_of_means_is_the_mean_of_the_streams_of_one_side_less_that_of_the_other(nano, every):
    recipe = every["difference_of_means"]
    sides = [
        torch.stack([wb.run(nano, text)[SITE][0].mean(0) for text in recipe[side]]).mean(0)
        for side in ("positive", "negative")
    ]
    torch.testing.assert_close(recipes.make(recipe, nano), sides[0] - sides[1], atol=1e-4, rtol=1e-4)


def test_an_experts_output_is_what_the_run_has_in_its_slot_and_is_there_for_experts_that_were_not_chosen(nano, tokens):
    run = wb.run(nano, TEXT, sites="all")
    chosen, out = run["blocks.2.mlp.hook_expert_indices"][0, -1].tolist(), run["blocks.2.mlp.hook_expert_out"][0, -1]
    for slot, expert in enumerate(chosen):
        made = recipes.make({"kind": "expert_output", "tokens": tokens, "layer": 2, "expert": expert}, nano)
        torch.testing.assert_close(made, out[slot], atol=1e-4, rtol=1e-4)
    other = next(expert for expert in range(8) if expert not in chosen)
    forced = wb.run(nano, TEXT, [wb.ForceExpert(2, other)], sites="all")["blocks.2.mlp.hook_expert_out"][0, -1, -1]
    made = recipes.make({"kind": "expert_output", "tokens": tokens, "layer": 2, "expert": other}, nano)
    torch.testing.assert_close(made, forced, atol=1e-4, rtol=1e-4)


def test_a_heads_write_is_hook_result(nano, every):
    result = wb.run(nano, TEXT, sites="all")["blocks.1.attn.hook_result"][0, -1, 3]
    torch.testing.assert_close(recipes.make(every["head_write"], nano), result, atol=1e-4, rtol=1e-4)


def test_a_vector_that_takes_a_run_is_made_once_and_anew_when_the_weights_have_changed(every):
    model = wb.load("nano")
    first = recipes.make(every["head_write"], model)
    assert recipes.make(every["head_write"], model) is first
    with torch.no_grad():
        model.blocks[1].attn.o.weight.mul_(2)
    torch.testing.assert_close(recipes.make(every["head_write"], model), 2 * first)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "file"}, "one of numbers, unembedding"),
        ({"more": 1}, "has tokens, layer, head"),
        ({"layer": 4}, "there is no layer 4; there are 0 to 3"),
        ({"layer": True}, "layer is True"),
        ({"head": -1}, "there is no head -1"),
        ({"tokens": []}, "1 to 1000000 ids"),
        ({"tokens": [5, "x"]}, "1 to 1000000 ids"),
        ({"tokens": [5, 1024]}, "ids from 0 to 1023"),
    ],
)
def test_what_is_no_recipe_is_refused_in_words(nano, every, change, message):
    with pytest.raises(ValueError, match=message):
        recipes.check(every["head_write"] | change, nano)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positive": []}, "1 to 1000 texts on each side: positive"),
        ({"negative": ["a", 3]}, "negative"),
        ({"at": "first"}, "at one of"),
        ({"site": "blocks.1.attn.hook_pattern"}, "as the residual stream|expected"),
        ({"site": "blocks.9.hook_resid_post"}, "blocks.9"),
    ],
)
def test_a_difference_of_means_that_cannot_be_is_refused_in_words(nano, every, change, message):
    with pytest.raises(ValueError, match=message):
        recipes.check(every["difference_of_means"] | change, nano)


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [1.0, "2"], [True, float("inf")]])
def test_numbers_are_finite_and_there_are_some(nano, values):
    with pytest.raises(ValueError, match=r"1 to|finite"):
        recipes.check({"kind": "numbers", "values": values}, nano)


def test_a_bench_steered_by_every_kind_is_the_same_after_saving_and_loading_and_as_code(bench_of, nano, every):
    bench = bench_of(TEXT)
    for kind, recipe in every.items():
        bench.session.set_vector(f"a '{kind}'", recipe)
    specs = [wb.Steer(SITE, f"a '{kind}'", 0.5) for kind in every]
    bench.interventions = specs
    bench.session.wait(60)
    kl = bench.run.kl
    expected = wb.run(nano, TEXT, specs, sources={f"a '{kind}'": recipes.make(every[kind], nano) for kind in every})
    torch.testing.assert_close(kl, expected.kl, atol=1e-5, rtol=1e-3)
    scope: dict = {}
    exec(bench.code(), scope)
    torch.testing.assert_close(scope["run"].kl, kl, atol=1e-5, rtol=1e-3)
    text = workspace.to_json(bench.session)
    other = bench_of("something else")
    workspace.restore(other.session, text)
    other.session.wait(60)
    assert {f"a '{kind}'": recipe for kind, recipe in every.items()} == dict(other.session.state.vectors)
    torch.testing.assert_close(other.run.kl, kl, atol=1e-5, rtol=1e-3)
