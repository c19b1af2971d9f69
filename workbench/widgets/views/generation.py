"""Token by token: the alternatives at each, forks at any, and the interventions that were on where each came from."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench.experiments.observe.continuations import NextToken, drawn
from workbench.figures.style import INK, SOFT, figure
from workbench.figures.text import label
from workbench.widgets import recipes, static
from workbench.widgets.code import generated, variable
from workbench.widgets.describe import spec as described
from workbench.widgets.views.base import Payload, View
from workbench.widgets.views.generation_tree import ROOT, Node, Tree, difference
from workbench.widgets.worker import Job

Text = tuple[int, ...]
# A prompt by its number, what follows it, the interventions that are on, and what the sources are that these name.
Place = tuple[int, Text, tuple[Any, ...], tuple[Any, ...]]
TOP = 12  # alternatives that are shown
MOST_AT_ONCE = 512  # tokens of one continuation
KEPT = 16  # distributions, of 200,000 numbers each for the real vocabulary
SHOWN_EVERY = 0.1  # seconds


class Generation(View):
    """A tree of continuations of the prompt that is edited."""

    name, title = "generation", "Generation"
    defaults: ClassVar[dict[str, Any]] = {
        "tree": None,
        "at": ROOT,
        "compared": [],
        "length": 24,
        "temperature": 0.0,
        "seed": 0,
    }

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self._next = NextToken(session.model)
        self._prompts: dict[Text, int] = {}
        self._next_of: OrderedDict[Place, np.ndarray] = OrderedDict()  # whole distributions, the newest few
        self._numbers: dict[
            tuple[Place, int], tuple[float, int, float]
        ] = {}  # a token's probability, rank, entropy there

    # ------------------------------------------------------------ the tree

    @property
    def tree(self) -> Tree:
        """The tree over the prompt as it is; an empty one if that has changed since."""
        session = self.session
        prompt = session.state.prompt(session.state.subject).tokens
        given = self.option("tree")
        if given is None:
            return Tree(prompt)
        tree = session.memo(("tree", id(given)), lambda: (given, Tree.from_data(given)))[1]
        return tree if tree.prompt == prompt else Tree(prompt)

    @property
    def at(self) -> int:
        """The chosen node."""
        at = self.option("at")
        return at if at in self.tree.nodes else ROOT

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        if values.get("tree") is not None:
            Tree.from_data(values["tree"])
        if not 1 <= values.get("length", 1) <= MOST_AT_ONCE:
            raise ValueError(f"Generation: length={values['length']}; expected 1 to {MOST_AT_ONCE} tokens")
        if not 0 <= values.get("temperature", 0) <= 100:
            raise ValueError(f"Generation: temperature={values['temperature']}; expected 0 to 100")

    # ------------------------------------------------------------ what the browser asks for

    def data(self, ask: dict[str, Any]) -> Payload:
        """The tree; with ``next``, what may come after the chosen node, with the interventions that are on now."""
        tree, at = self.tree, self.at
        sets = self._spec_sets(tree)
        which = {specs: i for i, specs in enumerate(sets)}
        measured = self._measured(tree)
        about: dict[str, Any] = {
            "prompt": [self.session.word(token) for token in tree.prompt[-24:]],
            "n_prompt": len(tree.prompt),
            "rows": tree.rows(),
            "nodes": {
                str(node.id): {**self._described(node, *measured[node.id]), "specs": which[node.specs]}
                for node in tree.nodes.values()
            },
            "specs": [[described(spec)["title"] for spec in specs] for specs in sets],
            "at": at,
            "path": [node.id for node in tree.path(at)],
            "leaves": tree.leaves(),
            "temperature": self.option("temperature"),
        }
        self._measure_unknown(tree)
        if ask.get("next"):
            about["next"] = self._alternatives(tree, at)
        if (pair := self._compared(tree)) is not None:
            about["difference"] = self._difference(tree, *pair)
        return about, {}

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        """step {node?, token?}, go_on {node?}, remove {node}, clear, choose {node}, compare {node}."""
        kind, tree = action.get("kind"), self.tree
        node = action.get("node", self.at)
        if type(node) is not int:
            raise ValueError(f"node={node!r}: expected the number of a node")
        tree.check(node)
        if kind == "step":
            return self._step(node, action.get("token"))
        if kind == "go_on":
            return {"job": self.go_on(node).id}
        if kind == "remove":
            self._keep(tree.without(node), tree.nodes[node].parent if node in tree.nodes else ROOT)
        elif kind == "clear":
            self._keep(Tree(tree.prompt), ROOT)
        elif kind == "choose":
            self.session.options(self.name, at=node)
        elif kind == "compare":
            self._choose_compared(node)
        else:
            return super().act(action)
        return None

    def go_on(self, node: int, length: int | None = None) -> Job:
        """Continue after a node; tokens appear one by one. Cancelled, it keeps those that are there."""
        n_new = self.option("length") if length is None else length
        return self.session.submit(
            lambda job: self._grow(job, node, n_new),
            f"continue for {n_new} tokens",
            view=self.name,
            total=n_new,
            replaces="generation",
            resumable=lambda: self.go_on(self.at),
        )

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        tree = self.tree
        if not tree.nodes:
            return static.note("Nothing was generated yet.")
        parts = []
        for leaf in tree.leaves()[:8]:
            path = tree.path(leaf)
            words = [self.session.word(node.token) for node in path]
            on = sorted({described(spec)["title"] for node in path for spec in node.specs})
            fills = ["#e3eef8" if node.specs else "#f1f3f5" for node in path]
            parts.append(static.note(f"with {', '.join(on)}" if on else "without interventions"))
            parts.append(static.strip(words, fills))
        return "".join(parts)

    def code(self) -> str:
        """The chosen continuation, generated again where it was generated greedily with one set of interventions."""
        tree, state = self.tree, self.session.state
        path = tree.path(self.at if self.at != ROOT else max(tree.leaves(), default=ROOT))
        n = max(len(path), 1)
        tokens = f"{variable(state.subject)}.tokens"
        if path and all(node.specs == path[0].specs for node in path) and path[0].specs:
            specs = ", ".join(f"wb.{spec!r}" for spec in path[0].specs)
            with_block = f"with model.edited([{specs}]{self._sources_code(path[0].specs)}):\n    "
        else:
            with_block = ""
        chosen = [node.token for node in path]
        return (
            f"{with_block}generated = model.generate({tokens}, {n}, temperature=0.0).finish()\n"
            f"print(generated.{generated(self.session)})\n"
            f"chosen = {chosen}  # the tokens of the chosen path"
        )

    def table(self) -> xr.Dataset:
        """Of each node: parent, token, its probability, the entropy in nats, the interventions."""
        tree = self.tree
        nodes = list(tree.nodes.values())
        measured = self._measured(tree)
        columns = {
            "parent": [node.parent for node in nodes],
            "token_id": [node.token for node in nodes],
            "token": [self.session.word(node.token) for node in nodes],
            "probability": [np.nan if p is None else p for p, _, _ in measured.values()],
            "entropy": [np.nan if entropy is None else entropy for _, _, entropy in measured.values()],
            "interventions": ["; ".join(map(repr, node.specs)) for node in nodes],
        }
        values = {name: ("node", np.asarray(column)) for name, column in columns.items()}
        return xr.Dataset(values, {"node": [node.id for node in nodes]}, {"experiment": "generation_tree"})

    def figure(self) -> go.Figure:
        """The tree: a token after another from left to right, forks below."""
        tree = self.tree
        depth = {ROOT: 0}
        for node in tree.nodes.values():
            depth[node.id] = depth[node.parent] + 1
        rows = {id: -row for row, ids in enumerate(tree.rows()) for id in ids}
        made = figure(
            "Continuations", f"{len(tree.leaves())} of one prompt", height=max(220, 120 + 40 * len(tree.rows()))
        )
        lines: tuple[list, list] = ([], [])
        for node in tree.nodes.values():
            lines[0].extend([depth[node.parent], depth[node.id], None])
            lines[1].extend([rows.get(node.parent, rows[node.id]), rows[node.id], None])
        made.add_scatter(x=lines[0], y=lines[1], mode="lines", line={"color": SOFT, "width": 1}, hoverinfo="skip")
        ids = list(tree.nodes)
        words = [label(self.session.word(tree.nodes[id].token), 12) for id in ids]
        made.add_scatter(
            x=[depth[id] for id in ids],
            y=[rows[id] for id in ids],
            mode="text+markers",
            text=words,
            textposition="top center",
            marker={"size": 6, "color": INK},
            hoverinfo="text",
        )
        made.update_xaxes(title="tokens after the prompt", rangemode="tozero")
        return made.update_yaxes(visible=False).update_layout(showlegend=False)

    # ------------------------------------------------------------ inside

    def _keep(self, tree: Tree, at: int, **others: Any) -> None:
        self.session.options(self.name, tree=tree.as_data() if tree.nodes else None, at=at, **others)

    def _spec_sets(self, tree: Tree) -> list[tuple[Any, ...]]:
        return list(dict.fromkeys(node.specs for node in tree.nodes.values()))

    def _described(self, node: Node, p: float | None, rank: int | None, entropy: float | None) -> dict[str, Any]:
        return {
            "token": self.session.word(node.token),
            "id": node.token,
            "parent": node.parent,
            "p": p,
            "rank": rank,
            "entropy": entropy,
            "end": node.token in self.session.config.eos_token_ids,
        }

    def _measured(self, tree: Tree) -> dict[int, tuple[Any, Any, Any]]:
        """Probability, rank and entropy of each node; None where that is not measured."""
        return {id: self._numbers.get(place, (None, None, None)) for id, place in self._places(tree).items()}

    def _place(self, prompt: Text, after: Text, specs: tuple[Any, ...]) -> Place:
        number = self._prompts.setdefault(prompt, len(self._prompts))
        return number, after, specs, self._meant(specs)

    def _meant(self, specs: tuple[Any, ...]) -> tuple[Any, ...]:
        """What the sources are that specs name. The same specs say something else when a vector or a prompt changes."""
        state = self.session.state
        names = sorted({source for spec in specs for source, _ in spec.reads(self.session.config)})
        texts = {prompt.name: prompt.tokens for prompt in state.prompts}
        return tuple((name, _Same(state.vectors[name]) if name in state.vectors else texts.get(name)) for name in names)

    def _places(self, tree: Tree) -> dict[int, tuple[Place, int]]:
        """Of each node: where its token was taken, and the token. In one walk: a tree may have thousands."""
        meant = {specs: self._place(tree.prompt, (), specs) for specs in self._spec_sets(tree)}
        after: dict[int, Text] = {ROOT: ()}
        made = {}
        for node in tree.nodes.values():  # parents come first
            number, _, specs, sources = meant[node.specs]
            made[node.id] = (number, after[node.parent], specs, sources), node.token
            after[node.id] = (*after[node.parent], node.token)
        return made

    def _distribution(self, prompt: Text, after: Text, specs: tuple[Any, ...]) -> tuple[Place, np.ndarray]:
        """Log-probabilities of what comes next, and of what place they are; on the worker's thread."""
        place = self._place(prompt, after, specs)
        if place not in self._next_of:
            sources = self.session.sources_of(replace(self.session.state, **self._with(specs)))
            self._next_of[place] = self._next.after((*prompt, *after), specs, sources)
            while len(self._next_of) > KEPT:
                self._next_of.popitem(last=False)
        return place, self._next_of[place]

    def _note(self, place: Place, token: int, logprobs: np.ndarray) -> None:
        """Keep a token's own numbers; the distributions themselves are too large to keep."""
        entropy = -float((np.exp(logprobs) * np.maximum(logprobs, -1e30)).sum())
        rank = 1 + int((logprobs > logprobs[token]).sum())
        self._numbers[place, token] = (float(np.exp(logprobs[token])), rank, entropy)

    def _measure_unknown(self, tree: Tree) -> None:
        """Have the numbers made of nodes that came from a file."""
        unknown = [place for place in self._places(tree).values() if place not in self._numbers]
        busy = any(job.view == self.name and not job.future.done() for job in self.session.jobs)
        if not unknown or busy:
            return

        def work(job: Job) -> None:
            for done, ((_, after, specs, _), token) in enumerate(unknown):
                if job.cancelled:
                    break
                place, logprobs = self._distribution(tree.prompt, after, specs)
                self._note(place, token, logprobs)
                job.report(done + 1)
                job.breathe()
            self.session.stream(self.name, "numbers", {"n": len(self._numbers)}, {})

        label_of_job = f"measure {len(unknown)} tokens"
        self.session.submit(work, label_of_job, view=self.name, total=len(unknown), replaces="generation")

    def _with(self, specs: tuple[Any, ...]) -> dict[str, Any]:
        return {"chips": self.session.state.with_specs(specs).chips}

    def _alternatives(self, tree: Tree, at: int) -> dict[str, Any]:
        """The likeliest tokens after a node: with the interventions that are on now, beside those without any."""
        after, specs = tuple(node.token for node in tree.path(at)), self.session.state.specs
        plain, edited = self.session.on_worker(
            lambda: [self._distribution(tree.prompt, after, each)[1] for each in ((), specs)], "what may come next"
        )
        before, now = np.exp(plain.astype(np.float64)), np.exp(edited.astype(np.float64))
        union = np.unique(np.concatenate([np.argsort(-each)[:TOP] for each in (before, now)]))
        order = union[np.argsort(-now[union], kind="stable")][:TOP]
        there = {child.token: child.id for child in tree.children(at)}
        return {
            "edited": bool(specs),
            "entropy": _expected(now, -edited),
            "kl": max(_expected(before, plain - edited), 0.0) if specs else None,
            "tokens": [
                {
                    "id": int(i),
                    "token": self.session.word(int(i)),
                    "before": float(before[i]) if specs else None,
                    "after": float(now[i]),
                    "node": there.get(int(i)),
                }
                for i in order
            ],
        }

    def _step(self, node: int, token: Any) -> dict[str, Any]:
        if token is not None and (type(token) is not int or not 0 <= token < self.session.config.d_vocab):
            raise ValueError(f"token={token!r}: expected an id below {self.session.config.d_vocab}")
        if token is None:
            return {"job": self.go_on(node, 1).id}
        specs, tree = self.session.state.specs, self.tree
        made, id = tree.add(node, token, specs)
        place = self._place(tree.prompt, tuple(each.token for each in tree.path(node)), specs)
        if (logprobs := self._next_of.get(place)) is not None:
            self._note(place, token, logprobs)
        self._keep(made, id)
        return {"node": id}

    def _grow(self, job: Job, node: int, length: int) -> int:
        specs, temperature = self.session.state.specs, float(self.option("temperature"))
        generator = np.random.default_rng([self.option("seed"), node])
        start = self.tree
        prompt, after = start.prompt, tuple(each.token for each in start.path(node))
        waiting, shown = (), 0.0
        for done in range(length):
            if job.cancelled:
                break
            place, logprobs = self._distribution(prompt, after, specs)
            token = drawn(logprobs.astype(np.float64), temperature, generator)
            self._note(place, token, logprobs)
            after, waiting = (*after, token), (*waiting, token)
            if time.monotonic() - shown > SHOWN_EVERY:
                node, waiting, shown = self._plant(node, prompt + after, waiting, specs), (), time.monotonic()
            job.report(done + 1)
            if token in self.session.config.eos_token_ids:
                break
            job.breathe()
        return self._plant(node, prompt + after, waiting, specs)

    def _plant(self, node: int, whole: Text, waiting: Text, specs: tuple[Any, ...]) -> int:
        """Put the last tokens of a whole text into the tree as it is by now, after the node that they follow.

        Nothing is put where that is no longer so: the branch was taken away meanwhile, or the prompt is another.
        """
        tree = self.tree
        there = node == ROOT or node in tree.nodes
        if not waiting or not there or tree.tokens(node) != whole[: len(whole) - len(waiting)]:
            return node
        for token in waiting:
            tree, node = tree.add(node, token, specs)
        self._keep(tree, node)
        return node

    def _choose_compared(self, node: int) -> None:
        now = [id for id in self.option("compared") if id in self.tree.nodes]
        self.session.options(self.name, compared=[id for id in now if id != node] if node in now else [*now, node][-2:])

    def _compared(self, tree: Tree) -> tuple[int, int] | None:
        chosen = [id for id in self.option("compared") if id in tree.nodes]
        return (chosen[0], chosen[1]) if len(chosen) == 2 else None

    def _difference(self, tree: Tree, first: int, second: int) -> dict[str, Any]:
        paths = tree.path(first), tree.path(second)
        made = difference(*paths)
        return {
            "shared": made["shared"],
            "words": [self.session.word(node.token) for node in paths[0][: made["shared"]]],
            "sides": [
                {
                    "node": id,
                    "words": [self.session.word(node.token) for node in path[made["shared"] :]],
                    "logprob": self._logprob(tree, path),
                    "specs": sorted({described(spec)["title"] for node in path for spec in node.specs}),
                }
                for id, path in zip((first, second), paths, strict=True)
            ],
        }

    def _logprob(self, tree: Tree, path: list[Node]) -> float | None:
        """Of the whole path, in nats; None while a node's number is not there."""
        measured = self._measured(tree)
        each = [measured[node.id][0] for node in path]
        return None if any(p is None for p in each) else sum(math.log(max(p, 1e-45)) for p in each if p is not None)

    def _sources_code(self, specs: tuple[Any, ...]) -> str:
        names = {source for spec in specs for source, _ in spec.reads(self.session.config)}
        state = self.session.state
        made = [f"{prompt.name!r}: {variable(prompt.name)}" for prompt in state.prompts if prompt.name in names]
        made += [f"{name!r}: {recipes.code(recipe)}" for name, recipe in state.vectors.items() if name in names]
        return f", sources={{{', '.join(made)}}}" if made else ""


class _Same:
    """A recipe as part of a key: equal to itself alone. It may hold a million numbers, too many to compare."""

    def __init__(self, what: Any) -> None:
        self.what = what

    def __hash__(self) -> int:
        return id(self.what)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.what is other.what


def _expected(p: np.ndarray, values: np.ndarray) -> float:
    """Σ p · value, where what cannot happen counts nothing."""
    there = p > 0
    return float((p[there] * values[there].astype(np.float64)).sum())
