"""The atlas: over a whole corpus, where an expert fires, what it serves and writes, and what is lost without it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from workbench.atlases import AtlasError
from workbench.atlases.contexts import ORDERS, Context
from workbench.atlases.queries import Atlas
from workbench.atlases.reading import up_to
from workbench.figures.text import visible
from workbench.model.fingerprint import fingerprint
from workbench.widgets.session import Session
from workbench.widgets.views import atlas_forms
from workbench.widgets.views.atlas_effects import (
    Effects,
    Place,
    Study,
    blocked,
    numbers,
    place,
    same_shape,
    same_tokens,
)
from workbench.widgets.views.atlas_source import BY, HOW, NoAtlas, Source
from workbench.widgets.views.base import Formed, Payload, number_of
from workbench.widgets.worker import Cancelled, Job

BEFORE, AFTER = 12, 6  # tokens round each context in the list
AROUND = (60, 24)  # … and round the chosen one
MOST = 400  # contexts
LONGEST, LONGEST_NAME = 40, 80  # characters of a token, of a document's name
GROUPS = 80  # domains that are listed
NEIGHBOURS = 12
POLICIES = ("reroute", "zero")


class AtlasView(Formed):
    """One expert of a corpus: contexts, specialisation, neighbours, what it writes, what is lost without it."""

    name, title, forms = "atlas", "Atlas", atlas_forms
    defaults: ClassVar[dict[str, Any]] = {
        "folder": None,
        "opened": 0,
        "order": "weight",
        "once": True,
        "n": 20,
        "by": None,
        "context": None,
        "policy": "reroute",
    }
    choices: ClassVar[dict[str, Any]] = {"order": ORDERS, "by": (None, *BY), "policy": POLICIES}

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.source, self._effects = Source(), Effects(session)
        self._mine: str | None = None  # the model's fingerprint
        self._last: tuple[int, int] | None = None  # the expert that was chosen before something else was

    # ------------------------------------------------------------ in Python

    @property
    def atlas(self) -> Atlas | None:
        """The atlas that is shown; an Atlas, a folder or None may be assigned.

        Raises:
            AtlasError: there is none in the folder, or it cannot be read.
        """
        return None if self.option("folder") is None else self.source.of(self.option("folder"))

    @atlas.setter
    def atlas(self, given: Atlas | str | Path | None) -> None:
        self.show(given)

    def show(self, given: Atlas | str | Path | None) -> None:
        """Look at an atlas, or at the one in a folder."""
        if isinstance(given, str | Path):
            fresh = Source()
            given = fresh.of(str(given))  # before anything is changed: it may not be there
        elif given is not None and not isinstance(given, Atlas):
            raise AtlasError(f"atlas={given!r:.80}: expected an Atlas (wb.atlas.open(folder)), or its folder")
        self.source.use(given)
        self._last = None
        folder = None if given is None else str(given.folder)
        self.session.options(self.name, folder=folder, opened=self.option("opened") + 1, context=None, by=None)

    @property
    def expert(self) -> tuple[int, int]:
        """(layer, expert) that is shown: the selection's; else the last one; else the busiest of its layer."""
        return self._expert(self._there(), {})

    @expert.setter
    def expert(self, given: tuple[int, int]) -> None:
        layer, expert = given
        self._there().check(layer=layer, expert=expert)
        self._last = (layer, expert)
        if same_shape(self.session, self._there()):
            self.session.select(layer=layer, expert=expert)
        else:
            self.session.options(self.name, opened=self.option("opened") + 1)

    @property
    def contexts(self) -> list[Context]:
        """The contexts that are listed."""
        given = self._there()
        return self.source.contexts(given, self._top(self._expert(given, {})), BEFORE, AFTER)

    @property
    def context(self) -> Context | None:
        """The context that is chosen."""
        return self._chosen(self._there(), self.expert)

    @property
    def effects(self) -> xr.Dataset | None:
        """What taking the expert out did on the listed contexts, as far as they were run; None before the first.

        It is what ``experiments.expert_effects`` returns, with document and position beside each context.
        """
        given = self._there()
        return self._effects.dataset(self._study(given, self.expert), self.contexts)

    def measure(self) -> Job | None:
        """Run the listed contexts with and without the expert, those that are not run yet; None where all are."""
        given = self._there()
        if (why := blocked(self.session, given)) is not None:
            raise ValueError(f"these contexts cannot be run: {why}")
        return self._effects.measure(given, self._study(given, self.expert), self.contexts)

    @property
    def by(self) -> str | None:
        """By what the specialisation is: the option's, where the corpus says it; else the first that it says."""
        groups = self.source.groups(self._there())
        return self.option("by") if self.option("by") in groups else next(iter(groups), None)

    @property
    def model_fingerprint(self) -> str:
        """Of the Bench's model."""
        if self._mine is None:
            self._mine = fingerprint(self.session.model)  # reads the weights: once
        return self._mine

    def open_as_prompt(self, document: int, position: int) -> None:
        """Put the text of a listed context into the Bench, in the place of its prompt: as the model had read it there,
        from the start of its window, and on to the end of what is listed. The expert and its token are selected.

        Raises:
            ValueError: for a context that is not listed, or ids that the model does not have.
        """
        given = self._there()
        layer, expert = self._expert(given, {})
        found = next((each for each in self.contexts if place(each) == (document, position)), None)
        if found is None:
            raise ValueError(f"document {document}, position {position} is not among the listed contexts")
        (row,), _ = up_to(given, [found])
        ids = [*row, *found.ids[found.centre + 1 :]]
        session, mine = self.session, same_tokens(self.session, given)
        prompts: dict[str, Any] = {prompt.name: prompt.input for prompt in session.state.prompts}
        prompts[session.state.subject] = self._as_prompt(given, ids, mine)
        session.set_prompts(prompts, f"context of L{layer}E{expert}: document {document}, token {position}")
        if mine:
            part = {"layer": layer, "expert": expert} if same_shape(session, given) else {}
            session.select(position=len(row) - 1, **part)

    def _as_prompt(self, given: Atlas, ids: list[int], mine: bool) -> Any:
        """Text where it says the same tokens, for text can be edited; else the ids."""
        read = self.session.tokenizer if mine else given.tokenizer
        if read is None:
            return tuple(ids)
        text = read.decode(ids)
        return text if not mine or read.encode(text) == ids else tuple(ids)

    # ------------------------------------------------------------ what is chosen

    def _there(self) -> Atlas:
        return self.source.of(self.option("folder"))

    def _expert(self, given: Atlas, ask: dict[str, Any]) -> tuple[int, int]:
        chosen = self.session.state.selection
        layer, expert = (ask[name] if name in ask else getattr(chosen, name) for name in ("layer", "expert"))
        fits = "layer" in ask or same_shape(self.session, given)
        if fits and _within(layer, len(given.layers)) and _within(expert, given.n_experts):
            self._last = (layer, expert)
        if self._last is None:
            layer = layer if _within(layer, len(given.layers)) else 0
            return layer, self.source.busiest(given, layer)
        return self._last

    def _top(self, at: tuple[int, int]) -> tuple[Any, ...]:
        return (*at, self.option("n"), self.option("order"), self.option("once"))

    def _chosen(self, given: Atlas, at: tuple[int, int]) -> Context | None:
        where = self.option("context")
        return None if where is None else self.source.context(given, self._top(at), (where[0], where[1]), *AROUND)

    def _study(self, given: Atlas, at: tuple[int, int]) -> Study:
        policy = self.option("policy") if given.n_experts > given.n_slots else "zero"
        return Study(self.source.serial, *at, self.source.control(given, *at), policy)

    # ------------------------------------------------------------ what the browser asks

    def data(self, ask: dict[str, Any]) -> Payload:
        what = ask.get("what", "about")
        kinds = {"about": self._about, "contexts": self._contexts, "spread": self._spread, "effects": self._said}
        if what not in kinds:
            raise ValueError(f"the atlas cannot say {what!r}; it can say {', '.join(kinds)}")
        try:
            given = self._there()
            return kinds[what](given, ask)
        except NoAtlas as error:
            if what != "about":  # closed while the screen still asked about it
                raise Cancelled(str(error)) from error
            return {"state": "none", "how": HOW}, {}
        except AtlasError as error:
            if what != "about":
                raise ValueError(_short(error)) from error
            return {"state": "failed", "why": _short(error), "folder": visible(self.option("folder") or "", 200)}, {}

    def _about(self, given: Atlas, ask: dict[str, Any]) -> Payload:
        said, session = given.about, self.session
        about = {
            "state": "open" if given.n_tokens else "empty",
            "folder": visible(str(given.folder), 200),
            "name": visible(given.folder.resolve().name or "/", LONGEST_NAME),
            "model": visible(str(said["model"]), LONGEST_NAME),
            "fingerprint": str(said["identity"]["model"]),
            "same_model": said["identity"]["model"] == self.model_fingerprint,
            "same_shape": same_shape(session, given),
            "blocked": blocked(session, given),
            "n_tokens": given.n_tokens,
            "n_documents": given.n_documents,
            "complete": given.complete,
            "interventions": [visible(str(spec), 200) for spec in said.get("interventions") or []][:20],
            "n_experts": given.n_experts,
            "even": given.n_slots / given.n_experts,
        }
        if about["state"] == "empty":
            return about, {}
        load = self.source.load(given)
        return about | {"groups": self.source.groups(given)}, {
            "load": load["load"].values.astype(np.float32),
            "count": load["count"].values.astype(np.int32),
            "mean_weight": load["mean_weight"].values.astype(np.float32),
        }

    def _contexts(self, given: Atlas, ask: dict[str, Any]) -> Payload:
        at = self._expert(given, ask)
        found = self.source.contexts(given, self._top(at), BEFORE, AFTER)
        weights = np.full((len(found), BEFORE + 1 + AFTER), np.nan, np.float32)
        for row, each in zip(weights, found, strict=True):
            first = BEFORE - each.centre
            row[first : first + len(each.weights)] = each.weights
        chosen = self._chosen(given, at)
        about = {"layer": at[0], "expert": at[1], "before": BEFORE, "rows": [self._row(each) for each in found],
                 "most": MOST, "chosen": None, "start": None}  # fmt: skip
        if chosen is None:
            return about, {"weights": weights}
        about["chosen"] = self._row(chosen)
        return about, {"weights": weights, "chosen": np.array(chosen.weights, np.float32)}

    def _row(self, each: Context) -> dict[str, Any]:
        words = {name: getattr(each, name) for name in ("domain", "language", "role", "channel")}
        return {
            "document": each.document,
            "id": visible(str(each.id), LONGEST_NAME),
            "position": each.position,
            "centre": each.centre,
            "slot": each.slot,
            "seen": each.seen,
            "tokens": [visible(token, LONGEST) for token in each.tokens],
            **{name: None if word is None else visible(str(word), LONGEST_NAME) for name, word in words.items()},
        }

    def _spread(self, given: Atlas, ask: dict[str, Any]) -> Payload:
        """What it serves, and with whom."""
        at, by = self._expert(given, ask), self.by
        layer, expert = at
        about: dict[str, Any] = {"layer": layer, "expert": expert, "by": by, "groups": [], "more": 0}
        if by is not None:
            rows = atlas_forms.groups(self.source.specialisation(given, by), layer, expert)
            about |= {"groups": rows[:GROUPS], "more": max(0, len(rows) - GROUPS)}
        together = self.source.together(given, layer)
        about["neighbours"] = atlas_forms.neighbours(together, expert, NEIGHBOURS)
        return about, {}

    def _said(self, given: Atlas, ask: dict[str, Any]) -> Payload:
        """What taking it out did on the listed contexts."""
        at = self._expert(given, ask)
        study = self._study(given, at)
        about: dict[str, Any] = {"layer": at[0], "expert": at[1], "control": study.control, "policy": study.policy,
                                 "known": 0, "means": None, "raised": [], "lowered": [], "served": 0}  # fmt: skip
        if blocked(self.session, given) is not None:
            return about, {}
        shown = self.source.contexts(given, self._top(at), BEFORE, AFTER)
        data = self._effects.dataset(study, shown)
        if data is None:
            return about, {}
        about |= {"known": data.sizes["context"], "means": numbers(data), "written": int((data.weight[0] > 0).sum())}
        if study.control is not None:
            about["served"] = int((data.weight.sel(ablated="control") > 0).sum())
        for end in ("raised", "lowered"):
            ids, values = data[f"{end}_id"].values, data[end].values
            about[end] = [
                {"token": self.session.word(int(i)), "value": float(v)} for i, v in zip(ids, values, strict=True)
            ]
        return about, _by_row(shown, data)

    # ------------------------------------------------------------ what a click does

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind = action.get("kind")
        if kind == "measure":
            job = self.measure()
            return {"job": None if job is None else job.id}
        if kind == "prompt":
            self.open_as_prompt(number_of(action, "document"), number_of(action, "position"))
            return None
        if kind == "open":
            folder = str(action.get("folder") or "").strip()
            if not folder:
                raise ValueError("give the folder of an atlas")
            self.show(folder)
            return None
        if kind == "again":
            self.source.again()
            self.session.options(self.name, opened=self.option("opened") + 1)
            return None
        return super().act(action)

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        if "n" in values and (type(values["n"]) is not int or not 1 <= values["n"] <= MOST):
            raise ValueError(f"Atlas: n={values['n']!r}; expected 1 to {MOST} contexts")
        folder = values.get("folder")
        if folder is not None and (not isinstance(folder, str) or not 0 < len(folder) <= 4096 or "\0" in folder):
            raise ValueError(f"Atlas: folder={folder!r:.80}; expected the folder of an atlas")
        where = values.get("context")
        if where is not None and not _is_place(where):
            raise ValueError(f"Atlas: context={where!r:.80}; expected [document, position]")


def _by_row(shown: list[Context], data: xr.Dataset) -> dict[str, np.ndarray]:
    """Numbers of the measured contexts at the places of the listed ones: [ablated context], NaN where not run."""
    places = zip(data.document.values.tolist(), data.position.values.tolist(), strict=True)
    number: dict[Place, int] = {at: i for i, at in enumerate(places)}
    made = {}
    for name in ("loss_change", "kl"):
        values = np.full((2, len(shown)), np.nan, np.float32)
        for i, each in enumerate(shown):
            if place(each) in number:
                values[: data.sizes["ablated"], i] = data[name].values[:, number[place(each)]]
        made[name] = values
    return made


def _short(error: Exception) -> str:
    """What a database says, without the list of tables after it."""
    return str(error).split("\n\nThe tables of an atlas")[0]


def _within(value: Any, size: int) -> bool:
    return type(value) is int and 0 <= value < size


def _is_place(given: Sequence[Any]) -> bool:
    return (
        isinstance(given, list | tuple) and len(given) == 2 and all(type(each) is int and each >= 0 for each in given)
    )
