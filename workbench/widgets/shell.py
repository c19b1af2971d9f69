"""What the shell of a Bench can be told to do, by its name: the actions that belong to no view."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from workbench.interventions import from_dict
from workbench.prompts.pair import Prompt as Input
from workbench.widgets import chats, code, export, workspace
from workbench.widgets.answer import single_token
from workbench.widgets.session import Session

Done = dict[str, Any] | None
Action = Mapping[str, Any]


def act(session: Session, action: Action) -> Done:
    """Carry out one action of the shell.

    Raises:
        ValueError: for one that is not there, or whose fields are not what it needs.
    """
    kind = action.get("kind")
    if not isinstance(kind, str) or kind not in ACTIONS:
        raise ValueError(f"there is no action {kind!r}; there are {', '.join(ACTIONS)}")
    try:
        return ACTIONS[kind](session, action)
    except KeyError as error:
        raise ValueError(f"the action {kind!r} needs {error}") from None
    except (TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise ValueError(f"the action {kind!r} has a field that is not what it needs: {error}") from error


def _select(session: Session, action: Action) -> Done:
    session.select(**{name: value for name, value in action.items() if name != "kind"})


def _prompt(session: Session, action: Action) -> Done:
    names = [prompt.name for prompt in session.state.prompts]
    name = session.state.prompt(action.get("name") or names[0]).name
    prompts: dict[str, Input] = {prompt.name: prompt.input for prompt in session.state.prompts}
    prompts[name] = chats.prompt_from_dict(action)
    session.set_prompts(prompts, f"another text for {name}" if len(names) > 1 else "another prompt")


def _pair(session: Session, action: Action) -> Done:
    """Two prompts to compare, or one again."""
    prompts = {str(each["name"]): chats.prompt_from_dict(each) for each in action["prompts"]}
    if not 1 <= len(prompts) <= 2:
        raise ValueError(f"{len(prompts)} prompts: expected one or two, of different names")
    session.set_prompts(prompts, "two prompts" if len(prompts) == 2 else "one prompt")


def _answer(session: Session, action: Action) -> Done:
    words = action.get("right"), action.get("wrong")
    answer = None if words == (None, None) else tuple(single_token(session.model, word) for word in words)
    session.edit(lambda state: replace(state, answer=answer), "answer tokens")


def _subject(session: Session, action: Action) -> Done:
    name = session.state.prompt(action["name"]).name
    session.edit(lambda state: state, f"edit {name}", subject=name)


def _add(session: Session, action: Action) -> Done:
    label = action.get("label")
    if not isinstance(label, str | None):
        raise ValueError(f"label: expected words, got {label!r:.80}")
    return {"id": session.add(from_dict(action["spec"]), label, action.get("subject"))}


def _clear(session: Session, action: Action) -> Done:
    session.edit((), "remove all interventions")


def _cancel(session: Session, action: Action) -> Done:
    session.job(action["job"]).cancel()


def _resume(session: Session, action: Action) -> Done:
    return {"job": session.job(action["job"]).resume().id}


def _look(session: Session, action: Action) -> Done:
    session.look(action.get("run"), action.get("views"), action.get("layout"))


def _option(session: Session, action: Action) -> Done:
    session.options(action["view"], **action["values"])


def _code(session: Session, action: Action) -> Done:
    return {"code": code.of(session, action.get("view"))}


def _export(session: Session, action: Action) -> Done:
    made = export.export(session, action["format"], action.get("view"))
    return {"name": made.name, "mime": made.mime, "base64": base64.b64encode(made.content).decode()}


def _save(session: Session, action: Action) -> Done:
    return {"name": "workspace.json", "text": workspace.to_json(session)}


def _load(session: Session, action: Action) -> Done:
    workspace.restore(session, action["text"])


ACTIONS: dict[str, Callable[[Session, Action], Done]] = {
    "select": _select,
    "prompt": _prompt,
    "pair": _pair,
    "answer": _answer,
    "subject": _subject,
    "show": _look,
    "open": _look,
    "layout": _look,
    "add": _add,
    "chip_toggle": lambda session, action: session.toggle(action["id"]),
    "chip_remove": lambda session, action: session.remove(action["id"]),
    "chips_clear": _clear,
    "undo": lambda session, action: session.travel(lambda history: history.step(-1)),
    "redo": lambda session, action: session.travel(lambda history: history.step(1)),
    "again": lambda session, action: session.again(),
    "goto": lambda session, action: session.travel(lambda history: history.goto(action["id"])),
    "cancel": _cancel,
    "resume": _resume,
    "option": _option,
    "code": _code,
    "export": _export,
    "save": _save,
    "load": _load,
}
