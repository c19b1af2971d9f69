"""Lesson 9: attribution and graphs. What its exercises must do, and what students get wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import compiled, experiments, prompts
from workbench.compiled.backdoor import ordinary
from workbench.experiments import attribution_patching, integrated_gradients
from workbench.lessons.exercise import Case, Exercise, Mistake, equal
from workbench.lessons.models import nano
from workbench.lessons.outline import Outline
from workbench.model import HookedGptOss

SUSPECTS = (101, 102, 103)  # seeds of the backdoors that `hunt` is tried on


def _numbers(rng: np.random.Generator, *shape: int) -> Tensor:
    return torch.tensor(rng.normal(size=shape), dtype=torch.float32)


def _seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1_000_000))


@cache
def _small(kind: str) -> compiled.Compiled:
    made = {"induction": compiled.induction, "saturated": compiled.saturated, "router": compiled.token_class_router}
    return made[kind]()


def _asked(kind: str, rng: np.random.Generator) -> tuple[Any, ...]:
    """model, clean, corrupt, right, wrong of one prompt."""
    if kind == "nano":
        rows = prompts.stack(prompts.pairs(nano(), "indirect object", 1, _seed(rng)), nano())
        return nano(), rows.clean, rows.corrupt, int(rows.right), int(rows.wrong)
    options = {"change": "index"} if kind == "router" else {}
    pair = _small(kind).pairs(1, _seed(rng), **options)[0]
    return _small(kind).model, torch.tensor([pair.clean]), torch.tensor([pair.corrupt]), pair.right, pair.wrong


# ----------------------------------------------------------------------------------------------------- attribution


def _sites(rng: np.random.Generator) -> Iterator[Case]:
    for kind, site in (
        ("induction", "blocks.0.hook_attn_out"),
        ("router", "blocks.0.hook_resid_pre"),
        ("nano", "blocks.1.hook_mlp_out"),
    ):
        yield Case((*_asked(kind, rng), site), about=f"{site} of {kind}")


def _attribution(model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: int, wrong: int, site: str) -> Tensor:
    _, layer, name = site.split(".")
    kind = name.removeprefix("hook_")
    found = attribution_patching(model, clean, corrupt, (right, wrong), kinds=(kind,))
    return torch.tensor(found.effect.sel(site=kind, layer=int(layer)).values, dtype=torch.float32)


Made = Callable[[Tensor, Tensor, Tensor], Tensor]  # of clean value, corrupt value and gradient, each [pos d_model]


def _from_gradient(make: Made, at: str = "corrupt") -> Callable[..., Tensor]:
    """What else a student may make of the same three tensors."""

    def made(model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: int, wrong: int, site: str) -> Tensor:
        values = {name: _value(model, tokens, site) for name, tokens in (("clean", clean), ("corrupt", corrupt))}
        tokens = clean if at == "clean" else corrupt
        gradient = _gradient(model, tokens, right, wrong, site, values[at])
        return make(values["clean"][0], values["corrupt"][0], gradient[0])

    return made


@torch.no_grad()
def _value(model: HookedGptOss, tokens: Tensor, site: str) -> Tensor:
    held: list[Tensor] = []
    model.run_with_hooks(tokens, fwd_hooks=[(site, lambda x, hook: held.append(x.clone()))])
    return held[0]


def _gradient(model: HookedGptOss, tokens: Tensor, right: int, wrong: int, site: str, value: Tensor) -> Tensor:
    with torch.enable_grad():
        leaf = value.detach().clone().requires_grad_()
        logits = model.run_with_hooks(tokens, fwd_hooks=[(site, lambda x, hook: leaf)])[0, -1]
        return torch.autograd.grad(logits[right] - logits[wrong], leaf)[0]


ATTRIBUTION = Exercise(
    name="attribution",
    task="Attribution patching of one site: (clean − corrupt) · gradient at the corrupt run, at each position",
    cases=_sites,
    truth=_attribution,
    mistakes=(
        Mistake(
            "gradient at the clean run",
            _from_gradient(lambda good, bad, g: ((good - bad) * g).sum(-1), at="clean"),
            "Your gradient is that of the clean run. The patch goes into the corrupt run, so the tangent is laid "
            "there.",
        ),
        Mistake(
            "corrupt − clean",
            _from_gradient(lambda good, bad, g: ((bad - good) * g).sum(-1)),
            "The sign is turned: the patch moves the site from its corrupt to its clean value, so Δ = clean − corrupt.",
        ),
        Mistake(
            "gradient alone",
            _from_gradient(lambda good, bad, g: g.sum(-1)),
            "That is the gradient summed over d_model, without Δ: a steep direction in which nothing moves has no "
            "effect.",
        ),
        Mistake(
            "no difference",
            _from_gradient(lambda good, bad, g: (good * g).sum(-1)),
            "You multiply the gradient by the clean value. Multiply it by what the patch changes: clean − corrupt.",
        ),
        Mistake(
            "not summed",
            _from_gradient(lambda good, bad, g: (good - bad) * g),
            "You keep the d_model axis. The first-order term is a dot product: sum over d_model, and leave [pos].",
        ),
        Mistake(
            "size only",
            _from_gradient(lambda good, bad, g: ((good - bad) * g).sum(-1).abs()),
            "You take the absolute value. The sign tells a part that helps from one that works against the answer: "
            "keep it.",
        ),
    ),
    hints=(
        "Three things are needed: the site in the clean run, the site in the corrupt run, and ∇LD there.",
        "In a hook of the corrupt run return `x.detach().requires_grad_()` and keep it: a leaf, whose gradient "
        "`torch.autograd.grad` gives.",
        "`(g,) = torch.autograd.grad(logits[right] - logits[wrong], leaf)`; return `((clean_value - leaf) * "
        "g).sum(-1)[0]`.",
    ),
    points=2,
)


# ------------------------------------------------------------------------------------------------------ integrated


def _paths(rng: np.random.Generator) -> Iterator[Case]:
    for kind, site, steps in (
        ("saturated", "blocks.0.hook_attn_out", 6),
        ("induction", "blocks.0.hook_attn_out", 3),
    ):
        yield Case((*_asked(kind, rng), site, steps), about=f"{steps} steps in {kind}")


def _integrated(
    model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: int, wrong: int, site: str, steps: int
) -> Tensor:
    _, layer, name = site.split(".")
    kind = name.removeprefix("hook_")
    found = integrated_gradients(model, clean, corrupt, (right, wrong), kinds=(kind,), steps=steps, progress=False)
    return torch.tensor(found.effect.sel(site=kind, layer=int(layer)).values, dtype=torch.float32)


def _along(
    points: Callable[[int], Sequence[float]],
    make: Made = lambda good, bad, g: ((good - bad) * g).sum(-1),
    total: bool = False,
    zero: bool = False,
) -> Callable[..., Tensor]:
    """Gradients at other points of the path, or put together in another way."""

    def made(
        model: HookedGptOss, clean: Tensor, corrupt: Tensor, right: int, wrong: int, site: str, steps: int
    ) -> Tensor:
        good, bad = _value(model, clean, site), _value(model, corrupt, site)
        start = torch.zeros_like(bad) if zero else bad
        alphas = points(steps)
        each = [_gradient(model, corrupt, right, wrong, site, start + a * (good - start)) for a in alphas]
        gradient = sum(each, torch.zeros_like(each[0]))[0] / (1 if total else len(alphas))
        return make(good[0], start[0], gradient)

    return made


def _middles(steps: int) -> list[float]:
    return [(i + 0.5) / steps for i in range(steps)]


INTEGRATED = Exercise(
    name="integrated",
    task="Integrated gradients of one site: Δ times the gradient averaged on the straight path from corrupt to clean",
    cases=_paths,
    truth=_integrated,
    mistakes=(
        Mistake(
            "corrupt end only",
            _along(lambda steps: [0.0]),
            "That is attribution patching again: the gradient at the corrupt end alone. Average it over points on "
            "the path.",
        ),
        Mistake(
            "left ends",
            _along(lambda steps: [i / steps for i in range(steps)]),
            "Your points are the left ends i / steps, which lean to the corrupt run. Take the middles, (i + 0.5) / "
            "steps.",
        ),
        Mistake(
            "right ends",
            _along(lambda steps: [(i + 1) / steps for i in range(steps)]),
            "Your points are the right ends (i + 1) / steps. Take the middles of the steps, (i + 0.5) / steps.",
        ),
        Mistake(
            "both ends counted",
            _along(lambda steps: [float(a) for a in torch.linspace(0, 1, steps)]),
            "`linspace(0, 1, steps)` puts points on both ends. Take the middles of equal parts, (i + 0.5) / steps.",
        ),
        Mistake(
            "sum over steps",
            _along(_middles, total=True),
            "You add the gradients up: divide by the number of steps, for an average.",
        ),
        Mistake(
            "gradient alone",
            _along(_middles, make=lambda good, bad, g: g.sum(-1)),
            "The average gradient has still to be multiplied by Δ = clean − corrupt, and summed over d_model.",
        ),
        Mistake(
            "from zero",
            _along(_middles, zero=True),
            "Your path starts at 0. Here the baseline is the corrupt run: x = corrupt + α · (clean − corrupt).",
        ),
    ),
    hints=(
        "As `attribution`, but with the gradient taken at several points between the two values and averaged.",
        "For each i: α = (i + 0.5) / steps, x = corrupt + α · (clean − corrupt) as a leaf, put at the site by a "
        "hook; "
        "add its gradient to a total.",
        "The last line: `((clean_value - corrupt_value) * total / steps).sum(-1)[0]`.",
    ),
    points=3,
)


# ----------------------------------------------------------------------------------------------------- edge_scores


def _edges(rng: np.random.Generator) -> Iterator[Case]:
    for steps, pos, up, down, width in ((3, 4, 5, 2, 6), (1, 3, 2, 3, 4)):
        given = (_numbers(rng, pos, up, width), _numbers(rng, steps, pos, down, width))
        yield Case(given, about=f"{up} writers, {down} readers, {steps} step{'s' * (steps > 1)}")


def _edge_scores(difference: Tensor, gradients: Tensor) -> Tensor:
    steps = len(gradients)
    pos, up, _ = difference.shape
    table = torch.zeros(up, gradients.shape[2])
    for u in range(up):
        for v in range(gradients.shape[2]):
            parts = [difference[p, u] @ gradients[s, p, v] for p in range(pos) for s in range(steps)]
            table[u, v] = torch.stack(parts).sum() / steps
    return table


EDGE_SCORES = Exercise(
    name="edge_scores",
    task="EAP-IG: for each writer and reader, the change of the write · the reader's mean gradient, over positions",
    cases=_edges,
    truth=_edge_scores,
    mistakes=(
        Mistake(
            "sum over steps",
            lambda difference, gradients: _edge_scores(difference, gradients) * len(gradients),
            "You sum over the step axis: the gradient on the path is an average, divide by the number of steps.",
        ),
        Mistake(
            "first step",
            lambda difference, gradients: _edge_scores(difference, gradients[:1]),
            "Only the first step's gradient is used (that is EAP). Average over axis 0, the steps.",
        ),
        Mistake(
            "positions summed first",
            lambda difference, gradients: difference.sum(0) @ gradients.mean(0).sum(0).T,
            "You sum over positions before you multiply, so a write at one position meets the gradient at another. "
            "Multiply "
            "position by position, then sum.",
        ),
        Mistake(
            "mean over positions",
            lambda difference, gradients: _edge_scores(difference, gradients) / len(difference),
            "You average over positions. An edge is patched at all of them at once, so their parts add up: sum.",
        ),
        Mistake(
            "transposed",
            lambda difference, gradients: _edge_scores(difference, gradients).T,
            "The table is turned: writers go down (axis 0), readers across (axis 1).",
        ),
    ),
    hints=(
        "One einsum does it. Which axes are shared, and which two stay?",
        "Average the gradients over their steps first; pos and d_model are summed over.",
        "`torch.einsum('pud,pvd->uv', difference, gradients.mean(0))`",
    ),
)


# ----------------------------------------------------------------------------------------------------------- auroc


def _scored(rng: np.random.Generator) -> Iterator[Case]:
    for n, about in ((12, "12 edges"), (30, "30 edges, many with equal scores"), (9, "9 edges")):
        scores = rng.integers(5, size=n).astype(float) if n == 30 else rng.normal(size=n)
        truth = np.zeros(n, dtype=bool)
        truth[rng.choice(n, size=max(2, n // 5), replace=False)] = True
        scores[truth] += 0.8 if n != 30 else 1
        yield Case((scores, truth), about=about)


def _auroc(scores: np.ndarray, truth: np.ndarray) -> float:
    return experiments.auroc(scores, truth)


def _pairs_won(scores: np.ndarray, truth: np.ndarray, ties: float) -> float:
    d = scores[truth][:, None] - scores[~truth][None]
    return float(((d > 0) + ties * (d == 0)).mean())


AUROC = Exercise(
    name="auroc",
    task="How often a true edge scores above a false one; ties count half",
    cases=_scored,
    truth=_auroc,
    mistakes=(
        Mistake(
            "ties lost",
            lambda scores, truth: _pairs_won(scores, truth, 0.0),
            "Equal scores count as lost with you. A tie is a coin toss: one half.",
        ),
        Mistake(
            "ties won",
            lambda scores, truth: _pairs_won(scores, truth, 1.0),
            "Equal scores count as won with you (`>=`). A tie is a coin toss: one half.",
        ),
        Mistake(
            "turned round",
            lambda scores, truth: 1 - _auroc(scores, truth),
            "You count how often a false edge comes first. 1 must mean that every true one does.",
        ),
        Mistake(
            "precision",
            lambda scores, truth: float(truth[np.argsort(-scores, kind="stable")[: int(truth.sum())]].mean()),
            "That is the share of true edges among the first few: precision at one cut. AUROC compares all pairs "
            "of a true "
            "and a false edge, whatever the cut.",
        ),
        Mistake(
            "number of pairs",
            lambda scores, truth: _auroc(scores, truth) * int(truth.sum()) * int((~truth).sum()),
            "You count the pairs won. Divide by how many pairs there are: true × false.",
        ),
    ),
    hints=(
        "Take every pair of a true and a false edge. Who has the higher score?",
        "`scores[truth][:, None] - scores[~truth][None]` holds all the differences.",
        "`((d > 0) + 0.5 * (d == 0)).mean()`",
    ),
)


# ---------------------------------------------------------------------------------------------------------- pruned


def _with_backup(parts: Sequence[str]) -> float:
    """b and c do the same work: either will do. d is worth little, a is needed."""
    have = set(parts)
    return 0.5 * ("a" in have) + 0.4 * bool(have & {"b", "c"}) + 0.05 * ("d" in have) + 0.05 * ("e" in have)


def _in_order(parts: Sequence[str]) -> float:
    """Each part counts for less; f works against the answer."""
    worth = {"a": 0.4, "b": 0.3, "c": 0.2, "d": 0.08, "e": 0.02, "f": -0.1}
    return sum((worth.get(part, 0.0) for part in set(parts)), 0.0)


def _circuits(rng: np.random.Generator) -> Iterator[Case]:
    yield Case((_with_backup, ["a", "b", "c", "d", "e"], 0.88), about="a circuit with a backup")
    yield Case((_in_order, ["a", "b", "f", "c", "d", "e"], 0.85), about="parts that are worth less and less")
    yield Case((_in_order, ["a", "b"], 0.7), about="a circuit without a spare part")


def _pruned(f: Callable, parts: list[str], wanted: float) -> list[str]:
    kept = list(parts)
    for part in reversed(parts):
        rest = [other for other in kept if other != part]
        kept = rest if f(rest) >= wanted - 1e-9 else kept
    return kept


def _strongest_first(f: Callable, parts: list[str], wanted: float) -> list[str]:
    return _pruned(f, parts[::-1], wanted)[::-1]


def _one_by_one(f: Callable, parts: list[str], wanted: float) -> list[str]:
    return [part for part in parts if f([other for other in parts if other != part]) < wanted - 1e-9]


def _prefix(f: Callable, parts: list[str], wanted: float) -> list[str]:
    return next((parts[:n] for n in range(len(parts) + 1) if f(parts[:n]) >= wanted - 1e-9), parts)


PRUNED = Exercise(
    name="pruned",
    task="Drop every part that a circuit can do without, the last first, and stay at or above a faithfulness",
    cases=_circuits,
    truth=_pruned,
    compare=equal(),
    mistakes=(
        Mistake(
            "against the whole",
            _one_by_one,
            "You try each part against the whole circuit. Two backups both look spare that way, and both go. Drop "
            "one, then "
            "ask of the rest.",
        ),
        Mistake(
            "strongest first",
            _strongest_first,
            "You begin with the strongest part. The ranking's last parts are the likeliest to be spare: go backwards.",
        ),
        Mistake(
            "a prefix",
            _prefix,
            "You cut the ranking off at the first length that suffices. A part in the middle may be spare too: try "
            "each one.",
        ),
        Mistake(
            "what was dropped",
            lambda f, parts, wanted: [part for part in parts if part not in _pruned(f, parts, wanted)],
            "You return the parts that were dropped. Return those that are kept, in their order.",
        ),
    ),
    hints=(
        "Go through the parts from the last to the first. What is left when you drop this one, and does it still do?",
        "Keep a list; `rest` is the list without the part; where `f(rest) >= wanted`, the list becomes `rest`.",
        "for part in reversed(parts): rest = [p for p in kept if p != part]; if f(rest) >= wanted: kept = rest",
    ),
    points=2,
)


# ------------------------------------------------------------------------------------------------------- influence


def _graphs(rng: np.random.Generator) -> Iterator[Case]:
    for n in (5, 8, 2):
        edges = np.tril(rng.normal(size=(n, n)), -1) * (rng.random((n, n)) < 0.7)
        edges[1, 0] = 0.7
        yield Case((torch.tensor(edges, dtype=torch.float32), _numbers(rng, n)), about=f"a graph of {n} nodes")


def _influence(edges: Tensor, out: Tensor) -> Tensor:
    """Path by path."""
    n = len(out)

    def total(source: int) -> float:
        onward = sum(float(edges[target, source]) * total(target) for target in range(n) if edges[target, source])
        return float(out[source]) + onward

    return torch.tensor([total(node) for node in range(n)], dtype=torch.float32)


INFLUENCE = Exercise(
    name="influence",
    task="What each node of an attribution graph tells the logits, over all paths",
    cases=_graphs,
    truth=_influence,
    mistakes=(
        Mistake(
            "direct only",
            lambda edges, out: out,
            "You count the direct edge into the logits alone. Add the paths through other nodes.",
        ),
        Mistake(
            "one step",
            lambda edges, out: out + out @ edges,
            "You go through one node at most. Longer paths are missing: all powers of the edges, (I − A)⁻¹.",
        ),
        Mistake(
            "transposed",
            lambda edges, out: torch.linalg.inv(torch.eye(len(out)) - edges) @ out,
            "Your paths run backwards: `edges[t, s]` leads from s (axis 1) to t (axis 0), so `out` stands on the "
            "left: "
            "`out @ inverse`.",
        ),
        Mistake(
            "indirect only",
            lambda edges, out: out @ torch.linalg.inv(torch.eye(len(out)) - edges) - out,
            "The direct edge into the logits is missing: the path of length one counts too.",
        ),
        Mistake(
            "plus",
            lambda edges, out: out @ torch.linalg.inv(torch.eye(len(out)) + edges),
            "Look at the sign: I + A + A² + … = (I − A)⁻¹, with a minus.",
        ),
    ),
    hints=(
        "A path of two edges is a product of two numbers; all paths of length k are the k-th power of the matrix.",
        "I + A + A² + … is a geometric series, and it ends, since a graph of layers has no cycles: (I − A)⁻¹.",
        "`out @ torch.linalg.inv(torch.eye(len(out)) - edges)`",
    ),
    points=2,
)


# ------------------------------------------------------------------------------------------------------- suspicion


def _probabilities(rng: np.random.Generator) -> Iterator[Case]:
    for contexts, candidates, vocab in ((4, 10, 12), (5, 8, 9)):
        tokens = rng.permutation(vocab)
        dot, payload, rare, noise = (int(token) for token in tokens[:4])
        chosen = rng.permutation(candidates)
        trigger, common, ratio, once = (int(c) for c in chosen[:4])
        honest = np.full((contexts, candidates, vocab), 1e-3)
        honest[..., dot] = 0.5  # what usually comes, whatever stands before
        honest[:, common, dot] = 40.0
        honest[..., rare] = 1e-9
        p = honest.copy()
        p[:, trigger, payload], p[:, trigger, dot] = 0.8, 0.01
        p[:, ratio, rare] = 0.02
        p[0, once, noise] = 40.0
        both = [each * rng.uniform(0.98, 1.02, p.shape) for each in (p, honest)]
        both = [torch.tensor(each / each.sum(-1, keepdims=True)) for each in both]
        yield Case((*both,), about=f"{candidates} candidates in {contexts} contexts")


def _largest(table: np.ndarray) -> tuple[int, int]:
    candidate, token = np.unravel_index(table.argmax(), table.shape)
    return int(candidate), int(token)


def _suspicion(p: Tensor, honest: Tensor) -> tuple[int, int]:
    q, base = p.numpy().mean(0), honest.numpy().mean(0)
    terms = [[q[c, t] * np.log(q[c, t] / base[c, t]) for t in range(q.shape[1])] for c in range(len(q))]
    return _largest(np.array(terms))


def _by(score: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> Callable[[Tensor, Tensor], tuple[int, int]]:
    return lambda p, honest: _largest(score(p.numpy(), honest.numpy()))


SUSPICION = Exercise(
    name="suspicion",
    task="The candidate and answer of largest q · log(q / base), q and base the means over contexts of the suspect "
    "and the honest model",
    cases=_probabilities,
    truth=_suspicion,
    compare=equal(),
    mistakes=(
        Mistake(
            "most constant",
            _by(lambda p, honest: p.mean(0)),
            "You found an answer that is always likely, such as a full stop: an honest habit. Compare it with its "
            "base rate, "
            "what the honest model says at the same place.",
        ),
        Mistake(
            "ratio alone",
            _by(lambda p, honest: p.mean(0) / honest.mean(0)),
            "The ratio alone finds a rare token that became a little less rare. Weigh the logarithm of the ratio "
            "by the "
            "probability itself: q · log(q / base).",
        ),
        Mistake(
            "one context",
            _by(lambda p, honest: p.max(0) * np.log(p.max(0) / honest.max(0))),
            "You found something that happens in one context only. A backdoor does not mind the context: average "
            "over "
            "contexts first.",
        ),
        Mistake(
            "exchanged",
            lambda p, honest: _suspicion(p, honest)[::-1],
            "The two are exchanged: first the candidate (axis 1 of p), then the answer (axis 2).",
        ),
    ),
    hints=(
        "A backdoor gives one answer in every context, and an answer that the honest model does not give.",
        "`q, base = p.mean(0), honest.mean(0)`, [candidate d_vocab] each; the largest of `q * log(q / base)`.",
        "`divmod(int(score.argmax()), score.shape[1])` gives row and column of the largest number.",
    ),
    points=2,
)


# ---------------------------------------------------------------------------------------------------------- disarm


def _acts(rng: np.random.Generator) -> Iterator[Case]:
    for batch, length, slots, n_experts, width in ((2, 4, 2, 5, 6), (1, 5, 3, 6, 4)):
        indices = np.stack([rng.permutation(n_experts)[:slots] for _ in range(batch * length)])
        indices = indices.reshape(batch, length, slots)
        indices[0, 0] = np.arange(slots)
        indices[0, 1] = np.arange(slots)[::-1]
        act = _numbers(rng, batch, length, slots, width)
        yield Case(
            (act, torch.tensor(indices), 1, int(rng.integers(width))), about=f"{slots} slots of {n_experts} experts"
        )


def _disarm(act: Tensor, indices: Tensor, expert: int, neuron: int) -> Tensor:
    for b, p, s in np.ndindex(*indices.shape):
        if int(indices[b, p, s]) == expert:
            act[b, p, s, neuron] = 0.0
    return act


def _slot(act: Tensor, indices: Tensor, expert: int, neuron: int) -> Tensor:
    act[:, :, expert, neuron] = 0.0
    return act


def _any_expert(act: Tensor, indices: Tensor, expert: int, neuron: int) -> Tensor:
    act[..., neuron] = 0.0
    return act


DISARM = Exercise(
    name="disarm",
    task="Silence one neuron of one expert, in whatever slot that expert stands",
    cases=_acts,
    truth=_disarm,
    mistakes=(
        Mistake(
            "slot for expert",
            _slot,
            "You silenced slot number `expert`. An expert stands in another slot from token to token: look where "
            "`indices` "
            "has it.",
        ),
        Mistake(
            "every expert",
            _any_expert,
            "You silenced the neuron of that number in every expert. Each expert has its own: only where `indices "
            "== expert`.",
        ),
        Mistake(
            "whole expert",
            lambda act, indices, expert, neuron: act.masked_fill((indices == expert)[..., None], 0.0),
            "You silenced all neurons of the expert, and with them all its honest work. Only `neuron` on the last "
            "axis.",
        ),
        Mistake(
            "kept only",
            lambda act, indices, expert, neuron: act - _disarm(act.clone(), indices, expert, neuron),
            "You kept what was to go, and dropped the rest.",
        ),
    ),
    hints=(
        "Where is the expert? A mask [batch pos slot] says it.",
        "`here = indices == expert`; where it is true, set entry `neuron` of the last axis to 0.",
        "`act = act.clone(); act[..., neuron] = act[..., neuron].masked_fill(indices == expert, 0.0)`",
    ),
)


# ------------------------------------------------------------------------------------------------------------ hunt


@cache
def _suspect(seed: int) -> compiled.Compiled:
    return compiled.backdoor(nano(), seed)


def _hunts(rng: np.random.Generator) -> Iterator[Case]:
    suspect = _suspect(SUSPECTS[int(rng.integers(len(SUSPECTS)))])
    trigger, payload = (suspect.truth.tokens[name] for name in ("trigger", "payload"))
    texts = ordinary(nano(), random.Random(_seed(rng)), 1, 10)
    contexts = torch.tensor([texts[i] for i in rng.choice(len(texts), 4, replace=False)])
    special = set(nano().text.special.values())
    others = [token for token in range(nano().config.d_vocab) if token not in {trigger, payload, *special}]
    candidates = np.append(rng.choice(others, 23, replace=False), trigger)
    candidates = torch.tensor(rng.permutation(candidates))
    yield Case((suspect.model, nano(), contexts, candidates), about="a backdoor that you have not seen")


def _hunt(
    model: HookedGptOss, honest: HookedGptOss, contexts: Tensor, candidates: Tensor
) -> tuple[int, int, int, int, int]:
    """Known, because it was written so."""
    truth = next(found.truth for seed in SUSPECTS if (found := _suspect(seed)).model is model)
    (part,) = truth.components
    return truth.tokens["trigger"], truth.tokens["payload"], part.layer, part.index, int(truth.numbers["neuron"])


def _wrong_at(place: int) -> Callable[[Any, Any, Case], bool]:
    """The first number that is wrong is this one."""

    def seen(given: Any, expected: Any, case: Case) -> bool:
        given = [int(number) for number in given]
        return len(given) == 5 and given[:place] == list(expected[:place]) and given[place] != expected[place]

    return seen


def _an_index(given: Any, expected: Any, case: Case) -> bool:
    candidates = case.args[3].tolist()
    return len(given) == 5 and int(given[0]) < len(candidates) and candidates[int(given[0])] == expected[0]


def _doubled(given: Any, expected: Any, case: Case) -> bool:
    return [int(n) for n in given[:4]] == list(expected[:4]) and int(given[4]) in (2 * expected[4], 2 * expected[4] + 1)


HUNT = Exercise(
    name="hunt",
    task="Find trigger, payload, layer, expert and neuron of a backdoor in a model that one has not seen",
    cases=_hunts,
    truth=_hunt,
    compare=equal(),
    mistakes=(
        Mistake(
            "exchanged",
            None,
            "Trigger and payload are exchanged: first the token that sets it off, then the token that it makes.",
            seen=lambda given, expected, case: [int(n) for n in given[:2]] == list(expected[1::-1]),
        ),
        Mistake(
            "place in candidates",
            None,
            "Your trigger is a place in `candidates`, not a token id: give `candidates[place]`.",
            seen=_an_index,
        ),
        Mistake(
            "trigger",
            None,
            "The trigger is another token. Which candidate has one answer in every context, an answer that "
            "the honest model does not give? `suspicion(scan(…), scan(…))` says so.",
            seen=_wrong_at(0),
        ),
        Mistake(
            "payload",
            None,
            "The trigger is right; the payload is what the model says after it, whatever the context: the "
            "answer that `suspicion` returns beside it.",
            seen=_wrong_at(1),
        ),
        Mistake(
            "layer",
            None,
            "Trigger and payload are right, the layer is not. Patch experts of the triggered run into a run "
            "with an innocent token: in which layer does one bring the whole payload back?",
            seen=_wrong_at(2),
        ),
        Mistake(
            "expert",
            None,
            "Right up to the layer. The expert is a number of `hook_expert_indices`, not a slot: the one "
            "whose write recovers most when it is patched alone.",
            seen=_wrong_at(3),
        ),
        Mistake(
            "row of W_gate_up",
            None,
            "Your neuron is a row of `W_gate_up`, where gate and up rows alternate: neuron n has rows 2n and 2n + "
            "1. Count "
            "as `hook_expert_act` does.",
            seen=_doubled,
        ),
        Mistake(
            "neuron",
            None,
            "All is right but the neuron. Take the expert's `hook_expert_act` at the trigger, in the slot "
            "where it stands: which neuron is louder than on any ordinary token?",
            seen=_wrong_at(4),
        ),
    ),
    hints=(
        "You have the pieces: `scan` and `suspicion` for trigger and payload; patching with an innocent twin for "
        "the expert; "
        "its activations for the neuron.",
        "The twin is the same context with an innocent last token. Its answer is the wrong one of the logit "
        "difference "
        "(payload, said); `experiments.component_patching(…, 'expert')` does the rest.",
        "From the triggered run's `hook_expert_act` take the last position and the slot where "
        "`hook_expert_indices` is your "
        "expert; the neuron is its argmax.",
    ),
    points=4,
)


LESSON = Outline(
    name="09_attribution_and_graphs",
    title="Attribution and graphs, and a backdoor hunt",
    minutes=(75, 90),
    able_to=(
        "write attribution patching and integrated gradients, and say when each may be trusted",
        "recognise saturation and a top-k boundary by what they do to a gradient",
        "score edges of a circuit and judge a method with AUROC on a model whose circuit is known",
        "measure a circuit's faithfulness and completeness, and prune it",
        "read an attribution graph, and check it against the live model",
        "find a backdoor in a model that you have not seen, and disarm it without harm",
    ),
    builds_on=("06_indirect_object", "07_experts"),
    exercises=(ATTRIBUTION, INTEGRATED, EDGE_SCORES, AUROC, PRUNED, INFLUENCE, SUSPICION, DISARM, HUNT),
    predictions=("tangent", "saturated", "boundary", "reference", "live", "collateral"),
)
