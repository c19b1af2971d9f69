"""How well questions are answered: teacher-forced, every token of the answer must be the most likely one."""

import random
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from tokenizers import Tokenizer
from torch import Tensor

from .bpe import SPECIAL
from .encoding import END
from .microworld import QUESTIONS, Question
from .microworld.brackets import CLOSERS
from .microworld.words import TWO_DIGITS

Logits = Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]]
ROW_MULTIPLE = 16  # rows are padded on the right, which a causal model cannot see


def questions(task: str, seed: int, count: int) -> list[Question]:
    """``count`` held-out questions of a task in ``QUESTIONS``."""
    rng = random.Random(f"evaluation {seed} {task}")
    return [QUESTIONS[task](rng) for _ in range(count)]


def padded(rows: Sequence[Sequence[int]]) -> Int[Tensor, "batch pos"]:
    """Rows side by side, padded on the right with <|endoftext|>."""
    length = -(-max(map(len, rows)) // ROW_MULTIPLE) * ROW_MULTIPLE
    return torch.tensor([[*row, *[END] * (length - len(row))] for row in rows])


@torch.no_grad()
def answered(
    logits: Logits, tokenizer: Tokenizer, asked: Sequence[Question], among: Sequence[str] | None = None, batch: int = 64
) -> Bool[Tensor, "question"]:
    """Which questions are answered right. ``among``: the argmax is taken among these texts (one token each)."""
    only = None if among is None else torch.tensor([single_token(tokenizer, text) for text in among])
    results = []
    for first in range(0, len(asked), batch):
        part = asked[first : first + batch]
        prompts = [tokenizer.encode(q.prompt).ids for q in part]
        answers = [tokenizer.encode(q.answer).ids for q in part]
        scores = logits(padded([p + a for p, a in zip(prompts, answers, strict=True)]))
        for row, prompt, answer in zip(scores, prompts, answers, strict=True):
            said = row[len(prompt) - 1 : len(prompt) - 1 + len(answer)]
            best = said.argmax(-1) if only is None else only[said[:, only].argmax(-1)]
            results.append(bool((best == torch.tensor(answer)).all()))
    return torch.tensor(results)


def single_token(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that is one token.

    Raises:
        ValueError: if it is not one.
    """
    ids = tokenizer.encode(text).ids
    if len(ids) != 1:
        raise ValueError(f"{text!r} is {len(ids)} tokens, expected one")
    return ids[0]


@torch.no_grad()
def greater_than(logits: Logits, tokenizer: Tokenizer, asked: Sequence[Question]) -> Float[Tensor, "question"]:
    """P(a later year) − P(the same or an earlier year) over the hundred two-digit tokens."""
    numbers = torch.tensor([single_token(tokenizer, text) for text in TWO_DIGITS])
    prompts = [tokenizer.encode(q.prompt).ids for q in asked]
    rows = logits(padded(prompts))
    last = torch.stack([row[len(prompt) - 1] for row, prompt in zip(rows, prompts, strict=True)]).softmax(-1)[
        :, numbers
    ]
    # "… from 1732 to 17": the year is the third token from the end.
    start = torch.tensor([TWO_DIGITS.index(tokenizer.decode([prompt[-3]])) for prompt in prompts])
    later = torch.arange(100)[None] > start[:, None]
    return (last * later).sum(-1) - (last * ~later).sum(-1)


def repeated_tokens(seed: int, count: int, n: int, d_vocab: int) -> Int[Tensor, "batch pos"]:
    """Rows of ``n`` random ordinary tokens, twice."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(len(SPECIAL), d_vocab, (count, n), generator=generator)
    return torch.cat((once, once), 1)


@torch.no_grad()
def induction_accuracy(logits: Logits, tokens: Int[Tensor, "batch pos"]) -> float:
    """Share of right next tokens in the second telling, after its first token."""
    n = tokens.shape[1] // 2
    return float((logits(tokens)[:, n:-1].argmax(-1) == tokens[:, n + 1 :]).float().mean())


def accuracies(logits: Logits, tokenizer: Tokenizer, seed: int, count: int) -> dict[str, float]:
    """The accuracy of every task (greater-than: the mean difference of probabilities), and of induction."""
    results = {}
    for task in QUESTIONS:
        asked = questions(task, seed, count)
        if task == "greater-than":
            results[task] = float(greater_than(logits, tokenizer, asked).mean())
        else:
            among = CLOSERS if task == "brackets" else None
            results[task] = float(answered(logits, tokenizer, asked, among).float().mean())
    tokens = repeated_tokens(seed, max(8, count // 8), 64, tokenizer.get_vocab_size())
    return results | {"induction": induction_accuracy(logits, tokens)}
