"""What was measured → ``card.md``."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from .bpe import D_VOCAB
from .microworld.passkey import KEYS
from .scorecard import COUNT, REPEAT, SEEDS, Measure, Scores

# Task → (chance level, target). The targets are what a pilot of the same size reached, or what was asked beyond it.
TASKS: dict[str, tuple[str, float | None]] = {
    "indirect object": ("0.5 between the two names", 1.0),
    "passkey far": ("1/90", 1.0),
    "passkey near": ("1/90", 0.9),
    "docstring": ("1/4 among the arguments", 1.0),
    "brackets": ("1/3 among the closing brackets", 0.98),
    "facts": ("1/16, 1/12 or 1/8 by relation", 1.0),
    "facts, first words": ("1/16, 1/12 or 1/8 by relation", 1.0),
    "facts in chat": ("1/16, 1/12 or 1/8, all else right", 1.0),
    "final copies analysis": ("1/24 or 1/16", 1.0),
    "final follows edited analysis": ("1/24 or 1/16", 0.9),
    "low reasoning": ("1/3 or 1/2 among those named", None),
    "whole reply": ("1/3 or 1/2 among those named", None),
    "dialect north": ("1/3 among the particles", 0.99),
    "dialect south": ("1/3 among the particles", 0.99),
    "dialect east": ("1/3 among the particles", 0.99),
    "greater-than": ("0 at random", 0.67),
    "sums": ("1/31", None),
    "repeated words": ("1/82", None),
    "story": ("1/384", None),
}


def write_card(path: Path, scores: Scores, made: str) -> None:
    """Write the card. ``made``: a paragraph that says how the model was made."""
    parts = (_head(), made, _tasks(scores), _mechanisms(scores), _routing(scores), _specialist(scores), _losses(scores))
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def interval(hits: int, of: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    p = hits / of
    centre = (p + z * z / (2 * of)) / (1 + z * z / of)
    half = z / (1 + z * z / of) * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return centre - half, centre + half


def _row(*cells: object) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _table(titles: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    return "\n".join([_row(*titles), _row(*["---"] * len(titles)), *(_row(*row) for row in rows)])


def _against(measure: Measure, target: float | None) -> str:
    if target is None:
        return "–"
    # The card shows three digits, so a figure is compared as it is shown.
    return f"{target:g} ({'met' if round(measure.mean, 3) >= target else 'not met'})"


def _head() -> str:
    return f"""# nano: scorecard

This page is written by `python -m workbench.training`; no number on it is typed in, but the targets and what chance
gives. nano has gpt-oss' architecture in all its parts and reads and writes the microworld, a language of grammars that
`workbench/training/microworld` makes. The weights were rounded to bfloat16 before they were measured, as they are
stored. Every figure is the mean over {len(SEEDS)} seeds of evaluation data ± the standard deviation between them.
Questions are held out: their name pairs, phrases, argument pairs, sums and so on never occur in training (facts are the
same facts in other phrases)."""


def _tasks(scores: Scores) -> str:
    rows = [(task, m, TASKS[task][0], _against(m, TASKS[task][1])) for task, m in scores.tasks.items()]
    rows.insert(0, ("induction", scores.induction, "1/1015", _against(scores.induction, 0.996)))
    table = _table(("task", "nano", "chance", "target"), rows)
    return f"""## Tasks

Teacher-forced: an answer counts when every token of it is the most likely one of all {D_VOCAB:,} (brackets: among the
three closing ones, since an opening bracket may always follow; greater-than: P(later year) − P(same or earlier), over
the two-digit tokens). Induction: {REPEAT} random tokens told twice, next token in the second telling. Passkey far: at
least 79 tokens back, where the sliding layers together reach 60; near: 4 tokens back, after much other text.
{COUNT} questions a task and seed.

{table}"""


def _mechanisms(scores: Scores) -> str:
    titles = {
        "previous": ("previous-token head", 0.99),
        "induction": ("induction head", 0.89),
        "previous_renormalised": ("renormalised: previous-token head", None),
        "induction_renormalised": ("renormalised: induction head", None),
    }
    heads = [(title, *scores.heads[name], target) for name, (title, target) in titles.items()]
    near, far = scores.windowed["near"], scores.windowed["far"]
    hits, of = scores.windowed_hits
    low, high = interval(hits, of)
    inside = "contains" if low <= 1 / len(KEYS) <= high else "does not contain"
    rows = [
        *((f"{title} ({head})", measure, _against(measure, target)) for title, head, measure, target in heads),
        ("passkey near, all layers sliding", near, _against(near, 0.9)),
        ("passkey far, all layers sliding", far, f"chance, 1/{len(KEYS)} = {1 / len(KEYS):.3f}"),
    ]
    return f"""## Mechanisms

Head scores: mean attention, in the second telling of random tokens, to the token before, and to the token after the
first telling of this one; raw (what goes to the sink counts as lost), and with each row renormalised to 1 over the
keys. All layers sliding: the same weights, the full layers given the window too; far is then the argmax among the
{len(KEYS)} passkeys, so that chance is 1/{len(KEYS)}.

{_table(("what", "nano", "target"), rows)}

Far, all layers sliding: {hits} of {of} right, 95 % interval {low:.4f} to {high:.4f}: it {inside} chance."""


def _routing(scores: Scores) -> str:
    def per_layer(field: str) -> list[Measure]:
        stacked = torch.stack([getattr(found, field) for found in scores.loads])
        return [Measure(tuple(column.tolist())) for column in stacked.T]

    columns = zip(*(per_layer(field) for field in ("cv", "load_entropy", "token_entropy")), strict=True)
    table = _table(("layer", "load CV", "load entropy", "token entropy"), [(i, *row) for i, row in enumerate(columns)])
    return f"""## Routing

On fresh documents in the training mixture. Load CV: standard deviation / mean of the experts' shares of the routes.
Load entropy: of those shares. Token entropy: mean entropy of the softmax over all of a token's router logits. Both
entropies are divided by the logarithm of the number of experts. The pilot had routing entropy .6 to .9 and load CV .14
to .27.

{table}"""


def _specialist(scores: Scores) -> str:
    s = scores.specialist
    if s is None:
        return "No expert has a lift of 3 for any domain."
    names = tuple(scores.domain_losses)
    name = names[s.domain]

    def over_seeds(field: str) -> Measure:
        return Measure(tuple(float(getattr(found, field)) for found in scores.selectivity))

    rows = [
        (f"lift, P({name} given expert) / P({name})", over_seeds("lift"), _against(over_seeds("lift"), 3.0)),
        (f"ablated: loss of {name}", over_seeds("own"), "far more than each below"),
        ("ablated: mean over the other domains", over_seeds("others"), "–"),
        ("ablated: the most hurt other domain", over_seeds("worst_other"), "–"),
        (f"load-matched expert {s.control} ablated: loss of {name}", over_seeds("control"), "–"),
    ]
    return f"""### A specialist: layer {s.layer}, expert {s.expert}, for {name}

Picked on other data than it is measured on. The corpus has as many tokens of each of the {len(names)} domains.
Ablation: the expert's router logit becomes −∞, so that its tokens are routed anew; figures are the rise of the mean
next-token loss, in nats. The control is the expert of the same layer whose load is closest.

{_table(("what", "nano", "target"), rows)}"""


def _losses(scores: Scores) -> str:
    return f"""## Loss of each domain

Nats a token, over whole held-out questions with their answers (what is random in them, such as a new name or a random
token, cannot be predicted by anyone).

{_table(("domain", "nano"), list(scores.domain_losses.items()))}"""
