"""The atlas without a browser: HTML without scripts, lines of Python, a table, a figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import figures
from workbench.atlases import AtlasError
from workbench.atlases.contexts import Context
from workbench.figures import style
from workbench.figures.style import SEQUENTIAL, colours
from workbench.figures.text import visible
from workbench.widgets import static
from workbench.widgets.views.atlas_effects import blocked, place
from workbench.widgets.views.atlas_source import HOW, NoAtlas

if TYPE_CHECKING:
    from workbench.widgets.views.atlas import AtlasView

FEW = 12  # rows of each table
NONE_SAID = "(none said)"


# ---------------------------------------------------------------- plain numbers
def groups(data: xr.Dataset, layer: int, expert: int) -> list[dict[str, Any]]:
    """One expert's row of ``atlas.specialisation``, the largest lifts first."""
    (by,) = (str(dim) for dim in data["lift"].dims if dim not in ("layer", "expert"))
    row = data.sel(layer=layer, expert=expert)
    order = np.argsort(-np.nan_to_num(row["lift"].values, nan=-1.0), kind="stable").tolist()
    whole = ("count", "tokens", "documents")
    parts = ("share", "share_low", "share_high", "lift", "lift_low", "lift_high")
    return [
        {"name": visible(str(data.coords[by].values[i]) or NONE_SAID, 80)}
        | {name: int(row[name].values[i]) for name in whole}
        | {name: float(row[name].values[i]) for name in parts}
        for i in order
    ]


def neighbours(data: xr.Dataset, expert: int, most: int) -> list[dict[str, Any]]:
    """One expert's row of ``atlas.coactivation``, the largest lifts first."""
    row = data.sel(expert=expert)
    lift = np.nan_to_num(row["lift"].values, nan=-1.0)
    order = [int(i) for i in np.argsort(-lift, kind="stable") if i != expert and int(row["count"].values[i]) > 0]
    return [
        {"expert": i, "count": int(row["count"].values[i])}
        | {name: float(row[name].values[i]) for name in ("share", "lift")}
        for i in order[:most]
    ]


# ---------------------------------------------------------------- HTML
def page(view: AtlasView) -> str:
    """What is known by now: nothing is run for it."""
    try:
        given = view.atlas
        if given is None:
            return static.note(f"no atlas is open: {HOW} makes one")
        if not given.n_tokens:
            return static.note(f"the atlas in {given.folder} has no tokens")
        layer, expert = view.expert
        shown = view.contexts
    except (NoAtlas, AtlasError) as error:
        return static.note(str(error).split("\n\n")[0])
    load = view.source.load(given).sel(layer=layer, expert=expert)
    parts = [
        static.note(f"{given!r}"),
        static.note(
            f"layer {layer}, expert {expert}: {int(load['count'])} tokens, load {float(load['load']):.2%} (even: "
            f"{given.n_slots / given.n_experts:.2%})"
        ),
        _strange(view),
        _contexts(shown, view),
        _groups(view, layer, expert),
    ]
    return "".join(parts)


def _strange(view: AtlasView) -> str:
    given = view.atlas
    assert given is not None
    if given.about["interventions"]:
        return static.note(f"built with interventions: {', '.join(given.about['interventions'])}")
    if given.about["identity"]["model"] != view.model_fingerprint:
        return static.note(f"contexts and statistics are of another model: {given.about['model']}")
    return ""


def _contexts(shown: list[Context], view: AtlasView) -> str:
    words = "where it fires hardest" if view.option("order") == "weight" else "some of its tokens, at random"
    if not shown:
        return static.note("no token of this corpus goes to this expert")
    lines = []
    for each in shown[:FEW]:
        fills = colours(each.weights, SEQUENTIAL, 0.0, 1.0)
        tokens = [f"⟦{visible(t, 40)}⟧" if i == each.centre else visible(t, 40) for i, t in enumerate(each.tokens)]
        titles = [f"weight {weight:.3f}" for weight in each.weights]
        where = " · ".join(str(word) for word in (each.domain, each.language, each.role, each.channel) if word)
        said = f"{each.weight:.3f} · {where or 'document'} {each.document}, token {each.position}"
        lines.append(static.note(said) + static.strip(tokens, fills, titles))
    more = static.note(f"… and {len(shown) - FEW} more") if len(shown) > FEW else ""
    return static.section(
        f"Contexts: {words}; ⟦⟧ the token, background the expert's weight, 0 to 1", *lines, more
    ) + _effects(view)


def _effects(view: AtlasView) -> str:
    given = view.atlas
    assert given is not None
    if blocked(view.session, given) is not None or (data := view.effects) is None:
        return ""
    rows = []
    for i, name in enumerate(data.ablated.values.tolist()):
        number = int(data.attrs["expert" if name == "expert" else "control"])
        said = [f"expert {number}" + (" (control of like load)" if name == "control" else "")]
        for kind in ("kl", "loss_change"):
            mean, low, high = (float(data[f"{kind}_{end}"][i]) for end in ("mean", "low", "high"))
            said.append(f"{mean:.3g} ({low:.3g} to {high:.3g})")
        rows.append(said)
    heads = ("without", "mean KL of the next token, nats", "mean rise of its loss, nats")
    lens = [
        f"{end}: {', '.join(view.session.word(int(i)) for i in data[f'{end}_id'].values)}"
        for end in ("raised", "lowered")
    ]
    note = f"{data.sizes['context']} contexts, at the token; in brackets 95% intervals"
    return static.section("Without it", static.note(note), static.table(heads, rows), *map(static.note, lens))


def _groups(view: AtlasView, layer: int, expert: int) -> str:
    given, by = view.atlas, view.by
    assert given is not None
    parts = []
    if by is not None:
        rows = [
            (each["name"], _lift(each), f"{each['count']} of {each['tokens']}", each["documents"])
            for each in groups(view.source.specialisation(given, by), layer, expert)
        ]
        heads = (by, "lift (95% interval)", "its tokens of the group's", "documents")
        parts.append(static.section(f"Specialisation by {by}", static.table(heads, rows, most=FEW)))
    rows = [(f"E{n['expert']}", f"{n['lift']:.2f}", f"{n['share']:.1%}", n["count"])
            for n in neighbours(view.source.together(given, layer), expert, FEW)]  # fmt: skip
    heads = ("expert", "lift", "share of its tokens", "tokens of both")
    return "".join([*parts, static.section("Experts that serve the same tokens", static.table(heads, rows, most=FEW))])


def _lift(each: dict[str, Any]) -> str:
    if not np.isfinite(each["lift_low"]):
        return f"{each['lift']:.2f}"
    return f"{each['lift']:.2f} ({each['lift_low']:.2f} to {each['lift_high']:.2f})"


# ---------------------------------------------------------------- Python
def code(view: AtlasView) -> str:
    """Given ``model``."""
    folder = view.option("folder")
    if folder is None:
        return f"# no atlas is open: atlas = {HOW}"
    try:
        given = view.atlas
        assert given is not None
        layer, expert = view.expert
    except AtlasError:
        return f"# atlas = wb.atlas.open({folder!r}) cannot be read now"
    few = ", per_document=1" if view.option("once") else ""
    order = "" if view.option("order") == "weight" else f", by={view.option('order')!r}"
    asked = f"{layer}, {expert}, n={view.option('n')}{order}{few}"
    lines = [f"atlas = wb.atlas.open({folder!r})", f"contexts = atlas.contexts({asked})"]
    if view.by is not None:
        lines.append(f"specialisation = atlas.specialisation({view.by!r}).sel(layer={layer}, expert={expert})")
    lines.append(f"together = atlas.coactivation({layer}).sel(expert={expert})")
    if blocked(view.session, given) is None and (data := view.effects) is not None:
        control = int(data.attrs["control"])
        lines += [
            "from workbench.atlases.reading import up_to",
            "rows, following = up_to(atlas, contexts)",
            f"effects = experiments.expert_effects(model, rows, {layer}, {expert}, {None if control < 0 else control}, "
            f"following=following, policy={data.attrs['policy']!r}, progress=False)",
        ]
    return "\n".join([*lines, "figures.atlas_contexts(contexts)"])


# ---------------------------------------------------------------- table, figure
def table(view: AtlasView) -> xr.Dataset:
    """The listed contexts token by token, their effects, and what the expert serves; empty without an atlas."""
    given = view.atlas
    if given is None or not given.n_tokens:
        return xr.Dataset(attrs={"note": f"no atlas is open: {HOW} makes one"})
    (layer, expert), shown = view.expert, view.contexts
    made = _listed(shown).assign_attrs(given.provenance("contexts") | {"layer": layer, "expert": expert})
    if view.by is not None:
        served = view.source.specialisation(given, view.by).sel(layer=layer, expert=expert)
        made = made.merge(
            served.drop_vars(["layer", "expert"]).rename({name: f"group_{name}" for name in served.data_vars})
        )
    together = view.source.together(given, layer).sel(expert=expert).drop_vars(["layer", "expert"])
    made = made.merge(together.rename({name: f"with_{name}" for name in together.data_vars}))
    if blocked(view.session, given) is None and (data := view.effects) is not None:
        made = made.merge(_beside(shown, data))
    return made


def _listed(shown: list[Context]) -> xr.Dataset:
    before = max((each.centre for each in shown), default=0)
    after = max((len(each.tokens) - each.centre - 1 for each in shown), default=0)
    shape = (len(shown), before + 1 + after)
    weights, tokens = np.full(shape, np.nan), np.full(shape, "", dtype=object)
    for i, each in enumerate(shown):
        part = slice(before - each.centre, before - each.centre + len(each.tokens))
        weights[i, part], tokens[i, part] = each.weights, each.tokens
    at = ("context", "offset")
    words = {f"context_{name}": ("context", np.array([getattr(each, name) or "" for each in shown], dtype=str))
             for name in ("id", "domain", "language", "role", "channel")}  # fmt: skip
    where = {name: ("context", np.array([getattr(each, name) for each in shown], dtype=np.int64))
             for name in ("document", "position")}  # fmt: skip
    variables = {
        "token": (at, tokens.astype(str)),
        "token_weight": (at, weights, {"long_name": "the expert's weight at each token", "units": "1"}),
    }
    return xr.Dataset(variables, {**where, **words, "offset": np.arange(-before, after + 1)})


def _beside(shown: list[Context], data: xr.Dataset) -> xr.Dataset:
    number = {
        (d, p): i
        for i, (d, p) in enumerate(zip(data.document.values.tolist(), data.position.values.tolist(), strict=True))
    }
    made = {}
    for name in ("kl", "loss_change"):
        values = np.full((data.sizes["ablated"], len(shown)), np.nan)
        for i, each in enumerate(shown):
            if place(each) in number:
                values[:, i] = data[name].values[:, number[place(each)]]
        made[name] = (("ablated", "context"), values, data[name].attrs)
    return xr.Dataset(made, {"ablated": data.ablated.values})


def figure(view: AtlasView) -> go.Figure:
    """The listed contexts."""
    given = view.atlas
    if given is None or not given.n_tokens:
        return style.figure("No atlas is open", "wb.atlas(model, texts, folder) makes one", height=200)
    shown = view.contexts
    if not shown:
        layer, expert = view.expert
        return style.figure(f"Expert {expert} of layer {layer}", "no token of this corpus goes to it", height=200)
    return figures.atlas_contexts(shown)
