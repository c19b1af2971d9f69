"""What the experts' and the router's weights say without any text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm

from workbench.experiments.rows import check_index, is_whole, quantity
from workbench.experiments.texts import about, token_texts
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients
from workbench.model.mxfp4 import PackedWeight

KINDS = ("down", "gate_up", "writes", "reads")
_BYTES = 256 * 2**20  # that the accumulated Gram matrices may take


@without_gradients
def expert_similarity(
    model: HookedGptOss,
    layers: Sequence[int] | None = None,
    kinds: Sequence[str] = KINDS,
    *,
    progress: bool = True,
) -> xr.Dataset:
    """How alike a layer's experts are. Packed experts are unpacked one at a time, or a slice of rows of each.

    Args:
        kinds: of "down" and "gate_up", the cosine of the flattened matrices, which a permutation of the neurons
            changes; "writes" and "reads", the cosine of W_down · W_downᵀ and W_gate_upᵀ · W_gate_up, which it does not:
            whether two experts write to, and read from, the same directions of the stream, whatever their neurons.

    Returns:
        similarity (kind, layer, expert, other_expert), 1 on the diagonal. chance (kind), what random matrices score: 0
        in the first two kinds; in the others about d_mlp / (d_model + d_mlp) (with 2 d_mlp for "reads"), since Gram
        matrices are positive.

    Raises:
        ValueError: for a layer or kind that is not there.
    """
    chosen = list(range(model.config.n_layers) if layers is None else layers)
    for layer in chosen:
        check_index("layer", layer, model.config.n_layers)
    if not kinds or not set(kinds) <= set(KINDS):
        raise ValueError(f"kinds={list(kinds)}: expected some of {KINDS}")
    e, d, m = (getattr(model.config, name) for name in ("n_experts", "d_model", "d_mlp"))
    made = np.zeros((len(kinds), len(chosen), e, e))
    jobs = [(i, j) for i in range(len(kinds)) for j in range(len(chosen))]
    for i, j in tqdm(jobs, desc="experts", disable=not progress):
        made[i, j] = _cosines(model.blocks[chosen[j]].mlp.experts, kinds[i])
    chance = {"down": 0.0, "gate_up": 0.0, "writes": m / (d + m), "reads": 2 * m / (d + 2 * m)}
    variables = {
        "similarity": (("kind", "layer", "expert", "other_expert"), made, quantity("cosine")),
        "chance": ("kind", np.array([chance[kind] for kind in kinds]), quantity("cosine of random matrices")),
    }
    coords = {"kind": list(kinds), "layer": chosen, "expert": np.arange(e), "other_expert": np.arange(e)}
    return xr.Dataset(variables, coords, about(model, "expert_similarity"))


def _cosines(experts: Any, kind: str) -> Float[np.ndarray, "expert other_expert"]:
    weight = experts.W_gate_up if kind in ("gate_up", "reads") else experts.W_down
    parts = _rows(weight) if kind in ("down", "gate_up") else _grams(weight, transposed=kind == "reads")
    products = torch.zeros(len(weight), len(weight), dtype=torch.float64)
    for part in parts:
        flat = part.flatten(1)
        products += (flat @ flat.T).double().cpu()
    norms = products.diagonal().clamp(min=1e-300).sqrt()
    return (products / norms / norms[:, None]).numpy()


def _rows(weight: Any) -> Iterator[Float[Tensor, "expert rows d_in"]]:
    """All experts, some rows at a time: together about as many numbers as one expert has."""
    n_experts, d_out, _ = weight.shape
    step = -(-d_out // n_experts)
    for start in range(0, d_out, step):
        if isinstance(weight, PackedWeight):
            end = start + step
            part = PackedWeight(
                weight.blocks[:, start:end], weight.scales[:, start:end], weight.source, dtype=weight.dtype
            )
            yield part[:].float()
        else:
            yield weight[:, start : start + step].detach().float()


def _grams(weight: Any, transposed: bool) -> Iterator[Float[Tensor, "expert columns d"]]:
    """W · Wᵀ (transposed: Wᵀ · W) of each expert, as many rows of it at a time as there is room for."""
    n_experts, d_out, d_in = weight.shape
    d = d_in if transposed else d_out
    step = max(1, _BYTES // (4 * n_experts * d))
    for start in range(0, d, step):
        grams = []
        for expert in range(n_experts):
            w = weight[expert].detach().float()
            w = w.T if transposed else w
            grams.append(w[start : start + step] @ w.T)
        yield torch.stack(grams)


@without_gradients
def router_geometry(model: HookedGptOss, top_k: int = 8) -> xr.Dataset:
    """What each router row looks for: how alike the rows are, and which tokens' embeddings excite each the most.

    Returns:
        similarity (layer, expert, other_expert), the cosine of two rows with the norm's gain folded in; norm, bias
        (layer, expert); token_id, token, score (layer, expert, rank): of every embedding, normalised as the layer
        would a stream that held nothing else, those with the largest logit, bias left out.

    Raises:
        ValueError: for a top_k that is not there.
    """
    _check_top_k(model, top_k)
    embed = model.embed.weight.detach()
    cosines, norms, biases, ids, scores = [], [], [], [], []
    for block in model.blocks:
        rows = block.mlp.router.weight.detach().float() * block.ln2.w.detach().float()
        unit = rows / rows.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        cosines.append((unit @ unit.T).cpu().numpy())
        norms.append(rows.norm(dim=-1).cpu().numpy())
        biases.append(block.mlp.router.bias.detach().float().cpu().numpy())
        top = torch.cat([_normalised(part, model) @ rows.T.to(part.device) for part in embed.split(8192)]).topk(
            top_k, dim=0
        )
        ids.append(top.indices.T.cpu().numpy())
        scores.append(top.values.T.cpu().numpy())
    three = ("layer", "expert", "rank")
    variables = {
        "similarity": (("layer", "expert", "other_expert"), np.stack(cosines), quantity("cosine of router rows")),
        "norm": (three[:2], np.stack(norms), quantity("norm of the router row")),
        "bias": (three[:2], np.stack(biases), quantity("the router's bias")),
        "token_id": (three, np.stack(ids), quantity("token whose embedding it looks for")),
        "token": (three, token_texts(model, np.stack(ids)), quantity("token whose embedding it looks for")),
        "score": (three, np.stack(scores), quantity("router logit of the token's embedding alone, without bias")),
    }
    experts = np.arange(model.config.n_experts)
    coords = {"layer": np.arange(model.config.n_layers), "expert": experts, "other_expert": experts}
    return xr.Dataset(variables, coords | {"rank": np.arange(1, top_k + 1)}, about(model, "router_geometry"))


def _normalised(embeddings: Float[Tensor, "row d_model"], model: HookedGptOss) -> Float[Tensor, "row d_model"]:
    wide = embeddings.float()
    return wide / (wide.square().mean(-1, keepdim=True) + model.config.rms_eps).sqrt()


@without_gradients
def embedding_norms(model: HookedGptOss) -> xr.Dataset:
    """The length of every token's embedding and unembedding, and which tokens look as if they were never trained.

    An embedding that no text asks for has no gradient: it stays near where it started, near the mean of all. Its
    unembedding has one all the same, away from every text, so that it says less. Candidates for glitch tokens, not
    proof (Rumbelow and Watkins, 2023; arXiv 2405.05417).

    Returns:
        On vocab, every id: embed_norm, unembed_norm, embed_distance, unembed_distance, the distance to the mean vector;
        glitch_score, the robust z-score of the embedding's distance (from the median, in units of 1.4826 median
        absolute deviations), the lower the stranger; known, whether the tokenizer has text for the id; token, its text.
    """
    d_vocab, tokenizer = model.config.d_vocab, model.tokenizer
    read = {}
    for name, weight in (("embed", model.embed.weight), ("unembed", model.unembed.weight)):
        parts = weight.detach().split(8192)
        mean = torch.stack([part.double().sum(0) for part in parts]).sum(0) / d_vocab
        read[f"{name}_norm"] = torch.cat([part.double().norm(dim=-1) for part in parts]).cpu().numpy()
        read[f"{name}_distance"] = torch.cat([(part.double() - mean).norm(dim=-1) for part in parts]).cpu().numpy()
    read["glitch_score"] = _robust_z(read["embed_distance"])
    ids = np.arange(d_vocab)
    known = np.zeros(d_vocab, dtype=bool)
    texts = np.array([""] * d_vocab, dtype=object)
    if tokenizer is not None:
        known = ids < tokenizer.vocab_size
        texts[known] = token_texts(model, ids[known])
    variables = {name: ("vocab", values, quantity(_EMBEDDING[name])) for name, values in read.items()}
    variables["known"] = ("vocab", known, quantity("whether the tokenizer has text for the id"))
    coords = {"vocab": ids, "token": ("vocab", texts.astype(str))}
    return xr.Dataset(variables, coords, about(model, "embedding_norms"))


_EMBEDDING = {
    "embed_norm": "norm of the embedding",
    "unembed_norm": "norm of the unembedding",
    "embed_distance": "distance of the embedding to the mean one",
    "unembed_distance": "distance of the unembedding to the mean one",
    "glitch_score": "robust z-score of the embedding's distance to the mean one",
}


def _robust_z(values: np.ndarray) -> np.ndarray:
    median = np.median(values)
    spread = 1.4826 * np.median(np.abs(values - median))
    return (values - median) / (spread or 1.0)


def _check_top_k(model: HookedGptOss, top_k: int) -> None:
    if not is_whole(top_k) or not 1 <= top_k <= model.config.d_vocab:
        raise ValueError(f"top_k={top_k!r}: expected 1 to d_vocab={model.config.d_vocab}")
