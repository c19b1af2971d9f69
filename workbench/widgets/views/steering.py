"""Steering: a direction added to the stream, what it does to the next token, and what the model goes on to say."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import Any, ClassVar

from workbench.figures.text import visible
from workbench.interventions import Steer
from workbench.widgets.answer import single_token
from workbench.widgets.selection import Selection
from workbench.widgets.session import Session
from workbench.widgets.state import Chip, State
from workbench.widgets.views import steering_forms
from workbench.widgets.views.base import Formed, Payload
from workbench.widgets.views.effect_completion import Side
from workbench.widgets.views.steering_choice import DIRECTIONS, SITES, WHERE, Choice, Missing
from workbench.widgets.views.steering_files import LONGEST_NAME, from_file
from workbench.widgets.views.steering_runs import CONTROLS, NAME, Study, Texts, effect, generate, steered
from workbench.widgets.views.work import Progress
from workbench.widgets.worker import Cancelled, Job

LENGTHS = (8, 16, 24, 48, 96, 192)
REMEMBERED = 6  # texts
SELECTED = ("layer", "position", "head", "expert", "span")
NO_CHIP = "the Bench runs the text itself, which has no generated tokens: choose all or selected positions"


class Steering(Formed):
    """One direction, one place, one scale; beside it a random direction of the same length."""

    name, title, forms = "steering", "Steering", steering_forms
    defaults: ClassVar[dict[str, Any]] = {
        "direction": "token",
        "positive": "",
        "negative": "",
        "at": "last",
        "token": None,
        "of_layer": None,
        "of_index": None,
        "of_position": None,
        "vector": "",
        "layer": None,
        "part": "resid_post",
        "where": "all",
        "scale": None,
        "length": 24,
        "live": True,
    }
    choices: ClassVar[dict[str, Any]] = {
        "direction": DIRECTIONS,
        "part": SITES,
        "where": WHERE,
        "at": ("last", "mean"),
        "length": LENGTHS,
    }

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._lock, self._texts = threading.RLock(), list[Texts]()
        self._writing: tuple[Texts, Job] | None = None
        self._newest: Study | None = None  # whose controls the screen waits for

    # ------------------------------------------------------------ asked and told

    def data(self, ask: dict[str, Any]) -> Payload:
        what, choice = ask.get("what", "setup"), self.choice(ask)
        try:
            study = choice.study(ask.get("scale"))
            if what == "setup":
                return self._there(choice) | self._setup(choice, study), {}
            if what == "text":
                texts = self.known_texts(study, choice.options["length"])
                said = None if texts is None else texts.said(self.session)
                return {"texts": said, "study": study.name}, {}
            if what == "controls":
                self._newest = study
            found = self.controls(choice, study, asked=True) if what == "controls" else self.effect(choice, study)
            return found | {"study": study.name, "scale": study.scale}, {}
        except Missing as why:
            return {"missing": str(why)} | (self._there(choice) if what == "setup" else {}), {}

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind = action.get("kind")
        if kind == "generate":
            job = self.write(action)
            return {"job": None if job is None else job.id}
        if kind == "put":
            return self._put(action)
        if kind == "token":
            token = single_token(self.session.model, action.get("text"))
            self.session.options(self.name, direction="token", token=token)
            return {"token": token}
        if kind == "file":
            return self._open(action)
        return super().act(action)

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        config = self.session.config
        sizes = {"token": config.d_vocab, "layer": config.n_layers, "of_layer": config.n_layers, "of_position": 2**31}
        sizes["of_index"] = max(config.n_heads, config.n_experts)
        for name, size in sizes.items():
            value = values.get(name)
            if value is not None and (type(value) is not int or not 0 <= value < size):
                raise ValueError(f"Steering: {name}={value!r}; there are 0 to {size - 1}, or None")
        scale = values.get("scale")
        if scale is not None and (
            isinstance(scale, bool) or not isinstance(scale, int | float) or not abs(scale) < 1e9
        ):
            raise ValueError(f"Steering: scale={scale!r}; expected a number, or None")

    def choice(self, ask: dict[str, Any] | None = None) -> Choice:
        """What the controls say: the options and the selection, or those of an ask in their place."""
        given = ask or {}
        options = {name: self.option(name) for name in self.defaults} | dict(given.get("options", {}))
        self.check_options(options)
        selection = self.session.state.selection
        if "selection" in given:
            fields = {name: given["selection"].get(name) for name in SELECTED}
            fields["span"] = None if fields["span"] is None else tuple(fields["span"])
            selection = Selection(**fields)
            selection.check(self.session.config, len(self.session.state.prompt(self.session.state.subject).tokens))
        return Choice(self.session, options, selection)

    # ------------------------------------------------------------ what the screen reads

    def _there(self, choice: Choice) -> dict[str, Any]:
        """What can be chosen, whether or not there is a direction yet."""
        session, place = self.session, dict(zip(("layer", "index", "position"), choice.place(), strict=True))
        vectors = [{"name": name, "title": visible(name, LONGEST_NAME)} for name in session.state.vectors]
        return {
            "layer": choice.layer,
            "site": choice.site,
            "place": place | {"word": session.tokens(session.base)[place["position"]]},
            "token": {"id": choice.token, "text": session.word(choice.token)},
            "vectors": vectors,
            "chips": len(session.state.specs),
        }

    def _setup(self, choice: Choice, study: Study) -> dict[str, Any]:
        on, name = self.chip(study), choice.recipe()[0]
        about = {"norm": float(choice.vector(study).norm()), "stream": choice.stream(study), "scale": study.scale}
        return about | {
            "name": visible(name, LONGEST_NAME),
            "reach": choice.reach(study),
            "positions": None if study.positions is None else len(study.positions),
            "chip": None if on is None else {"id": on.id, "scale": getattr(on.spec, "scale", None)},
            "cannot_put": NO_CHIP if study.where == "generated" else None,
            "study": study.name,
        }

    def effect(self, choice: Choice, study: Study) -> dict[str, Any]:
        """What the vector does to the next token after the text."""
        vector = choice.vector(study)
        return self._measured(study, study.recipe, vector)

    def controls(self, choice: Choice, study: Study, asked: bool = False) -> dict[str, Any]:
        """What random directions of its length do: KL of each, and all about the first.

        Args:
            asked: by the screen, which no longer waits once it has asked about another study.
        """
        found = []
        for number in range(CONTROLS):
            if asked and self._newest != study:
                raise Cancelled("another scale is tried by now")
            vector = choice.random(study, number)
            found.append(self._measured(study, f"random {number} {float(vector.norm())}", vector))
        return {"control": found[0], "kl": [each["kl"] for each in found]}

    def _measured(self, study: Study, name: str, vector: Any) -> dict[str, Any]:
        session = self.session

        def measure() -> dict[str, Any]:
            base = session.base
            done = session.on_worker(lambda: steered(session, base, study, vector), f"steer by {study.scale:.3g}")
            return effect(session, base, done)

        return session.memo(self._key(study, name), measure)

    def _key(self, study: Study, name: str) -> tuple[Any, ...]:
        return "steered", replace(study, recipe=name), self.session.state.answer

    def ready(self, choice: Choice, study: Study) -> bool:
        """Whether effect and controls are there, or will be in a moment."""
        last = f"random {CONTROLS - 1} {float(choice.random(study, CONTROLS - 1).norm())}"
        keys = (self._key(study, study.recipe), self._key(study, last))
        return all(map(self.session.known, keys)) or self.session.quick(CONTROLS + 1)

    # ------------------------------------------------------------ texts

    def write(self, ask: dict[str, Any] | None = None) -> Job | None:
        """Generate the three texts, unless they are there or under way."""
        choice = self.choice(ask)
        study, length = choice.study((ask or {}).get("scale")), choice.options["length"]
        with self._lock:
            texts = self.known_texts(study, length) or self._begun(study, length)
            busy = self._writing is not None and self._writing[0] is texts and not self._writing[1].future.done()
            return None if busy or not texts.left else self._go(texts, choice)

    def known_texts(self, study: Study, length: int) -> Texts | None:
        """The texts of a study, as far as they are written."""
        with self._lock:
            found = next((texts for texts in self._texts if texts.study == study), None)
            if found is not None:
                found.length = length
            return found

    def _begun(self, study: Study, length: int) -> Texts:
        texts = Texts(study, length)
        for other in self._texts:
            if other.study.tokens == study.tokens and "default" in other.sides:
                texts.sides["default"] = other.sides["default"]
        self._texts = [*self._texts[-REMEMBERED + 1 :], texts]
        return texts

    def _go(self, texts: Texts, choice: Choice) -> Job:
        def said() -> Payload:
            return {"study": texts.study.name, "texts": texts.said(self.session)}, {}

        def work(job: Job) -> None:
            with Progress(self.session, self.name, "text", said) as show:
                generate(texts, lambda name: self._side(texts.study, choice, name), job, show)

        label = f"texts, steered by {texts.study.scale:.3g}"
        how = {"view": self.name, "total": texts.left, "replaces": "steered text"}
        job = self.session.submit(work, label, resumable=lambda: self._go(texts, choice), **how)
        self._writing = texts, job
        return job

    def _side(self, study: Study, choice: Choice, name: str) -> Side:
        # Hooks are on during each step alone, so that others may use the model between two steps.
        model, tokens = self.session.model, self.session.model.as_batch(list(study.tokens))[0]
        if name == "default":
            return Side(model.generate(tokens))
        vector = choice.vector(study) if name == "steered" else choice.random(study)
        spec = study.spec(LENGTHS[-1])
        return Side(model.generate(tokens, fwd_hooks=spec.as_hooks(model, {NAME: vector}, [spec])))

    # ------------------------------------------------------------ on the Bench

    def chip(self, study: Study) -> Chip | None:
        """The chip that adds this direction at this place, at whatever scale."""
        for chip in self.session.state.chips:
            spec = chip.spec
            if not isinstance(spec, Steer) or (spec.site, spec.positions) != (study.site, study.positions):
                continue
            if _same(self.session.state.vectors.get(spec.vector), study.recipe):
                return chip
        return None

    def _put(self, action: dict[str, Any]) -> dict[str, Any]:
        """The vector and a chip that adds it, as one step; a chip that is there already takes the new scale."""
        choice = self.choice(action)
        study = choice.study(action.get("scale"))
        if study.where == "generated":
            raise ValueError(NO_CHIP)
        there, state = self.chip(study), self.session.state
        name = getattr(there.spec, "vector", "") if there is not None else self._free(choice.recipe()[0], study.recipe)
        id = there.id if there is not None else 1 + max((chip.id for chip in state.chips), default=0)
        made = Chip(id, Steer(study.site, name, study.scale, study.positions))

        def change(now: State) -> State:
            kept = tuple(made if chip.id == id else chip for chip in now.chips)
            vectors = {**now.vectors, name: json.loads(study.recipe)}
            return replace(now, vectors=vectors, chips=kept if there is not None else (*now.chips, made))

        self.session.edit(change, f"steer by {study.scale:.3g} × {visible(name, LONGEST_NAME)}")
        return {"id": id, "name": name}

    def _open(self, action: dict[str, Any]) -> dict[str, Any]:
        """A vector out of a file, kept with the session as numbers."""
        given = action.get("name")
        if not isinstance(given, str) or not given:
            raise ValueError(f"name={given!r:.80}: expected the file's name")
        recipe = {"kind": "numbers", "values": from_file(given, action.get("base64", ""), self.session.config.d_model)}
        name = self._free(given.replace("\\", "/").rsplit("/", 1)[-1], json.dumps(recipe, sort_keys=True))
        self.session.set_vector(name, recipe)
        self.session.options(self.name, direction="vector", vector=name)
        return {"name": name}

    def _free(self, name: str, recipe: str) -> str:
        """A name for a vector that is its own, or that nothing has yet."""
        name = visible(name, LONGEST_NAME)
        state, number, free = self.session.state, 1, name
        prompts = {prompt.name for prompt in state.prompts}
        while free in prompts or (free in state.vectors and not _same(state.vectors[free], recipe)):
            number += 1
            free = f"{name} ({number})"
        return free


def _same(recipe: Any, text: str) -> bool:
    return recipe is not None and json.dumps(recipe, sort_keys=True) == text
