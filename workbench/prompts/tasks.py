"""Paired prompts for what nano knows, from the grammars that it learned: held-out questions and their corrupt twins."""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any

from workbench.prompts.check import misfit
from workbench.prompts.pair import Pair, token_ids, tokenizer_of
from workbench.text import Tokenizer
from workbench.training.microworld import FACTS, QUESTIONS, Question
from workbench.training.microworld.chats import ANALYSIS
from workbench.training.microworld.facts import VALUES
from workbench.training.microworld.words import DIALECT_NOUNS, DIALECT_PARTICLES, PEOPLE, TWO_DIGITS

FIRST_YEAR = 2  # the earliest that the grammar of years starts with: after it, any later year is right
TRIES = 500  # drawings for each pair asked for


def tasks() -> tuple[str, ...]:
    """The names of the tasks that :func:`pairs` makes."""
    return tuple(_MAKERS)


def pairs(source: Any, task: str, n: int = 32, seed: int = 0, same_length: bool = True) -> list[Pair]:
    """``n`` pairs of a task: questions held out from nano's training, each with a corrupt twin of as many tokens.

    Args:
        source: the model or the tokenizer that will read them. The grammars are nano's; another tokenizer gets the
            pairs that fit it.
        task: one of :func:`tasks`.
        n: how many.
        seed: the same seed, tokenizer and task give the same pairs.
        same_length: all pairs have one length in tokens, so that they stack.

    Raises:
        ValueError: for an unknown task, without a tokenizer, or when too few fit this tokenizer.

    >>> prompts.pairs(model, "indirect object", n=1)[0].right
    ' Ben'
    """
    tokenizer = tokenizer_of(source)
    if task not in _MAKERS:
        near = get_close_matches(task, _MAKERS, n=1)
        raise ValueError(f"no task {task!r}{f'; closest is {near[0]!r}' if near else ''}; there are {list(_MAKERS)}")
    if tokenizer is None:
        raise ValueError(f"{type(source).__name__} has no tokenizer, and these pairs are text; pass one")
    if n < 1:
        raise ValueError(f"n={n}: expected at least one pair")
    rng = random.Random(f"pairs {seed} {task}")
    of_length: dict[int, list[Pair]] = defaultdict(list)
    for _ in range(TRIES * n):
        pair = _MAKERS[task](rng)
        if pair is None:
            continue
        length = len(token_ids(pair.clean, tokenizer)) if same_length else 0
        of_length[length].append(pair)
        # Looked at only when there are enough of a length: most drawn passkeys are of another one.
        if len(of_length[length]) >= n:
            of_length[length] = [one for one in of_length[length] if _fits(one, tokenizer)]
            if len(of_length[length]) == n:
                return of_length[length]
    most = max((sum(_fits(one, tokenizer) for one in alike) for alike in of_length.values()), default=0)
    raise ValueError(
        f"{task!r}: only {most} of {n} pairs fit this tokenizer{' at one length' * same_length}; ask for fewer"
    )


def _fits(pair: Pair, tokenizer: Tokenizer) -> bool:
    """A usable pair whose answers, written after the prompt, are still the tokens that they are alone."""
    if misfit(pair, tokenizer) is not None:
        return False
    clean = token_ids(pair.clean, tokenizer)
    return all(
        token_ids(f"{pair.clean}{answer}", tokenizer) == (*clean, *token_ids(answer, tokenizer))
        for answer in (pair.right, pair.wrong)
    )


# ------------------------------------------------------------ one maker a task: a pair, or None where a draw gives none


def _asked(question: str, rng: random.Random) -> Question:
    return QUESTIONS[question](rng)


def _indirect_object(rng: random.Random) -> Pair:
    """Corrupt: the other of the two gives, so that the other receives."""
    q = _asked("indirect object", rng)
    before, _, after = q.prompt.rpartition(f"{q.wrong} ")
    return Pair(q.prompt, f"{before}{q.answer} {after}", q.answer, q.wrong, "indirect object")


def _induction(rng: random.Random) -> Pair | None:
    """Corrupt: in the first telling the word just said and a later one change places, so that another word follows."""
    q = _asked("repeated words", rng)
    told, again = q.prompt.removeprefix("List: ").split(". Again: ")
    words, place = told.split(), len(again.split()) - 1
    if place + 2 > len(words) - 2:
        return None
    swap = rng.randrange(place + 2, len(words) - 1)
    wrong = words[swap + 1]
    words[place], words[swap] = words[swap], words[place]
    return Pair(q.prompt, f"List: {' '.join(words)}. Again: {again}", q.answer, f" {wrong}", "induction")


def _docstring(rng: random.Random) -> Pair | None:
    """Corrupt: in the function's head the argument asked for and a later one change places."""
    q = _asked("docstring", rng)
    head, line_break, rest = q.prompt.partition("\n")
    order = re.findall(r" (\w+)(?=[,)])", head)
    right, wrong = q.answer.strip(), q.wrong.strip()
    if order.index(wrong) < order.index(right):
        return None
    swapped = {right: wrong, wrong: right}
    head = re.sub(r"(?<= )\w+(?=[,)])", lambda name: swapped.get(name[0], name[0]), head)
    return Pair(q.prompt, head + line_break + rest, q.answer, q.wrong, "docstring")


def _greater_than(rng: random.Random) -> Pair | None:
    """Corrupt: it starts in the century's first years, so that the wrong year comes later too."""
    q = _asked("greater-than", rng)
    found = re.search(r"(?<=from \d\d)\d\d", q.prompt)
    if found is None or int(q.wrong) <= FIRST_YEAR:
        return None
    corrupt = q.prompt[: found.start()] + TWO_DIGITS[FIRST_YEAR] + q.prompt[found.end() :]
    return Pair(q.prompt, corrupt, q.answer, q.wrong, "greater-than")


def _passkey(rng: random.Random, where: str) -> Pair:
    """Corrupt: another passkey was given."""
    q = _asked(where, rng)
    return Pair(q.prompt, q.prompt.replace(f"{q.answer}.", f"{q.wrong}."), q.answer, q.wrong, where)


def _facts(rng: random.Random) -> Pair | None:
    """Corrupt: another person is asked about, of whom something else is true."""
    q = _asked("facts", rng)
    told, asked = q.prompt.split(". ", 1)
    relation = next(r for r, values in VALUES.items() if q.answer.strip() in values)
    person = next(word for word in re.findall(r"\w+", asked) if word in PEOPLE)
    other = rng.choice(PEOPLE)
    wrong = f" {FACTS[other, relation]}"
    corrupt = f"{told}. {re.sub(rf'{person}', other, asked)}"
    return None if wrong == q.answer else Pair(q.prompt, corrupt, q.answer, wrong, "facts")


def _dialect(rng: random.Random, dialect: str) -> Pair:
    """Corrupt: the noun that the last word agrees with is of another class."""
    q = _asked(dialect, rng)
    said, dot, last = q.prompt.rpartition(".") if "." in q.prompt else q.prompt.rpartition(":")
    class_of = {noun: kind for kind, nouns in enumerate(DIALECT_NOUNS) for noun in nouns}
    nouns = [word for word in last.split() if word in class_of]
    # Subject comes before object in all three; in the south it is the object that counts.
    decides = nouns[1] if dialect == "dialect south" else nouns[0]
    kind = rng.choice([k for k in range(3) if k != class_of[decides]])
    instead = rng.choice([noun for noun in DIALECT_NOUNS[kind] if noun not in nouns])
    further = 1 if dialect == "dialect east" else 0
    wrong = f" {DIALECT_PARTICLES[(kind + further) % 3]}"
    corrupt = said + dot + " ".join(instead if word == decides else word for word in last.split(" "))
    return Pair(q.prompt, corrupt, q.answer, wrong, dialect)


def _channel_copying(rng: random.Random) -> Pair:
    """Corrupt: the analysis says something that the user's message does not; the final answer follows the analysis."""
    q = _asked("final copies analysis", rng)
    # "In the park.<|return|>": the answer is the last word, and what stands before it belongs to the prompt.
    start = q.answer.rpartition(" ")[0]
    right, wrong = (text.rpartition(" ")[2].partition(".")[0] for text in (q.answer, q.wrong))
    before, marker, after = q.prompt.rpartition(ANALYSIS)
    corrupt = before + marker + re.sub(rf"\b{right}\b", wrong, after)
    return Pair(q.prompt + start, corrupt + start, f" {right}", f" {wrong}", "channel copying")


_MAKERS: Mapping[str, Callable[[random.Random], Pair | None]] = {
    "indirect object": _indirect_object,
    "induction": _induction,
    "docstring": _docstring,
    "greater-than": _greater_than,
    "passkey far": partial(_passkey, where="passkey far"),
    "passkey near": partial(_passkey, where="passkey near"),
    "facts": _facts,
    "dialect north": partial(_dialect, dialect="dialect north"),
    "dialect south": partial(_dialect, dialect="dialect south"),
    "dialect east": partial(_dialect, dialect="dialect east"),
    "channel copying": _channel_copying,
}
