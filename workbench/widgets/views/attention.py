"""Attention: every head as a thumbnail, one pattern in large, with its sink and its window; and hands on all of it."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.activations import Run
from workbench.widgets import static
from workbench.widgets.state import EDITED
from workbench.widgets.views import attention_jobs, attention_static, attention_twins
from workbench.widgets.views.attention_edits import edits_of, label_of, touched, with_action
from workbench.widgets.views.attention_patterns import KINDS, Patterns
from workbench.widgets.views.attention_reduce import (
    TINY,
    ZOOM,
    along,
    block_size,
    change_bytes,
    smaller,
    strongest,
)
from workbench.widgets.views.base import Payload, View, number_of

TOP = 8  # keys that are named of a row
CHOICES = {
    "show": ("layer", "all"),
    "values": ("pattern", "change"),
    "shade": ("linear", "root"),
    "direction": ("out", "in"),
    "freed": ("redistribute", "drop"),
}


class Attention(View):
    """Patterns of all heads, of one layer or of all, and one of them in large."""

    name, title = "attention", "Attention"
    choices: ClassVar[dict[str, Any]] = CHOICES
    defaults: ClassVar[dict[str, Any]] = {name: known[0] for name, known in CHOICES.items()} | {"layer": 0, "head": 0}

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.patterns = Patterns(session)
        self._drag: tuple[Any, int] | None = None  # the drag under way, and its entry in the history

    # ------------------------------------------------------------ asks

    def data(self, ask: dict[str, Any]) -> Payload:
        answers = {
            "text": self._text,
            "layer": self._layer,
            "all": self._all,
            "zoom": self._zoom,
            "line": self._line,
        }
        what = ask.get("what")
        if what not in answers:
            raise ValueError(f"Attention shows {', '.join(answers)}; it was asked for {what!r}")
        return answers[what](ask)

    def _text(self, ask: dict[str, Any]) -> Payload:
        return {"tokens": self.session.tokens(self.session.shown)}, {}

    def _layer(self, ask: dict[str, Any]) -> Payload:
        """Every head of a layer."""
        layer = number_of(ask, "layer", self.session.config.n_layers)
        run, before = self.runs(ask)
        found = self.patterns.summary(run, layer, before)
        config = self.session.config
        about = {
            "layer": layer,
            "kinds": KINDS,
            "limit": found.limit,
            "window": config.window(layer) or 0,
            "n_queries": run.tokens.shape[1],
            "touched": touched(self.session.state, layer, config.n_heads) if self._edits_shown(run) else {},
        }
        return about, {"thumbs": found.thumbs, "scores": found.scores}

    def _all(self, ask: dict[str, Any]) -> Payload:
        """Every head of every layer that is there without the model; the others after the action "fill"."""
        run, before = self.runs(ask)
        n_layers, n_heads = self.session.config.n_layers, self.session.config.n_heads
        known = [self.patterns.known(run, layer, before) for layer in range(n_layers)]
        found = [self.patterns.summary(run, layer, before) if known[layer] else None for layer in range(n_layers)]
        limit = max((each.limit or 0.0 for each in found if each), default=0.0) if before is not None else None
        tiny = [None if each is None else self._tiny(each, limit) for each in found]
        side = next((each.shape[-1] for each in tiny if each is not None), 1)
        none, unknown = np.zeros((n_heads, side, side), np.uint8), np.full((len(KINDS), n_heads), np.nan, np.float32)
        arrays = {
            "thumbs": np.stack([none if each is None else each for each in tiny]),
            "scores": np.stack([unknown if each is None else each.scores for each in found]),
            "known": np.array(known, np.uint8),
        }
        return {"kinds": KINDS, "limit": limit, "n_queries": run.tokens.shape[1]}, arrays

    def _zoom(self, ask: dict[str, Any]) -> Payload:
        """One head in at most ZOOM × ZOOM cells."""
        layer, head = self.asked(ask)
        run, before = self.runs(ask)
        n, config = run.tokens.shape[1], self.session.config
        pattern, sink = self.cells(run, before, layer, head)
        about = {
            "layer": layer,
            "head": head,
            "kv_head": head // config.n_query_groups,
            "n": n,
            "block": block_size(n, ZOOM),
            "window": config.window(layer) or 0,
            "change": before is not None,
            "edits": edits_of(self.session.state, layer, head) if self._edits_shown(run) else None,
        }
        return about, {"pattern": pattern, "sink": sink}

    def _line(self, ask: dict[str, Any]) -> Payload:
        """Where one token looks, or who looks at it, over the whole text; and the TOP of them."""
        layer, head = self.asked(ask)
        run, before = self.runs(ask)
        at = number_of(ask, "position", run.tokens.shape[1])
        out = ask.get("direction", "out") == "out"
        pattern, sink = self.whole(run, before, layer, head)
        values = np.nan_to_num(pattern[at] if out else pattern[:, at]).astype(np.float32)
        order = np.argsort(-np.abs(values), kind="stable")[:TOP]
        top = [{"position": int(i), "value": float(values[i])} for i in order if values[i] != 0]
        return {"position": at, "top": top, "sink": float(sink[at]) if out else None}, {"values": values}

    # ------------------------------------------------------------ actions

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        if action.get("kind") == "fill":
            return {"job": attention_jobs.fill(self, self.option("values")).id}
        if action.get("kind") == "pick":
            return {"job": attention_jobs.pick(self, action).id}
        self.asked(action)
        session, drag = self.session, action.get("drag")
        goes_on = self._drag[1] if drag is not None and self._drag is not None and self._drag[0] == drag else None
        subject = None if session.state.shown == EDITED else session.state.shown
        session.edit(lambda state: with_action(state, action), label_of(action), subject, instead_of=goes_on)
        self._drag = None if drag is None else (drag, session.history.now.id)
        return None

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        config = self.session.config
        for name, size in (("layer", config.n_layers), ("head", config.n_heads)):
            if name in values and (type(values[name]) is not int or not 0 <= values[name] < size):
                raise ValueError(f"Attention: {name}={values[name]!r}; there are 0 to {size - 1}")

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        layer, head = self.place
        run, before = self.runs({})
        if not self.patterns.cheap(run, layer, head, before):
            n = run.tokens.shape[1]
            words = f"of this text of {n} tokens no patterns were kept, and those of layer {layer} not asked for"
            return static.note(f"Attention: {words}; open the view, or read view.table()")
        found = self.patterns.summary(run, layer, before)
        pattern, sink = self.cells(run, before, layer, head)
        return attention_static.html(self, (layer, head), found, pattern, sink)

    def code(self) -> str:
        return attention_twins.code_of(self)

    def table(self) -> xr.Dataset:
        return attention_twins.table(self)

    def figure(self) -> go.Figure:
        return attention_twins.figure(self)

    # ------------------------------------------------------------ inside

    @property
    def place(self) -> tuple[int, int]:
        """The layer and head that are shown in large: those selected, else those last looked at."""
        chosen = self.session.state.selection
        layer = self.option("layer") if chosen.layer is None else chosen.layer
        return layer, self.option("head") if chosen.head is None else chosen.head

    def runs(self, ask: dict[str, Any]) -> tuple[Run, Run | None]:
        """The run that is shown, and the unedited one where its change is wanted and there is one."""
        session = self.session
        wanted = ask.get("change", self.option("values") == "change")
        change = wanted and session.state.shown == EDITED and session.state.specs
        return session.shown, session.base if change else None

    def _edits_shown(self, run: Run) -> bool:
        """Whether what is done by hand concerns the run that is shown."""
        return self.session.state.shown == EDITED

    def cells(self, run: Run, before: Run | None, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        block = block_size(run.tokens.shape[1], ZOOM)
        if before is not None:
            pattern, sink = self.whole(run, before, layer, head)
            return strongest(pattern, block), along(sink, block, signed=True)
        sink = self.patterns.head(run, layer, head)[1] if block == 1 else self.patterns.sink(run, layer)[:, head]
        return self.patterns.blocks(run, layer, head), along(sink, block)

    def whole(self, run: Run, before: Run | None, layer: int, head: int) -> tuple[np.ndarray, np.ndarray]:
        pattern, sink = self.patterns.head(run, layer, head)
        if before is None:
            return pattern, sink
        earlier, sink_earlier = self.patterns.head(before, layer, head)
        return pattern - earlier, sink - sink_earlier

    def _tiny(self, found: Any, limit: float | None) -> np.ndarray:
        """An overview's thumbnails, all on one scale."""
        if limit is None:
            return smaller(found.thumbs, TINY, signed=False)
        change = (smaller(found.thumbs, TINY, signed=True).astype(np.float32) - 128) / 127 * (found.limit or 0.0)
        return change_bytes(change, limit)

    def asked(self, ask: dict[str, Any]) -> tuple[int, int]:
        config = self.session.config
        return number_of(ask, "layer", config.n_layers), number_of(ask, "head", config.n_heads)
