"""What the experts that were not chosen would have written: the next in the router's order, at one token and layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from workbench.activations import Run, site_of
from workbench.experiments.contrast import at_least_float32
from workbench.experiments.lenses.direct import Reader, column_of
from workbench.experiments.metrics import Token
from workbench.experiments.readers import normed, slots_out
from workbench.experiments.rows import check_index, check_whole, numpy, provenance, quantity
from workbench.experiments.texts import read_out, token_texts
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients


@without_gradients
def unchosen_experts(
    run: Run,
    layer: int,
    position: int = -1,
    answers: tuple[Token, Token] | Token | None = None,
    *,
    n: int = 4,
    row: int = 0,
    top_k: int = 3,
    recording: Any = None,
    sources: Mapping[str, Any] | None = None,
) -> xr.Dataset:
    """The experts of one token in the router's order: those it went to, and the ``n`` that came next.

    What an expert that was not chosen would have written is computed from the weights and the stream that the layer
    read. "Forced" is what ``ForceExpert`` does: the expert takes the weakest slot, and weights are the softmax over the
    new set's own router logits. Effects on the answer are direct ones: the final norm is the run's own, taken as a
    constant, and what later layers make of it is theirs.

    Args:
        run: with its routing; of a run that did not keep what the layer read, that layer is run again.
        position: as in the run; negative ones count real tokens from the end.
        answers: (right, wrong), text or ids, or one token; None for the two likeliest next tokens at the position.
        n: how many of those not chosen.
        top_k: tokens that each raises.
        recording, sources: as ``site_of`` takes them, for a run that has to be run again.

    Returns:
        On ``rank``, from 1: expert; chosen; router_logit; probability, the softmax over all experts; weight, what it
        had, or would have if forced; output_norm ‖y‖; written_norm ‖w · y‖; direct, what w · y adds to the answer;
        forced, how much the answer's logits change directly if it is forced: what it adds, less what the displaced
        expert wrote, and what the new weights do to the others; 0 for the chosen. top_id, top_token (rank, top), of the
        direction W_U · norm(y).

    Raises:
        ValueError: for a layer, row, position, token or number that is not there.

    >>> ranks = experiments.unchosen_experts(run, layer=1)
    >>> ranks.chosen.values.tolist()
    [True, True, False, False, False, False]
    """
    config = run.model.config
    check_index("layer", layer, config.n_layers)
    check_whole(0, n=n)
    check_whole(1, top_k=top_k)
    if not 1 <= top_k <= config.d_vocab:
        raise ValueError(f"n={n}, top_k={top_k}: expected at least 0, and 1 to {config.d_vocab}")
    column = column_of(run, row, position)
    here = _Here.of(run, layer, row, column, recording, sources)
    order = here.ranked()[: config.experts_per_token + n]
    asked = answers if answers is not None else _two_likeliest(run, row, column)
    reader = Reader.of(run, asked, row, column)
    attrs = provenance(run, "unchosen_experts", row, layer=layer, position=column, answers=reader.said)
    variables = here.measured(order, reader) | here.raised(order, top_k)
    coords = {"rank": np.arange(1, len(order) + 1)}
    return xr.Dataset(variables, coords, attrs | {"token": run.str_tokens(row)[column]})


def _two_likeliest(run: Run, row: int, column: int) -> tuple[int, int]:
    right, wrong = run.logits[row, column].topk(2).indices.tolist()
    return right, wrong


@dataclass(frozen=True, eq=False)
class _Here:
    """One token at one layer: what its experts read, the router's logits, and the routes."""

    model: HookedGptOss
    layer: int
    stream: Float[Tensor, " d_model"]
    logits: Float[Tensor, " expert"]
    chosen: Int[Tensor, " slot"]
    weights: Float[Tensor, " slot"]

    @classmethod
    def of(cls, run: Run, layer: int, row: int, column: int, recording: Any, sources: Any) -> _Here:
        def read(site: str) -> Tensor:
            name = f"blocks.{layer}.{site}"
            return site_of(run, name, recording, sources=sources)[row, column]

        if run.interventions:  # an edit may stand between the norm and the experts
            stream = read("mlp.hook_expert_in")
        else:
            stream = normed(run.model.blocks[layer].ln2, read("hook_resid_mid"))
        kinds = ("router_logits", "expert_indices", "expert_weights")
        logits, chosen, weights = (read(f"mlp.hook_{kind}") for kind in kinds)
        return cls(run.model, layer, stream, at_least_float32(logits), chosen, at_least_float32(weights))

    def ranked(self) -> list[int]:
        """The experts of the slots in their order, then all others by the router's logit."""
        chosen = self.chosen.tolist()
        order = self.logits.argsort(descending=True, stable=True).tolist()
        return chosen + [expert for expert in order if expert not in chosen]

    def forced(self, expert: int) -> tuple[list[int], Float[Tensor, " slot"]]:
        """The set and the weights that ``ForceExpert`` makes of the routes."""
        made = [*self.chosen.tolist()[:-1], expert]
        return made, self.logits[made].softmax(-1)

    def outputs(self, experts: list[int]) -> Float[Tensor, "expert d_model"]:
        """What each would put out for this token, before a weight."""
        indices = torch.tensor(experts, device=self.stream.device)[None, None]
        each = self.stream[None, None, None].expand(1, 1, len(experts), -1)
        return at_least_float32(
            slots_out(self.model.blocks[self.layer].mlp.experts, each, indices, self.model.config)[0, 0]
        )

    def measured(self, order: list[int], reader: Reader) -> dict[str, tuple]:
        k, outputs = len(self.chosen), self.outputs(order)
        shares = reader.share(outputs)
        of = dict(zip(order, shares, strict=True))
        now = (self.weights * shares[:k]).sum()
        weights, forced = [*self.weights], [torch.zeros_like(now)] * k
        for expert in order[k:]:
            made, given = self.forced(expert)
            weights.append(given[-1])
            forced.append((given * torch.stack([of[e] for e in made])).sum() - now)
        weight = torch.stack(weights)
        probability = self.logits.softmax(-1)[order]
        norms = outputs.norm(dim=-1)
        said = reader.said
        found = {
            "expert": (np.array(order), "expert", ""),
            "chosen": (np.arange(len(order)) < k, "whether the token went to it", ""),
            "router_logit": (numpy(self.logits[order]), "router's logit", ""),
            "probability": (numpy(probability), "softmax of the router's logits over all experts", ""),
            "weight": (numpy(weight), "routing weight, of those not chosen if forced", ""),
            "output_norm": (numpy(norms), "‖y‖", ""),
            "written_norm": (numpy(norms * weight.abs()), "‖w · y‖", ""),
            "direct": (numpy(weight * shares), f"what w · y adds to {said}", "logits"),
            "forced": (numpy(torch.stack(forced)), f"direct change of {said} if forced", "logits"),
        }
        return {name: ("rank", values, quantity(words, units)) for name, (values, words, units) in found.items()}

    def raised(self, order: list[int], top_k: int) -> dict[str, tuple]:
        outputs = self.outputs(order)
        rms = (outputs.square().mean(-1, keepdim=True) + self.model.config.rms_eps).sqrt()
        ids, _ = read_out(self.model, (outputs / rms).float(), top_k)
        dims = ("rank", "top")
        texts = token_texts(self.model, ids)
        return {
            "top_id": (dims, ids, quantity("tokens that it raises")),
            "top_token": (dims, texts, quantity("their text")),
        }
