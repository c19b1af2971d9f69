"""What the card measures, checked on models and counts whose answer is known."""

import torch

from tests.training.small import SMALL, random_model
from workbench.training import specialists as sp
from workbench.training.card import interval
from workbench.training.evaluate import answered, greater_than, induction_accuracy, questions, repeated_tokens
from workbench.training.heads import head_scores
from workbench.training.scorecard import Measure, windowed


def oracle(tokenizer, right=True):
    """A "model" that knows each question's text and always says the next token of it (or never)."""

    def logits(tokens):
        following = torch.cat((tokens[:, 1:], tokens[:, :1]), 1)
        scores = torch.nn.functional.one_hot(following, tokenizer.get_vocab_size()).float()
        return scores if right else -scores

    return logits


def test_the_oracle_answers_all_and_its_opposite_nothing(tokenizer, seed):
    for task in ("indirect object", "facts in chat", "final follows edited analysis", "docstring"):
        asked = questions(task, seed, 20)
        assert answered(oracle(tokenizer), tokenizer, asked).all()
        assert not answered(oracle(tokenizer, right=False), tokenizer, asked).any()


def test_every_token_of_an_answer_must_be_right(tokenizer, seed):
    asked = questions("story", seed, 20)
    ids = [tokenizer.encode(q.prompt).ids for q in asked]

    def misses_the_second_word(tokens):
        scores = oracle(tokenizer)(tokens)
        for row, prompt in zip(scores, ids, strict=True):
            row[len(prompt)] = 0.0
        return scores

    assert not answered(misses_the_second_word, tokenizer, asked).any()


def test_greater_than_is_one_for_a_certain_later_year_and_minus_one_for_an_earlier(tokenizer, seed):
    asked = questions("greater-than", seed, 50)
    for text, expected in (("99", 1.0), ("00", -1.0)):
        token = tokenizer.token_to_id(text)

        def always(tokens, token=token):
            return 50.0 * torch.nn.functional.one_hot(torch.full_like(tokens, token), tokenizer.get_vocab_size())

        torch.testing.assert_close(greater_than(always, tokenizer, asked), torch.full((50,), expected))


def test_repeated_tokens_are_ordinary_and_told_twice(seed):
    tokens = repeated_tokens(seed, 4, 20, 1024)
    assert torch.equal(tokens[:, :20], tokens[:, 20:]) and int(tokens.min()) >= 9


def test_copying_what_followed_last_time_is_perfect_induction(seed):
    tokens = repeated_tokens(seed, 4, 20, 1024)

    def copies(tokens):
        return torch.nn.functional.one_hot(tokens.roll(19, 1), 1024).float()

    assert induction_accuracy(copies, tokens) == 1.0


def test_head_scores_are_the_patterns_own_diagonals(seed):
    model, tokens = random_model(seed), repeated_tokens(seed, 3, 12, SMALL.d_vocab)
    found = head_scores(model, tokens)
    _, cache = model.run_with_cache(tokens)
    for layer in range(SMALL.n_layers):
        pattern = cache[f"blocks.{layer}.attn.hook_pattern"]
        for head in range(SMALL.n_heads):
            previous = sum(pattern[b, head, t, t - 1] for b in range(3) for t in range(12, 24)) / 36
            induction = sum(pattern[b, head, t, t - 11] for b in range(3) for t in range(12, 24)) / 36
            torch.testing.assert_close(found.previous[layer, head], previous)
            torch.testing.assert_close(found.induction[layer, head], induction)


def test_with_all_layers_sliding_nothing_beyond_their_reach_changes_the_logits(seed):
    model = random_model(seed)
    narrow, reach = windowed(model), SMALL.n_layers * (SMALL.sliding_window - 1)
    tokens = repeated_tokens(seed, 1, 40, SMALL.d_vocab)
    last = tokens.shape[1] - 1
    for distance, changes in ((reach + 1, False), (SMALL.sliding_window - 1, True)):
        edited = tokens.clone()
        edited[0, last - distance] = (edited[0, last - distance] + 1) % SMALL.d_vocab
        assert torch.equal(narrow(tokens)[0, last], narrow(edited)[0, last]) != changes
        assert not torch.equal(model(tokens)[0, last], model(edited)[0, last])


def test_lift_is_what_counting_by_hand_gives():
    # Two experts, two domains, one layer: expert 0 has 30 of domain A and 10 of B, expert 1 has 10 and 50.
    counts = torch.tensor([[[30.0, 10.0], [10.0, 50.0]]])
    expected = torch.tensor([[[0.75 / 0.4, 0.25 / 0.6], [(10 / 60) / 0.4, (50 / 60) / 0.6]]])
    torch.testing.assert_close(sp.lift(counts), expected)


def test_candidates_reach_the_lift_and_their_control_has_the_closest_load():
    counts = torch.ones(1, 4, 5)
    counts[0, 0] = torch.tensor([40.0, 0.0, 0.0, 0.0, 0.0])
    counts[0, 1:] *= torch.tensor([4.0, 7.0, 40.0])[:, None]
    (found,) = sp.candidates(counts)
    assert (found.layer, found.expert, found.domain, found.control) == (0, 0, 0, 2)  # loads 40, 20, 35, 200


def test_an_ablated_expert_gets_no_route_and_the_others_take_over(seed):
    model, tokens = random_model(seed), repeated_tokens(seed, 2, 20, SMALL.d_vocab)
    _, before = model.run_with_cache(tokens)
    expert = int(before["blocks.0.mlp.hook_expert_indices"][0, 0, 0])
    seen = []
    keep = ("blocks.0.mlp.hook_expert_indices", lambda indices, hook: seen.append(indices.clone()))
    model.run_with_hooks(tokens, fwd_hooks=[*sp.without(0, expert), keep])
    assert not (seen[0] == expert).any()
    assert seen[0].shape == before["blocks.0.mlp.hook_expert_indices"].shape


def test_domain_losses_are_the_models_own_losses(encoder, seed):
    model, corpus = random_model(seed), sp.held_out_corpus(encoder, seed, 60)
    found = sp.domain_losses(model, corpus)
    for number in range(len(corpus.names)):
        total, count = 0.0, 0
        for row in (corpus.domain == number).nonzero().flatten():
            ids = corpus.tokens[row][corpus.real[row]][None]
            if ids.shape[1] > 1:
                total += float(model(ids, return_type="loss").detach()) * (ids.shape[1] - 1)
                count += ids.shape[1] - 1
        assert abs(float(found[number]) - total / count) < 1e-3


def test_every_domain_of_the_corpus_has_the_same_number_of_tokens(encoder, seed):
    corpus = sp.held_out_corpus(encoder, seed, 200)
    lengths = corpus.real.sum(1)
    assert [int(lengths[corpus.domain == i].sum()) for i in range(len(corpus.names))] == [200] * len(corpus.names)


def test_loads_of_a_random_model_lie_where_they_must(encoder, seed):
    found = sp.loads(random_model(seed), encoder, seed, n_tokens=1000)
    # One expert taking as many routes as it can (one of the two slots of each token) bounds the load CV.
    assert ((found.cv >= 0) & (found.cv <= (SMALL.n_experts / 2 - 1) ** 0.5 + 1e-6)).all()
    for entropy in (found.load_entropy, found.token_entropy):
        assert ((entropy > 0) & (entropy <= 1 + 1e-6)).all()


def test_wilsons_interval_is_the_textbook_one():
    # Agresti and Coull (1998): no hit of 10 gives 0 to 0.278; 5 of 10 gives 0.237 to 0.763.
    assert [round(x, 3) for x in interval(0, 10)] == [0.0, 0.278]
    assert [round(x, 3) for x in interval(5, 10)] == [0.237, 0.763]


def test_a_measure_shows_mean_and_spread():
    assert str(Measure((0.1, 0.2, 0.3))) == "0.200 ± 0.100"
