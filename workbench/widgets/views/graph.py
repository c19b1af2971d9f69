"""The route graph: which parts told which, on the way from the tokens to one answer."""

from __future__ import annotations

from typing import Any, ClassVar

import plotly.graph_objects as go
import xarray as xr

from workbench import figures
from workbench.experiments.graphs.cost import graph_cost
from workbench.experiments.nodes import Node
from workbench.figures.text import visible
from workbench.model.memory import readable
from workbench.widgets import static
from workbench.widgets.answer import single_token
from workbench.widgets.code import variable
from workbench.widgets.session import Session
from workbench.widgets.views import graph_static as forms
from workbench.widgets.views.base import Payload, View
from workbench.widgets.views.graph_arrays import KINDS, Arrays, checked, summary
from workbench.widgets.views.graph_study import (
    NODES,
    TARGETS,
    Study,
    ablation,
    knock_out,
    likely,
    patch,
    study_of,
    touched,
)
from workbench.widgets.views.graph_traces import Traces
from workbench.widgets.worker import Job

QUICK = 1.5  # seconds: what takes less is traced without being asked for
MOST_CONFIRMED = 500
CHOICE = ("target", "token", "position", "n_nodes")


class Graph(View):
    """An attribution graph of heads, experts and embeddings at each token: pruned, confirmed, touched."""

    name, title = "graph", "Route graph"
    defaults: ClassVar[dict[str, Any]] = {
        "target": TARGETS[0],
        "token": None,
        "position": None,
        "n_nodes": 100,
        "confirm": 30,
        "threshold": None,
        "columns": "kept",
        "table": "nodes",
    }
    choices: ClassVar[dict[str, Any]] = {
        "target": TARGETS,
        "n_nodes": NODES,
        "columns": ("kept", "all"),
        "table": ("nodes", "edges"),
    }

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.traces = Traces(session, self.name)

    # ------------------------------------------------------------ asked and told

    def data(self, ask: dict[str, Any]) -> Payload:
        what = ask.get("what", "graph")
        if what == "node":
            return self._node(ask), {}
        study = self.study(ask)
        if what == "edits":
            return self._edits(study), {}
        if what != "graph":
            raise ValueError(f"the route graph has no {what!r}; expected graph, node or edits")
        about = self._about(study)
        known = self.traces.known(study)
        if known is None:
            return {**about, "traced": False, "cost": self._cost(study)}, {}
        data, arrays = known
        more = {"names": arrays.names, "n_edges": arrays.n_edges, "share_left": arrays.share_left}
        more |= {"threshold": arrays.threshold, "summary": summary(data)}
        parts = {"node": arrays.node, "number": arrays.number, "ends": arrays.ends, "edge": arrays.edge}
        return {**about, "traced": True, **more}, parts | checked(data, arrays)

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind = action.get("kind")
        if kind == "token":
            token = single_token(self.session.model, action.get("token"))
            self.session.options(self.name, target="token", token=token)
            return {"token": token, "text": self.session.word(token)}
        if kind in ("trace", "confirm"):
            return {"job": self._start(kind, action).id}
        if kind in ("ablate", "patch", "knock_out"):
            return self._touch(kind, action)
        return super().act(action)

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        for name, size in (("token", self.session.config.d_vocab), ("position", None), ("confirm", MOST_CONFIRMED + 1)):
            value = values.get(name)
            if value is not None and (type(value) is not int or value < 0 or (size is not None and value >= size)):
                most = "" if size is None else f" below {size}"
                raise ValueError(f"Route graph: {name}={value!r}; expected a whole number of 0 or more{most}")
        threshold = values.get("threshold")
        if threshold is not None and not (type(threshold) in (int, float) and 0 <= threshold <= 1):
            raise ValueError(f"Route graph: threshold={threshold!r}; expected a share from 0 to 1")

    # ------------------------------------------------------------ what is traced

    def study(self, ask: dict[str, Any] | None = None) -> Study:
        """What the options say, or an ask in their place."""
        choice = {name: (ask or {}).get(name, self.option(name)) for name in CHOICE}
        self.check_options(choice)
        return study_of(self.session, choice)

    def trace(self, wait: bool = True) -> Job:
        """Trace what the options say, and confirm its strongest edges."""
        job = self.traces.start(self.study(), self.option("confirm"))
        if wait:
            job.result()
        return job

    def _start(self, kind: str, action: dict[str, Any]) -> Job:
        study = self.study(action)
        if kind == "trace":
            return self.traces.start(study, self.option("confirm"))
        known = self.traces.known(study)
        if known is None:
            raise ValueError("this graph is not traced yet: press Trace first")
        if action.get("edges") is None:
            n = action.get("n")
            if type(n) is not int or not 1 <= n <= MOST_CONFIRMED:
                raise ValueError(f"n={n!r}: expected 1 to {MOST_CONFIRMED} edges")
            return self.traces.confirm(study, n)
        edges = [(str(source), str(target)) for source, target in action["edges"]]
        for pair in edges:
            if pair not in known[1].index or pair[1] == "logits" or pair[0].startswith("error"):
                expected = "expected an edge of the graph into a head or an expert"
                raise ValueError(f"{pair[0]:.60} → {pair[1]:.60} cannot be taken away: {expected}")
        return self.traces.confirm(study, 0, edges)

    def _about(self, study: Study) -> dict[str, Any]:
        state, word = self.session.state, self.session.word
        words = [word(token) for token in study.tokens]
        offered = likely(self.session, study.prompt, study.position)
        return {
            "id": self.traces.of(study).id,
            "prompt": study.prompt,
            "n_nodes": study.n_nodes,
            "position": study.position,
            "n_pos": len(state.prompt(study.prompt).tokens),
            "tokens": words,
            "target": [{"id": token, "text": word(token)} for token in study.ids],
            "words": study.words(self.session),
            "likely": [{"id": token, "text": word(token), "probability": share} for token, share in offered],
            "answer": None if state.answer is None else [{"id": i, "text": word(i)} for i in state.answer],
            "other": next((prompt.name for prompt in state.prompts if prompt.name != study.prompt), None),
        }

    def _cost(self, study: Study) -> dict[str, Any]:
        cost = graph_cost(self.session.model, len(study.tokens))
        free = None if cost.free is None else readable(cost.free.n_bytes)
        sizes = {"nodes": cost.nodes, "edges": cost.edges, "memory": readable(cost.n_bytes), "free": free}
        return {**sizes, "seconds": cost.seconds, "fits": cost.fits, "quick": cost.fits and cost.seconds < QUICK}

    # ------------------------------------------------------------ one node; what was done to them

    def _node(self, ask: dict[str, Any]) -> dict[str, Any]:
        """What a node promotes, by itself, at its position."""
        study, name = self.study(ask), str(ask.get("node"))
        trace = self.traces.of(study).trace
        if trace is None or self.traces.known(study) is None:
            raise ValueError("this graph is not traced yet: press Trace first")

        def make() -> list[list[dict[str, Any]]]:
            found = self.session.on_worker(lambda: trace.promoted(name), f"what {name:.40} promotes")
            pairs = zip(found.token_id.values.tolist(), found.logit.values.tolist(), strict=True)
            both = [zip(ids, logits, strict=True) for ids, logits in pairs]
            return [[{"text": self.session.word(i), "id": i, "logit": x} for i, x in each] for each in both]

        raised, lowered = self.session.memo(("promoted", study, name), make)
        return {"node": name, "raised": raised, "lowered": lowered}

    def _edits(self, study: Study) -> dict[str, Any]:
        """Which nodes the interventions act on, and what has become of the target."""
        state, known = self.session.state, self.traces.known(study)
        if not state.specs or state.subject != study.prompt or known is None:
            return {"nodes": [], "before": None, "after": None}
        names = known[1].names
        nodes = [(i, Node.parse(name)) for i, name in enumerate(names) if "@" in name and not name.startswith("error")]
        hit = [i for i, node in nodes if any(touched(spec, node) for spec in state.specs)]
        # A run that is under way is not there yet, and the one before it is of other interventions.
        edited = None if self.session.running else self.session.edited
        runs = (self.session.base, edited)
        before, after = (None if run is None else self._value(run, study) for run in runs)
        return {"nodes": hit, "before": before, "after": after}

    def _value(self, run: Any, study: Study) -> float:
        logits = run.logits[0, study.position].detach().float()
        return float(logits[study.ids[0]] - (logits[study.ids[1]] if len(study.ids) == 2 else 0))

    def _touch(self, kind: str, action: dict[str, Any]) -> dict[str, Any]:
        study = self.study(action)
        if kind == "knock_out":
            source, target = action["edge"]
            spec, words = knock_out(str(source), str(target))
        elif kind == "ablate":
            everywhere = bool(action.get("everywhere"))
            spec = ablation(str(action.get("node")), everywhere)
            words = f"{action['node']} writes nothing{' anywhere' if everywhere else ''}"
        else:
            names = [prompt.name for prompt in self.session.state.prompts if prompt.name != study.prompt]
            if not names:
                raise ValueError("there is one prompt alone: give a second one to patch from")
            spec = patch(str(action.get("node")), names[0])
            words = f"{action['node']} as in {visible(names[0], 40)}"
        return {"id": self.session.add(spec, words, study.prompt)}

    # ------------------------------------------------------------ without a browser

    def known(self) -> tuple[Study, xr.Dataset, Arrays]:
        """What is on screen; what is quick is traced for it.

        Raises:
            ValueError: for a graph that is not traced and would take long.
        """
        study = self.study()
        known = self.traces.known(study)
        if known is None:
            cost = self._cost(study)
            if not cost["quick"]:
                raise ValueError(f"this graph is not traced yet; bench['graph'].trace() does it, {forms.warning(cost)}")
            self.trace()
            known = self.traces.known(study)
        assert known is not None
        return study, *known

    def shown(self, arrays: Arrays, errors: bool = False) -> int:
        """How many edges the threshold lets through, with or without those of errors."""
        chosen = self.option("threshold")
        least = arrays.threshold if chosen is None else float(chosen)
        between = arrays.node[arrays.ends[:, 0], 0] != KINDS.index("error")
        return max(1, int(((between | errors) & (arrays.edge[:, 1] >= least)).sum()))

    def static(self) -> str:
        study = self.study()
        if self.traces.known(study) is None and not self._cost(study)["quick"]:
            return static.note(f"{study.words(self.session)}: not traced yet, {forms.warning(self._cost(study))}")
        study, data, arrays = self.known()
        return forms.page(self.session, study, data, arrays, self.shown(arrays, errors=True))

    def code(self) -> str:
        study, traced = self.study(), self.traces.of(self.study())
        known = traced.known(study.n_nodes)
        given = f"model, {variable(study.prompt)}, {study.target!r}"
        at = f"logits_at={study.position}"
        confirm = max(traced.confirmed, self.option("confirm"))
        edges = f", n_edges={self.shown(known[1])}" if known else ""
        if not traced.asked:
            made = f"graph = experiments.attribution_graph({given}, n_nodes={study.n_nodes}, confirm={confirm}, {at})"
            return f"{made}\nfigures.attribution_graph(graph{edges})"
        return (
            "from workbench.experiments.graphs.trace import Trace\n\n"
            f"trace = Trace({given}, {study.n_nodes}, {at})\ntrace.confirm({confirm})\n"
            f"trace.confirm({traced.asked!r})\ngraph = trace.dataset()\nfigures.attribution_graph(graph{edges})"
        )

    def table(self) -> xr.Dataset:
        return self.known()[1]

    def figure(self) -> go.Figure:
        _, data, arrays = self.known()
        return figures.attribution_graph(data, n_edges=self.shown(arrays))
