"""Routing: which experts each token goes to, what changes when it does not, and what the experts specialise in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import plotly.graph_objects as go
import xarray as xr

from workbench import experiments, figures
from workbench.activations import Run, site_of
from workbench.figures.style import role_name
from workbench.figures.text import visible
from workbench.widgets.state import EDITED
from workbench.widgets.views import routing_code, routing_corpus, routing_static
from workbench.widgets.views.base import Payload, View, number_of
from workbench.widgets.views.routing_edits import MAKE, edits_of, label_of, spec_of, with_spec, without
from workbench.widgets.views.routing_effect import alternatives, answers_at, effect_shown, preview, routes_of
from workbench.widgets.views.tokens import bands

MOST_ROUTES = 300_000  # in one message: five bytes each


class Routing(View):
    """The routes of a run, and what edits of them do."""

    name, title = "routing", "Routing"
    defaults: ClassVar[dict[str, Any]] = {
        "zoom": "fit",
        "where": "everywhere",
        "next": 4,
        "measured": False,
        "texts": None,
    }
    choices: ClassVar[dict[str, Any]] = {"zoom": ("overview", "fit", "numbers"), "where": ("everywhere", "token")}

    def __init__(self, session: Any) -> None:
        super().__init__(session)
        self.corpus = routing_corpus.Corpus(session)

    def use_texts(self, texts: Sequence[Any] | dict[str, Sequence[Any]]) -> None:
        """The corpus of the panels on domains and contexts: texts, Chats or rows of token ids; a list, or by domain.

        Raises:
            ValueError: for anything else, or nothing.
        """
        self.corpus.given = routing_corpus.flattened(texts)
        self.session.options(self.name, texts=None)

    # ------------------------------------------------------------ what the browser asks

    def data(self, ask: dict[str, Any]) -> Payload:
        kinds = {
            "ribbon": self._ribbon,
            "statistics": self._statistics,
            "layer": self._layer,
            "unchosen": self._unchosen,
            "edits": lambda ask: ({"edits": edits_of(self.session.state)}, {}),
            "corpus": self._corpus,
        }
        what = ask.get("what")
        if what not in kinds:
            raise ValueError(f"Routing cannot say {what!r}; it can say {', '.join(kinds)}")
        return kinds[what](ask)

    def _ribbon(self, ask: dict[str, Any]) -> Payload:
        run = self.session.shown
        config, n_pos = self.session.config, run.tokens.shape[1]
        size = max(1, MOST_ROUTES // (config.n_layers * config.experts_per_token))
        start = min(max(int(ask.get("part") or 0), 0), n_pos - 1) // size * size
        part = slice(start, min(start + size, n_pos))
        roles = self._roles(run)
        about = {
            "tokens": self.session.tokens(run)[part],
            "bands": bands(roles[part]),
            "start": start,
            "size": size,
            "n_pos": n_pos,
            "shown": self.session.state.shown,
            "effect": None,
        }
        arrays = {name: values[part] for name, values in self._routes(run).items()}
        effect = effect_shown(self.session, run)
        if effect is not None:
            about["effect"] = effect[0]
            arrays |= {name: values[part] for name, values in effect[1].items()}
            arrays["before"] = self._routes(self.session.base)["chosen"][part]
        return about, arrays

    def _routes(self, run: Run) -> dict[str, np.ndarray]:
        return self.session.memo(("routes", id(run)), lambda: routes_of(self.session, run))

    def _roles(self, run: Run) -> list[str]:
        if self.session.tokenizer is None:
            return [""] * run.tokens.shape[1]
        labels = self.session.memo(("labels", id(run)), lambda: run.labels[0])
        return [role_name(label.role or "", label.channel) for label in labels]

    def _counted(self, run: Run) -> xr.Dataset:
        """Statistics of this text. A long text's router logits were not kept: they are computed now."""

        def count() -> xr.Dataset:
            sites = [f"blocks.{layer}.mlp.hook_router_logits" for layer in range(self.session.config.n_layers)]
            missing = [site for site in sites if site not in run.cache.cache_dict]
            whole = run
            if missing:
                sources = self.session.sources if run.interventions else {}
                more = self.session.on_worker(
                    lambda: {site: site_of(run, site, sources=sources) for site in missing}, "router's logits"
                )
                whole = replace(run, cache=type(run.cache)({**run.cache.cache_dict, **more}, run.model))
            return experiments.routing_statistics(whole, shuffles=0, progress=False)

        return self.session.memo(("routing statistics", id(run)), count)

    def _statistics(self, ask: dict[str, Any]) -> Payload:
        made = self._counted(self.session.shown)
        names = ("load", "weight_share", "token_entropy", "share_entropy", "load_cv")
        return {"even": float(made.attrs["even_load"])}, {name: made[name].values.astype(np.float32) for name in names}

    def _layer(self, ask: dict[str, Any]) -> Payload:
        made = self._counted(self.session.shown).sel(layer=number_of(ask, "layer", self.session.config.n_layers))
        names = [str(name) or "no message" for name in made.speaker.values]
        about = {
            "speakers": names,
            "tokens": made.speaker_tokens.values.tolist(),
            "even": float(made.attrs["even_load"]),
        }
        return about, {name: made[name].values.astype(np.float32) for name in ("coactivation", "speaker_load")}

    def _unchosen(self, ask: dict[str, Any]) -> Payload:
        run = self.session.shown
        layer = number_of(ask, "layer", self.session.config.n_layers)
        position = number_of(ask, "position", run.tokens.shape[1])
        made = self._alternatives(run, layer, position)
        columns = [str(name) for name in made.data_vars if made[name].dims == ("rank",)]
        rows = [{name: made[name].values[i].item() for name in columns} for i in range(made.sizes["rank"])]
        for row, ids in zip(rows, made.top_id.values.tolist(), strict=True):
            row["raises"] = [self.session.word(token) for token in ids]
        right, wrong = self._weighed(run, position)
        about = {"rows": rows, "right": self.session.word(right), "wrong": self.session.word(wrong)}
        return about | {"layer": layer, "position": position, "measured": "total" in made}, {}

    def _weighed(self, run: Run, position: int) -> tuple[int, int]:
        return answers_at(self.session, run, position)

    def _alternatives(self, run: Run, layer: int, position: int) -> xr.Dataset:
        n, measured = int(self.option("next")), bool(self.option("measured"))
        return self.session.memo(
            ("unchosen", id(run), layer, position, n, measured, self.session.state.answer),
            lambda: self.session.on_worker(
                lambda: alternatives(self.session, run, layer, position, n, measured), "experts that were not chosen"
            ),
        )

    def _corpus(self, ask: dict[str, Any]) -> Payload:
        about: dict[str, Any] = {"ready": True, "why": "", "done": 0, "total": 0, "domains": [], "contexts": []}
        try:
            about["total"] = len(self.corpus.texts(self.option("texts"))[0])
        except ValueError as error:
            return about | {"ready": False, "why": str(error)}, {}
        found = self.corpus.known(self.option("texts"))
        if found is None:
            return about, {}
        layer = number_of(ask, "layer", self.session.config.n_layers)
        about |= {"done": int(found.attrs["n_done"]), "even": float(found.attrs["even_load"])}
        about |= {
            "domains": [visible(str(name), 60) for name in found.domain.values],
            "tokens": found.domain_tokens.values.tolist(),
        }
        if ask.get("expert") is not None:
            expert = number_of(ask, "expert", self.session.config.n_experts)
            about["contexts"] = routing_corpus.contexts_of(self.session, found, layer, expert, self._domains())
        return about, {"domain_load": found.domain_load.sel(layer=layer).values.astype(np.float32)}

    def _domains(self) -> list[str]:
        return self.corpus.texts(self.option("texts"))[1]

    # ------------------------------------------------------------ what a click does

    def act(self, action: dict[str, Any]) -> dict[str, Any] | None:
        kind, session = action.get("kind"), self.session
        if kind == "corpus":
            return {"job": self.corpus.start(self.option("texts")).id}
        if kind == "preview":
            return self._preview(dict(action.get("action") or {}))
        if kind == "remove":
            layer = number_of(action, "layer", session.config.n_layers)
            expert = number_of(action, "expert", session.config.n_experts)
            session.edit(lambda state: without(state, layer, expert), f"remove edits of L{layer}E{expert}")
            return {"edits": edits_of(session.state)}
        if kind not in MAKE:
            return super().act(action)
        spec = spec_of(action)
        now = session.state.shown
        subject = now if now != EDITED and now != session.state.subject else None
        session.edit(lambda state: with_spec(state, spec), label_of(action), subject)
        return {"edits": edits_of(session.state)}

    def _preview(self, action: dict[str, Any]) -> dict[str, Any]:
        """Try an edit without putting it on: the newest takes the place of older ones that still wait."""
        spec, session = spec_of(action), self.session
        made = with_spec(session.state, spec)
        session.check(made)
        job = session.submit(
            lambda job: preview(session, job, made.specs, label_of(action)),
            f"try: {label_of(action)}",
            replaces="routing preview",
            urgent=True,
        )
        return {"job": job.id}

    def check_options(self, values: dict[str, Any]) -> None:
        super().check_options(values)
        wanted = values.get("next", 1)
        if type(wanted) is not int or not 1 <= wanted <= 16:
            raise ValueError(f"Routing: next={wanted!r}; expected 1 to 16 experts")
        if values.get("texts") is not None:
            routing_corpus.check_option(values["texts"])

    # ------------------------------------------------------------ without a browser

    def static(self) -> str:
        run = self.session.shown
        parts = [
            routing_static.effect(effect_shown(self.session, run)),
            routing_static.ribbon(self.session.tokens(run), **self._routes(run)),
            routing_static.statistics(self._counted(run)),
        ]
        at = self._chosen(run)
        if at is not None:
            right, wrong = (self.session.word(token) for token in self._weighed(run, at[1]))
            parts.append(routing_static.unchosen(self._alternatives(run, *at), at, right, wrong))
        found, chosen = self.corpus.known(self.option("texts")), self.session.state.selection
        if found is not None and chosen.layer is not None and chosen.expert is not None:
            contexts = routing_corpus.contexts_of(self.session, found, chosen.layer, chosen.expert, self._domains())
            parts.append(routing_static.contexts(contexts, chosen.layer, chosen.expert))
        return "".join(parts)

    def _chosen(self, run: Run) -> tuple[int, int] | None:
        """The chosen layer and position, where both are there."""
        chosen = self.session.state.selection
        if chosen.layer is None or chosen.position is None or chosen.position >= run.tokens.shape[1]:
            return None
        return chosen.layer, chosen.position

    def code(self) -> str:
        run, option = self.session.shown, self.option("texts")
        corpus = self.corpus.texts(option) if self.corpus.known(option) is not None else None
        own = option is not None or self.corpus.given is not None
        at = self._chosen(run)
        answers = None if at is None else self._weighed(run, at[1])
        return routing_code.of(self.session, at, answers, int(self.option("next")), corpus, own)

    def table(self) -> xr.Dataset:
        run = self.session.shown
        made, more = experiments.routing(run), self._counted(run)
        made = made.assign({name: more[name] for name in ("token_entropy", "share_entropy", "load_cv", "speaker_load")})
        if (effect := effect_shown(self.session, run)) is not None:
            kl, flipped, routes = (effect[1][name] for name in ("kl", "flipped", "route_flips"))
            made = made.assign(
                kl=("pos", kl, {"long_name": "KL(unedited ‖ edited)", "units": "nats"}),
                flipped=("pos", flipped.astype(bool), {"long_name": "likeliest next token changed"}),
                route_flipped=(("pos", "layer"), routes.astype(bool), {"long_name": "set of experts changed"}),
            )
        if (found := self.corpus.known(self.option("texts"))) is not None:
            made = made.assign(domain_load=found.domain_load)
        return made

    def figure(self) -> go.Figure:
        return figures.routing_ribbon(experiments.routing(self.session.shown))
