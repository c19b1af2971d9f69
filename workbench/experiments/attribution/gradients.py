"""Attribution patching and integrated gradients: what patching a node would do, from gradients instead of runs.

Both read ∇M, the gradient of the metric at a place in the residual stream, and Δ = clean − corrupted there. A head's
write and an expert's are added into the stream, so the gradient at either is that at what its layer adds.

Routing is live: weights of the chosen experts are differentiated, the choice cannot be. Gradients say nothing of what
happens beyond a top-k boundary; ``router_margin``, ``routes_differ`` and ``route_flips`` show where that is near.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.experiments.contrast import Contrast, at_least_float32, contrast, router_margin, routes
from workbench.experiments.metrics import Measure, Metric
from workbench.experiments.nodes import node_writes, write_sites
from workbench.experiments.rows import check_whole, numpy, quantity
from workbench.model import HookedGptOss
from workbench.model.interrupts import gradient_mode_kept, without_gradients

STREAM = ("resid_pre", "attn_out", "mlp_out")
GRADIENT_KINDS = (*STREAM, "head", "expert")
_INTO = {"head": "attn_out", "expert": "mlp_out"}  # what a node's write is a part of
_MOST = 4096  # tokens in one pass


def attribution_patching(
    model: HookedGptOss,
    clean: Any,
    corrupt: Any,
    metric: Metric,
    kinds: Sequence[str] = GRADIENT_KINDS,
    *,
    row: int = 0,
    logits_at: int | None = None,
) -> xr.Dataset:
    """A first-order guess at activation patching: (clean − corrupted) · ∇M at the corrupted run, all nodes in one pass.

    Nanda (2023), neelnanda.io/attribution-patching. Two forward passes for the values, one forward and one backward for
    the gradients; no parameter's ``grad`` is touched.

    Args:
        clean, corrupt: text, a Chat, tokens or an unedited run, as many tokens each.
        metric: two tokens (right, wrong), one of ``experiments.metrics``, or a differentiable function of logits
            [batch d_vocab] → [batch].
        kinds: of ``resid_pre``, ``attn_out``, ``mlp_out``, ``head``, ``expert``.
        row: of both.
        logits_at: the position that the metric reads; None for the last.

    Returns:
        effect, in units of the metric, and recovered, the same divided by clean − corrupted as in ``patching_grid``:
        effect, recovered (site, layer, pos) of what is in the whole stream; head_effect, head_recovered (layer, head,
        pos); expert_effect, expert_recovered (layer, expert, pos). An expert's value is weight × output, 0 where it is
        not routed: patching in one that the corrupted run does not route to adds what it wrote in the clean one.
        router_margin (layer, pos), of the corrupted run, in router logits; routes_differ (layer, pos), whether the two
        runs chose other experts; clean, corrupted.

    Raises:
        ValueError: for texts of unequal length, an edited run, or a kind, row, position or metric that does not fit.

    >>> guess = experiments.attribution_patching(model, pair.clean, pair.corrupt, (pair.right, pair.wrong))
    >>> guess.head_effect.dims
    ('layer', 'head', 'pos')
    """
    kinds = _checked_kinds(kinds)
    pair = contrast(model, clean, corrupt, metric, _sites(model, kinds), row, logits_at)
    stream = sorted({_INTO.get(kind, kind) for kind in kinds})
    names = [_site(kind, layer) for kind in stream for layer in range(model.config.n_layers)]
    _, found = gradients_at(model, pair.corrupt.tokens, names, pair.measure)
    effects = {kind: _per_node(pair, kind, lambda site: found[site][0]) for kind in kinds}
    attrs = pair.attrs("attribution_patching", routing="live", row=row)
    return xr.Dataset(_variables(pair, effects), _coords(pair, kinds), attrs)


def integrated_gradients(
    model: HookedGptOss,
    clean: Any,
    corrupt: Any,
    metric: Metric,
    kinds: Sequence[str] = GRADIENT_KINDS,
    *,
    steps: int = 16,
    row: int = 0,
    logits_at: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Δ times the gradient averaged on the way from corrupted to clean (arXiv 1703.01365), at the nodes of patching.

    The way is that of one site of one layer, at all positions together: corrupted + α·Δ, α at the middles of ``steps``
    equal parts; what comes later runs live. Heads share the way of their layer's attn_out, experts that of mlp_out. So
    the effects of a site add up to what patching the site whole does: the difference is ``gap``. It shrinks with more
    steps, except for what the metric jumps by where routes flip on the way: a gradient does not see that.

    Args:
        As in :func:`attribution_patching`; kinds of one site share its passes.
        steps: points on the way; each costs a row of a forward and a backward pass from the layer on.
        progress: show a progress bar.

    Returns:
        What :func:`attribution_patching` returns, and for each site and layer, with the site that heads or experts
        write into where those are asked for: joint_effect, of patching it at all positions, exactly; gap, the sum
        of the effects less that; route_flips, how many (layer, position) chose other experts somewhere on the way.

    Raises:
        ValueError: as :func:`attribution_patching`, and for steps below 1.
    """
    check_whole(1, steps=steps)
    kinds = _checked_kinds(kinds)
    pair = contrast(model, clean, corrupt, metric, _sites(model, kinds), row, logits_at)
    sites = [kind for kind in STREAM if kind in {_INTO.get(kind, kind) for kind in kinds}]
    recording = model.record(pair.corrupt.tokens)
    joint, flips = np.zeros((2, len(sites), model.config.n_layers))
    means: dict[str, Tensor] = {}
    with tqdm(total=joint.size, desc="integrating", unit="site", disable=not progress) as bar:
        for index, (kind, layer) in zip(np.ndindex(joint.shape), _each(model, sites), strict=True):
            way = _Way(pair, recording, _site(kind, layer), layer)
            means[way.site] = way.mean_gradient(steps)
            joint[index] = way.joint_effect()
            flips[index] = int(way.flipped.sum())
            bar.update()
    effects = {kind: _per_node(pair, kind, means.__getitem__) for kind in kinds}
    whole = {kind: _per_node(pair, kind, means.__getitem__) for kind in sites}
    gap = np.stack([whole[kind].sum(-1) for kind in sites]) - joint
    variables = _variables(pair, effects) | {
        "joint_effect": (
            ("path", "layer"),
            joint,
            quantity("patching the site at all positions", "units of the metric"),
        ),
        "gap": (("path", "layer"), gap, quantity("sum of the effects less joint_effect", "units of the metric")),
        "route_flips": (("path", "layer"), flips.astype(int), quantity("routes that change on the way")),
    }
    attrs = pair.attrs("integrated_gradients", routing="live", row=row, steps=steps)
    return xr.Dataset(variables, _coords(pair, kinds) | {"path": sites}, attrs)


@gradient_mode_kept
def gradients_at(
    model: HookedGptOss, tokens: Tensor, sites: Sequence[str], measure: Measure, hooks: Sequence[tuple] = ()
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and gradients of the metric, at the last position, at sites: one forward and one backward pass.

    Each row's gradient is that of its own metric. Parameters keep their ``grad``.

    Args:
        hooks: (site, function) that are on as well, before the sites are read.

    Returns:
        site → value, and site → gradient; 0 where the metric does not depend on a site.
    """
    listeners, held = _listeners(sites)
    with torch.enable_grad(), model.hooks(fwd_hooks=[("hook_embed", _leaf), *hooks, *listeners]):
        found = _gradient(model(tokens, logits_at="last"), measure, held)
    return {site: value.detach() for site, value in held.items()}, found


def _leaf(x: Tensor, hook: object = None) -> Tensor:
    """The graph starts here, whether parameters want gradients or not."""
    return x if x.requires_grad and x.is_leaf else x.detach().requires_grad_()


def _listeners(sites: Sequence[str]) -> tuple[list[tuple[str, Callable]], dict[str, Tensor]]:
    held: dict[str, Tensor] = {}

    def hold(x: Tensor, hook: Any) -> None:
        held[hook.name] = x

    return [(site, hold) for site in sites], held


def _gradient(logits: Tensor, measure: Measure, held: dict[str, Tensor]) -> dict[str, Tensor]:
    score = measure(logits[:, -1])
    if not score.requires_grad:
        raise ValueError("the metric has no gradient: it must be made of the logits by differentiable torch functions")
    floats = {site: value for site, value in held.items() if value.is_floating_point()}
    found = torch.autograd.grad(score.sum(), list(floats.values()), allow_unused=True)
    pairs = zip(floats.items(), found, strict=True)
    return {site: torch.zeros_like(value) if gradient is None else gradient for (site, value), gradient in pairs}


class _Way:
    """The straight way of one site from its corrupted to its clean value, at all positions."""

    def __init__(self, pair: Contrast, recording: Any, site: str, layer: int) -> None:
        self.pair, self.recording, self.site, self.layer = pair, recording, site, layer
        self.start, self.end = pair.corrupt[site], pair.clean[site]
        self.before = routes(pair.corrupt)
        self.flipped: Bool[Tensor, "layer pos"] = torch.zeros_like(self.before[..., 0], dtype=torch.bool)

    @gradient_mode_kept
    def mean_gradient(self, steps: int) -> Float[Tensor, "pos d_model"]:
        middles = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        total = torch.zeros_like(at_least_float32(self.start[0]))
        for part in middles.split(max(1, _MOST // self.start.shape[1])):
            leaf = self._at(part).requires_grad_()
            with torch.enable_grad():
                found = _gradient(self._logits(leaf), self.pair.measure, {self.site: leaf})
            total += at_least_float32(found[self.site]).sum(0)
        return total / steps

    @without_gradients
    def joint_effect(self) -> float:
        """Of the whole way, exactly."""
        return float(self.pair.measure(self._logits(self._at(torch.ones(1)))[:, -1])[0]) - self.pair.ends[1]

    def _at(self, alphas: Float[Tensor, " step"]) -> Float[Tensor, "step pos d_model"]:
        alphas = alphas.to(self.start)[:, None, None]
        return self.start * (1 - alphas) + self.end * alphas

    def _logits(self, values: Float[Tensor, "step pos d_model"]) -> Float[Tensor, "step 1 d_vocab"]:
        n_layers = self.pair.model.config.n_layers
        routed = [f"blocks.{layer}.mlp.hook_expert_indices" for layer in range(self.layer, n_layers)]
        listeners, held = _listeners(routed)
        hooks = [(self.site, lambda x, hook: values), *listeners]
        logits = self.pair.model.resume(self.recording, self.layer, 0, len(values), hooks, logits_at="last")
        for layer, site in enumerate(routed, start=self.layer):
            self.flipped[layer] |= (held[site].sort(-1).values != self.before[layer]).any(-1).any(0)
        return logits


def _checked_kinds(kinds: Sequence[str]) -> list[str]:
    if isinstance(kinds, str) or not kinds or not set(kinds) <= set(GRADIENT_KINDS):
        raise ValueError(f"kinds={kinds!r}: expected some of {GRADIENT_KINDS}")
    return [kind for kind in GRADIENT_KINDS if kind in kinds]


def _site(kind: str, layer: int) -> str:
    return f"blocks.{layer}.hook_{kind}"


def _each(model: HookedGptOss, kinds: Sequence[str]) -> Iterator[tuple[str, int]]:
    return ((kind, layer) for kind in kinds for layer in range(model.config.n_layers))


def _sites(model: HookedGptOss, kinds: Sequence[str]) -> list[str]:
    """What both runs keep: the values of the nodes, and where tokens were routed."""
    layers = range(model.config.n_layers)
    stream = {_INTO.get(kind, kind) for kind in kinds}
    routing = [f"blocks.{i}.mlp.hook_{part}" for i in layers for part in ("router_logits", "expert_indices")]
    return [*write_sites(model.config, kinds), *(_site(*at) for at in _each(model, sorted(stream))), *routing]


def _per_node(pair: Contrast, kind: str, gradient: Callable[[str], Tensor]) -> np.ndarray:
    """Δ · gradient: [layer pos] of what is in the whole stream, else [layer node pos]."""
    per_layer = []
    for layer in range(pair.model.config.n_layers):
        along = at_least_float32(gradient(_site(_INTO.get(kind, kind), layer)))
        if kind in STREAM:
            difference = pair.difference(lambda read, at=layer: read(_site(kind, at)))[0]
            per_layer.append((difference * along).sum(-1))
        else:
            difference = pair.difference(lambda read, at=layer: node_writes(pair.model, read, kind, at))[0]
            per_layer.append((difference * along[:, None]).sum(-1).T)
    return numpy(torch.stack(per_layer))


def _variables(pair: Contrast, effects: dict[str, np.ndarray]) -> dict:
    meaning = "first-order effect of patching"
    made = {}
    if stream := [effects[kind] for kind in STREAM if kind in effects]:
        made |= pair.both_scales("", ("site", "layer", "pos"), np.stack(stream), meaning)
    for kind in ("head", "expert"):
        if kind in effects:
            made |= pair.both_scales(f"{kind}_", ("layer", kind, "pos"), effects[kind], f"{meaning} the {kind}")
    differ = (routes(pair.clean) != routes(pair.corrupt)).any(-1)
    margin = quantity("how far the corrupted run's routing is from another set of experts", "router logits")
    return {
        **made,
        "router_margin": (("layer", "pos"), numpy(router_margin(pair.corrupt)), margin),
        "routes_differ": (("layer", "pos"), numpy(differ), quantity("the two runs chose other experts")),
        **pair.scalars(),
    }


def _coords(pair: Contrast, kinds: Sequence[str]) -> dict:
    config = pair.model.config
    made = pair.coords() | {"layer": np.arange(config.n_layers)}
    if stream := [kind for kind in kinds if kind in STREAM]:
        made["site"] = stream
    sizes = {"head": config.n_heads, "expert": config.n_experts}
    return made | {kind: np.arange(size) for kind, size in sizes.items() if kind in kinds}
