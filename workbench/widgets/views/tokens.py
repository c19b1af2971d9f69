"""The text: each token on the colour of its role, or of a number that it has."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.activations import Run
from workbench.figures.style import DIVERGING, SEQUENTIAL, colours, role_name
from workbench.widgets import static
from workbench.widgets.code import shown
from workbench.widgets.views.base import Payload, View

# name → (title, scale). Those after the first two need the unedited run beside an edited one.
VALUES = {
    "surprise": ("Surprise, nats", "sequential"),
    "entropy": ("Entropy of what comes next, nats", "sequential"),
    "kl": ("KL from the unedited run, nats", "sequential"),
    "surprise_change": ("Change of surprise, nats", "diverging"),
}


class Tokens(View):
    """Tokens with their roles, and numbers that each has."""

    name, title = "tokens", "Tokens"
    defaults: ClassVar[dict[str, Any]] = {"colour": "role"}
    choices: ClassVar[dict[str, Any]] = {"colour": ("role", *VALUES)}

    def data(self, ask: dict[str, Any]) -> Payload:
        run = self.session.shown
        labels = self._labels(run)
        values = self._values(run)
        about = {
            "tokens": self.session.tokens(run),
            "ids": run.tokens[0].tolist(),
            "roles": labels,
            "bands": bands(labels),
            "values": [_described(name, numbers) for name, numbers in values.items()],
        }
        return about, values

    def static(self) -> str:
        run = self.session.shown
        roles, values, chosen = self._labels(run), self._values(run), self.option("colour")
        if chosen not in values:
            return static.strip(self.session.tokens(run), static.role_fills(roles), roles)
        about = _described(chosen, values[chosen])
        scale = SEQUENTIAL if about["kind"] == "sequential" else DIVERGING
        fills = colours(np.nan_to_num(values[chosen]), scale, about["low"], about["high"])
        titles = [f"{role} {value:.3g}" for role, value in zip(roles, values[chosen], strict=True)]
        return static.note(about["title"]) + static.strip(self.session.tokens(run), fills, titles)

    def code(self) -> str:
        run = shown(self.session)
        if self.option("colour") == "surprise":
            return f"figures.token_values(experiments.tokens({run}).surprise)"
        return f"figures.tokens(experiments.tokens({run}))"

    def table(self) -> xr.Dataset:
        run = self.session.shown
        made = experiments.tokens(run)
        return made.assign({name: ("pos", numbers) for name, numbers in self._values(run).items()})

    def figure(self) -> go.Figure:
        made, chosen = self.table(), self.option("colour")
        if chosen in made.data_vars:  # "role" is a coordinate
            return figures.token_values(made[chosen], title=VALUES[chosen][0])
        return figures.tokens(made)

    def _labels(self, run: Run) -> list[str]:
        if self.session.tokenizer is None:
            return [""] * run.tokens.shape[1]
        labels = self.session.memo(("labels", id(run)), lambda: run.labels[0])
        return [role_name(label.role or "", label.channel or "") for label in labels]

    def _values(self, run: Run) -> dict[str, np.ndarray]:
        return self.session.memo(("token values", id(run)), lambda: self._measured(run))

    def _measured(self, run: Run) -> dict[str, np.ndarray]:
        surprise = experiments.tokens(run).surprise.values
        logprobs = run.logits[0].detach().float().log_softmax(-1)
        made = {"surprise": surprise, "entropy": -(logprobs.exp() * logprobs).nan_to_num().sum(-1).cpu().numpy()}
        if run.kl is not None:
            before = experiments.tokens(self.session.base).surprise.values
            made |= {"kl": run.kl[0].cpu().numpy(), "surprise_change": surprise - before}
        return {name: np.asarray(values, np.float32) for name, values in made.items()}


def bands(names: list[str]) -> list[dict[str, Any]]:
    """Runs of one role: where each starts and stops."""
    made: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        if made and made[-1]["name"] == name:
            made[-1]["stop"] = i + 1
        else:
            made.append({"start": i, "stop": i + 1, "name": name})
    return made


def _described(name: str, values: np.ndarray) -> dict[str, Any]:
    title, kind = VALUES[name]
    finite = values[np.isfinite(values)]
    high = float(np.quantile(np.abs(finite), 0.98)) if finite.size else 1.0
    high = max(high, 1e-6)
    return {"name": name, "title": title, "kind": kind, "low": -high if kind == "diverging" else 0.0, "high": high}
