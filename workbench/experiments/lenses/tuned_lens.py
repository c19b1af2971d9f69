"""Tuned lens: a logit lens that first learns to translate each layer's stream (Belrose et al., arXiv 2303.08112)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from workbench.activations import Run
from workbench.experiments.lenses.logit_lens import EMBEDDING, logit_lens
from workbench.experiments.rows import check_whole
from workbench.experiments.texts import about, rows_of
from workbench.model import HookedGptOss
from workbench.model.interrupts import gradient_mode_kept, without_gradients


@dataclass(frozen=True, eq=False)
class TunedLens:
    """An affine translator for the stream before each layer, x → x + change · x + bias; the last stream stays as it is.

    Attributes:
        change, bias: stage 0 translates the embedding, stage n the stream after layer n − 1. All zeros, it is the logit
            lens.
        losses: mean KL(final ‖ lens) over stages and tokens at each training step, in nats.
        provenance: how it was made, plain text and numbers.
    """

    change: Float[Tensor, "stage d_model d_model"]
    bias: Float[Tensor, "stage d_model"]
    losses: tuple[float, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def identity(cls, model: HookedGptOss) -> TunedLens:
        """Translators that change nothing: the logit lens."""
        n, d = model.config.n_layers, model.config.d_model
        return cls(torch.zeros(n, d, d), torch.zeros(n, d), provenance=about(model, "tuned_lens", steps=0))

    def __call__(self, layer: int, stream: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead d_model"]:
        """The stream after ``layer`` (−1: the embedding) as the final norm would read it."""
        stage = layer - EMBEDDING
        if stage == len(self.bias):
            return stream
        change, bias = self.change[stage].to(stream), self.bias[stage].to(stream)
        return stream + (stream @ change.T + bias)

    def save(self, path: str | Path) -> None:
        """Write it as a safetensors file."""
        meta = {"provenance": json.dumps(self.provenance), "losses": json.dumps(self.losses), "kind": "tuned lens"}
        save_file({"change": self.change.contiguous(), "bias": self.bias.contiguous()}, str(path), meta)

    @classmethod
    def load(cls, path: str | Path) -> TunedLens:
        """Read what :meth:`save` wrote.

        Raises:
            ValueError: for a file that is none, or holds something else.
        """
        try:
            with safe_open(str(path), framework="pt") as file:
                meta, names = file.metadata() or {}, set(file.keys())
                if meta.get("kind") != "tuned lens" or names != {"change", "bias"}:
                    raise ValueError(f"{path} holds {sorted(names)}: expected a file that TunedLens.save wrote")
                change, bias = file.get_tensor("change"), file.get_tensor("bias")
        except SafetensorError as error:
            raise ValueError(f"{path} is no safetensors file: {error}") from None
        return cls(change, bias, tuple(json.loads(meta["losses"])), json.loads(meta["provenance"]))


@gradient_mode_kept
def train_tuned_lens(
    model: HookedGptOss,
    texts: Sequence[Any],
    *,
    steps: int = 250,
    tokens_per_step: int = 256,
    learning_rate: float = 1e-3,
    seed: int = 0,
    progress: bool = True,
) -> TunedLens:
    """Train translators that bring each layer's prediction close to the final one: least KL(final ‖ lens).

    The model's weights stay as they are, without gradients. The streams of all texts are kept while it trains.

    Args:
        texts: texts, Chats or rows of ids; the more, and the more varied, the better it holds on others.
        steps: of Adam, its learning rate falling to 0 in a straight line.
        tokens_per_step: tokens, drawn at random from all the texts.

    Raises:
        ValueError: for no text, or fewer than one step or token.
    """
    check_whole(1, steps=steps, tokens_per_step=tokens_per_step)
    if not 0 < learning_rate < float("inf"):
        raise ValueError(f"learning_rate={learning_rate}: expected a number above 0")
    streams = _streams(model, texts)
    n, d = model.config.n_layers, model.config.d_model
    change, bias = (torch.zeros(*size, device=streams.device, requires_grad=True) for size in ((n, d, d), (n, d)))
    optimiser = torch.optim.Adam([change, bias], lr=learning_rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / steps)
    generator, losses = torch.Generator().manual_seed(seed), []
    for _ in tqdm(range(steps), desc="tuned lens", unit="step", disable=not progress):
        drawn = torch.randint(streams.shape[1], (min(tokens_per_step, streams.shape[1]),), generator=generator)
        loss = _loss(model, streams[:, drawn.to(streams.device)], change, bias)
        # grad, not backward: the model's own parameters must not collect any.
        change.grad, bias.grad = torch.autograd.grad(loss, [change, bias])
        optimiser.step()
        schedule.step()
        losses.append(loss.item())
    made = {"steps": steps, "tokens_per_step": tokens_per_step, "learning_rate": learning_rate, "seed": seed}
    provenance = about(model, "tuned_lens", **made, n_tokens=streams.shape[1])
    return TunedLens(change.detach().cpu(), bias.detach().cpu(), tuple(losses), provenance)


@without_gradients
def _streams(model: HookedGptOss, texts: Sequence[Any]) -> Float[Tensor, "stage token d_model"]:
    """The stream before each layer and after the last, of all tokens of all texts, in float32."""
    n = model.config.n_layers
    sites = [f"blocks.{layer}.hook_resid_pre" for layer in range(n)] + [f"blocks.{n - 1}.hook_resid_post"]
    found = []
    for row in rows_of(model, texts):
        cache, keep, _ = model.get_caching_hooks(sites)
        with model.hooks(fwd_hooks=keep):
            model(row[None], return_type=None)
        found.append(torch.stack([cache[site][0].float().to(model.embed.weight.device) for site in sites]))
    return torch.cat(found, dim=1)


def _loss(
    model: HookedGptOss,
    streams: Float[Tensor, "stage token d_model"],
    change: Float[Tensor, "early d_model d_model"],
    bias: Float[Tensor, "early d_model"],
) -> Float[Tensor, ""]:
    """Mean KL(final ‖ lens) over the early stages and the tokens, in nats."""
    early, dtype = streams[:-1], model.unembed.weight.dtype
    translated = early + torch.baddbmm(bias[:, None], early, change.transpose(1, 2))
    with model.hooks():
        with torch.no_grad():
            final = model.unembed(model.ln_final(streams[-1:].to(dtype)))[0].float().log_softmax(-1)
        logits = model.unembed(model.ln_final(translated.to(dtype))).float().log_softmax(-1)
    return (final.exp() * (final - logits)).sum(-1).mean()


def tuned_lens(run: Run, lens: TunedLens, row: int = 0, target: int | str | None = None, top_k: int = 5) -> xr.Dataset:
    """What ``logit_lens`` returns, each stream translated by a trained lens first.

    Raises:
        ValueError: for a lens of a model of another size; and as ``logit_lens``.
    """
    n, d = run.model.config.n_layers, run.model.config.d_model
    if tuple(lens.bias.shape) != (n, d):
        raise ValueError(f"the lens is for {tuple(lens.bias.shape)} [layers d_model], and the run's model is {(n, d)}")
    made = logit_lens(run, row, target, top_k, translators=lens)
    trained_on = {f"lens_{name}": value for name, value in lens.provenance.items()}
    return made.assign_attrs({"experiment": "tuned_lens", **trained_on})


def lens_kl(run: Run, lens: TunedLens, row: int = 0) -> xr.Dataset:
    """How far each layer's reading is from the final prediction, through the plain lens and the tuned one.

    Give it text that the lens was not trained on.

    Returns:
        kl (lens, layer), mean KL(final ‖ layer) over the tokens in nats, of the "logit lens" and the "tuned lens".
    """
    read = [logit_lens(run, row, top_k=1), tuned_lens(run, lens, row, top_k=1)]
    kl = xr.concat([one.kl.mean("pos", keep_attrs=True) for one in read], dim="lens")
    names = {"lens": np.array(["logit lens", "tuned lens"])}
    return xr.Dataset({"kl": kl}, names, {**read[1].attrs, "experiment": "lens_kl"})
