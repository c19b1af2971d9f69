"""The committed nano does on fresh data what its card says."""

import json
import random
import re
from math import sqrt

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from workbench.checkpoints import load
from workbench.training import specialists as sp
from workbench.training.evaluate import answered, induction_accuracy, questions, repeated_tokens
from workbench.training.heads import head_scores
from workbench.training.microworld import QUESTIONS
from workbench.training.microworld.passkey import KEYS
from workbench.training.scorecard import REPEAT, task_score, windowed

COUNT = 40


@pytest.fixture(scope="module")
def nano(nano_folder):
    return load(nano_folder)


@pytest.fixture(scope="module")
def card(nano_folder):
    """Row title → the mean that the card gives, for tasks and heads (domains' losses have the same titles)."""
    text = (nano_folder / "card.md").read_text(encoding="utf-8").split("## Loss of each domain")[0]
    return {title: float(mean) for title, mean in re.findall(r"^\| ([^|]+) \| (-?[\d.]+) ± ", text, re.MULTILINE)}


def likely(mean: float, count: int) -> float:
    """The least share that a fair draw of ``count`` questions falls below less than once in ten thousand times."""
    return mean - 4 * sqrt(max(mean * (1 - mean), 0.01) / count) - 0.01


@pytest.mark.parametrize("task", QUESTIONS)
def test_a_task_is_answered_as_well_as_the_card_says(nano, card, tokenizer, task, seed):
    found = task_score(nano, tokenizer, task, questions(task, seed, COUNT))
    assert found >= likely(card[task], COUNT)


def test_induction_and_its_heads_are_as_the_card_says(nano, card, tokenizer, seed):
    tokens = repeated_tokens(seed, 8, REPEAT, tokenizer.get_vocab_size())
    assert induction_accuracy(nano, tokens) >= likely(card["induction"], 8 * REPEAT)
    found = head_scores(nano, tokens)
    for kind, scores in (("induction", found.induction), ("previous-token", found.previous)):
        title = next(title for title in card if title.startswith(f"{kind} head") and "renormalised" not in title)
        layer, head = map(int, re.search(r"layer (\d+), head (\d+)", title).groups())
        assert abs(float(scores[layer, head]) - card[title]) < 0.05


def test_a_far_passkey_needs_the_full_layers_and_a_near_one_does_not(nano, tokenizer, seed):
    narrow, spoken = windowed(nano), [f" {key}" for key in KEYS]
    far, near = (questions(f"passkey {kind}", seed, COUNT) for kind in ("far", "near"))
    assert float(answered(nano, tokenizer, far).float().mean()) >= 0.9
    # Chance is 1/90; of 40 more than 5 come out right by chance less than once in ten thousand times.
    assert int(answered(narrow, tokenizer, far, spoken).sum()) <= 5
    assert float(answered(narrow, tokenizer, near).float().mean()) >= 0.9


def test_the_specialist_on_the_card_is_one_on_fresh_data(nano, nano_folder, encoder, seed):
    text = (nano_folder / "card.md").read_text(encoding="utf-8")
    layer, expert, domain = re.search(r"A specialist: layer (\d+), expert (\d+), for ([\w ]+)", text).groups()
    control = re.search(r"load-matched expert (\d+) ablated", text).group(1)
    corpus = sp.held_out_corpus(encoder, seed, 600)
    specialist = sp.Specialist(int(layer), int(expert), corpus.names.index(domain), int(control))
    found = sp.selectivity(nano, corpus, specialist, sp.domain_losses(nano, corpus))
    assert found.lift >= 3
    assert found.own > 0.1
    assert found.own > 3 * max(found.others, found.worst_other, found.control)


def test_transformers_loads_it_and_gives_the_same_logits(nano, nano_folder, seed):
    theirs = AutoModelForCausalLM.from_pretrained(nano_folder, dtype=torch.float32, attn_implementation="eager")
    tokens = torch.tensor(
        [AutoTokenizer.from_pretrained(nano_folder)(questions("passkey far", seed, 1)[0].prompt)["input_ids"]]
    )
    with torch.no_grad():
        torch.testing.assert_close(nano(tokens), theirs(tokens).logits, atol=1e-3, rtol=1e-3)


def test_it_is_stored_small_in_bfloat16_and_computes_in_float32(nano, nano_folder):
    assert sum(file.stat().st_size for file in nano_folder.iterdir()) <= 6_000_000
    assert json.loads((nano_folder / "config.json").read_text())["dtype"] == "float32"
    for name, parameter in nano.named_parameters():
        assert parameter.dtype == torch.float32
        assert torch.equal(parameter, parameter.to(torch.bfloat16).float()), name


def test_generated_text_follows_the_rules_of_the_microworld(nano, tokenizer, seed):
    rng = random.Random(seed)
    question = QUESTIONS["facts in chat"](rng)
    ids = tokenizer.encode(question.prompt).ids
    for _ in range(40):
        ids.append(int(nano(torch.tensor([ids]))[0, -1].argmax()))
        if ids[-1] == tokenizer.token_to_id("<|return|>"):
            break
    assert tokenizer.decode(ids, skip_special_tokens=False) == question.prompt + question.answer
