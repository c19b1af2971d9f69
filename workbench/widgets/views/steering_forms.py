"""Steering without a browser: a page, Python, a table, a figure."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.figures.text import visible
from workbench.widgets import recipes, static
from workbench.widgets.code import generated, variable
from workbench.widgets.views.steering_choice import SEED, Choice, Missing
from workbench.widgets.views.steering_runs import CONTROLS, TEXTS, Study, steered

if TYPE_CHECKING:
    from workbench.widgets.views.steering import Steering

DIFFERS = "#f8cfae"
TITLES = {"default": "default", "steered": "steered", "control": "random direction"}


def page(view: Steering) -> str:
    """The direction, its place, the next token, and the texts."""
    choice = view.choice()
    try:
        study = choice.study()
        if not view.ready(choice, study):
            return static.note(f"{study.scale:.3g} × {visible(choice.recipe()[0], 60)} at {study.site}: not run yet")
        done, controls = view.effect(choice, study), view.controls(choice, study)
    except Missing as why:
        return static.note(str(why))
    norm, stream = abs(study.scale) * float(choice.vector(study).norm()), choice.stream(study)
    name, kls = visible(choice.recipe()[0], 60), controls["kl"]
    rows = [(bar["text"], f"{bar['before']:.3f}", f"{bar['after']:.3f}") for bar in done["bars"]]
    parts = [
        static.note(f"{study.scale:.3g} × {name}, added at {study.site}, {_where(study)}: length {norm:.3g}, "
                    f"{norm / stream:.0%} of what stands there"),
        static.note(f"after the text: KL {done['kl']:.3g} nats; {CONTROLS} random directions of the same length: "
                    f"{min(kls):.3g} to {max(kls):.3g} nats"),
        static.table(("next token", "default", "steered"), rows),
    ]  # fmt: skip
    texts = view.known_texts(study, choice.options["length"])
    said = {} if texts is None else texts.said(view.session)
    for name in TEXTS if said else ():
        fills = [DIFFERS if differs else "#ffffff" for differs in said[name]["differs"]]
        parts.append(static.note(f"goes on, {TITLES[name]}:") + static.strip(said[name]["tokens"], fills))
    return "".join(parts)


def _where(study: Study) -> str:
    if study.where == "generated":
        return "from the text's last token on"
    if study.positions is None:
        return "at all positions"
    return f"at {len(study.positions)} selected position{'s' if len(study.positions) > 1 else ''}"


def code(view: Steering) -> str:
    """Python that finds the same numbers and texts."""
    choice = view.choice()
    try:
        study = choice.study()
    except Missing as why:
        return f"# {why}"
    base, length, last = variable(view.session.state.subject), choice.options["length"], len(study.tokens) - 1
    said = generated(view.session)
    at = later = "" if study.positions is None else f", positions={study.positions}"
    if study.where == "generated":
        later = f", positions=tuple(range({last}, {last + 1 + length}))"
    steer, control = (f"wb.Steer({study.site!r}, {name!r}, {study.scale!r}" for name in ("direction", "random"))
    return "\n".join([
        f"direction = {recipes.code(json.loads(study.recipe))}",
        f"random = torch.randn({len(choice.vector(study))}, generator=torch.Generator().manual_seed({SEED}))",
        "random = random * (float(direction.float().norm()) / random.norm())",
        "directions = {'direction': direction, 'random': random}",
        f"steered = wb.run(model, {base}.tokens, [{steer}{at})], sources=directions, name='steered')",
        f"control = wb.run(model, {base}.tokens, [{control}{at})], sources=directions, name='random direction')",
        f"texts = {{'default': model.generate({base}.tokens, {length}).finish().{said}}}",
        f"for name, edit in {{'steered': {steer}{later}), 'random direction': {control}{later})}}.items():",
        "    with model.edited([edit], directions):",
        f"        texts[name] = model.generate({base}.tokens, {length}).finish().{said}",
        r"print(*(f'{name}: {text}' for name, text in texts.items()), sep='\n')",
        f"compared = experiments.compare({base}, steered, control, top_k=8)",
        f"figures.next_token_bars(compared, pos={last})",
    ])  # fmt: skip


def compared(view: Steering, choice: Choice, study: Study) -> xr.Dataset:
    """The plain run, the steered one, and one with a random direction, side by side."""
    session, base = view.session, view.session.base
    vectors = {"steered": choice.vector(study), TITLES["control"]: choice.random(study)}
    runs = [
        replace(session.on_worker(lambda v=vector: steered(session, base, study, v), f"steer: {name}"), name=name)
        for name, vector in vectors.items()
    ]
    return experiments.compare(base, *runs, top_k=8)


def table(view: Steering) -> xr.Dataset:
    """What :func:`compared` gives, with the KL of all random directions."""
    choice = view.choice()
    study = choice.study()
    kls = np.array(view.controls(choice, study)["kl"])
    made = compared(view, choice, study)
    made = made.assign(control_kl=("control", kls, {"long_name": "KL of random directions", "units": "nats"}))
    about = {"site": study.site, "scale": study.scale, "where": study.where}
    return made.assign_attrs(**about, vector_norm=float(choice.vector(study).norm()), stream_norm=choice.stream(study))


def figure(view: Steering) -> go.Figure:
    """The likely next tokens after the text, of all three."""
    choice = view.choice()
    study = choice.study()
    return figures.next_token_bars(compared(view, choice, study), pos=len(study.tokens) - 1)
