"""A tiny trainer, and the dictionary that the tests train with it on nano: a second of work."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from workbench.dictionaries import Dictionary

SITE = "blocks.2.hook_resid_post"


def trained(x: Float[Tensor, "token d_model"], n_features: int, k: int, steps: int, site: str = SITE) -> Dictionary:
    """A TopK dictionary of these activations: Adam on the squared error, decoder rows of length 1 after each step."""
    generator = torch.Generator().manual_seed(0)
    W_dec = torch.nn.functional.normalize(torch.randn(n_features, x.shape[1], generator=generator), dim=-1)
    weights = {"W_enc": W_dec.T.clone(), "b_enc": torch.zeros(n_features), "W_dec": W_dec, "b_dec": x.mean(0)}
    weights = {name: tensor.clone().requires_grad_() for name, tensor in weights.items()}
    moments = {name: (torch.zeros_like(tensor), torch.zeros_like(tensor)) for name, tensor in weights.items()}
    with torch.enable_grad():
        for step in range(1, steps + 1):
            batch = x[torch.randint(len(x), (256,), generator=generator)]
            pre = (batch - weights["b_dec"]) @ weights["W_enc"] + weights["b_enc"]
            top = pre.topk(k, dim=-1)
            acts = torch.zeros_like(pre).scatter(-1, top.indices, top.values.relu())
            loss = (acts @ weights["W_dec"] + weights["b_dec"] - batch).square().sum(-1).mean()
            gradients = torch.autograd.grad(loss, list(weights.values()))
            with torch.no_grad():  # Adam; torch's own takes seconds to import its compiler
                for (name, tensor), gradient in zip(weights.items(), gradients, strict=True):
                    first, second = moments[name]
                    first.lerp_(gradient, 0.1), second.lerp_(gradient**2, 0.001)
                    size = (second / (1 - 0.999**step)).sqrt() + 1e-8
                    tensor.sub_(3e-3 * first / (1 - 0.9**step) / size)
                weights["W_dec"].div_(weights["W_dec"].norm(dim=-1, keepdim=True))
    return Dictionary(weights, "topk", k=k, site=site, about={"model": "nano", "form": "trained here"})


def random_weights(activation: str, d_model: int, n_features: int, seed: int = 0) -> dict[str, Tensor]:
    """Weights of a kind, of which about half the features are there at an input of unit size."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    weights = {"W_enc": draw(d_model, n_features), "W_dec": draw(n_features, d_model), "b_dec": draw(d_model)}
    own = {
        "relu": ("b_enc",),
        "topk": ("b_enc",),
        "jumprelu": ("b_enc", "threshold"),
        "gated": ("b_gate", "b_mag", "r_mag"),
    }[activation]
    return weights | {name: draw(n_features).abs() / 2 for name in own}
