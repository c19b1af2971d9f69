"""One patch, carried out: what it does to the next token, and to the text that follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from workbench.activations import Run, rerun
from workbench.experiments.metrics import as_metric
from workbench.interventions import Context, Intervention, all_edits
from workbench.widgets.session import Session
from workbench.widgets.views.patching_study import Study
from workbench.widgets.views.patching_sweep import Sweep
from workbench.widgets.worker import Job

TOP = 5  # tokens of each run
SEEN = 0.001  # a probability below it is not shown, but of the answer's tokens
WORDS = 20  # tokens that are generated


def patched(session: Session, study: Study, spec: Intervention) -> Run:
    """The target's run with this patch alone. On the model's thread."""
    target = session.run(study.target)
    routes = f"blocks.{session.config.n_layers - 1}.mlp.hook_expert_indices"  # a run must keep something
    recording, there = session.recording(target), sources(session, study, spec)
    return rerun(target, [spec], recording=recording, sources=there, sites=[routes])


def sources(session: Session, study: Study, spec: Intervention) -> dict[str, Run]:
    """The source's run, with what the patch reads of it."""
    needed = {site for _, site in spec.reads(session.config) if site is not None}
    return {study.source: session.keeping(session.run(study.source), needed)}


def effect(session: Session, study: Study, sweep: Sweep, row: int, column: int) -> dict[str, Any]:
    """What a cell's patch does. It is put into the grid as well: it is what the grid's own cell would be."""
    spec = study.spec(row, column)
    done = session.on_worker(lambda: patched(session, study, spec), f"patch {study.words(row, column)}")
    source, target = session.run(study.source), session.run(study.target)
    measure, _ = as_metric(session.model, study.measure(source))
    metric = float(measure(done.logits[:, -1])[0])
    if sweep.span and sweep.able[row, column]:
        sweep.exact[row, column] = sweep.share(metric)
    assert done.kl is not None and done.flipped_routes is not None
    return {
        "words": study.words(row, column),
        "spec": repr(spec),
        "metric": metric,
        "share": sweep.share(metric) if sweep.span else None,
        "kl": float(done.kl[0, -1]),
        "flipped": int(done.flipped_routes.sum()),
        "routes": int(done.flipped_routes.numel()),
        "tokens": likeliest(session, study, {"target": target, "patched": done, "source": source}),
    }


def likeliest(session: Session, study: Study, runs: dict[str, Run]) -> list[dict[str, Any]]:
    """The answer's tokens and the likeliest ones of each run, with their probabilities in all of them."""
    shares = {name: probabilities(run) for name, run in runs.items()}
    largest = np.max(list(shares.values()), axis=0)
    ids = {study.right, study.wrong}
    for share in shares.values():
        ids |= {i for i in np.argsort(-share, kind="stable")[:TOP].tolist() if share[i] >= SEEN}
    chosen = sorted(ids, key=lambda i: -largest[i])
    return [
        {"id": i, "text": session.word(i), **{name: float(share[i]) for name, share in shares.items()}}
        for i in chosen[:10]
    ]


def probabilities(run: Run) -> np.ndarray:
    """Of the next token, after the whole text."""
    return run.logits[0, -1].detach().float().softmax(-1).cpu().numpy()


def continued(
    session: Session, tokens: Any, job: Job, specs: Sequence[Intervention] = (), given: dict[str, Run] | None = None
) -> Iterator[int]:
    """The tokens that follow a text, the likeliest each time, as they come. On the model's thread."""
    hooks = all_edits(specs, Context(session.model, given or {}))
    for step in session.model.generate(tokens, WORDS, fwd_hooks=hooks):
        job.stop_if_cancelled()
        yield step.token
