"""What the interventions do: to the next token, to the routes, and to the text that follows."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.activations import Run
from workbench.experiments.rows import provenance, row_coords
from workbench.widgets import code, static
from workbench.widgets.state import EDITED
from workbench.widgets.views.base import Payload, View
from workbench.widgets.views.effect_numbers import LISTED, Tops, bars, flipped_routes
from workbench.widgets.views.effect_writer import Writer
from workbench.widgets.worker import Job

LENGTHS = (8, 16, 24, 48, 96, 192)
NOTHING = "no intervention is on"


class Effect(View):
    """Before and after, at the selected position and in all of the text."""

    name, title = "effect", "Effect"
    defaults: ClassVar[dict[str, Any]] = {"length": 24, "live": True, "open": True}
    choices: ClassVar[dict[str, Any]] = {"length": LENGTHS}

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._tops, self._writer = Tops(), Writer(session, self.name)

    # ------------------------------------------------------------ what the browser asks

    def data(self, ask: dict[str, Any]) -> Payload:
        pair = self.runs()
        if pair is None:
            return {"on": False}, {}
        before, after = pair
        tokens = self.session.tokens(before)
        position = self._position(ask.get("position"), len(tokens))
        counts, where = flipped_routes(after)
        kl = self._kl(after)
        return {
            "on": True,
            "position": position,
            "token": tokens[position],
            "n": len(tokens),
            "bars": [{**bar, "text": self.session.word(bar["id"])} for bar in self._bars(before, after, position)],
            "kl": {
                "here": float(kl[position]),
                "mean": float(kl.mean()),
                "max": float(kl.max()),
                "at": int(kl.argmax()),
            },
            "flipped": self._flipped(before, after, tokens, kl),
            "routes": {"counts": counts.tolist(), "here": where[:, position].tolist()},
            "answer": self._answer(before, after, position),
            "completion": self._writer.said(),
        }, {}

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        if action.get("kind") != "complete":
            return super().act(action)
        job = self.complete()
        return {"job": None if job is None else job.id}

    def runs(self) -> tuple[Run, Run] | None:
        """The run without the interventions and with them; None where none is on."""
        if not self.session.state.specs:
            return None
        before, after = self.session.base, self.session.run(EDITED)
        if not before.tokens.equal(after.tokens):  # one of them is still of the text before
            before, after = (self.session.run(name, newest=True) for name in (self.session.state.subject, EDITED))
        return before, after

    def complete(self) -> Job | None:
        """Generate the text that follows, with the interventions and without; None where it is there or under way."""
        return self._writer.complete(self.option("length"))

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        if self.runs() is None:
            return static.note(NOTHING)
        json, _ = self.data({})
        kl, flipped, counts = json["kl"], json["flipped"], json["routes"]["counts"]
        parts = [
            static.note(
                f"after “{json['token']}” (position {json['position']}): KL {kl['here']:.3g} nats · mean KL "
                f"{kl['mean']:.3g} nats · likeliest token changed at {flipped['count']} of {json['n']} positions · "
                f"experts changed at {sum(counts)} of {json['n'] * len(counts)} places"
            ),
            static.table(
                ("next token", "before", "after"),
                [(bar["text"], f"{bar['before']:.3f}", f"{bar['after']:.3f}") for bar in json["bars"]],
            ),
            static.note("tokens with other experts, by layer: " + ", ".join(f"{i}: {n}" for i, n in enumerate(counts))),
        ]
        if flipped["list"]:
            rows = [(f["position"], f["token"], f["before"], f["after"], f"{f['kl']:.3g}") for f in flipped["list"]]
            parts.append(static.table(("position", "after", "was", "is", "KL, nats"), rows, most=20))
        if (said := json["completion"]) is not None:
            for name in ("before", "after"):
                marks = ["#f8cfae" if differs else "#ffffff" for differs in said[name]["differs"]]
                parts.append(static.note(f"goes on, {name}:") + static.strip(said[name]["tokens"], marks))
        return "".join(parts)

    def code(self) -> str:
        state = self.session.state
        if not state.specs:
            return f"# {NOTHING}: nothing is changed"
        base, length, said = code.variable(state.subject), self.option("length"), code.generated(self.session)
        return "\n".join([
            f"before = model.generate({base}.tokens, {length}).finish().{said}",
            f"with model.edited(run.interventions{self._sources_code()}):",
            f"    after = model.generate({base}.tokens, {length}).finish().{said}",
            "print(before, after, sep='\\n')",
            f"compared = experiments.compare({base}, run, top_k=8)",
            f"figures.next_token_bars(compared, pos={self._position(None, len(state.prompt(state.subject).tokens))})",
        ])  # fmt: skip

    def table(self) -> xr.Dataset:
        before, after = self._both()
        position = self._position(None, before.tokens.shape[1])
        shown = self._bars(before, after, position)
        tops = [self._tops.of(run) for run in (before, after)]
        counts, where = flipped_routes(after)
        candidates = [self.session.word(bar["id"]) for bar in shown]
        variables = {
            "kl": ("pos", self._kl(after)),
            "flipped": ("pos", tops[0] != tops[1]),
            "top_before": ("pos", [self.session.word(int(i)) for i in tops[0]]),
            "top_after": ("pos", [self.session.word(int(i)) for i in tops[1]]),
            "routes_flipped": (("layer", "pos"), where),
            "routes_flipped_count": ("layer", counts),
            "probability": (("run", "candidate"), [[bar[name] for bar in shown] for name in ("before", "after")]),
        }
        coords = row_coords(before, 0) | {"layer": np.arange(len(counts)), "run": ["before", "after"]}
        return xr.Dataset(variables, coords | {"candidate": candidates}, provenance(after, "effect", position=position))

    def figure(self) -> go.Figure:
        before, after = self._both()
        compared = experiments.compare(before, after, top_k=8)
        return figures.next_token_bars(compared, pos=self._position(None, before.tokens.shape[1]))

    # ------------------------------------------------------------ inside

    def _both(self) -> tuple[Run, Run]:
        pair = self.runs()
        if pair is None:
            raise ValueError(f"{NOTHING}: there is nothing to compare")
        return pair

    def _position(self, asked: Any, n: int) -> int:
        chosen = self.session.state.selection
        if asked is None:
            asked = chosen.span[1] - 1 if chosen.span is not None else chosen.position
        return n - 1 if asked is None else min(max(int(asked), 0), n - 1)

    def _bars(self, before: Run, after: Run, position: int) -> list[dict[str, Any]]:
        return bars(before, after, position, self.session.state.answer or ())

    def _kl(self, after: Run) -> np.ndarray:
        assert after.kl is not None
        return after.kl[0].float().cpu().numpy()

    def _flipped(self, before: Run, after: Run, tokens: list[str], kl: np.ndarray) -> dict[str, Any]:
        was, now = self._tops.of(before), self._tops.of(after)
        at = np.flatnonzero(was != now)
        word = self.session.word
        rows = [
            {
                "position": int(i),
                "token": tokens[i],
                "before": word(int(was[i])),
                "after": word(int(now[i])),
                "kl": float(kl[i]),
            }
            for i in at[:LISTED]
        ]
        return {"count": len(at), "list": rows}

    def _answer(self, before: Run, after: Run, position: int) -> dict[str, Any] | None:
        answer = self.session.state.answer
        if answer is None:
            return None
        right, wrong = answer
        gaps = [float(run.logits[0, position, right] - run.logits[0, position, wrong]) for run in (before, after)]
        return {
            "right": self.session.word(right),
            "wrong": self.session.word(wrong),
            "before": gaps[0],
            "after": gaps[1],
        }

    def _sources_code(self) -> str:
        """What the specs take from elsewhere, as an argument."""
        state = self.session.state
        used = {source for spec in state.specs for source, _ in spec.reads(self.session.config)}
        runs = [f"{p.name!r}: {code.source_of(self.session, p.name)}" for p in state.prompts if p.name in used]
        vectors = ["**vectors"] if used & set(state.vectors) else []
        return f", sources={{{', '.join([*runs, *vectors])}}}" if used else ""
