"""What each head's weights say without any text: its OV and QK circuits, and how heads feed heads.

After Elhage et al., A Mathematical Framework for Transformer Circuits, 2021.

The norms' gains are folded into whatever reads the stream; their division, RoPE's turn, biases and sinks are left out.
Query heads that share a key-value head share its keys and values here too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens import FactoredMatrix

from workbench.experiments.rows import check_index, quantity
from workbench.experiments.texts import about
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

LAYER_HEAD = ("layer", "head")
COMPOSITIONS = ("Q", "K", "V")


def ov_circuit(model: HookedGptOss, layer: int, head: int) -> FactoredMatrix:
    """What a head writes to the stream for what it attends to: γ · W_V · W_O, [d_model d_model] in two factors.

    >>> experiments.ov_circuit(model, 1, 5).shape
    torch.Size([128, 128])
    """
    attention, gain = _part(model, layer, head)
    value = attention.W_V[head // model.config.n_query_groups]
    return FactoredMatrix(_wide(value) * gain[:, None], _wide(attention.W_O[head]))


def qk_circuit(model: HookedGptOss, layer: int, head: int) -> FactoredMatrix:
    """What a head looks for: γ · W_Q · W_Kᵀ · γ / √d_head, [d_model of the query, d_model of the key] in two factors.

    RoPE turns the queries against the keys by their distance; this is the score at distance 0.
    """
    attention, gain = _part(model, layer, head)
    query, key = attention.W_Q[head], attention.W_K[head // model.config.n_query_groups]
    scale = model.config.d_head**-0.5
    return FactoredMatrix(_wide(query) * gain[:, None] * scale, (_wide(key) * gain[:, None]).T)


def _part(model: HookedGptOss, layer: int, head: int) -> tuple:
    check_index("layer", layer, model.config.n_layers)
    check_index("head", head, model.config.n_heads)
    block = model.blocks[layer]
    return block.attn, _wide(block.ln1.w)


def _wide(x: Tensor) -> Tensor:
    return x.detach().to(torch.promote_types(x.dtype, torch.float32))


@without_gradients
def head_circuits(model: HookedGptOss, *, progress: bool = True) -> xr.Dataset:
    """How much each head copies, and how much it looks for the token that it is at.

    Returns:
        copying (layer, head), Σ Re λ / Σ |λ| of the eigenvalues λ of the full OV circuit W_E · OV · γ · W_U, [d_vocab
        d_vocab]: 1 if it raises what it attends to, −1 if it lowers it (TransformerLens' copying score). matching
        (layer, head), the same of W_E · QK · W_Eᵀ, at distance 0. ov_norm, qk_norm (layer, head), Frobenius norms;
        ov_rank (layer, head), (Σ s)² / Σ s² of the OV circuit's singular values: how many directions it moves.
    """
    embed, gain = _wide(model.embed.weight), _wide(model.ln_final.w)
    unembed = _wide(model.unembed.weight) * gain.to(model.unembed.weight.device)
    # W_U · W_E once: [d_model d_model] instead of a product with the vocabulary for every head.
    back = (unembed.T @ embed.to(unembed.device)).to(embed.device)
    square = embed.T @ embed
    shape = (model.config.n_layers, model.config.n_heads)
    made = {name: np.zeros(shape) for name in _MEANING}
    for layer, head in tqdm(list(np.ndindex(shape)), desc="heads", disable=not progress):
        ov, qk = ov_circuit(model, layer, head), qk_circuit(model, layer, head)
        # λ of W_E A B W_U are those of the small B W_U W_E A.
        made["copying"][layer, head] = _positive(ov.B @ back.to(ov.B) @ ov.A)
        made["matching"][layer, head] = _positive(qk.B @ square.to(qk.B) @ qk.A)
        singular = ov.S
        made["ov_norm"][layer, head], made["qk_norm"][layer, head] = float(ov.norm()), float(qk.norm())
        made["ov_rank"][layer, head] = float(singular.sum() ** 2 / singular.square().sum())
    variables = {name: (LAYER_HEAD, values, quantity(_MEANING[name])) for name, values in made.items()}
    coords = {"layer": np.arange(shape[0]), "head": np.arange(shape[1])}
    return xr.Dataset(variables, coords, about(model, "head_circuits"))


_MEANING = {
    "copying": "Σ Re λ / Σ |λ| of the full OV circuit",
    "matching": "Σ Re λ / Σ |λ| of the full QK circuit, at distance 0",
    "ov_norm": "Frobenius norm of the OV circuit",
    "qk_norm": "Frobenius norm of the QK circuit",
    "ov_rank": "directions that the OV circuit moves, (Σ s)² / Σ s²",
}


def _positive(small: Float[Tensor, "d_head d_head"]) -> float:
    values = torch.linalg.eigvals(small)
    return float(values.real.sum() / values.abs().sum().clamp(min=1e-30))


@without_gradients
def composition_scores(model: HookedGptOss, *, progress: bool = True) -> xr.Dataset:
    """How much what one head writes lies where a later head reads: ‖A · B‖ / (‖A‖ · ‖B‖), Frobenius norms.

    Random matrices score about 1/√d_model, in the attribute ``chance``.

    Returns:
        score (kind, layer, head, to_layer, to_head), A the OV circuit of the earlier head and B what the later one
        reads through: its QK circuit ("Q"), that transposed ("K"), or its OV circuit ("V"). NaN where to_layer is not
        later.
    """
    c = model.config
    shape = (c.n_layers, c.n_heads)
    made = np.full((len(COMPOSITIONS), *shape, *shape), np.nan)
    writers = {at: ov_circuit(model, *at).collapse_l() for at in np.ndindex(shape[0] - 1, shape[1])}
    for at in tqdm(list(np.ndindex(shape)), desc="heads", disable=not progress):
        for kind, reader in enumerate(_readers(model, *at)):
            earlier = [writer for writer in writers if writer[0] < at[0]]
            if earlier:
                left = torch.stack([writers[writer] for writer in earlier])
                right = reader.collapse_r()
                norms = (left @ right.to(left)).norm(dim=(-2, -1)) / left.norm(dim=(-2, -1)) / right.norm().to(left)
                for writer, score in zip(earlier, norms.tolist(), strict=True):
                    made[(kind, *writer, *at)] = score
    dims = ("kind", *LAYER_HEAD, "to_layer", "to_head")
    coords = {"kind": list(COMPOSITIONS)} | {dim: np.arange(n) for dim, n in zip(dims[1:], shape * 2, strict=True)}
    attrs = about(model, "composition_scores", chance=c.d_model**-0.5)
    return xr.Dataset({"score": (dims, made, quantity("‖A · B‖ / (‖A‖ · ‖B‖)"))}, coords, attrs)


def _readers(model: HookedGptOss, layer: int, head: int) -> Iterator[FactoredMatrix]:
    qk = qk_circuit(model, layer, head)
    yield from (qk, qk.T, ov_circuit(model, layer, head))
