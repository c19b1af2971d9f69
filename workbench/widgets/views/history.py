"""What was done, step by step: go back to any step, and compare any two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.activations import Run, rerun, run
from workbench.figures.text import visible
from workbench.widgets import static
from workbench.widgets.code import variable
from workbench.widgets.describe import spec as described
from workbench.widgets.history import Entry
from workbench.widgets.state import State, with_study
from workbench.widgets.views.base import Payload, View

TOP = 8  # tokens of each side of a comparison
SHOWN = 50  # steps at once


class History(View):
    """The history of a session, and the difference between two of its steps."""

    name, title = "history", "History"
    defaults: ClassVar[dict[str, Any]] = {"compared": []}

    def data(self, ask: dict[str, Any]) -> Payload:
        """SHOWN steps, from number ``first`` on, else with the one where we stand among them; with ``compare``, two of
        their ids, how their predictions differ at ``position``."""
        history = self.session.history
        first, entries = self._window(ask.get("first"))
        about: dict[str, Any] = {
            "steps": [{"number": first + i, **self._step(entry)} for i, entry in enumerate(entries)],
            "at": history.number(history.now.id),
            "first": history.dropped + 1,
            "last": history.dropped + len(history.entries),
            "most": max((entry.kl or 0.0 for entry in history.entries), default=0.0),  # where the bars of all end
        }
        pair = self._known(ask.get("compare") or ())
        if len(pair) == 2:
            about["comparison"] = self._comparison(pair[0], pair[1], ask.get("position"))
        return about, {}

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        compared = values.get("compared", [])
        if len(compared) > 2 or not all(type(id) is int for id in compared):
            raise ValueError(f"History: compared={compared!r}; expected up to two steps' numbers")

    def static(self) -> str:
        headers = ("step", "what was done", "prompt", "interventions", "mean KL, nats", "flipped tokens")
        history, (first, entries) = self.session.history, self._window()
        rows = [
            (
                f"{first + i}{' ←' if entry.id == history.now.id else ''}",
                visible(entry.label, 120),
                self._state(entry).subject,
                len(self._state(entry).specs),
                "–" if entry.kl is None else f"{entry.kl:.4g}",
                "–" if entry.flipped is None else entry.flipped,
            )
            for i, entry in enumerate(entries)
        ]
        left_out = len(history.entries) - len(entries)
        said = [f"steps {first} to {first + len(entries) - 1}; {left_out} others are kept"] if left_out else []
        said += [self._fallen_off()] if history.dropped else []
        return static.table(headers, rows) + "".join(map(static.note, said))

    def code(self) -> str:
        """The steps in words, and the run of each as a line."""
        dropped = self.session.history.dropped
        lines = [f"# ({self._fallen_off()})"] if dropped else []
        for number, entry in enumerate(self.session.history.entries, dropped + 1):
            state = self._state(entry)
            lines.append(f"# {number}. {visible(entry.label, 100)}")
            if state.specs and set(map(repr, state.prompts)) == set(map(repr, self.session.state.prompts)):
                lines.append(f"#    on {variable(state.subject)}: {visible(repr(list(state.specs)), 300)}")
        return "\n".join(lines)

    def table(self) -> xr.Dataset:
        """Of each step: label, time, number of interventions, mean KL in nats, flipped tokens."""
        entries, dropped = self.session.history.entries, self.session.history.dropped
        columns = {
            "label": [entry.label for entry in entries],
            "time": [entry.time for entry in entries],
            "interventions": [len(self._state(entry).specs) for entry in entries],
            "kl": [np.nan if entry.kl is None else entry.kl for entry in entries],
            "flipped": [np.nan if entry.flipped is None else float(entry.flipped) for entry in entries],
        }
        return xr.Dataset(
            {name: ("step", np.asarray(values)) for name, values in columns.items()},
            {"step": np.arange(dropped + 1, dropped + len(entries) + 1)},
        )

    def figure(self) -> go.Figure:
        """The predictions of the two compared steps; of the first and the last, if none are."""
        before, after = self._compared()
        history = self.session.history
        runs = [self.run_of(history.entry(id), f"step {history.number(id)}") for id in (before, after)]
        return figures.next_token_bars(experiments.compare(*runs), pos=int(runs[0].tokens.shape[1]) - 1)

    # ------------------------------------------------------------ inside

    def _state(self, entry: Entry) -> State:
        return with_study(self.session.state, entry.study)

    def _window(self, first: int | None = None) -> tuple[int, Sequence[Entry]]:
        """SHOWN steps and the number of the first: from one on, or as many as fit up to where we stand and beyond."""
        history = self.session.history
        entries, at, dropped = history.entries, history.at, history.dropped
        start = at + 1 - SHOWN // 2 if first is None else first - dropped - 1
        start = max(0, min(start, len(entries) - SHOWN))
        return dropped + start + 1, entries[start : start + SHOWN]

    def _fallen_off(self) -> str:
        history = self.session.history
        gone = "step 1 has" if history.dropped == 1 else f"steps 1 to {history.dropped} have"
        return f"{gone} fallen off: the newest {history.most} are kept"

    def _known(self, ids: Sequence[int]) -> list[int]:
        """Those of some steps' ids that are still there."""
        there = {entry.id for entry in self.session.history.entries}
        return [id for id in ids if id in there]

    def _compared(self) -> tuple[int, int]:
        chosen, entries = self._known(self.option("compared")), self.session.history.entries
        if len(chosen) == 2:
            return chosen[0], chosen[1]
        if len(entries) < 2:
            raise ValueError("there is one step in the history: change something, and there are two to compare")
        return entries[0].id, entries[-1].id

    def _step(self, entry: Entry) -> dict[str, Any]:
        state = self._state(entry)
        return {
            "id": entry.id,
            "label": visible(entry.label, 160),
            "time": entry.time,
            "subject": visible(state.subject, 60),
            "n_edits": len(state.specs),
            "kl": entry.kl,
            "flipped": entry.flipped,
        }

    def run_of(self, entry: Entry, name: str) -> Run:
        """A step's run, made again: of the specs that were on then."""
        state = self._state(entry)
        # By the entry, not by its number: another step may have that by now.
        return self.session.memo(("step", name, entry.id), lambda: self._made(state, name))

    def _made(self, state: State, name: str) -> Run:
        session = self.session
        prompt = state.prompt(state.subject)

        def work() -> Run:
            now = next((p for p in session.state.prompts if p == prompt), None)
            base = session.run(now.name) if now is not None else run(session.model, session.row(prompt), name=name)
            sources = session.sources_of(state)
            return rerun(base, state.specs, sources=sources, name=name)

        return session.on_worker(work, f"run {name}")

    def _comparison(self, before: int, after: int, position: int | None) -> dict[str, Any]:
        numbers = [self.session.history.number(id) for id in (before, after)]
        if before == after:
            raise ValueError(f"step {numbers[0]} was chosen twice; choose another to compare it with")
        runs = [
            self.run_of(self.session.history.entry(id), f"step {number}")
            for id, number in zip((before, after), numbers, strict=True)
        ]
        states = [self._state(self.session.history.entry(id)) for id in (before, after)]
        same = runs[0].tokens.shape == runs[1].tokens.shape and bool((runs[0].tokens == runs[1].tokens).all())
        made = {"steps": numbers, "same_text": same, **_difference(states[0], states[1])}
        return made | (self._same_text(runs, position) if same else self._other_text(runs))

    def _same_text(self, runs: list[Run], position: int | None) -> dict[str, Any]:
        compared = experiments.compare(*runs, top_k=TOP)
        n_pos = runs[0].tokens.shape[1]
        at = n_pos - 1 if position is None or not 0 <= position < n_pos else position
        kl, flipped = compared.kl.values[1], compared.flipped.values[1]
        here = compared.isel(pos=at)
        known = here.candidate_id.values >= 0
        probability = here.probability.values[:, known]
        order = np.argsort(-probability.max(0), kind="stable")[:TOP]
        words = [visible(str(token), 60) for token in here.candidate_token.values[known]]
        return {
            "position": at,
            "kl_here": float(kl[at]),
            "kl": float(kl.mean()),
            "flipped": [
                {"position": int(i), **{side: visible(str(compared.top_token.values[r, i]), 60) for r, side in _SIDES}}
                for i in np.flatnonzero(flipped)[:200]
            ],
            "n_flipped": int(flipped.sum()),
            "n_routes": int(compared.routes_flipped.values[1].sum()) if "routes_flipped" in compared else None,
            "tokens": [
                {"token": words[i], "id": int(here.candidate_id.values[known][i]), **_sides(probability[:, i])}
                for i in order
            ],
        }

    def _other_text(self, runs: list[Run]) -> dict[str, Any]:
        """Two texts share no positions: what each says after its last token."""
        said = [made.logits[0, -1].detach().float().softmax(-1).cpu().numpy() for made in runs]
        union = np.unique(np.concatenate([np.argsort(-p)[:TOP] for p in said]))
        order = union[np.argsort(-np.maximum(said[0], said[1])[union], kind="stable")][:TOP]
        tokens = [{"token": self.session.word(int(i)), "id": int(i), **_sides([said[0][i], said[1][i]])} for i in order]
        return {"position": None, "tokens": tokens}


_SIDES: tuple[tuple[int, str], ...] = ((0, "before"), (1, "after"))


def _sides(values: Any) -> dict[str, float]:
    return {side: float(values[i]) for i, side in _SIDES}


def _difference(before: State, after: State) -> dict[str, Any]:
    """Which interventions each side has alone."""
    mine, theirs = list(before.specs), list(after.specs)
    only: Mapping[str, list] = {
        "only_before": [spec for spec in mine if spec not in theirs],
        "only_after": [spec for spec in theirs if spec not in mine],
    }
    return {name: [described(spec) for spec in specs] for name, specs in only.items()}
