"""A session as a file: JSON in, JSON out. Nothing in it is executed, and what does not fit is refused whole."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from workbench import __version__
from workbench.interventions import as_dict, from_dict
from workbench.model.fingerprint import fingerprint
from workbench.prompts.pair import token_ids
from workbench.widgets import recipes
from workbench.widgets.chats import prompt_as_dict, prompt_from_dict
from workbench.widgets.names import check_name
from workbench.widgets.selection import Selection
from workbench.widgets.session import Session
from workbench.widgets.state import LAYOUTS, STUDY, Chip, Prompt, State, study_of

FORMAT = 1
LARGEST = 50_000_000  # characters


def to_json(session: Session) -> str:
    """Everything but the numbers: prompts, interventions, what is on screen, and the history."""
    state, history = session.state, session.history
    made = {
        "workbench": __version__,
        "format": FORMAT,
        "model": {"name": session.config.name, "fingerprint": fingerprint(session.model)},
        "study": _study(study_of(state)),
        "screen": {
            "shown": state.shown,
            "selection": state.selection.chosen,
            "options": state.options,
            "open": state.open,
            "layout": state.layout,
        },
        "history": [{"id": e.id, "label": e.label, "study": _study(e.study)} for e in history.entries],
        "at": history.at,
        "dropped": history.dropped,
    }
    text = json.dumps(made, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")  # half a surrogate pair: JSON's own escape


def _study(study: tuple[Any, ...]) -> dict[str, Any]:
    given = dict(zip(STUDY, study, strict=True))
    return {
        "prompts": [{"name": prompt.name, **prompt_as_dict(prompt.input)} for prompt in given["prompts"]],
        "subject": given["subject"],
        "chips": [{"on": chip.on, "spec": as_dict(chip.spec)} for chip in given["chips"]],
        "answer": given["answer"],
        "vectors": given["vectors"],
    }


def parse(text: str | bytes) -> dict[str, Any]:
    """A workspace's JSON as plain data.

    Raises:
        ValueError: for text that is none.
    """
    if len(text) > LARGEST:
        raise ValueError(f"a workspace has at most {LARGEST} characters: this has {len(text)}")
    try:
        made = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"a workspace is JSON: {error}") from None
    if not isinstance(made, dict) or not {"format", "study", "screen"} <= set(made):
        raise ValueError("a workspace is an object with format, study and screen; this is none (bench.save makes one)")
    if made["format"] != FORMAT:
        raise ValueError(f"this workspace has format {made['format']!r}; this version reads format {FORMAT}")
    return made


def prompts_of(text: str | bytes) -> dict[str, Any]:
    """The prompts of a workspace, by name."""
    made = parse(text)
    return _shaped(lambda: {prompt["name"]: prompt_from_dict(prompt) for prompt in made["study"]["prompts"]})


def restore(session: Session, text: str | bytes) -> None:
    """Make a session what the file says.

    Raises:
        ValueError: for a file that is no workspace, or that does not fit the model; the session stays as it was then.
    """
    made = parse(text)
    steps = _shaped(lambda: _read_history(session, made))
    study = _shaped(lambda: _read_study(session, made["study"]))
    state = _shaped(lambda: _on_screen(session, study, made["screen"]))
    history, at, dropped = steps or ([], 0, 0)
    if not history or history[at][2] != study:
        history, at, dropped = [(1, "opened", study)], 0, 0
    session.restore(state, history, at, dropped)
    there = made.get("model", {})
    if isinstance(there, Mapping) and there.get("fingerprint") != fingerprint(session.model):
        session.warning = (
            f"this workspace was made with other weights ({str(there.get('name'))[:60]}); numbers may differ"
        )
        session.tell()


def _object(given: Any) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise TypeError(f"expected an object, got {given!r:.80}")
    return dict(given)


def _shaped(read: Any) -> Any:
    try:
        return read()
    except (KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"this workspace is not as bench.save writes it: {type(error).__name__} {error}") from None


def _read_study(session: Session, given: Mapping[str, Any]) -> tuple[Any, ...]:
    prompts = []
    for each in given["prompts"]:
        made = prompt_from_dict(each)
        prompts.append(Prompt(check_name(each["name"]), made, token_ids(made, session.tokenizer)))
    if not 1 <= len(prompts) <= 2 or len({prompt.name for prompt in prompts}) != len(prompts):
        raise ValueError(f"this workspace has {len(prompts)} prompts: expected one or two, of different names")
    chips = tuple(
        Chip(i + 1, from_dict(each["spec"], f"intervention {i}"), bool(each["on"]))
        for i, each in enumerate(given["chips"])
    )
    for name, recipe in given["vectors"].items():
        check_name(name, "vector")
        recipes.check(recipe, session.model)
    answer = None if given["answer"] is None else tuple(given["answer"])
    known = [type(token) is int and 0 <= token < session.config.d_vocab for token in answer or ()]
    if answer is not None and known != [True, True]:
        raise ValueError(f"this workspace's answer is {answer!r:.80}: expected two tokens of the vocabulary")
    state = State(tuple(prompts), str(given["subject"]), chips, answer, dict(given["vectors"]))
    session.check(state)
    return study_of(state)


def _read_history(session: Session, made: Mapping[str, Any]) -> tuple[list[Any], int, int] | None:
    """The steps as (id, label, study), where it stands, how many had fallen off; None where they do not fit."""
    given, at, dropped = made.get("history", []), made.get("at", -1), made.get("dropped", 0)
    steps = [(e.get("id", i + 1), str(e["label"]), _read_study(session, e["study"])) for i, e in enumerate(given)]
    ids = [id for id, *_ in steps]  # older files have none
    counts = all(type(number) is int and 0 <= number < 2**53 for number in (at, dropped, *ids))
    rising = counts and all(a < b for a, b in itertools.pairwise([0, *ids]))
    return (steps, at, dropped) if rising and at < len(steps) else None


def _on_screen(session: Session, study: tuple[Any, ...], screen: Mapping[str, Any]) -> State:
    state = State(**dict(zip(STUDY, study, strict=True)))
    names = [prompt.name for prompt in state.prompts] + (["edited"] if state.specs else [])
    selection = Selection().merged(_object(screen["selection"]))
    selection.check(session.config, len(state.prompt(state.subject).tokens))
    for view, values in screen["options"].items():
        if view in session.views:
            session.views[view].check_options(_object(values))
    return replace(
        state,
        shown=screen["shown"] if screen["shown"] in names else names[-1],
        selection=selection,
        options={view: dict(values) for view, values in screen["options"].items() if view in session.views},
        open=tuple(name for name in screen["open"] if name in session.views),
        layout=screen["layout"] if screen["layout"] in LAYOUTS else "tabs",
    )


def read(path: str | Path) -> str:
    """A workspace file's text.

    Raises:
        ValueError: for a file that is too large or not UTF-8.
    """
    path = Path(path)
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path} has {path.stat().st_size} bytes; a workspace has at most {LARGEST}")
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no workspace: {error}") from None
