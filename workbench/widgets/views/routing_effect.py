"""What edits of routing do: against the unedited run, of the run that is shown and of one that is only tried."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from workbench.activations import Run, rerun
from workbench.experiments.experts.unchosen import unchosen_experts
from workbench.interventions import ForceExpert
from workbench.widgets.session import Session
from workbench.widgets.state import EDITED
from workbench.widgets.views.base import Payload
from workbench.widgets.worker import Job

MOST_FLIPPED = 12  # tokens that are listed
SMALL = 24_000  # routes: as many are sent while somebody drags


def route_sites(session: Session) -> list[str]:
    """The sites of every layer's routes."""
    layers = range(session.config.n_layers)
    return [f"blocks.{layer}.mlp.hook_expert_{kind}" for kind in ("indices", "weights") for layer in layers]


def effect_of(session: Session, base: Run, made: Run) -> Payload:
    """KL, flipped tokens and flipped routes of a run against the unedited one.

    Returns:
        In words: mean and last KL in nats, how many tokens and routes flipped, the flipped tokens with the largest KL,
        and the share of flipped routes in each layer. kl (pos) in nats, flipped (pos), route_flips (pos, layer).
    """
    assert made.kl is not None and made.flipped_routes is not None
    kl = made.kl[0].float().cpu().numpy()
    before, after = (run.logits[0].argmax(-1).cpu().numpy() for run in (base, made))
    flipped = before != after
    routes = made.flipped_routes[:, 0].cpu().numpy().T
    order = [int(at) for at in np.argsort(-kl, kind="stable") if flipped[at]][:MOST_FLIPPED]
    words = [
        {
            "position": at,
            "kl": float(kl[at]),
            "before": session.word(int(before[at])),
            "after": session.word(int(after[at])),
        }
        for at in order
    ]
    about = {
        "mean_kl": float(kl.mean()),
        "last_kl": float(kl[-1]),
        "n_flipped": int(flipped.sum()),
        "n_pos": len(kl),
        "n_routes": int(routes.sum()),
        "flipped": words,
        "flips_of_layer": routes.mean(0).tolist(),
    }
    return about, {"kl": kl, "flipped": flipped.astype(np.uint8), "route_flips": routes.astype(np.uint8)}


def effect_shown(session: Session, shown: Run) -> Payload | None:
    """:func:`effect_of` the run that is shown; None for an unedited one, or without one to compare with."""
    if session.state.shown != EDITED or shown.kl is None:
        return None
    base = session.base
    if base.tokens.shape != shown.tokens.shape:
        return None  # the text was changed a moment ago
    return session.memo(("routing effect", id(shown)), lambda: effect_of(session, base, shown))


def routes_of(session: Session, run: Run) -> dict[str, np.ndarray]:
    """chosen and weight (pos, layer, slot)."""
    made = []
    for kind, dtype in (("indices", _whole(session)), ("weights", np.float32)):
        sites = (f"blocks.{layer}.mlp.hook_expert_{kind}" for layer in range(session.config.n_layers))
        # Every run keeps its routes: without the labels of session.site this is quick enough for a slider.
        values = [run[site][0].detach().float().cpu().numpy() for site in sites]
        made.append(np.stack(values, 1).astype(dtype))
    return {"chosen": made[0], "weight": made[1]}


def _whole(session: Session) -> type[np.unsignedinteger]:
    return np.uint8 if session.config.n_experts <= 256 else np.uint16


def preview(session: Session, job: Job, specs: tuple[Any, ...], title: str) -> None:
    """Try interventions without putting them on, and stream what they would do."""
    job.stop_if_cancelled()
    base, revision = session.base, session.revision
    if specs:
        sources = session.sources
        made = rerun(base, specs, recording=session.recording(base), sources=sources, sites=route_sites(session))
        about, arrays = effect_of(session, base, made)
        if arrays["kl"].size * session.config.n_layers * session.config.experts_per_token <= SMALL:
            arrays |= routes_of(session, made)
    else:
        about, arrays = {"mean_kl": 0.0, "last_kl": 0.0, "n_flipped": 0, "n_routes": 0, "flipped": []}, {}
    job.stop_if_cancelled()
    session.stream("routing", "preview", about | {"title": title, "revision": revision}, arrays)


def alternatives(session: Session, run: Run, layer: int, position: int, n: int, measured: bool) -> xr.Dataset:
    """The experts of a token in the router's order; ``measured`` also forces each of those not chosen, in a run each.

    Returns:
        What ``unchosen_experts`` returns; measured, also total (rank), the change of the answer's logits at the
        position in the forced run, and kl (rank), KL(this ‖ forced) of the next token there, in nats.
    """
    answers = answers_at(session, run, position)
    # Only a run that kept neither the routes nor the stream is run again; then it begins at the recording.
    made = unchosen_experts(run, layer, position, answers, n=n, sources=session.sources if run.interventions else None)
    if not measured:
        return made
    total, kl = np.zeros(made.sizes["rank"]), np.zeros(made.sizes["rank"])
    for i, (expert, chosen) in enumerate(zip(made.expert.values.tolist(), made.chosen.values, strict=True)):
        if not chosen:
            total[i], kl[i] = _forced(session, run, layer, int(expert), position, answers)
    variables = {"total": ("rank", total, {"units": "logits"}), "kl": ("rank", kl, {"units": "nats"})}
    return made.assign(variables)


def answers_at(session: Session, run: Run, position: int) -> tuple[int, int]:
    """The two tokens that are weighed: the answer's at the end of the text, else the two likeliest there."""
    if position == run.tokens.shape[1] - 1:
        return session.metric()
    right, wrong = run.logits[0, position].topk(2).indices.tolist()
    return right, wrong


def _forced(
    session: Session, run: Run, layer: int, expert: int, position: int, answers: tuple[int, int]
) -> tuple[float, float]:
    spec = ForceExpert(layer, expert, (position,))
    sources = session.sources if run.interventions else None
    made = rerun(
        run, [spec], sites=["hook_embed"], sources=sources, unedited=session.base if run.interventions else None
    )
    right, wrong = answers
    before, after = (each.logits[0, position].float() for each in (run, made))
    change = (after[right] - after[wrong]) - (before[right] - before[wrong])
    expected, given = before.log_softmax(-1), after.log_softmax(-1)
    return float(change), float((expected.exp() * (expected - given)).sum().clamp(min=0))
