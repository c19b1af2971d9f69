"""What a finished run kept, what it did not keep and is worked out again, and how much there is room to keep."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from transformer_lens.hook_points import HookPoint

from workbench.activations.run import Run, provenance_of
from workbench.interventions import Context, FreezePatterns, FreezeRouting, all_edits, check_all
from workbench.model import HookedGptOss, Recording
from workbench.model.interrupts import without_gradients
from workbench.model.memory import check_memory as refuse
from workbench.model.memory import free_memory, sites_of
from workbench.model.memory.live import shape_of
from workbench.model.memory.sizes import Axes, SiteSizes
from workbench.model.state import begin_pass

EMBEDDING = -1  # where a run begins that goes on from nothing: before layer 0
# The specs on several layers whose hooks hand nothing on from one layer to another.
LAYER_BY_LAYER = (FreezeRouting, FreezePatterns)
# Left out in this order where not everything fits. The streams and routes that other runs go on from always stay.
LEFT_OUT = (
    "hook_pattern",
    "hook_z",
    "hook_resid_pre",
    "hook_attn_out",
    "hook_mlp_out",
    "hook_resid_mid",
    "hook_router_logits",
    "hook_sink",
)
SHARE = 4  # a live tool holds about so many runs at once


@without_gradients
def site_of(
    run: Run,
    site: str,
    recording: Recording | None = None,
    *,
    sources: Mapping[str, Run | Tensor] | None = None,
    check_memory: bool = True,
) -> Shaped[Tensor, "batch ..."]:
    """What a site held in a run: as the run kept it, or worked out again.

    A run that kept the residual streams (the standard sites have them) is run again from the site's layer, with its
    own interventions on, no further than the site. Nothing is added to the run.

    Args:
        recording: for a run that kept no streams: of that run, or of the same tokens unedited.
        sources: what the run's interventions take from elsewhere, as it was given to ``wb.run``.
        check_memory: refuse what cannot fit in what is free; False works it out all the same.

    Raises:
        UnknownSite: for a site that does not exist.
        ValueError: for a run whose routing was frozen or a source that is missing, a recording of other tokens, or a
            model whose weights are no longer those of the run.
        NotEnoughMemory: for a site that cannot fit, before anything runs.
    """
    model = run.model
    layer = layer_of(model, site)
    if site in run.cache.cache_dict:
        return run.cache.cache_dict[site]
    check_recording(run, recording)
    edits = _own_edits(run, sources)
    if check_memory:
        heard = tuple({name for edit in edits for _, name, _ in edit.hooks} - {site})
        shape = (run.tokens.shape[0], run.tokens.shape[1])
        refuse(model, shape, [site], what="site_of", heard=heard, returns=None, filter_name="site")
    at, held = _entrance(run, layer, recording, edits)
    with model._lock:
        cache, keep, _ = model.get_caching_hooks([site])
        # Where layers are spread over devices, one that is left half-way would not tidy up after itself.
        enough = [] if hasattr(model, "hf_device_map") else [(site, _stop)]
        hooks = [*hooks_within(edits, range(at, layer + 1)), *keep, *enough]
        with suppress(_Enough):
            if held is None:
                _forward(run, hooks, layer)
            else:
                stop = None if layer == model.config.n_layers else layer + 1
                model.resume(held, at, fwd_hooks=hooks, stop_at_layer=stop)
    return cache[site]


@without_gradients
def record_of(run: Run, *, sources: Mapping[str, Run | Tensor] | None = None) -> Recording:
    """A recording of a finished run, for ``model.resume`` and ``rerun``: streams, keys and values of every layer.

    Of an unedited run that kept the standard sites only the keys and values are worked out, and its streams are
    shared; else the model runs once more, with the run's own interventions on.

    Args:
        sources: what the run's interventions take from elsewhere.

    Raises:
        ValueError: for a run whose routing was frozen or a source that is missing, or a model whose weights are no
            longer those of the run.
    """
    model, streams, edits = run.model, streams_of(run), _own_edits(run, sources)
    with model._lock:
        if len(streams) == model.config.n_layers + 1 and not run.interventions and runs_in_parts(model):
            return with_keys(run, streams, 0)
        hooks = hooks_within(edits, range(EMBEDDING, model.config.n_layers + 1))
        with model.hooks(fwd_hooks=hooks):
            return model.record(run.tokens, run.attention_mask)


def affordable_sites(model: HookedGptOss, n_pos: int, budget_bytes: int | None = None, *, batch: int = 1) -> list[str]:
    """The standard sites (``sites=None``) that a live tool can keep of a text of this length.

    Everything where it fits. Else whole kinds of sites are left out, attention patterns first (their size grows with
    the square of the length), then z, then what can be had from the streams; :func:`site_of` gives a site that was
    left out. The streams and the routes, which :func:`rerun` goes on from, are always among them.

    Args:
        n_pos: tokens in a row.
        budget_bytes: for the sites of one run; None for a quarter of what is free now on the model's device.
        batch: rows.
    """
    if budget_bytes is None:
        free = free_memory(model.embed.weight.device)
        budget_bytes = None if free is None else free.n_bytes // SHARE
    sites = sites_of(model.config.n_layers)
    size = SiteSizes(Axes(model.config, batch, n_pos), shape_of(model)["dtype"])
    names = sites.wanted(None)
    for kind in LEFT_OUT:
        if budget_bytes is None or sum(size(sites[name]) for name in names) <= budget_bytes:
            break
        names = [name for name in names if not name.endswith(kind)]
    return names


# ---------------------------------------------------------------- what runs go on from


def streams_of(run: Run) -> dict[int, Float[Tensor, "batch pos d_model"]]:
    """Layer → the stream that entered it, of the layers for which the run kept it; n_layers for the final norm.

    Nothing if the last one is not among them.
    """
    n_layers = run.model.config.n_layers
    names = ["hook_embed", *(f"blocks.{layer}.hook_resid_post" for layer in range(n_layers))]
    kept = run.cache.cache_dict
    found = {layer: kept[name] for layer, name in enumerate(names) if name in kept}
    return found if n_layers in found else {}


def with_streams(run: Run, streams: Mapping[int, Tensor]) -> Recording:
    """To go on from these streams at column 0, where no key or value from before is needed."""
    return Recording(run.model.config, run.tokens, run.attention_mask, streams, {}, {})


def with_keys(run: Run, streams: Mapping[int, Tensor], first: int) -> Recording:
    """To go on from any column of the layers from ``first`` on. Of an unedited run, whose lock is held."""
    model, keys, values = run.model, {}, {}
    shape = (run.tokens.shape[0], run.tokens.shape[1])
    this = begin_pass(shape, run.tokens.device, run.attention_mask, None, "keep")
    for layer in range(first, model.config.n_layers):
        block = model.blocks[layer]
        _, keys[layer], values[layer] = block.attn.queries_keys_values(block.ln1(streams[layer]), this)
    return Recording(model.config, run.tokens, run.attention_mask, streams, keys, values)


def runs_in_parts(model: HookedGptOss) -> bool:
    """Whether a part of a layer may be run by itself: all in one place, and no hook on that should see the rest."""
    return not hasattr(model, "hf_device_map") and not model.list_hooks()


def refuse_frozen(run: Run) -> None:
    if run.routing != "live":
        raise ValueError(
            f"{run} took its routing from another run (routing={run.routing!r}), which it does not hold: run it with "
            "the intervention FreezeRouting instead, or with wb.run and every site that is needed"
        )


def check_weights(run: Run) -> dict[str, Any]:
    """The provenance of what goes on from a run: of a model that is still the one that it ran on."""
    now, then = provenance_of(run.model), run.provenance.get("fingerprint")
    if then is not None and then != now["fingerprint"]:
        raise ValueError(
            f"the weights of {run.model.config.name} have changed since {run} ran (fingerprint {then}, now "
            f"{now['fingerprint']}), so nothing of it can be used again; run it anew with wb.run"
        )
    return now


def check_recording(run: Run, recording: Recording | None) -> None:
    """Refuse the recording of other tokens."""
    if recording is not None and not same_tokens(run, recording):
        raise ValueError(
            f"the recording is of tokens {tuple(recording.tokens.shape)}, and not of those of {run}, or not with its "
            "padding; record_of(run) makes one"
        )


def same_tokens(one: Run | Recording, other: Run | Recording) -> bool:
    """Whether both have the same tokens, and the same of them are padding."""
    if not torch.equal(one.tokens, other.tokens):
        return False
    real, also = (torch.ones_like(of.tokens) if of.attention_mask is None else of.attention_mask for of in (one, other))
    return torch.equal(real.bool(), also.bool())


# ---------------------------------------------------------------- edits by layer


@dataclass(frozen=True)
class Edit:
    """A spec and its hooks, each with one site and the layer of that."""

    spec: Any
    hooks: tuple[tuple[int, str, Callable], ...]

    @property
    def first(self) -> int:
        """The first layer that it touches."""
        return min(layer for layer, _, _ in self.hooks)

    def is_split_at(self, layer: int) -> bool:
        """Whether a run that begins at this layer might miss what a hook of the spec remembered on an earlier one."""
        last = max(layer for layer, _, _ in self.hooks)
        return self.first < layer <= last and not isinstance(self.spec, LAYER_BY_LAYER)


def edits_of(model: HookedGptOss, specs: Iterable[Any], sources: Mapping[str, Any] | None) -> list[Edit]:
    """The specs that do anything, in order."""
    context = Context(model, {} if sources is None else sources)
    found = ((spec, all_edits([spec], context)) for spec in specs)
    return [
        Edit(spec, tuple((layer_of(model, name), name, hook) for name, hook in hooks)) for spec, hooks in found if hooks
    ]


def _own_edits(run: Run, sources: Mapping[str, Any] | None) -> list[Edit]:
    """The edits of a run that is to be gone on from, after every check of that."""
    refuse_frozen(run)
    check_weights(run)
    given, (n_rows, n) = {} if sources is None else dict(sources), run.tokens.shape
    check_all(run.interventions, run.model.config, n, given, n_rows)
    return edits_of(run.model, run.interventions, given)


def hooks_within(edits: Iterable[Edit], layers: range) -> list[tuple[str | Callable, Callable]]:
    """The hooks on these layers, in order."""
    return [(name, hook) for edit in edits for layer, name, hook in edit.hooks if layer in layers]


def layer_of(model: HookedGptOss, site: str) -> int:
    """The layer that a site belongs to; n_layers for the final norm's, ``EMBEDDING`` for the embedding's."""
    layer = model.sites[site].layer
    if layer is not None:
        return layer
    return EMBEDDING if site == "hook_embed" else model.config.n_layers


def entrance(edits: Iterable[Edit], layer: int, held: Iterable[int]) -> int:
    """The last of the layers held, at most this one, from which a run with these edits on can go on."""
    specs = list(edits)
    fitting = [at for at in held if at <= layer and not any(edit.is_split_at(at) for edit in specs)]
    return max(fitting, default=EMBEDDING)


def _entrance(run: Run, layer: int, recording: Recording | None, edits: list[Edit]) -> tuple[int, Recording | None]:
    """Where to begin so as to reach this layer of the run, and with what; None to begin with the tokens."""
    streams = streams_of(run)
    if streams:
        at = entrance(edits, layer, streams)
        return at, None if at == EMBEDDING else with_streams(run, streams)
    if recording is None:
        return EMBEDDING, None
    # Before every edit the recording of the edited run and that of the unedited one are the same.
    at = entrance(edits, min([layer, *(edit.first for edit in edits)]), recording.streams)
    return at, None if at == EMBEDDING else recording


class _Enough(Exception):
    """What was wanted has been seen."""


def _stop(x: Tensor, hook: HookPoint) -> None:
    raise _Enough


def _forward(run: Run, hooks: list[tuple[str | Callable, Callable]], layer: int) -> None:
    """From the tokens on; the logits only where the site stands behind the last layer."""
    model = run.model
    returned = "logits" if layer == model.config.n_layers else None
    with model.hooks(fwd_hooks=hooks):
        model(run.tokens, return_type=returned, attention_mask=run.attention_mask)
