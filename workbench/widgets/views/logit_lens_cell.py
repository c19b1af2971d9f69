"""All about one cell of the logit lens: what its popup says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from workbench.activations import Run
from workbench.experiments.lenses.logit_lens import EMBEDDING, lens_logits
from workbench.widgets.views.logit_lens_grid import Grid

if TYPE_CHECKING:
    from workbench.widgets.session import Session

TOP = 10  # tokens


def about_cell(
    session: Session, grid: Grid, run: Run, other: Run | None, name: str, ask: Mapping[str, Any]
) -> dict[str, Any]:
    """The likeliest tokens after a position at a stage, in both runs, and how the target stands.

    Args:
        name: of the other run.
        ask: position and stage, 0 the embedding.

    Raises:
        ValueError: for a cell that is not there.
    """
    position, stage = int(ask["position"]), int(ask["stage"])
    n = run.tokens.shape[1]
    if not 0 <= position < n or not 0 <= stage < grid.n_stages:
        raise ValueError(f"there is no cell ({position}, {stage}): {n} tokens, {grid.n_stages} columns")
    logprobs, target = _logprobs(run, position, stage), int(grid.targets[position])
    partner = -1 if other is None or grid.partner is None else int(grid.partner[position])
    theirs = None if other is None or partner < 0 else _logprobs(other, partner, stage)
    about = {
        "position": position,
        "stage": stage,
        "token": session.tokens(run)[position],
        "target": _standing(session, target, logprobs),
        "entropy": float(-(logprobs.exp() * logprobs).sum()),
        "kl": _kl(_logprobs(run, position, grid.n_stages - 1), logprobs),
        "top": _likeliest(session, logprobs, theirs),
        "other": None,
    }
    if other is None or theirs is None:
        return about
    return about | {
        "other": {
            "name": name,
            "position": partner,
            "token": session.tokens(other)[partner],
            "target": _standing(session, target, theirs),
            "kl": _kl(logprobs, theirs),
            "top": _likeliest(session, theirs, logprobs),
        }
    }


def _logprobs(run: Run, position: int, stage: int) -> Any:
    """A tensor [d_vocab] of what would come next after a position, read at a stage."""
    columns = run.tokens.new_tensor([position])
    return lens_logits(run, 0, columns, stage + EMBEDDING)[0].float().log_softmax(-1).cpu()


def _kl(p: Any, q: Any) -> float:
    return float((p.exp() * (p - q)).sum().clamp(min=0))


def _standing(session: Session, token: int, logprobs: Any) -> dict[str, Any]:
    here = logprobs[token]
    rank = int((logprobs > here).sum()) + 1
    return {"id": token, "text": session.word(token), "p": float(here.exp()), "rank": rank}


def _likeliest(session: Session, logprobs: Any, others: Any) -> list[dict[str, Any]]:
    top = logprobs.topk(min(TOP, len(logprobs)))
    pairs = zip(top.values.exp().tolist(), top.indices.tolist(), strict=True)
    there = [None if others is None else float(others[i].exp()) for i in top.indices.tolist()]
    return [{"id": i, "text": session.word(i), "p": p, "other": q} for (p, i), q in zip(pairs, there, strict=True)]
