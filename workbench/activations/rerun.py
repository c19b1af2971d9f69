"""Run again with more edits on, and compute only what they can change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformer_lens import ActivationCache

from workbench.activations.kept import (
    EMBEDDING,
    Edit,
    check_recording,
    check_weights,
    edits_of,
    entrance,
    hooks_within,
    layer_of,
    refuse_frozen,
    runs_in_parts,
    same_tokens,
    streams_of,
    with_keys,
    with_streams,
)
from workbench.activations.run import Run, SitesFilter, _refuse_what_cannot_fit, _routes, run
from workbench.activations.written import Clock, leave_record
from workbench.interventions import FreezePatterns, FreezeRouting, Intervention, KnockOut, check_all
from workbench.model import Recording
from workbench.model.interrupts import without_gradients
from workbench.model.sites import position_axis
from workbench.provenance import quiet

Columns = Literal["changed", "all"]
OURS = "workbench.interventions."
CHUNK = 2**24  # logits that are compared at once


@without_gradients
def rerun(
    base: Run,
    interventions: Sequence[Any],
    *,
    recording: Recording | None = None,
    sources: Mapping[str, Run | Tensor] | None = None,
    sites: SitesFilter = None,
    unedited: Run | None = None,
    columns: Columns = "changed",
    name: str | None = None,
    check_memory: bool = True,
) -> Run:
    """What ``wb.run`` gives for a finished run's tokens with its interventions and these, for less work.

    Only the layers from the first one that a new edit touches are computed, and of them only the columns from the
    first one on that it can change. All before that is the base's: its tensors themselves where a layer was not
    computed. An edit of the embedding runs the whole model. Flipped routes and KL are against the base, or what that
    was compared with, so there is no second pass as in ``wb.run``.

    It has the very bits of ``wb.run`` where all columns are computed. Otherwise products of other shapes are summed in
    another order, as in ``model.resume``: it is equal to rounding. In half precision that is visible, so fewer columns
    are computed there only if they are the second half of the text or less, and once more without the edit, to compare
    with: an edit that does nothing then has a KL of 0, as in ``wb.run``.

    Args:
        base: it must have kept the residual streams (the standard sites have them) for layers to be saved, unless
            there is a recording. If it was edited, its edits stay on, and all columns are computed.
        interventions: new specs, after those of the base.
        recording: of an unedited base, from ``record_of(base)``: spares working out its keys and values anew.
        sources: name → a run or a vector, for the base's interventions and the new ones.
        sites: which sites to keep, as in ``wb.run``; None for those that the base kept. One that the base did not keep
            is computed, from its own layer on and in all columns.
        unedited: the same tokens without any edit, to compare with where the base is edited; without it that takes one
            more forward.
        columns: "changed" computes only those that an edit can change; "all" all of them.
        name: how to refer to the new run.
        check_memory: refuse a run that cannot fit in what is free; False runs it all the same.

    Raises:
        ValueError: for a spec, a source or a recording that does not fit, or a model whose weights are no longer those
            of the base, before anything runs.
        UnknownSite: for a site that does not exist.
        NotEnoughMemory: for a run that cannot fit, before anything runs.

    >>> wb.rerun(run, [wb.AblateHead(3, 2)]).interventions
    (AblateHead(layer=3, head=2),)
    """
    model, new = base.model, _checked(base, interventions, sources, recording, unedited, columns)
    provenance = check_weights(base)
    wanted = [*base.cache.cache_dict] if sites is None else model.sites.wanted(sites)
    clock = Clock()
    with model._lock:
        old, added = edits_of(model, base.interventions, sources), edits_of(model, new, sources)
        plan = _planned(base, old, added, wanted, recording, columns)
        if check_memory:
            computed = [site for site in wanted if layer_of(model, site) in plan.layers]
            heard = hooks_within([*old, *added], plan.layers)
            _refuse_what_cannot_fit(model, base.tokens, [*computed, *_routes(model)], heard)
        plan = plan.with_keys(base)
        rest, seen = _computed(base, [*old, *added], wanted, plan) if plan.layers else (None, {})
        flips, kl = _compared(base, unedited, rest, seen, plan) if old or added else (None, None)
    logits = _joined(base.logits, rest, plan.column, 1)
    cache = {site: _site(base, site, seen, plan) for site in model.sites if site in wanted}
    done = Run(
        model,
        base.tokens,
        base.attention_mask,
        logits,
        ActivationCache(cache, model),
        (*base.interventions, *new),
        "live",
        name,
        flips,
        kl,
        provenance,
    )
    again = {"base": base, "unedited": unedited, "columns": columns, "recording": recording is not None}
    leave_record(done, clock, sources, None, wanted if callable(sites) else sites, again)
    return done


@dataclass(frozen=True)
class Plan:
    """What is computed: the layers from ``layer`` on, and of them the columns from ``column`` on.

    ``held``: what that goes on from; None where it begins with the tokens, or nothing is computed.
    """

    layer: int
    column: int
    held: Recording | None
    n_layers: int

    @property
    def layers(self) -> range:
        """The layers, with the embedding before and the final norm after them."""
        return range(self.layer, self.n_layers + 1)

    def with_keys(self, base: Run) -> Plan:
        """With keys and values of the columns before ``column``; the lock of the model is held."""
        if self.held is None or not self.column or self.held.keys:
            return self
        return replace(self, held=with_keys(base, self.held.streams, self.layer))


# ---------------------------------------------------------------- before it runs


def _checked(
    base: Run,
    interventions: Sequence[Any],
    sources: Mapping[str, Run | Tensor] | None,
    recording: Recording | None,
    unedited: Run | None,
    columns: str,
) -> tuple[Any, ...]:
    """The new specs."""
    if isinstance(interventions, Intervention):
        raise ValueError(f"interventions={interventions}: expected a list, [{interventions}]")
    if columns not in get_args(Columns):
        raise ValueError(f"columns={columns!r}: expected one of {get_args(Columns)}")
    refuse_frozen(base)
    new, shape = tuple(interventions), base.tokens.shape
    given = {} if sources is None else dict(sources)
    check_all((*base.interventions, *new), base.model.config, shape[1], given, shape[0])
    check_recording(base, recording)
    if unedited is None:
        return new
    if unedited.interventions or unedited.routing != "live" or not same_tokens(unedited, base):
        raise ValueError(f"unedited={unedited}: expected a run of the base's tokens without interventions")
    return new


def _planned(
    base: Run, old: list[Edit], new: list[Edit], wanted: Sequence[str], recording: Recording | None, columns: Columns
) -> Plan:
    model, (n_layers, n) = base.model, (base.model.config.n_layers, base.tokens.shape[1])
    missing = [layer_of(model, site) for site in wanted if site not in base.cache.cache_dict]
    starts = {edit.first: column for edit in new if (column := first_column(edit.spec, n)) < n}
    if not starts and not missing:
        return Plan(n_layers + 1, n, None, n_layers)
    layer, streams = min([*starts, *missing]), streams_of(base)
    # An edited base, a site to be computed whole, hooks of the user's own: all of them may concern earlier columns.
    every = columns == "all" or old or missing or model.list_hooks()
    column = 0 if every else min(first_column(edit.spec, n) for edit in new)
    if is_coarse(base) and 2 * column < n:
        column = 0  # they are computed twice then, see _reference
    at = entrance(old, layer, streams)
    recorded = EMBEDDING if recording is None or old else entrance(old, layer, recording.streams)
    if recorded > at or (recorded == at != EMBEDDING and column):
        return Plan(recorded, column, recording, n_layers)
    if at == EMBEDDING:
        return Plan(EMBEDDING, 0, None, n_layers)
    gives_keys = runs_in_parts(model) and all(layer in streams for layer in range(at, n_layers))
    return Plan(at, column if gives_keys else 0, with_streams(base, streams), n_layers)


def first_column(spec: Any, n: int) -> int:
    """The first of n columns that a spec can change, n if it changes none.

    0 for a spec that is not of this package: its hooks need not know at which column a pass begins.
    """
    if not type(spec).__module__.startswith(OURS) or isinstance(spec, FreezeRouting | FreezePatterns):
        return 0
    if isinstance(spec, KnockOut):
        # No query before a key sees it.
        columns = [key if query is None else query for query, key in spec.edges]
        return min((0 if column is None else column for column in columns), default=n)
    return 0 if spec.positions is None else min(spec.positions, default=n)


# ---------------------------------------------------------------- the run


def _computed(
    base: Run, edits: list[Edit], wanted: Sequence[str], plan: Plan
) -> tuple[Float[Tensor, "batch rest d_vocab"], dict[str, Tensor]]:
    """The logits and sites of the layers and columns of the plan. The model's lock is held."""
    model = base.model
    names = [site for site in {*wanted, *_routes(model)} if layer_of(model, site) in plan.layers]
    cache, keep, _ = model.get_caching_hooks(names) if names else ({}, [], [])
    hooks = [*hooks_within(edits, plan.layers), *keep]
    if plan.held is None:
        with model.hooks(fwd_hooks=hooks):
            return model(base.tokens, attention_mask=base.attention_mask), cache
    return model.resume(plan.held, plan.layer, plan.column, fwd_hooks=hooks), cache


def _site(base: Run, site: str, seen: Mapping[str, Tensor], plan: Plan) -> Tensor:
    """What the new run keeps of a site: the base's tensor itself in a layer that was not computed."""
    before = base.cache.cache_dict.get(site)
    if before is None:
        return seen[site]
    return _joined(before, seen.get(site), plan.column, before.ndim + position_axis(site))


def _joined(before: Tensor, rest: Tensor | None, column: int, axis: int) -> Tensor:
    """The columns before ``column`` of one and all of the other; the first itself where there is no other."""
    if rest is None:
        return before
    return torch.cat((before.narrow(axis, 0, column), rest), axis) if column else rest


# ---------------------------------------------------------------- compared with the unedited run


def _compared(
    base: Run, unedited: Run | None, rest: Tensor | None, seen: Mapping[str, Tensor], plan: Plan
) -> tuple[Bool[Tensor, "layer batch pos"], Float[Tensor, "batch pos"]]:
    """Flipped routes and KL; where nothing was computed, those of the base."""
    n_layers, device, column = plan.n_layers, base.logits.device, plan.column
    flips, kl = base.flipped_routes, base.kl
    flips = (
        torch.zeros(n_layers, *base.tokens.shape, dtype=torch.bool, device=device) if flips is None else flips.clone()
    )
    kl = torch.zeros(base.tokens.shape, device=device) if kl is None else kl.clone()
    if rest is not None:
        logits, routes = _reference(base, unedited, plan)
        for layer, route in enumerate(_routes(base.model)):
            if route in seen:
                old, new = (x.sort(-1).values for x in (routes[route], seen[route]))
                flips[layer, :, column:] = (old != new).any(-1)
        kl[:, column:] = _divergence(logits, rest)
    return flips, kl


def _reference(base: Run, unedited: Run | None, plan: Plan) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Logits and routes of the columns of the plan, unedited."""
    model, routes, column = base.model, _routes(base.model), plan.column
    if column and plan.held is not None and is_coarse(base):
        # Rounded as the edited columns were, or the difference of rounding would pass for the edit's.
        cache, keep, _ = model.get_caching_hooks(routes)
        hooks = [(route, hook) for route, hook in keep if layer_of(model, route) >= plan.layer]
        return model.resume(plan.held, plan.layer, column, fwd_hooks=hooks), cache
    found = _unedited(base, unedited)
    return found.logits[:, column:], {route: found[route][:, column:] for route in routes}


def _unedited(base: Run, unedited: Run | None) -> Run:
    """A run of the same tokens without edits: one more forward where neither is at hand, or kept no routes."""
    routes = _routes(base.model)
    for found in (unedited, base):
        if found is not None and not found.interventions and all(route in found.cache.cache_dict for route in routes):
            return found
    with quiet():
        return run(base.model, base.tokens, sites=routes, attention_mask=base.attention_mask, check_memory=False)


def is_coarse(base: Run) -> bool:
    """Whether numbers are of half precision, in which sums of another order differ visibly."""
    return base.logits.dtype.itemsize < 4


def _divergence(
    plain: Float[Tensor, "batch pos d_vocab"], logits: Float[Tensor, "batch pos d_vocab"]
) -> Float[Tensor, "batch pos"]:
    """KL(unedited ‖ this), worked out for some columns at a time: at real sizes logits are large."""
    parts, step = [], max(1, CHUNK // (logits.shape[0] * logits.shape[2]))
    for pair in zip(plain.split(step, 1), logits.split(step, 1), strict=True):
        expected, given = (x.float().log_softmax(-1) for x in pair)
        parts.append((expected.exp() * (expected - given)).sum(-1).clamp(min=0))
    return torch.cat(parts, 1)
