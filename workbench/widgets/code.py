"""A session as Python: a cell that shows what is on screen, without a widget."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.activations import affordable_sites
from workbench.interventions import code as specs_code
from workbench.widgets import chats, recipes
from workbench.widgets.names import variable
from workbench.widgets.session import Session
from workbench.widgets.state import EDITED

_MADE_BY_HAND = "# model: this one was not loaded from a checkpoint; make it here"


def of(session: Session, view: str | None = None) -> str:
    """The cell.

    Args:
        view: one view alone; None for all that are open.

    Raises:
        ValueError: for a view that is not there.
    """
    if view is not None and view not in session.views:
        raise ValueError(f"there is no view {view!r}; there are {', '.join(session.views)}")
    names = [view] if view is not None else [name for name in session.state.open if name in session.views]
    parts = [_runs(session), *(f"# {session.views[name].title}\n{session.views[name].code()}" for name in names)]
    body = "\n\n".join(part.rstrip() for part in parts if part.strip())
    return f"{_imports(body)}\n\n{body}\n"


def shown(session: Session) -> str:
    """The variable that holds the run that the views show."""
    return "run" if session.state.shown == EDITED else variable(session.state.shown)


def generated(session: Session) -> str:
    """The attribute of a generation that says what came: its text, or the tokens where nothing can read them."""
    return "text" if session.tokenizer is not None else "new_tokens"


def again(session: Session, variable: str, sites: Sequence[str]) -> str:
    """The run of a variable once more, for sites that it did not keep."""
    edits = [f"{variable}.interventions", *_given(session)] if variable == "run" else []
    return f"wb.run(model, {', '.join([f'{variable}.tokens', *edits, f'sites={list(sites)!r}'])})"


def _imports(body: str) -> str:
    wanted = [name for name in ("experiments", "figures") if f"{name}." in body]
    lines = ["import torch\n"] if "torch." in body else []
    lines.append("import workbench as wb")
    if "(Message(" in body or "=Message(" in body:  # one that none of Chat's own methods writes
        lines.append("from workbench.text.harmony.chat import Message")
    if wanted:
        lines.append(f"from workbench import {', '.join(wanted)}")
    return "\n".join(lines)


def _runs(session: Session) -> str:
    state = session.state
    lines = [f"model = {session.model.loaded_by}" if session.model.loaded_by else _MADE_BY_HAND]
    for prompt in state.prompts:
        sites = _sites(session, len(prompt.tokens))
        given = chats.prompt_code(prompt.input)
        lines.append(f"{variable(prompt.name)} = wb.run(model, {given}, name={prompt.name!r}{sites})")
    if state.specs:
        lines += _edited(session)
    return "\n".join(lines)


def _edited(session: Session) -> list[str]:
    state = session.state
    used = {source for spec in state.specs for source, _ in spec.reads(session.config)}
    lines = [f"vectors = {{{_vectors(session, used)}}}"] if used & set(state.vectors) else []
    subject = variable(state.subject)
    sites = _sites(session, len(state.prompt(state.subject).tokens)).removeprefix(", ")
    given = [
        f"{subject}.tokens",
        specs_code(state.specs),
        *_given(session),
        f"name={EDITED!r}",
        *([sites] if sites else []),
    ]
    return [*lines, f"run = wb.run(model, {', '.join(given)})"]


def _given(session: Session) -> list[str]:
    """``sources=``, where the interventions take anything from elsewhere; vectors are in ``vectors``."""
    state = session.state
    used = {source for spec in state.specs for source, _ in spec.reads(session.config)}
    runs = [f"{p.name!r}: {source_of(session, p.name)}" for p in state.prompts if p.name in used]
    vectors = bool(used & set(state.vectors))
    if not runs:
        return ["sources=vectors"] if vectors else []
    return [f"sources={{{', '.join(runs)}{', **vectors' if vectors else ''}}}"]


def _vectors(session: Session, used: set[str]) -> str:
    vectors = session.state.vectors
    return ", ".join(f"{name!r}: {recipes.code(vectors[name])}" for name in vectors if name in used)


def source_of(session: Session, name: str) -> str:
    """A prompt's run, made again where it did not keep what the specs read of it."""
    read = {site for spec in session.state.specs for source, site in spec.reads(session.config) if source == name}
    kept = set(session.model.sites.wanted(None))
    sites = sorted(site for site in read if site is not None)
    kept_all = kept.issuperset(sites)
    return variable(name) if kept_all else f"wb.run(model, {variable(name)}.tokens, sites={sites!r})"


def _sites(session: Session, n_pos: int) -> str:
    """What a long text keeps, where that is not everything that a run keeps by itself."""
    kept = affordable_sites(session.model, n_pos)
    return "" if kept == session.model.sites.wanted(None) else f", sites=wb.affordable_sites(model, {n_pos})"
