"""What is chosen, in every view at once: a value in Python that is read, set, ablated, patched and written as code."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from workbench.interventions import (
    AblateExpert,
    AblateHead,
    AblateLayer,
    AblatePosition,
    AblateSite,
    Intervention,
    Patch,
    PatchExpert,
)
from workbench.model import Config
from workbench.widgets.names import EDITED, variable

if TYPE_CHECKING:
    from workbench.widgets.session import Session

_COMPONENTS = ("head", "expert", "site")  # one of them at a time


@dataclass(frozen=True)
class Selection:
    """A choice of layer, position, and one of head, expert or site. None is "not chosen".

    Attributes:
        run: the run it was made in: a prompt's name or "edited".
        layer: from 0.
        position: column of the text, from 0.
        head, expert: of the layer.
        site: a site's whole name, "blocks.3.hook_resid_post".
        key: the key position of a chosen edge of an attention pattern; −1 is the sink.
        token: a token of the vocabulary, by id.
        span: a range of positions [start, stop).
    """

    run: str | None = None
    layer: int | None = None
    position: int | None = None
    head: int | None = None
    expert: int | None = None
    site: str | None = None
    key: int | None = None
    token: int | None = None
    span: tuple[int, int] | None = None
    _session: Session | None = field(default=None, repr=False, compare=False)

    # ------------------------------------------------------------ reading

    @property
    def fields(self) -> dict[str, Any]:
        """Every field by its name."""
        return {part.name: getattr(self, part.name) for part in fields(self) if not part.name.startswith("_")}

    @property
    def chosen(self) -> dict[str, Any]:
        """What is chosen, without what is not."""
        return {name: value for name, value in self.fields.items() if value is not None}

    @property
    def positions(self) -> tuple[int, ...] | None:
        """The chosen positions: of the span, else the one; None for all."""
        if self.span is not None:
            return tuple(range(*self.span))
        return None if self.position is None else (self.position,)

    def values(self) -> xr.DataArray:
        """The numbers that are chosen, labelled.

        Returns:
            Of a site: its values; of a head: its pattern (query_pos, key_pos); of an expert: the routing weight that
            each position gives it (pos), 0 where it was not chosen; of a layer: the residual stream that it leaves
            (pos, d_model); of a position alone: the residual stream there after every layer (layer, d_model). With a
            position, only there (with an edge's key, only that number).

        Raises:
            ValueError: when nothing of that is chosen.
        """
        session = self._bound()
        run = session.run(self.run) if self.run in session.names else session.shown
        if self.site is not None:
            return self._at(session.array(run, self.site))
        if self.head is not None:
            pattern = session.array(run, f"blocks.{self._layer()}.attn.hook_pattern")
            pattern = self._at(pattern.sel(head=self.head))
            return pattern.sel(key_pos=self.key) if self.key is not None and self.key >= 0 else pattern
        if self.expert is not None:
            return self._at(self._weights(session, run))
        if self.layer is not None:
            return self._at(session.array(run, f"blocks.{self.layer}.hook_resid_post"))
        if self.positions is not None:
            layers = range(session.config.n_layers)
            streams = [self._at(session.array(run, f"blocks.{layer}.hook_resid_post")) for layer in layers]
            return xr.concat(streams, xr.IndexVariable("layer", np.arange(len(layers)))).rename("residual stream")
        raise ValueError("nothing is selected; click something, or set bench.selection = wb.Selection(layer=…, …)")

    # ------------------------------------------------------------ touching

    def ablate(self, policy: str | None = None, positions: str = "all") -> Intervention:
        """Ablate what is chosen: the spec is put on the Bench, and given back.

        Args:
            policy: as the spec takes it; None for the spec's own default.
            positions: "all", or "selected" for the chosen position or span alone. (A position that is chosen without
                anything else is ablated there.)

        Raises:
            ValueError: when nothing that can be ablated is chosen.
        """
        if positions not in ("all", "selected"):
            raise ValueError(f"positions={positions!r}: expected 'all' or 'selected'")
        how: dict[str, Any] = {} if policy is None else {"policy": policy}
        if positions == "selected":
            how["positions"] = self.positions
        spec = self._ablation(how)
        self._bound().add(spec)
        return spec

    def patch_from(self, source: str) -> Intervention:
        """Take what is chosen from another run: the spec is put on the Bench, and given back.

        Args:
            source: a prompt's name, as "clean".

        Raises:
            ValueError: when nothing that can be patched is chosen, or there is no such prompt.
        """
        session = self._bound()
        session.state.prompt(source)
        spec = self._patch(source)
        session.add(spec)
        return spec

    def code(self) -> str:
        """Lines of Python that read these values without a widget, given the runs by their names (``bench.code()``)."""
        name = self.run if self.run is not None else self._bound().state.shown
        run = "run" if name == EDITED else variable(name)
        at = "" if self.positions is None else f".sel(pos={_index(self.positions)})"
        if self.site is not None:
            dims = self._bound().model.sites[self.site].dims
            where = at if "pos" in dims else at.replace("pos=", "query_pos=") if "query_pos" in dims else ""
            return f"values = {run}.array({self.site!r}){where}"
        if self.head is not None:
            query = at.replace("pos=", "query_pos=")
            key = f".sel(key_pos={self.key})" if self.key is not None and self.key >= 0 else ""
            return f"values = {run}.array('blocks.{self._layer()}.attn.hook_pattern').sel(head={self.head}){query}{key}"
        if self.expert is not None:
            routes = f"routes = experiments.routing({run}).sel(layer={self._layer()})"
            return f"{routes}\nvalues = routes.weight.where(routes.chosen == {self.expert}, 0).sum('slot'){at}"
        if self.layer is not None:
            return f"values = {run}.array('blocks.{self.layer}.hook_resid_post'){at}"
        if self.positions is not None:
            return (
                f"layers = range(model.config.n_layers)\n"
                f"values = [{run}.array(f'blocks.{{layer}}.hook_resid_post'){at} for layer in layers]"
            )
        return "values = None  # nothing is selected"

    # ------------------------------------------------------------ making others

    def merged(self, changes: dict[str, Any]) -> Selection:
        """Changed in some fields; of head, expert and site the last one given stays, with a new layer none does.

        Raises:
            ValueError: for a field that a selection does not have.
        """
        known = self.fields
        if unknown := sorted(set(changes) - set(known)):
            raise ValueError(f"a selection has no {unknown[0]!r}; it has {', '.join(sorted(known))}")
        given = [name for name in _COMPONENTS if changes.get(name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} were chosen together; choose one of head, expert and site")
        if given or ("layer" in changes and changes["layer"] != self.layer):
            changes = dict.fromkeys((*_COMPONENTS, "key")) | changes
        if "position" in changes and "span" not in changes:
            changes = changes | {"span": None}
        if isinstance(changes.get("span"), list):
            changes = changes | {"span": tuple(changes["span"])}
        return replace(self, **changes)

    def within(self, n_pos: int) -> Selection:
        """Without the positions that a text of so many tokens does not have."""
        lost = {name: None for name in ("position", "key") if (getattr(self, name) or 0) >= n_pos}
        if self.span is not None and self.span[1] > n_pos:
            lost["span"] = None
        return replace(self, **lost)

    def check(self, config: Config, n_pos: int) -> None:
        """Refuse what the model or the text does not have.

        Raises:
            ValueError: naming what was given and what there is.
        """
        sizes = {
            "layer": config.n_layers,
            "position": n_pos,
            "head": config.n_heads,
            "expert": config.n_experts,
            "token": config.d_vocab,
        }
        for name, size in sizes.items():
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 <= value < size):
                raise ValueError(f"selection: {name}={value!r:.100}; there are 0 to {size - 1}")
        if self.key is not None and (type(self.key) is not int or not -1 <= self.key < n_pos):
            raise ValueError(f"selection: key={self.key!r:.100}; there are 0 to {n_pos - 1}, and −1 for the sink")
        if self.span is not None:
            _check_span(self.span, n_pos)
        for name in ("head", "expert"):
            if getattr(self, name) is not None:
                self._layer()

    # ------------------------------------------------------------ inside

    def _bound(self) -> Session:
        if self._session is None:
            raise ValueError(
                "this selection belongs to no Bench yet; set bench.selection = it, and use bench.selection"
            )
        return self._session

    def _layer(self) -> int:
        if self.layer is None:
            raise ValueError(f"selection: {'head' if self.head is not None else 'expert'} without a layer; give both")
        return self.layer

    def _at(self, values: xr.DataArray) -> xr.DataArray:
        positions = self.positions
        dim = next((dim for dim in ("pos", "query_pos") if dim in values.dims), None)
        if positions is None or dim is None:
            return values
        return values.isel({dim: positions[0] if self.span is None else list(positions)})

    def _weights(self, session: Session, run: Any) -> xr.DataArray:
        chosen = session.array(run, f"blocks.{self._layer()}.mlp.hook_expert_indices")
        weights = session.array(run, f"blocks.{self.layer}.mlp.hook_expert_weights")
        return weights.where(chosen == self.expert, 0.0).sum("slot").rename(f"weight of L{self.layer}E{self.expert}")

    def _ablation(self, how: dict[str, Any]) -> Intervention:
        if self.head is not None:
            return AblateHead(self._layer(), self.head, **how)
        if self.expert is not None:
            return AblateExpert(self._layer(), self.expert, **how)
        if self.site is not None:
            return AblateSite(self.site, **how)
        if self.layer is not None:
            return AblateLayer(self.layer, **how)
        if self.positions is not None:
            return AblatePosition(**{**how, "positions": self.positions})
        raise ValueError("nothing that can be ablated is selected: choose a head, expert, site, layer or position")

    def _patch(self, source: str) -> Intervention:
        if self.expert is not None:
            return PatchExpert(self._layer(), self.expert, source, self.positions)
        if self.head is not None:
            site = f"blocks.{self._layer()}.attn.hook_z"
            return Patch(site, source, positions=self.positions, component=self.head)
        if self.site is not None:
            return Patch(self.site, source, positions=self.positions)
        if self.layer is not None:
            return Patch(f"blocks.{self.layer}.hook_resid_post", source, positions=self.positions)
        raise ValueError("nothing that can be patched is selected: choose a head, expert, site or layer")


def _index(positions: tuple[int, ...]) -> str:
    return str(positions[0]) if len(positions) == 1 else str(list(positions))


def _check_span(span: tuple[int, int], n_pos: int) -> None:
    whole = isinstance(span, tuple) and len(span) == 2 and all(type(end) is int for end in span)
    if not whole or not 0 <= span[0] < span[1] <= n_pos:
        raise ValueError(f"selection: span={span!r:.100}; expected (start, stop) with 0 ≤ start < stop ≤ {n_pos}")
