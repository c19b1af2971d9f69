"""Routing as lines of Python that show the same without a widget."""

from __future__ import annotations

from workbench.widgets.code import shown, variable
from workbench.widgets.session import Session
from workbench.widgets.state import EDITED
from workbench.widgets.views.routing_corpus import AROUND, MICROWORLD, Texts


def of(
    session: Session,
    at: tuple[int, int] | None,
    answers: tuple[int, int] | None,
    n: int,
    corpus: Texts | None,
    own: bool,
) -> str:
    """The lines.

    Args:
        at: the chosen layer and position, whose experts are listed, with the answers that they are weighed by.
        n: how many of those not chosen.
        corpus: the texts, where they were run.
        own: whether they were given, and are not the microworld's.
    """
    run = shown(session)
    lines = [
        f"routes = experiments.routing({run})",
        f"statistics = experiments.routing_statistics({run}, shuffles=0, progress=False)",
    ]
    if at is not None:
        asked = f"{run}, {at[0]}, {at[1]}, {answers}, n={n}{_sources(session)}"
        lines += [
            "from workbench.experiments.experts.unchosen import unchosen_experts",
            f"unchosen = unchosen_experts({asked})",
        ]
    if corpus is not None:
        lines.append(_corpus(corpus, own))
    return "\n".join([*lines, "figures.routing_ribbon(routes)"])


def _sources(session: Session) -> str:
    """What an edited run takes from others, as code.py names it."""
    state = session.state
    if state.shown != EDITED:
        return ""
    used = {source for spec in state.specs for source, _ in spec.reads(session.config)}
    runs = [f"{name!r}: {variable(name)}" for name in sorted(used - set(state.vectors))]
    runs += ["**vectors"] if used & set(state.vectors) else []
    return f", sources={{{', '.join(runs)}}}" if runs else ""


def _corpus(corpus: Texts, own: bool) -> str:
    texts, domains = corpus
    if not all(isinstance(text, str) for text in texts):
        return "# the corpus was given from Python: expert_contexts(model, texts, domains) runs it again"
    made = f"texts = {texts!r}\ndomains = {domains!r}" if own else MICROWORLD
    return (
        f"from workbench.experiments.experts.expert_contexts import expert_contexts\n{made}\n"
        f"contexts = expert_contexts(model, texts, domains, around={AROUND}, progress=False)"
    )
