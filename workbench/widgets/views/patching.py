"""Activation patching: which part of one prompt's run, put into the other's, brings its answer back?"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import figures
from workbench.activations import Run
from workbench.interventions import Patch
from workbench.widgets import static
from workbench.widgets.session import Session
from workbench.widgets.views import patching_cell
from workbench.widgets.views import patching_forms as forms
from workbench.widgets.views.base import Payload, View, number_of
from workbench.widgets.views.patching_study import METRICS, OVER, PARTS, STREAM, Study, aligned
from workbench.widgets.views.patching_sweep import Sweep, push, work
from workbench.widgets.views.work import Kept
from workbench.widgets.worker import Job

REMEMBERED = 12  # grids


class Patching(View):
    """A grid of patches from one prompt into the other, estimated first, then measured."""

    name, title = "patching", "Patching"
    defaults: ClassVar[dict[str, Any]] = {
        "source": None,
        "metric": METRICS[0],
        "part": PARTS[0],
        "over": OVER[0],
        "layer": None,
        "text": True,
    }
    choices: ClassVar[dict[str, Any]] = {"metric": METRICS, "part": PARTS, "over": OVER}

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._sweeps = Kept[Study, Sweep](REMEMBERED)
        self._continued = Kept[tuple[int, ...], list[int]](REMEMBERED)

    # ------------------------------------------------------------ asked and told

    def data(self, ask: dict[str, Any]) -> Payload:
        kind = ask.get("kind", "grid")
        if kind == "prompts":
            return self._prompts(ask)
        if why := self.missing(ask):
            return {"missing": why}, {}
        study = self.study(ask)
        sweep = self.sweep(study)
        if kind == "cell":
            found = patching_cell.effect(self.session, study, sweep, number_of(ask, "row"), number_of(ask, "column"))
            push(sweep, self.session, now=True)
            return found | {"sweep": sweep.id, "row": ask["row"], "column": ask["column"]}, {}
        about, arrays = sweep.payload()
        names = {"source": study.source, "target": study.target}
        words = {name: self.session.word(getattr(study, name)) for name in ("right", "wrong")}
        chosen = {name: getattr(study, name) for name in ("metric", "part", "over", "layer")}
        given = self.session.state.answer is not None
        more = {"dims": list(study.dims), "shape": list(study.shape), "answer": words, "answer_given": given}
        return about | names | chosen | more, arrays | {"able": sweep.able.astype(np.uint8)}

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind = action.get("kind")
        if kind == "drag":
            return self._drag(action)
        if kind not in ("run", "estimate", "add", "text"):
            return super().act(action)
        if why := self.missing(action):
            raise ValueError(WHY[why])
        study = self.study(action)
        if kind in ("run", "estimate"):
            return {"job": self.start(self.sweep(study), kind == "run").id}
        row, column = number_of(action, "row"), number_of(action, "column")
        if kind == "text":
            return {"job": self._text(study, row, column).id}
        label = f"patch {study.words(row, column)} from {study.source}"
        return {"id": self.session.add(study.spec(row, column), label, study.target)}

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        layer, n = values.get("layer"), self.session.config.n_layers
        if layer is not None and (type(layer) is not int or not 0 <= layer < n):
            raise ValueError(f"Patching: layer={layer!r}; there are 0 to {n - 1}")

    # ------------------------------------------------------------ what is studied

    def names(self, ask: dict[str, Any]) -> tuple[str, str] | None:
        """The source and the target; None where there is one prompt alone."""
        names = [prompt.name for prompt in self.session.state.prompts]
        if len(names) < 2:
            return None
        source = ask.get("source", self.option("source"))
        source = source if source in names else names[0]
        return source, next(name for name in names if name != source)

    def missing(self, ask: dict[str, Any]) -> str | None:
        """Why there is no grid: "one" prompt alone, the "same" tokens, another "length"; None where there is one."""
        names = self.names(ask)
        if names is None:
            return "one"
        source, target = (self.session.state.prompt(name).tokens for name in names)
        if len(source) != len(target):
            return "length"
        return "same" if source == target else None

    def study(self, ask: dict[str, Any] | None = None) -> Study:
        """What the options say, or an ask in their place."""
        ask = ask or {}
        names = self.names(ask)
        assert names is not None
        chosen = {name: ask.get(name, self.option(name)) for name in (*self.choices, "layer")}
        self.check_options(chosen)
        whole = chosen["part"] in STREAM or chosen["over"] == "together"
        over = "position" if chosen["part"] in STREAM else chosen["over"]
        layer = None if whole else (self.session.config.n_layers // 2 if chosen["layer"] is None else chosen["layer"])
        source, target = names
        given, taken = (self.session.state.prompt(name).tokens for name in names)
        answer, config = self.answer(source, target), self.session.config
        return Study(source, target, given, taken, chosen["metric"], *answer, chosen["part"], over, layer, config)

    def answer(self, source: str, target: str) -> tuple[int, int]:
        """The tokens that are weighed: those chosen; else what the source says next, and what the target does.

        (Not the two likeliest of the subject: a patch makes the target the subject, and must not change the question.)
        """
        if self.session.state.answer is not None:
            return self.session.state.answer
        likely = [self.session.run(name).logits[0, -1].topk(2).indices.tolist() for name in (source, target)]
        return likely[0][0], next(token for token in (*likely[1], likely[0][1]) if token != likely[0][0])

    def sweep(self, study: Study) -> Sweep:
        """The numbers of a grid, as far as they are known. They outlast edits: no chip has a part in them."""

        def make() -> Sweep:
            source, target = self.session.run(study.source), self.session.run(study.target)
            return Sweep(study, source, target, self._able(study, source, target))

        return self._sweeps.of(study, make)

    def _able(self, study: Study, source: Run, target: Run) -> np.ndarray:
        """Cells whose patch can do anything: where the texts differ or later, and of experts those that were chosen."""
        able = np.ones(study.shape, bool)
        if study.dims[1] == "pos":
            able[:, : study.first] = False
        if study.part == "expert":
            for i, layer in enumerate(study.layers):
                used = self._used(source, layer) | self._used(target, layer)
                used[:, : study.first] = False
                if study.over == "together":
                    able[i] = used.any(1)
                else:
                    able &= used
        return able

    def _used(self, run: Run, layer: int) -> np.ndarray:
        """(expert, position): whether the expert was chosen there."""
        chosen = self.session.site(run, f"blocks.{layer}.mlp.hook_expert_indices")
        used = np.zeros((self.session.config.n_experts, len(chosen)), bool)
        used[chosen, np.arange(len(chosen))[:, None]] = True
        return used

    # ------------------------------------------------------------ long work

    def start(self, sweep: Sweep, exact: bool = True) -> Job:
        """Put the work that is left of a grid into the line; a newer one takes its place."""
        what = f"patch {forms.subject(sweep.study)}" if exact else f"estimate {forms.subject(sweep.study)}"
        return self.session.submit(
            work(sweep, self.session, exact),
            what,
            view=self.name,
            total=sweep.left if exact else None,
            replaces="patching",
            resumable=lambda: self.start(sweep, exact),
        )

    def _text(self, study: Study, row: int, column: int) -> Job:
        """What follows the target, the patched target and the source, word by word, to the screen."""
        spec, session = study.spec(row, column), self.session
        texts: dict[str, list[str]] = {"target": [], "patched": [], "source": []}
        about = {"part": study.part, "row": row, "column": column, "texts": texts}

        def show(name: str, ids: list[int]) -> None:
            texts[name] = [session.word(token) for token in ids]
            session.stream(self.name, "text", about | {"texts": dict(texts)}, {})

        def run(job: Job) -> None:
            for name, tokens in (("target", study.target_tokens), ("source", study.source_tokens)):
                show(name, self._plain(tokens, job))
            ids: list[int] = []
            given = patching_cell.sources(session, study, spec)
            tokens = session.run(study.target).tokens
            for token in patching_cell.continued(session, tokens, job, [spec], given):
                ids.append(token)
                show("patched", ids)
            about["done"] = True
            show("patched", ids)

        return session.submit(
            run, f"text after patching {study.words(row, column)}", urgent=True, replaces="patching text"
        )

    def _plain(self, tokens: tuple[int, ...], job: Job) -> list[int]:
        """What follows a text without any patch; remembered."""

        def make() -> list[int]:
            given = self.session.row(next(p for p in self.session.state.prompts if p.tokens == tokens))
            return list(patching_cell.continued(self.session, given, job))

        return self._continued.of(tokens, make)

    def _drag(self, action: dict[str, Any]) -> dict[str, Any]:
        """Put what the source holds at one position into the target at another."""
        names = self.names(action)
        if names is None:
            raise ValueError(WHY["one"])
        (source, target), part = names, action.get("part")
        layer, start, end = (number_of(action, name) for name in ("layer", "source_position", "position"))
        head = number_of(action, "head") if action.get("head") is not None else None
        kinds = {name: f"hook_{name}" for name in STREAM} | {"head": "attn.hook_z"}
        if part not in kinds or (part == "head") != (head is not None):
            raise ValueError(
                f"part={part!r}, head={head!r}: what can be dragged is one of {', '.join(STREAM)}, or a head"
            )
        n = len(self.session.state.prompt(source).tokens)
        if not 0 <= start < n:
            raise ValueError(f"{source} has positions 0 to {n - 1}, and position {start} was taken from it")
        site = f"blocks.{layer}.{kinds[part]}"
        spec = Patch(site, source, (end,), None if start == end else (start,), head)
        what = part if head is None else f"head {head}"
        label = f"{what} of layer {layer}: position {start} of {source} into position {end} of {target}"
        return {"id": self.session.add(spec, label, target)}

    # ------------------------------------------------------------ the prompts

    def _prompts(self, ask: dict[str, Any]) -> Payload:
        names = self.names(ask)
        if names is None:
            return {"missing": "one"}, {}
        ids = [self.session.state.prompt(name).tokens for name in names]
        pairs = np.array(aligned(*ids), np.int32).reshape(-1, 2)
        differs = [a < 0 or b < 0 or ids[0][a] != ids[1][b] for a, b in pairs.tolist()]
        words = {
            side: [self.session.word(token) for token in tokens]
            for side, tokens in zip(("source_tokens", "target_tokens"), ids, strict=True)
        }
        about = {"source": names[0], "target": names[1], **words, "missing": self.missing(ask)}
        return about, {"pairs": pairs, "differs": np.array(differs, np.uint8)}

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        if why := self.missing({}):
            return static.note(WHY[why])
        return forms.page(self.session, self.sweep(self.study()))

    def code(self) -> str:
        why = self.missing({})
        return f"# {WHY[why]}" if why else forms.code(self.session, self.study())

    def table(self) -> xr.Dataset:
        if why := self.missing({}):
            return xr.Dataset(attrs={"experiment": "patching", "why": WHY[why]})
        return forms.table(self.session, self.sweep(self.study()))

    def figure(self) -> go.Figure:
        if why := self.missing({}):
            raise ValueError(WHY[why])
        return figures.patching_heatmap(self.table())


WHY = {
    "one": "patching puts parts of one prompt's run into another's, and there is one prompt: give a second one",
    "same": "the two prompts have the same tokens, so that no patch changes anything: change a word in one",
    "length": "a grid patches position by position, and the two prompts have unlike numbers of tokens: change a word",
}
