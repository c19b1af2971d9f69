"""FactoredMatrix of the QK and OV circuits, from the weights under TransformerLens' names."""

import copy

import pytest
import torch
from jaxtyping import Int
from torch import Tensor
from transformer_lens import FactoredMatrix

from workbench.model import HookedGptOss

CLOSE = {"rtol": 1e-5, "atol": 2e-5}


def of_query_head(stacked: Tensor) -> Tensor:
    """[layer kv_head …] → [layer head …]: two query heads share a key-value head."""
    return stacked.repeat_interleave(2, dim=1)


def test_the_weights_have_transformerlens_names_and_shapes(model: HookedGptOss) -> None:
    shapes = {
        "W_E": (61, 32), "W_U": (32, 61), "b_U": (61,), "W_Q": (3, 4, 32, 16), "W_K": (3, 2, 32, 16),
        "W_V": (3, 2, 32, 16), "W_O": (3, 4, 16, 32), "b_Q": (3, 4, 16), "b_K": (3, 2, 16), "b_V": (3, 2, 16),
        "b_O": (3, 32),
    }  # fmt: skip
    assert {name: tuple(getattr(model, name).shape) for name in shapes} == shapes
    assert not model.b_U.any()
    x = torch.randn(5, 32)
    for head in range(4):
        whole = model.blocks[1].attn.q(x)
        torch.testing.assert_close(x @ model.W_Q[1, head] + model.b_Q[1, head], whole[:, 16 * head : 16 * (head + 1)])


def test_the_ov_circuit_says_what_a_head_writes(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    with torch.no_grad():
        cache = model.run_with_cache(tokens)[1]
        ov = FactoredMatrix(of_query_head(model.W_V), model.W_O)
        for layer, head in ((0, 3), (1, 0), (2, 2)):
            pattern = cache["pattern", layer][:, head]
            moved = pattern @ (cache["v_in", layer, "attn"] @ ov.AB[layer, head])
            bias = of_query_head(model.b_V)[layer, head] @ model.W_O[layer, head]
            bias = pattern.sum(-1, keepdim=True) * bias
            torch.testing.assert_close(moved + bias, cache["result", layer][:, :, head], **CLOSE)


def test_the_qk_circuit_says_what_a_token_gives_itself(model: HookedGptOss, tokens: Int[Tensor, "batch pos"]) -> None:
    # At distance 0 the rotation drops out, but for YaRN's concentration in both factors.
    bare = copy.deepcopy(model)
    with torch.no_grad():
        for block in bare.blocks:
            block.attn.q.bias.zero_()
            block.attn.k.bias.zero_()
        cache = bare.run_with_cache(tokens)[1]
        qk = FactoredMatrix(bare.W_Q, of_query_head(bare.W_K).transpose(-2, -1))
        scale = (0.1 * torch.log(torch.tensor(16.0)) + 1) ** 2 / 16**0.5
        for layer, head in ((0, 3), (1, 0), (2, 2)):
            x = cache["q_in", layer, "attn"]
            own = torch.einsum("bpd,de,bpe->bp", x, qk.AB[layer, head], x) * scale
            scores = cache["attn_scores", layer][:, head].diagonal(dim1=-2, dim2=-1)
            torch.testing.assert_close(scores, own, **CLOSE)


@pytest.mark.parametrize("circuit", ["ov", "qk"])
def test_the_factored_matrix_knows_its_norm_singular_values_and_eigenvalues(model: HookedGptOss, circuit: str) -> None:
    with torch.no_grad():
        left, right = (
            (of_query_head(model.W_V), model.W_O)
            if circuit == "ov"
            else (model.W_Q, of_query_head(model.W_K).transpose(-2, -1))
        )
        factored, full = FactoredMatrix(left, right), left @ right
        torch.testing.assert_close(factored.norm(), full.norm(dim=(-2, -1)), **CLOSE)
        singular = torch.linalg.svdvals(full)
        torch.testing.assert_close(factored.S, singular[..., :16], rtol=1e-4, atol=1e-4)
        trace = factored.eigenvalues.sum(-1)
        torch.testing.assert_close(trace.real, full.diagonal(dim1=-2, dim2=-1).sum(-1), rtol=1e-4, atol=1e-4)
        vocabulary = model.W_E @ factored[1, 2] @ model.W_U
        torch.testing.assert_close(vocabulary.AB, model.W_E @ full[1, 2] @ model.W_U, rtol=1e-4, atol=1e-4)
