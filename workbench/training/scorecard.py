"""Measures nano on held-out data of several seeds (``card.py`` writes what comes out)."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from tokenizers import Tokenizer

from workbench.model import HookedGptOss
from workbench.model.config import SLIDING

from . import specialists as sp
from .encoding import Encoder
from .evaluate import answered, greater_than, induction_accuracy, questions, repeated_tokens
from .heads import HeadScores, head_scores
from .microworld import QUESTIONS, Question
from .microworld.brackets import CLOSERS
from .microworld.passkey import KEYS

SEEDS = (101, 102, 103)
COUNT = 128  # questions of each task and seed
REPEAT = 64  # random tokens, told twice
KEYS_SPOKEN = tuple(f" {key}" for key in KEYS)


@dataclass(frozen=True)
class Measure:
    """One figure, once per seed of evaluation data."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        values = torch.tensor(self.values, dtype=torch.float64)
        return f"{values.mean():.3f} ± {values.std(correction=1):.3f}"

    @property
    def mean(self) -> float:
        return sum(self.values) / len(self.values)


@dataclass(frozen=True)
class Scores:
    """Everything on the card."""

    tasks: dict[str, Measure]
    induction: Measure
    heads: dict[str, tuple[str, Measure]]
    windowed: dict[str, Measure]
    windowed_hits: tuple[int, int]
    loads: tuple[sp.Loads, ...]
    specialist: sp.Specialist | None
    selectivity: tuple[sp.Selectivity, ...]
    domain_losses: dict[str, Measure]


def score(model: HookedGptOss, tokenizer: Tokenizer, seeds: Sequence[int] = SEEDS, count: int = COUNT) -> Scores:
    """All measurements. The specialist is picked on data of yet another seed."""
    encoder = Encoder(tokenizer)
    asked = {task: [questions(task, seed, count) for seed in seeds] for task in QUESTIONS}
    tasks = {
        task: Measure(tuple(task_score(model, tokenizer, task, part) for part in asked[task])) for task in QUESTIONS
    }
    narrow = windowed(model)
    far = [answered(narrow, tokenizer, part, KEYS_SPOKEN) for part in asked["passkey far"]]
    near = [answered(narrow, tokenizer, part) for part in asked["passkey near"]]
    repeats = [repeated_tokens(seed, max(8, count // 8), REPEAT, encoder.d_vocab) for seed in seeds]
    heads = [head_scores(model, tokens) for tokens in repeats]
    corpora = [sp.held_out_corpus(encoder, seed, 12 * count) for seed in seeds]
    losses = [sp.domain_losses(model, corpus) for corpus in corpora]
    picked = sp.most_selective(model, sp.held_out_corpus(encoder, max(seeds) + 1, 12 * count))
    return Scores(
        tasks=tasks,
        induction=Measure(tuple(induction_accuracy(model, tokens) for tokens in repeats)),
        heads={field.name: _best_head([getattr(h, field.name) for h in heads]) for field in fields(HeadScores)},
        windowed={"far": _shares(far), "near": _shares(near)},
        windowed_hits=(int(torch.cat(far).sum()), len(torch.cat(far))),
        loads=tuple(sp.loads(model, encoder, seed) for seed in seeds),
        specialist=picked,
        selectivity=tuple(sp.selectivity(model, c, picked, b) for c, b in zip(corpora, losses, strict=True))
        if picked
        else (),
        domain_losses={name: Measure(tuple(float(b[i]) for b in losses)) for i, name in enumerate(corpora[0].names)},
    )


def task_score(model: HookedGptOss, tokenizer: Tokenizer, task: str, asked: Sequence[Question]) -> float:
    """Share of right answers; for greater-than the mean of P(later) − P(not later)."""
    if task == "greater-than":
        return float(greater_than(model, tokenizer, asked).mean())
    return float(answered(model, tokenizer, asked, CLOSERS if task == "brackets" else None).float().mean())


def windowed(model: HookedGptOss) -> HookedGptOss:
    """The same weights with every layer sliding: nothing beyond n_layers · (window − 1) tokens can be reached."""
    config = model.config.with_(layer_types=(SLIDING,) * model.config.n_layers)
    narrow = HookedGptOss(config, model.tokenizer)
    narrow.load_state_dict(model.state_dict())
    return narrow


def _shares(parts: Sequence[torch.Tensor]) -> Measure:
    return Measure(tuple(float(part.float().mean()) for part in parts))


def _best_head(scores: Sequence[torch.Tensor]) -> tuple[str, Measure]:
    mean = torch.stack(list(scores)).mean(0)
    layer, head = divmod(int(mean.argmax()), mean.shape[1])
    return f"layer {layer}, head {head}", Measure(tuple(float(s[layer, head]) for s in scores))
