"""Models and prompts whose greedy continuation does not hang on a rounding."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from tests.golden.routes import margins
from tests.golden.shapes import random_model, random_shape, random_tokens
from workbench.model import HookedGptOss

NEAR_TIE = 1e-3  # of logits and of router logits of order 1
LENGTHS = (11, 4, 8)
ROUTERS = [f"blocks.{layer}.mlp.hook_router_logits" for layer in range(3)]


class Settled:
    """Three prompts of different lengths, some beyond the window, and their greedy continuations, each run alone.

    Tokens are the likeliest and experts the strongest by a clear margin, so every right implementation gives these.
    """

    def __init__(self, seed: int, n_new: int, edits: Sequence[tuple[str, Callable]]) -> None:
        self.config = random_shape(seed, n_layers=3, sliding_window=5)
        self.model = random_model(self.config, seed)
        self.prompts = [random_tokens(self.config, seed + n, n) for n in LENGTHS]
        self.n_new, self.edits = n_new, list(edits)
        self.least = float("inf")
        self.continuations = torch.stack([self._continued(prompt) for prompt in self.prompts])

    def _continued(self, prompt: Tensor) -> Tensor:
        """By definition: the whole text again for each token, no cache, with the edits on."""
        tokens = prompt
        for _ in range(self.n_new):
            with self.model.hooks(fwd_hooks=self.edits):
                logits, cache = self.model.run_with_cache(tokens, names_filter=ROUTERS)
            routers = torch.cat(list(dict(cache).values()))
            best = logits[0, -1].topk(2).values
            least = margins(routers, self.config.experts_per_token).min()
            self.least = min(self.least, (best[0] - best[1]).item(), least.item())
            tokens = torch.cat((tokens, logits[0, -1].argmax()[None]))
        return tokens[len(prompt) :]

    def padded(self, side: str) -> tuple[Tensor, Tensor]:
        """The prompts as one batch: tokens and mask [batch pos]."""
        longest = max(LENGTHS)
        tokens, mask = torch.zeros(len(LENGTHS), longest, dtype=torch.long), torch.zeros(len(LENGTHS), longest)
        for i, prompt in enumerate(self.prompts):
            where = slice(longest - len(prompt), longest) if side == "left" else slice(0, len(prompt))
            tokens[i, where], mask[i, where] = prompt, 1
        return tokens, mask.bool()


def settled(seed: int, n_new: int = 12, edits: Sequence[tuple[str, Callable]] = ()) -> Settled:
    """The first settled case from this seed on; its continuations are made with the edits (forward hooks) on."""
    with torch.no_grad():
        for attempt in range(200):
            case = Settled(seed + attempt, n_new, edits)
            if case.least > NEAR_TIE:
                return case
    raise AssertionError(f"no settled case, seed {seed}")


def clockwork(following: dict[int, int], d_vocab: int, **shape) -> HookedGptOss:
    """A model that says following[t] after token t, whatever came before: for tests of what happens around it."""
    sizes = {"n_layers": 1, "d_model": d_vocab, "n_heads": 1, "n_key_value_heads": 1, "d_mlp": 8, "n_experts": 2}
    config = random_shape(0, experts_per_token=1, d_vocab=d_vocab, **sizes, **shape)
    model = HookedGptOss(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if name.endswith(".w") else 0.0)
        model.embed.weight.copy_(torch.eye(d_vocab))
        for now, after in following.items():
            model.unembed.weight[after, now] = 1.0
    return model
