"""The ablation bench without a browser: a page, Python, a table, a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.experiments.rows import provenance
from workbench.figures.text import visible
from workbench.widgets import static
from workbench.widgets.code import source_of, variable
from workbench.widgets.views.ablation_choice import Choice, Side
from workbench.widgets.views.ablation_parts import Part, code_of, name
from workbench.widgets.views.ablation_sweep import SEED, Group, Sweep, movers

if TYPE_CHECKING:
    from workbench.widgets.views.ablation import Ablation

WRITTEN = 30  # rows of the page's table
COLUMNS = {
    "activation": "activation",
    "norm": "write norm",
    "direct": "direct effect, logits",
    "effect": "total effect, logits",
    "kl": "KL, nats",
}


def tables(view: Ablation, choice: Choice) -> tuple[list[Side], list[Sweep], dict[str, np.ndarray]]:
    """The sides, their sweeps, and every column as [side layer index]."""
    sides = choice.sides()
    sweeps, read = [view.sweep(choice, side) for side in sides], [view.numbers(choice, side) for side in sides]
    found = {key: np.stack([each[key] for each in read]) for key in ("activation", "norm", "direct")}
    return sides, sweeps, found | {key: np.stack([getattr(each, key) for each in sweeps]) for key in ("effect", "kl")}


def group_words(group: Group, title: str) -> dict[str, Any]:
    """The chosen group beside the random ones, as numbers."""
    effect, others = group.effect[0], group.effect[1:]
    ran = others[np.isfinite(others)]
    known = np.isfinite(effect) and ran.size
    return {
        "title": title,
        "effect": _number(effect),
        "kl": _number(group.kl[0]),
        "others": [_number(value) for value in others],
        "other_kl": [_number(value) for value in group.kl[1:]],
        "floor": float(np.abs(ran).max()) if ran.size else None,
        "p": float((1 + (np.abs(ran) >= abs(effect)).sum()) / (1 + ran.size)) if known else None,
    }


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


# ---------------------------------------------------------------- the page


def page(view: Ablation) -> str:
    """The first rows, as they are sorted, and the group."""
    choice = view.choice()
    if not view.ready(choice):
        return static.note(f"every {choice.kind}, policy {choice.policy}: not looked at yet")
    sides, sweeps, found = tables(view, choice)
    kind, right, wrong = choice.kind, *map(view.session.word, view.session.metric())
    ends = "; ".join(f"{side.title} {choice.metric(side):+.3g}" for side in sides)
    left = sum(sweep.left for sweep in sweeps)
    parts = [
        static.note(f"every {kind}, policy {choice.policy}; effects are changes of logit {right} − logit {wrong} after "
                    f"the last token, which is {ends}"),
        static.note(f"{left} total effects not run yet" if left else "all total effects are run"),
    ]  # fmt: skip
    headers = ["component"]
    for words in COLUMNS.values():
        headers += [f"{words}: {title}" for title in _titles(sides)]
    rows = [[name(kind, part), *_cells(found, part)] for part in _order(choice, found)]
    parts.append(static.table(headers, rows, WRITTEN))
    chosen = choice.group()
    for side, sweep in zip(sides, sweeps, strict=True):
        group = sweep.groups.get(tuple(chosen))
        if group is not None and np.isfinite(group.effect[0]):
            parts.append(static.note(_said(group_words(group, side.title), [name(kind, part) for part in chosen])))
    return "".join(parts)


def _titles(sides: list[Side]) -> list[str]:
    return [sides[0].title] if len(sides) == 1 else [sides[0].title, "difference", sides[1].title]


def _cells(found: dict[str, np.ndarray], part: Part) -> list[str]:
    made = []
    for key in COLUMNS:
        values = found[key][(slice(None), *part)]
        shown = [values[0]] if len(values) == 1 else [values[0], values[1] - values[0], values[1]]
        made += [f"{value:.3g}" if np.isfinite(value) else "·" for value in shown]
    return made


def _order(choice: Choice, found: dict[str, np.ndarray]) -> list[Part]:
    """Components as the table is sorted; what is not known comes last."""
    parts = [tuple(part) for part in np.ndindex(choice.shape)]
    key, _, side = choice.options["sort"].partition(".")
    if key not in found:
        return parts[::-1] if choice.options["down"] else parts
    values = found[key]
    both = {"left": values[0], "right": values[-1], "difference": values[-1] - values[0]}
    chosen = both.get(side, values[0])
    sign = -1 if choice.options["down"] else 1
    return sorted(parts, key=lambda part: (np.isnan(chosen[part]), sign * np.nan_to_num(chosen[part])))


def _said(words: dict[str, Any], names: list[str]) -> str:
    beside = ""
    if words["p"] is not None:
        beside = (f"; {len(words['others'])} random groups of as many reach at most {words['floor']:.3g}, "
                  f"p = {words['p']:.2g}")  # fmt: skip
    both = f"{words['effect']:+.3g} logits, KL {words['kl']:.3g} nats"
    return f"{words['title']}: {', '.join(names)} together: {both}{beside}"


# ---------------------------------------------------------------- Python


def code(view: Ablation) -> str:
    """Python that finds the same numbers."""
    session, choice = view.session, view.choice()
    sides, kind = choice.sides(), choice.kind
    left = view.sweep(choice, sides[0])
    if len(left.order) < left.able.size:
        components = _specs(left, sorted(left.order))  # those that are left out cannot be taken out in this way
    else:
        components = code_of(kind, choice.policy, choice.source, session.config)
    lines = [
        f"components = {components}",
        f"direct = experiments.direct_logit_attribution({variable(sides[0].name)}, {session.metric()})",
    ]
    for which, side in zip(("left", "right"), sides, strict=False):
        lines.append(f"{which} = {_call(choice, side, 'components')}  # {visible(side.title, 60)}")
    lines += _floor_code(choice, sides[0], left) + _group_code(choice, sides[0], left)
    lines.append("figures.ablation_bars(left)" if kind == "layer" else "figures.ablation_heatmap(left)")
    return "\n".join(lines)


def _call(choice: Choice, side: Side, components: str, more: str = "") -> str:
    # The tokens of a run with interventions are its subject's.
    run = variable(choice.session.state.subject if side.given else side.name)
    given = ", given=run.interventions" if side.given else ""
    sources = _sources(choice, side)
    given += f", sources={sources}" if sources else ""
    return f"experiments.ablation_sweep(model, [{run}.tokens], {choice.session.metric()}, {components}{given}{more})"


def _floor_code(choice: Choice, side: Side, sweep: Sweep) -> list[str]:
    if sweep.floor is None:
        return []
    some, controls = movers(sweep)
    call = _call(choice, side, "movers", f", controls={controls}, seed={SEED}")
    return [f"movers = {_specs(sweep, some)}", f"floor = float({call}.floor.max())"]


def _sources(choice: Choice, side: Side) -> str:
    """What the components and the interventions take from elsewhere, as a dict."""
    session, source = choice.session, choice.source
    used = {name for spec in side.given for name, _ in spec.reads(session.config)}
    made = []
    for prompt in session.state.prompts:
        if prompt.name == source:
            ends = "('hook_z', 'attn_out', 'mlp_out', 'expert_indices', 'expert_out')"
            # (A run that interventions take from as well must have kept what they take.)
            keep = "'all'" if prompt.name in used else f"lambda site: site.endswith({ends})"
            made.append(f"{prompt.name!r}: wb.run(model, {variable(prompt.name)}.tokens, sites={keep})")
        elif prompt.name in used:
            made.append(f"{prompt.name!r}: {source_of(session, prompt.name)}")
    made += ["**vectors"] if used & set(session.state.vectors) else []
    return f"{{{', '.join(made)}}}" if made else ""


def _specs(sweep: Sweep, parts: list[Part]) -> str:
    return "[" + ", ".join(f"wb.{sweep.study.spec(part)!r}" for part in parts) + "]"


def _group_code(choice: Choice, side: Side, sweep: Sweep) -> list[str]:
    group = sweep.groups.get(tuple(choice.group()))
    if group is None:
        return []
    every = ",\n    ".join(_specs(sweep, each) for each in group.groups)
    lines = [f"groups = [  # the chosen one, then random ones of as many (seed {SEED})\n    {every},\n]"]
    return [*lines, f"together = {_call(choice, side, 'groups')}"]


# ---------------------------------------------------------------- numbers


def table(view: Ablation) -> xr.Dataset:
    """Every column of both sides, labelled."""
    choice = view.choice()
    sides, sweeps, found = tables(view, choice)
    kind = choice.kind
    dims = ("side", "layer", kind if kind != "sink" else "head")
    units = {"direct": "logits", "effect": "logits", "kl": "nats"}
    variables: dict[str, Any] = {
        key: (dims, values, {"long_name": COLUMNS[key], "units": units.get(key, "")}) for key, values in found.items()
    }
    variables["floor"] = ("side", np.array([np.nan if s.floor is None else s.floor for s in sweeps]))
    layers, count = choice.shape
    coords = {"side": [side.title for side in sides], "layer": np.arange(layers), dims[2]: np.arange(count)}
    if kind == "layer":
        variables = {key: (value[0][:2], value[1][:, :, 0], value[2]) if len(value) == 3 else value
                     for key, value in variables.items()}  # fmt: skip
        coords = {"side": coords["side"], "layer": np.arange(layers)}
    right, wrong = view.session.metric()
    about = {"policy": choice.policy, "metric": f"logit of {right} − logit of {wrong}", "component": kind}
    return xr.Dataset(variables, coords, provenance(sides[0].run, "ablation", 0, **about))


def figure(view: Ablation) -> go.Figure:
    """The total effects of the left side; before any is run, what each part writes of the answer directly."""
    choice = view.choice()
    side = choice.sides()[0]
    sweep = view.sweep(choice, side)
    if not np.isfinite(sweep.effect).any():
        return figures.direct_logit_attribution(experiments.direct_logit_attribution(side.run, view.session.metric()))
    data = swept(view, sweep)
    return figures.ablation_bars(data) if sweep.study.kind == "layer" else figures.ablation_heatmap(data)


def swept(view: Ablation, sweep: Sweep) -> xr.Dataset:
    """What is run of a sweep, in the form of ``experiments.ablation_sweep``."""
    done = [part for part in sorted(sweep.order) if np.isfinite(sweep.effect[part])]
    effect = np.array([sweep.effect[part] for part in done])
    right, wrong = sweep.study.answer
    each = {
        "spec": [repr(sweep.study.spec(part)) for part in done],
        "layer": [part[0] for part in done],
        "index": [-1 if sweep.study.kind == "layer" else part[1] for part in done],
        "policy": [sweep.study.policy] * len(done),
    }
    variables = {
        "effect": (("component", "prompt"), effect[:, None]),
        "mean_effect": ("component", effect),
        "kl": (("component", "prompt"), np.array([sweep.kl[part] for part in done])[:, None]),
    }
    if sweep.floor is not None:
        variables["floor"] = ("component", np.full(len(done), sweep.floor))
    coords = {key: ("component", values) for key, values in each.items()}
    words = " − ".join(f"logit of {view.session.word(token)!r}" for token in (right, wrong))
    return xr.Dataset(variables, coords, {"experiment": "ablation_sweep", "metric": words})
