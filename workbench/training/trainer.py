"""Trains nano: AdamW with a warm-up and a cosine, on packed microworld text, resumable at any checkpoint."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from tokenizers import Tokenizer
from torch import Tensor, nn
from tqdm import tqdm

from workbench.model.config import Config

from .encoding import Batch, Encoder, batch_at
from .forward import Parameters, Routing, forward


@dataclass(frozen=True)
class Recipe:
    """All that decides the result, beside corpora and shape; with the same number of threads it is repeatable."""

    steps: int = 4000
    rows: int = 16
    length: int = 256
    learning_rate: float = 2e-3
    warm_up: int = 100
    last_share: float = 0.02  # of the learning rate, at the end of the cosine
    weight_decay: float = 0.05
    clip: float = 1.0
    balance: float = 0.01
    # The share of the steps in which repeats and passkeys grow from near to far: near ones are learned sooner.
    near_share: float = 0.25
    seed: int = 0

    def reach(self, step: int) -> float:
        """How far apart repeats may stand at a step, 0 to 1."""
        return min(1.0, step / (self.near_share * self.steps)) if self.near_share else 1.0

    def rate(self, step: int) -> float:
        """The learning rate of a step: a warm-up, then a cosine."""
        if step < self.warm_up:
            return self.learning_rate * (step + 1) / self.warm_up
        done = (step - self.warm_up) / max(1, self.steps - self.warm_up)
        cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.learning_rate * (self.last_share + (1 - self.last_share) * cosine)


@dataclass(frozen=True)
class Losses:
    """Weighted cross-entropy in nats, and how unevenly the experts are loaded (1 is even), mean over layers."""

    text: Float[Tensor, ""]
    balance: Float[Tensor, ""]


def losses(parameters: Parameters, config: Config, batch: Batch) -> Losses:
    """The two losses of a batch."""
    stream, routings = forward(parameters, config, batch.tokens, batch.document)
    weights = batch.weights[:, 1:].flatten()
    counted = weights.nonzero().squeeze(-1)
    before = stream[:, :-1].flatten(0, 1).index_select(0, counted)
    targets = batch.tokens[:, 1:].flatten()[counted]
    each = F.cross_entropy(F.linear(before, parameters["unembed.weight"]), targets, reduction="none")
    text = (each * weights[counted]).sum() / weights.sum()
    real = (batch.document >= 0).flatten()
    return Losses(text, torch.stack([balance_loss(routing, real) for routing in routings]).mean())


def balance_loss(routing: Routing, real: Tensor) -> Float[Tensor, ""]:
    """n_experts · Σ (share of the routes · mean probability), over the whole batch, so that an expert may keep to one
    domain (Switch Transformer, arXiv 2101.03961, eq. 4)."""
    logits, chosen = routing.logits[real], routing.chosen[real]
    n_experts = logits.shape[-1]
    load = torch.bincount(chosen.flatten(), minlength=n_experts) / chosen.numel()
    return n_experts * (load * logits.softmax(-1).mean(0)).sum()


class Trainer:
    """One training run of a model whose parameters have ``config``'s names and shapes.

    ``checkpoint``: a file written now and then, and read at the start if it is there; one of another recipe is refused.
    """

    def __init__(
        self, model: nn.Module, config: Config, tokenizer: Tokenizer, recipe: Recipe, checkpoint: Path | None = None
    ):
        self.model, self.config, self.recipe, self.checkpoint = model, config, recipe, checkpoint
        self.parameters = dict(model.named_parameters())
        self.encoder, self.step = Encoder(tokenizer), 0
        self.seconds = 0.0  # spent training, also before a resumption
        matrices = [p for p in self.parameters.values() if p.ndim > 1]
        vectors = [p for p in self.parameters.values() if p.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.95), fused=True)
        if checkpoint is not None and checkpoint.exists():
            self._resume(checkpoint)

    def logits(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """The model's logits as it now stands."""
        stream, _ = forward(self.parameters, self.config, tokens, torch.zeros_like(tokens))
        return F.linear(stream, self.parameters["unembed.weight"])

    def run(
        self,
        until: int | None = None,
        minutes: float | None = None,
        every: int = 500,
        report: Callable[["Trainer"], None] | None = None,
        progress: bool = True,
    ) -> None:
        """Train up to a step (all of the recipe's), or stop early after so many minutes; every ``every`` steps write
        the checkpoint and call ``report``."""
        until = self.recipe.steps if until is None else until
        began = last = time.monotonic()
        with tqdm(total=until, initial=self.step, disable=not progress, mininterval=5, unit="step") as bar:
            while self.step < until and (minutes is None or time.monotonic() - began < 60 * minutes):
                found = self.take_step()
                self.seconds, last = self.seconds + time.monotonic() - last, time.monotonic()
                bar.update()
                bar.set_postfix(loss=f"{float(found.text):.3f}", balance=f"{float(found.balance):.3f}", refresh=False)
                if self.step % every == 0 or self.step == until:
                    self.save()
                    if report is not None:
                        report(self)
        self.save()

    def take_step(self) -> Losses:
        """One step; its losses, before the step."""
        r = self.recipe
        for group in self.optimizer.param_groups:
            group["lr"] = r.rate(self.step)
        batch = batch_at(self.encoder, r.seed, self.step, r.rows, r.length, r.reach(self.step))
        found = losses(self.parameters, self.config, batch)
        self.optimizer.zero_grad(set_to_none=True)
        (found.text + r.balance * found.balance).backward()
        nn.utils.clip_grad_norm_(self.parameters.values(), r.clip)
        self.optimizer.step()
        self.step += 1
        return Losses(found.text.detach(), found.balance.detach())

    def save(self) -> None:
        """Write the checkpoint; a run killed meanwhile keeps the last one."""
        if self.checkpoint is None:
            return
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "recipe": asdict(self.recipe),
            "optimizer": self.optimizer.state_dict(),
        }
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        partial = self.checkpoint.with_suffix(".part")
        torch.save(state | {"model": {name: p.detach() for name, p in self.parameters.items()}}, partial)
        partial.replace(self.checkpoint)

    def _resume(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        if state["recipe"] != asdict(self.recipe):
            changed = sorted(k for k, v in asdict(self.recipe).items() if state["recipe"].get(k) != v)
            raise ValueError(
                f"{path} is of a run with another {', '.join(changed)}: delete it, or train with the same recipe"
            )
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["model"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]
