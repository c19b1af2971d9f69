"""Training learns, is repeatable, and resumes as if it had never stopped."""

import random
from dataclasses import replace

import pytest
import torch

from tests.training.small import SMALL
from workbench.training.build import start
from workbench.training.encoding import MIXTURE, batch_at, mixed
from workbench.training.forward import Routing
from workbench.training.trainer import Recipe, Trainer, balance_loss

TINY = Recipe(steps=30, rows=4, length=128, warm_up=5)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def trainer(tokenizer, recipe=TINY, checkpoint=None):
    return Trainer(start(recipe.seed, config=SMALL), SMALL, tokenizer, recipe, checkpoint)


def trained(tokenizer, until, checkpoint=None, recipe=TINY):
    run = trainer(tokenizer, recipe, checkpoint)
    run.run(until=until, progress=False)
    return {name: p.detach().clone() for name, p in run.parameters.items()}


def test_thirty_steps_lower_the_loss(tokenizer):
    run = trainer(tokenizer)
    found = [float(run.take_step().text) for _ in range(TINY.steps)]
    assert sum(found[-5:]) / 5 < sum(found[:5]) / 5 - 0.5


def test_a_resumed_run_ends_bit_for_bit_where_an_unbroken_one_does(tokenizer, tmp_path):
    unbroken = trained(tokenizer, 12)
    trained(tokenizer, 7, tmp_path / "run.pt")
    resumed = trained(tokenizer, 12, tmp_path / "run.pt")
    assert all(torch.equal(unbroken[name], resumed[name]) for name in unbroken)


def test_another_seed_ends_elsewhere(tokenizer):
    one, other = trained(tokenizer, 2), trained(tokenizer, 2, recipe=replace(TINY, seed=1))
    assert not torch.equal(one["embed.weight"], other["embed.weight"])


def test_a_checkpoint_of_another_recipe_is_refused(tokenizer, tmp_path):
    trained(tokenizer, 1, tmp_path / "run.pt")
    with pytest.raises(ValueError, match="another learning_rate: delete it"):
        trainer(tokenizer, replace(TINY, learning_rate=1e-3), tmp_path / "run.pt")


def test_a_batch_depends_on_its_seed_and_step_alone(encoder, seed):
    first, again, next_one = (batch_at(encoder, seed, step, 4, 256) for step in (3, 3, 4))
    assert torch.equal(first.tokens, again.tokens) and torch.equal(first.weights, again.weights)
    assert not torch.equal(first.tokens, next_one.tokens)


def test_batches_are_full_and_padding_and_first_tokens_count_nothing(encoder, seed):
    batch = batch_at(encoder, seed, 0, 8, 256)
    real = batch.document >= 0
    assert real.float().mean() > 0.9
    assert batch.weights[~real].sum() == 0
    begins = torch.cat((torch.ones(8, 1, dtype=torch.bool), batch.document[:, 1:] != batch.document[:, :-1]), 1)
    assert batch.weights[begins].sum() == 0


def test_the_domains_have_the_shares_of_the_mixture(encoder, seed):

    documents = mixed(encoder, random.Random(seed), 60_000, 256)
    total = sum(len(d.ids) for d in documents)
    share = {name: weight / sum(MIXTURE.values()) for name, weight in MIXTURE.items()}
    found = dict.fromkeys(MIXTURE, 0.0)
    for document in documents:
        # A generator of several dialects names each document by its own.
        name = "dialects" if document.domain.startswith("dialect ") else document.domain
        found[name] += len(document.ids) / total
    assert all(abs(found[name] - share[name]) < 0.02 for name in MIXTURE)


def test_the_rate_warms_up_and_falls_to_its_last_share():
    recipe = Recipe(steps=1000, warm_up=100, learning_rate=1.0, last_share=0.02)
    rates = [recipe.rate(step) for step in range(1001)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(rates[100]) == pytest.approx(1.0)
    assert rates[1000] == pytest.approx(0.02)


def test_the_balance_loss_is_one_when_even_and_more_when_one_expert_takes_all():
    n = 8
    even = Routing(torch.zeros(n, n), torch.arange(n)[:, None])
    all_to_one = Routing(
        torch.nn.functional.one_hot(torch.zeros(n, dtype=torch.long), n) * 50.0, torch.zeros(n, 1).long()
    )
    everyone = torch.ones(n, dtype=torch.bool)
    assert float(balance_loss(even, everyone)) == pytest.approx(1.0)
    assert float(balance_loss(all_to_one, everyone)) == pytest.approx(n, rel=1e-4)
