"""A session's state as the browser reads it."""

from __future__ import annotations

import dataclasses
from typing import Any

import psutil

from workbench.figures.text import visible
from workbench.interventions import Intervention
from workbench.text import Chat
from workbench.widgets.chats import as_list
from workbench.widgets.session import Session
from workbench.widgets.state import Prompt
from workbench.widgets.worker import Job

LONGEST_LABEL = 160


def state(session: Session) -> dict[str, Any]:
    """Everything that the shell shows, but for tokens and numbers, which views ask for."""
    now = session.state
    return {
        "revision": session.revision,
        "running": session.running,
        "error": session.error,
        "warning": session.warning,
        "model": _model(session),
        "prompts": [prompt(each) for each in now.prompts],
        "subject": now.subject,
        "shown": now.shown,
        "runs": session.names,
        "answer": None if now.answer is None else _answer(session, now.answer),
        "chips": [{"id": chip.id, "on": chip.on, **spec(chip.spec)} for chip in now.chips],
        "selection": now.selection.fields,
        "history": _history(session),
        "options": {name: {**view.defaults, **now.options.get(name, {})} for name, view in session.views.items()},
        "open": list(now.open),
        "layout": now.layout,
        "views": [{"name": name, "title": view.title} for name, view in session.views.items()],
    }


def _model(session: Session) -> dict[str, Any]:
    config = session.config
    sizes = ("n_layers", "n_heads", "n_key_value_heads", "n_experts", "experts_per_token", "d_model", "d_vocab")
    return {
        "name": visible(config.name, LONGEST_LABEL),
        **{name: getattr(config, name) for name in sizes},
        "sliding_window": config.sliding_window,
        "windows": [config.window(layer) or 0 for layer in range(config.n_layers)],
        "has_tokenizer": session.tokenizer is not None,
        "has_chat": session.tokenizer is not None and session.tokenizer.chat_template is not None,
    }


def prompt(given: Prompt) -> dict[str, Any]:
    """A prompt as the composer edits it."""
    about: dict[str, Any] = {"name": given.name, "length": len(given.tokens), "text": "", "messages": []}
    if isinstance(given.input, str):
        return about | {"kind": "text", "text": given.input}
    if isinstance(given.input, Chat):
        return about | {"kind": "chat", "messages": as_list(given.input)}
    return about | {"kind": "tokens", "text": " ".join(map(str, given.tokens))}


def _answer(session: Session, answer: tuple[int, int]) -> dict[str, Any]:
    right, wrong = ({"id": token, "text": session.word(token)} for token in answer)
    return {"right": right, "wrong": wrong}


def spec(given: Intervention) -> dict[str, Any]:
    """An intervention as its chip shows it: a short title, and all of it."""
    return {"kind": type(given).__name__, "title": _title(given), "detail": visible(repr(given), 2000)}


def _title(given: Intervention) -> str:
    fields = {part.name: getattr(given, part.name) for part in dataclasses.fields(given)}
    part = "".join(f"{letter}{fields[name]}" for name, letter in _LETTERS.items() if fields.get(name) is not None)
    rest = [str(fields[name]) for name in _SAID if fields.get(name) not in (None, "")]
    positions = fields.get("positions")
    at = "" if positions is None else " @" + (str(positions[0]) if len(positions) == 1 else f"{len(positions)} tokens")
    return visible(" ".join([type(given).__name__, part, *rest]).replace("  ", " ") + at, LONGEST_LABEL)


_LETTERS = {"layer": "L", "head": "H", "expert": "E"}
_SAID = ("other", "site", "component", "operation", "policy", "value", "factor", "amount", "scale", "vector", "source")


def _history(session: Session) -> dict[str, Any]:
    """Where we stand; the steps themselves the view asks for."""
    history = session.history
    return {
        "now": history.now.id,
        "ids": [entry.id for entry in history.entries],
        "changes": history.changes,
        "can_undo": history.can_undo,
        "can_redo": history.can_redo,
    }


def jobs(session: Session) -> dict[str, Any]:
    """What is under way, and how much memory the process has."""
    memory = {"used": psutil.Process().memory_info().rss, "total": psutil.virtual_memory().total}
    return {"jobs": [job(each) for each in session.jobs], "memory": memory}


def job(given: Job) -> dict[str, Any]:
    """A job as its bar shows it."""
    return {
        "id": given.id,
        "label": visible(given.label, LONGEST_LABEL),
        "view": given.view,
        "state": given.state,
        "done": given.done,
        "total": given.total,
        "rate": given.rate,
        "left": given.seconds_left,
        "error": None if given.error is None else visible(given.error, 2000),
        "resumable": given.resumable is not None and given.state in ("cancelled", "failed"),
    }
