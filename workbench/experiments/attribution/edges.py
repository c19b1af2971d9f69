"""Edge attribution: which connections between parts of the model carry the difference of two texts (EAP, EAP-IG)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
import torch
import xarray as xr
from einops import einsum, rearrange
from jaxtyping import Float
from torch import Tensor

from workbench.experiments.attribution.gradients import gradients_at
from workbench.experiments.contrast import Contrast, at_least_float32, contrast
from workbench.experiments.metrics import Metric
from workbench.experiments.nodes import Node, Receiver, all_nodes, all_receivers, node_writes, write_sites
from workbench.experiments.readers import pulled_back, slots_gate_up, through_norm
from workbench.experiments.rows import check_whole, numpy, quantity
from workbench.model import HookedGptOss

Method = Literal["eap", "eap-ig"]
_UPSTREAM = ("embed", "head", "expert")
_MOST = 4096  # tokens in one pass
_ATTENTION = ("hook_resid_pre", "attn.hook_q", "attn.hook_k", "attn.hook_v")
_EXPERTS = ("hook_resid_mid", "mlp.hook_router_logits", "mlp.hook_expert_indices", "mlp.hook_expert_gate")


def edge_attribution(
    model: HookedGptOss,
    clean: Any,
    corrupt: Any,
    metric: Metric,
    method: Method = "eap",
    *,
    steps: int = 5,
    by_position: bool = False,
    row: int = 0,
    logits_at: int | None = None,
) -> xr.Dataset:
    """First-order effect of patching each edge: (clean − corrupted write of u) · ∇M at what v reads.

    EAP (Syed et al., arXiv 2310.10348) takes the gradient at the corrupted run. EAP-IG (Hanna et al., arXiv 2403.17806)
    averages it over runs whose token embeddings lie between the corrupted and the clean ones; here at the middles of
    ``steps`` equal parts. Positive: the edge's clean value raises the metric.

    Writers u are the embedding, every head and every expert (by id, 0 where not routed). Readers v are each head's
    query, each key-value head's key and value, each layer's router, each expert, and the logits. A reader reads the
    residual stream before its norm, and the norm is live, its scale moving with what arrives. Routing is live too;
    an expert is a reader at the tokens that are routed to it.

    Args:
        clean, corrupt: text, a Chat, tokens or an unedited run, as many tokens each.
        metric: two tokens (right, wrong), one of ``experiments.metrics``, or a differentiable function.
        method: "eap" or "eap-ig".
        steps: of EAP-IG.
        by_position: keep the positions apart, in ``score_at``.
        row: of both.
        logits_at: the position that the metric reads; None for the last.

    Returns:
        score (upstream, downstream), in units of the metric, and share, the same ÷ (clean − corrupted); NaN where there
        is no such edge. Names are those of ``Node`` and ``Receiver``; kind and layer stand beside them. score_at
        (upstream, downstream, pos), if asked for; clean, corrupted.

    Raises:
        ValueError: for texts of unequal length, an edited run, or a method, row, position or metric that does not fit.

    >>> edges = experiments.edge_attribution(model, pair.clean, pair.corrupt, (pair.right, pair.wrong))
    >>> edges.score.dims
    ('upstream', 'downstream')
    """
    if method not in get_args(Method):
        raise ValueError(f"method={method!r}: expected one of {get_args(Method)}")
    check_whole(1, steps=steps)
    pair = contrast(model, clean, corrupt, metric, write_sites(model.config, _UPSTREAM), row, logits_at)
    alphas = [0.0] if method == "eap" else [(i + 0.5) / steps for i in range(steps)]
    writes, reads = _write_differences(pair), _mean_gradients(pair, alphas)
    nodes, receivers = all_nodes(model.config, kinds=_UPSTREAM), all_receivers(model.config)
    there = np.array([[receiver.reads(node) for receiver in receivers] for node in nodes])
    score = np.where(there, numpy(einsum(writes, reads, "pos up d, pos down d -> up down")), np.nan)
    dims = ("upstream", "downstream")
    variables = {
        "score": (dims, score, quantity("first-order effect of patching the edge", "units of the metric")),
        "share": (dims, score / pair.span, quantity("the same, ÷ (clean − corrupted)")),
        **pair.scalars(),
    }
    if by_position:
        at = numpy(einsum(writes, reads, "pos up d, pos down d -> up down pos"))
        at = np.where(there[..., None], at, np.nan)
        variables["score_at"] = ((*dims, "pos"), at, quantity("the same at each position", "units of the metric"))
    attrs = pair.attrs("edge_attribution", routing="live", row=row, method=method, steps=len(alphas), norm="live")
    return xr.Dataset(variables, _names(nodes, receivers) | pair.coords(), attrs)


def top_edges(data: xr.Dataset, n: int = 20) -> xr.Dataset:
    """The n edges of :func:`edge_attribution` with the largest scores, either sign, the largest first.

    Returns:
        score, share (edge), with upstream and downstream as coordinates.

    Raises:
        ValueError: for another dataset, or n below 1.
    """
    if "score" not in data or data.score.dims != ("upstream", "downstream"):
        raise ValueError("top_edges takes what edge_attribution returns: score (upstream, downstream)")
    check_whole(1, n=n)
    flat = data[["score", "share"]].stack(edge=("upstream", "downstream"), create_index=False)
    flat = flat.isel(edge=flat.score.notnull().values.nonzero()[0])
    # Stable, so that equal scores stand in the order of the model.
    order = np.argsort(-np.abs(flat.score.values), kind="stable")[:n]
    return flat.isel(edge=order).assign_coords(rank=("edge", np.arange(1, len(order) + 1)))


def _names(nodes: list[Node], receivers: list[Receiver]) -> dict:
    def along(dim: str, items: list[Any], kinds: list[str]) -> dict:
        layers = [-1 if item.layer is None else item.layer for item in items]
        names = np.array([item.name for item in items])
        return {dim: names, f"{dim}_kind": (dim, np.array(kinds)), f"{dim}_layer": (dim, np.array(layers))}

    up = along("upstream", nodes, [node.kind for node in nodes])
    return up | along("downstream", receivers, [receiver.part for receiver in receivers])


def _write_differences(pair: Contrast) -> Float[Tensor, "pos up d_model"]:
    def of(kind: str, layer: int | None = None) -> Tensor:
        return pair.difference(lambda read: node_writes(pair.model, read, kind, layer))[0]

    layers = range(pair.model.config.n_layers)
    return torch.cat([of("embed"), *(of(kind, layer) for layer in layers for kind in ("head", "expert"))], 1)


def _mean_gradients(pair: Contrast, alphas: list[float]) -> Float[Tensor, "pos down d_model"]:
    """The gradient at what each receiver reads, averaged over runs on embeddings between the two."""
    total = torch.zeros(())
    for part in torch.tensor(alphas, dtype=torch.float64).split(max(1, _MOST // pair.corrupt.tokens.shape[1])):
        total = total + torch.cat(list(_gradients(pair, part)), 2).sum(0)
    return total / len(alphas)


def _gradients(pair: Contrast, alphas: Float[Tensor, " step"]) -> Iterator[Float[Tensor, "step pos down d_model"]]:
    model = pair.model
    start, end = (done["hook_embed"] for done in (pair.corrupt, pair.clean))
    weight = alphas.to(start)[:, None, None]
    between = (start * (1 - weight) + end * weight).requires_grad_()
    n_layers = model.config.n_layers
    sites = [f"blocks.{i}.{site}" for i in range(n_layers) for site in (*_ATTENTION, *_EXPERTS, "mlp.hook_expert_up")]
    last = f"blocks.{n_layers - 1}.hook_resid_post"
    tokens = pair.corrupt.tokens.expand(len(alphas), -1)
    hooks = [("hook_embed", lambda x, hook: between)]
    values, found = gradients_at(model, tokens, [*sites, last], pair.measure, hooks)
    for layer in range(n_layers):
        block = f"blocks.{layer}."
        yield _attention_reads(model, layer, values[f"{block}hook_resid_pre"], found)
        yield _expert_reads(model, layer, values, found)
    yield at_least_float32(found[last])[:, :, None]


def _attention_reads(
    model: HookedGptOss, layer: int, stream: Float[Tensor, "step pos d_model"], found: dict[str, Tensor]
) -> Float[Tensor, "step pos down d_model"]:
    """At what each query, key and value reads."""
    attn = model.blocks[layer].attn
    each = [
        einsum(
            found[f"blocks.{layer}.attn.hook_{part}"], weight, "step pos head d_head, head d d_head -> step pos head d"
        )
        for part, weight in (("q", attn.W_Q), ("k", attn.W_K), ("v", attn.W_V))
    ]
    return through_norm(model.blocks[layer].ln1, stream[:, :, None], torch.cat(each, 2)).detach()


def _expert_reads(
    model: HookedGptOss, layer: int, values: dict[str, Tensor], found: dict[str, Tensor]
) -> Float[Tensor, "step pos down d_model"]:
    """At what the router and each expert read."""
    block, site, config = model.blocks[layer], f"blocks.{layer}.mlp.hook_", model.config
    stream = values[f"blocks.{layer}.hook_resid_mid"]
    router = found[f"{site}router_logits"] @ block.mlp.router.weight
    indices = values[f"{site}expert_indices"]
    gate_up = torch.stack([found[f"{site}expert_{part}"] for part in ("gate", "up")], -1)
    interleaved = rearrange(gate_up, "step pos slot d_mlp two -> step pos slot (d_mlp two)")
    # What is read does not matter to the gradient of a linear map, only its shape.
    read = stream[:, :, None].expand(-1, -1, indices.shape[-1], -1)
    slots = pulled_back(lambda x: slots_gate_up(block.mlp.experts, x, indices, config.n_experts), read, interleaved)
    experts = slots.new_zeros(*stream.shape[:2], config.n_experts, config.d_model)
    experts.scatter_add_(2, indices[..., None].expand_as(slots), slots)
    return through_norm(block.ln2, stream[:, :, None], torch.cat([router[:, :, None], experts], 2)).detach()
