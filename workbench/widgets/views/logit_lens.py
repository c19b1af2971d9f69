"""The logit lens: at each token, what each layer would say next; of one run, or what differs between two."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import figures
from workbench.activations import Run
from workbench.figures.style import role_name
from workbench.figures.text import visible
from workbench.widgets.answer import single_token
from workbench.widgets.code import shown, variable
from workbench.widgets.state import EDITED
from workbench.widgets.views import logit_lens_static as still
from workbench.widgets.views.base import Payload, View
from workbench.widgets.views.logit_lens_cell import about_cell
from workbench.widgets.views.logit_lens_grid import AT_ONCE, Grid, key_of
from workbench.widgets.views.logit_lens_shades import MEASURES, SHADES, described, shade_values
from workbench.widgets.views.tokens import bands
from workbench.widgets.worker import Job

PINNED = 8  # lines of the chart
IN_CELL = 24  # characters that a cell could ever show
REMEMBERED = 4  # grids


class LogitLens(View):
    """Tokens by layers, each cell with the likeliest next token."""

    name, title = "logit_lens", "Logit lens"
    defaults: ClassVar[dict[str, Any]] = {
        "shade": "probability",
        "target": None,  # a token's id; None: the final prediction at each position
        "compare": "",  # another run's name
        "pinned": [],  # positions with a line in the chart
        "measure": "target",  # what the chart shows
        "rows": "words",  # or "overview"
        "columns": "fit",  # or "all"
    }
    choices: ClassVar[dict[str, Any]] = {
        "shade": SHADES,
        "measure": MEASURES,
        "rows": ("words", "overview"),
        "columns": ("fit", "all"),
    }

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._grids: OrderedDict[Any, Grid] = OrderedDict()
        self._lock, self._reading = threading.RLock(), None

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        target, size = values.get("target"), self.session.config.d_vocab
        if target is not None and (type(target) is not int or not 0 <= target < size):
            raise ValueError(f"Logit lens: target={target!r}; expected a token id below {size}, or None")
        if any(type(position) is not int for position in values.get("pinned", ())):
            raise ValueError(f"Logit lens: pinned={values['pinned']!r}; expected positions")

    # ------------------------------------------------------------ what the browser asks

    def data(self, ask: dict[str, Any]) -> Payload:
        parts = {"grid": self._grid_part, "cell": self._cell_part, "lines": self._lines_part}
        return parts[ask.get("part", "grid")](ask)

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        if action.get("kind") != "follow":
            return super().act(action)
        token = action.get("token")
        target = None if token in (None, "") else single_token(self.session.model, token)
        self.session.options(self.name, target=target)
        return {"target": target}

    def _grid_part(self, ask: dict[str, Any]) -> Payload:
        grid, run, other = self.grid(), self.session.shown, self.other
        shade = ask.get("shade") or self.option("shade")
        values = shade_values(grid, shade)
        words, at = self._words(grid.numbers["top_id"])
        arrays = {"word": at, "value": values, "probability": grid.numbers["top_probability"]}
        json = {
            "run": self.session.state.shown,
            "other": None if other is None else self.option("compare"),
            "tokens": self.session.tokens(run),
            "bands": self._bands(run),
            "stages": self._stages(),
            "words": words,
            "shade": described(shade, values, other is not None),
            "target": self._target(),
            "done": grid.done,
            "total": grid.total,
        }
        if other is None:
            arrays["hit"] = (grid.numbers["top_id"] == grid.targets.cpu().numpy()[:, None]).astype(np.uint8)
        else:
            json["other_words"], arrays["other_word"] = self._words(grid.numbers["other_id"])
            assert grid.partner is not None
            arrays["partner"] = grid.partner
        return json, arrays

    def _cell_part(self, ask: dict[str, Any]) -> Payload:
        """All about one cell: its likeliest tokens, and how the target stands."""
        return about_cell(self.session, self.grid(), self.session.shown, self.other, self.option("compare"), ask), {}

    def _lines_part(self, ask: dict[str, Any]) -> Payload:
        """The trajectory of some tokens over the layers."""
        grid, run = self.grid(), self.session.shown
        tokens = self.session.tokens(run)
        positions = [p for p in ask.get("positions", self._pinned()) if 0 <= p < len(tokens)][:PINNED]
        measure = ask.get("measure") or self.option("measure")
        values = shade_values(grid, measure)[positions]
        lines = [
            {"position": p, "token": tokens[p], "target": self.session.word(int(grid.targets[p]))} for p in positions
        ]
        about = {**described(measure, values, self.other is not None), "waiting": not grid.is_whole}
        return {"lines": lines, "measure": about, "stages": self._stages()}, {"values": values}

    # ------------------------------------------------------------ the grid

    @property
    def other(self) -> Run | None:
        """The run that the shown one is compared with."""
        name = self.option("compare")
        if not name or name == self.session.state.shown or name not in self.session.names:
            return None
        return self.session.run(name)

    def grid(self) -> Grid:
        """The numbers of what is shown: all of them where that is quick, else those that are there by now."""
        run, other, target = self.session.shown, self.other, self.option("target")
        with self._lock:
            grid = self._grids.get(key_of(run, other, target))
            if grid is None or not grid.is_of(run, other):
                grid = Grid(run, other, target)
                self._grids[grid.key] = grid
            self._grids.move_to_end(grid.key)
            while len(self._grids) > REMEMBERED:
                self._grids.popitem(last=False)
            slow = grid.cost > AT_ONCE
            if slow and not grid.is_whole:
                grid.prefer(self.session.state.selection.position)
                if grid.job is None:
                    self._begin(grid)
        if not slow:
            grid.fill()
        return grid

    def _begin(self, grid: Grid) -> Job:
        """Read a grid on the model's thread, bit by bit."""
        with self._lock:
            if self._reading is not None and self._reading is not grid:
                self._reading.job = None  # it goes on when it is looked at again
            self._reading = grid

            def told() -> None:
                self.session.stream(self.name, "grid", {"done": grid.done, "total": grid.total}, {})

            grid.job = self.session.submit(
                lambda job: grid.fill(job, told),
                "logit lens",
                view=self.name,
                total=grid.total,
                replaces=self.name,
                resumable=lambda: self._begin(grid),
            )
            return grid.job

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        grid, run = self.grid(), self.session.shown
        shade, compared = self.option("shade"), self.other is not None
        values = shade_values(grid, shade)
        words = np.array([*self._words(grid.numbers["top_id"])[0], ""], dtype=object)
        written = words[self._words(grid.numbers["top_id"])[1]]
        about = described(shade, values, compared)
        chosen = self.session.state.selection.position
        said = still.said(about, self._target(), self.option("compare") if compared else None, grid)
        return said + still.grids(self.session.tokens(run), self._stages(), values, about, written, chosen)

    def code(self) -> str:
        target, shade = self.option("target"), self.option("shade")
        followed = "" if target is None else f", target={target}"
        if self.other is None:
            made = f"experiments.logit_lens({shown(self.session)}{followed})"
            return f"figures.logit_lens_heatmap({made}, shade={shade!r})"
        name = self.option("compare")
        other = "run" if name == EDITED else variable(name)
        made = f"experiments.lens_difference({shown(self.session)}, {other}{followed})"
        return f"figures.lens_difference_heatmap({made}, shade={shade!r})"

    def table(self) -> xr.Dataset:
        return self.grid().dataset()

    def figure(self) -> go.Figure:
        grid = self.grid()
        if not grid.is_whole:
            raise ValueError(f"the lens is still being read, {grid.done} of {grid.total} parts; wait for its job")
        draw = figures.logit_lens_heatmap if grid.partner is None else figures.lens_difference_heatmap
        return draw(grid.dataset(), shade=self.option("shade"))

    # ------------------------------------------------------------ inside

    def _words(self, ids: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Each token of a grid once, and the index of each cell's; the index past the last for a cell without one."""
        known, at = np.unique(ids, return_inverse=True)
        at = at.reshape(ids.shape)
        if len(known) and known[0] < 0:
            known, at = known[1:], np.where(ids < 0, len(known) - 1, at - 1)
        tokenizer = self.session.tokenizer
        texts = [str(i) for i in known] if tokenizer is None else tokenizer.str_tokens(known.tolist())
        kind = np.uint16 if len(known) < 2**16 else np.int32
        return [visible(text, IN_CELL) for text in texts], at.astype(kind)

    def _bands(self, run: Run) -> list[dict[str, Any]]:
        if self.session.tokenizer is None:
            return []
        labels = self.session.memo(("labels", id(run)), lambda: run.labels[0])
        return [band for band in bands([role_name(each.role or "", each.channel) for each in labels]) if band["name"]]

    def _stages(self) -> list[str]:
        return ["embed", *(str(layer) for layer in range(self.session.config.n_layers))]

    def _target(self) -> dict[str, Any] | None:
        target = self.option("target")
        return None if target is None else {"id": target, "text": self.session.word(target)}

    def _pinned(self) -> list[int]:
        return list(self.option("pinned"))
