"""The pairs that are made from nano's grammars: aligned, minimal, and solved by nano."""

import pytest
import torch

import workbench as wb
from workbench.model import HookedGptOss
from workbench.prompts import Pair, misfit, pairs, stack, tasks, token_ids
from workbench.text import Tokenizer
from workbench.training.microworld.words import TWO_DIGITS

N = 24
# How many tokens a corrupt prompt differs in: one word, or two that changed places.
DIFFER = {"induction": 2, "docstring": 2}


@pytest.fixture(scope="module")
def nano() -> HookedGptOss:
    return wb.load("nano")


@pytest.fixture(scope="module")
def tokenizer(nano: HookedGptOss) -> Tokenizer:
    return nano.text


@pytest.fixture(scope="module", params=tasks())
def task(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def made(nano: HookedGptOss, task: str, seed: int) -> list[Pair]:
    return pairs(nano, task, N, seed)


def test_the_eleven_tasks_that_nano_knows_are_listed() -> None:
    assert len(tasks()) == 11 and {"indirect object", "induction", "docstring", "greater-than", "facts"} < set(tasks())


def test_pairs_are_as_many_tokens_and_differ_only_in_what_decides(
    task: str, made: list[Pair], tokenizer: Tokenizer
) -> None:
    for pair in made:
        clean, corrupt = (tokenizer.encode(str(side)) for side in (pair.clean, pair.corrupt))
        assert len(clean) == len(corrupt)
        assert sum(a != b for a, b in zip(clean, corrupt, strict=True)) == DIFFER.get(task, 1)
        assert clean[-1] == corrupt[-1] or task.startswith("dialect")
        assert pair.task == task and misfit(pair, tokenizer) is None
    assert len({token_ids(pair.clean, tokenizer) for pair in made}) > N // 3


def test_answers_are_one_token_each_also_when_written_after_the_prompt(made: list[Pair], tokenizer: Tokenizer) -> None:
    for pair in made:
        for answer in (str(pair.right), str(pair.wrong)):
            ids = tokenizer.encode(answer)
            assert len(ids) == 1 and tokenizer.encode(f"{pair.clean}{answer}")[-1:] == ids
        assert pair.right != pair.wrong


def test_nano_solves_the_clean_ones_and_not_the_corrupt_ones(
    task: str, made: list[Pair], nano: HookedGptOss, tokenizer: Tokenizer
) -> None:
    rows = stack(made, nano)
    with torch.no_grad():
        clean, corrupt = (nano(side, logits_at="last")[:, -1] for side in (rows.clean, rows.corrupt))
    right = rows.right[:, None]
    differences = [(one.gather(1, right) - one.gather(1, rows.wrong[:, None]))[:, 0] for one in (clean, corrupt)]
    best = clean.argmax(-1)
    solved = best == rows.right
    if task == "greater-than":  # any later year is right
        two_digits = [tokenizer.encode(digits)[0] for digits in TWO_DIGITS]
        starts = [int(tokenizer.decode([row[-3]])) for row in rows.clean.tolist()]
        later = [int(b) in two_digits[start + 1 :] for b, start in zip(best, starts, strict=True)]
        solved = torch.tensor(later)
    print(
        f"\n{task:16s} {rows.clean.shape[1]:4d} tokens, accuracy {solved.float().mean():.2f}, logit difference "
        f"clean {differences[0].mean():6.2f}, corrupt {differences[1].mean():6.2f}"
    )
    assert float(solved.float().mean()) >= 0.95
    assert float(differences[0].mean()) > 2 and float((differences[0] > 0).float().mean()) >= 0.95
    # In greater-than both answers are right for the corrupt prompt, so that neither should be much ahead.
    assert float(differences[1].mean()) < (0.4 * float(differences[0].mean()) if task == "greater-than" else -1)


def test_the_same_seed_gives_the_same_pairs_and_another_others(
    made: list[Pair], task: str, tokenizer: Tokenizer
) -> None:
    once, again, other = (pairs(tokenizer, task, 4, seed) for seed in (1, 1, 2))
    assert once == again != other


def test_pairs_of_several_lengths_come_on_request_and_do_not_stack(tokenizer: Tokenizer) -> None:
    made = pairs(tokenizer, "docstring", 24, 0, same_length=False)
    assert len({len(token_ids(pair.clean, tokenizer)) for pair in made}) > 1
    with pytest.raises(ValueError, match="all of one length"):
        stack(made, tokenizer)


def test_a_mistyped_task_is_refused_with_the_nearest(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no task 'indirect objects'; closest is 'indirect object'; there are"):
        pairs(tokenizer, "indirect objects", 2)
    with pytest.raises(ValueError, match="n=0"):
        pairs(tokenizer, "facts", 0)


def test_a_model_without_a_tokenizer_is_told_so() -> None:
    from workbench.compiled import busy_expert

    model = busy_expert().model
    with pytest.raises(ValueError, match="HookedGptOss has no tokenizer, and these pairs are text"):
        pairs(model, "facts", 2)
    with pytest.raises(ValueError, match="is text, and there is no tokenizer"):
        stack([Pair("a", "b", "c", "d")], model)


def test_a_tokenizer_that_the_grammars_do_not_fit_is_refused() -> None:
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers

    letters = Backend(models.BPE({letter: i for i, letter in enumerate(pre_tokenizers.ByteLevel.alphabet())}, []))
    letters.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    letters.decoder = decoders.ByteLevel()
    with pytest.raises(ValueError, match="only 0 of 1 pairs fit this tokenizer"):
        pairs(Tokenizer(letters), "facts", 1)


def test_chats_are_prompts_too(nano: HookedGptOss) -> None:
    asked = [wb.Chat().user(f"Where does {person} live?") for person in ("Mia", "Tom")]
    pair = Pair(asked[0], asked[1], " park", " mill")
    assert misfit(pair, nano.text) is None
    assert torch.equal(stack([pair], nano).clean, nano.to_tokens(asked[0]))
