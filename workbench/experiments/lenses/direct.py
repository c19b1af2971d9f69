"""Direct logit attribution: how much of an answer's logit each part of the model wrote by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.contrast import at_least_float32
from workbench.experiments.metrics import Token, token_id
from workbench.experiments.nodes import expert_writes, head_writes
from workbench.experiments.readers import normed, slots_out
from workbench.experiments.rows import numpy, provenance, quantity, real_columns
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients


@without_gradients
def direct_logit_attribution(
    run: Run, answers: tuple[Token, Token] | Token, row: int = 0, position: int = -1
) -> xr.Dataset:
    """Split the logit of a token, or the difference of two, into what each part wrote into the last residual stream.

    A part's share is component · (γ ⊙ (W_U[:, right] − W_U[:, wrong])) / rms(final): the run's own final norm, taken as
    a constant. It counts what reaches the logits directly; what a part does through later layers is theirs.

    Args:
        run: with hook_embed, each layer's hook_z and routing, and ln_final.hook_scale, as a plain ``wb.run`` keeps
            them. What the experts put out is large and not kept by default: of an unedited run that kept hook_resid_mid
            it is computed again, at this one position; an edited run must have kept hook_expert_out.
        answers: (right, wrong), text or ids; or one token, whose logit is split.
        position: the position whose logits are split, as in the run; negative ones count real tokens from the end.

    Returns:
        embed (); heads (layer, head); attn_bias (layer), of b_O; experts (layer, expert), weight × (output with
        b_down), 0 where not routed; chosen, slots (layer, slot), the experts that were routed to, and the same shares
        in their order. total (), the run's own logit difference; residual (), total less all parts: rounding, unless
        the run was edited in the stream itself. All in logits.

    Raises:
        ValueError: for a row, position or token that is not there.
        KeyError: for a site that the run did not keep.

    >>> shares = experiments.direct_logit_attribution(run, (pair.right, pair.wrong))
    >>> shares["head"].size, shares["expert"].size
    (8, 8)
    """
    column = column_of(run, row, position)
    reader = Reader.of(run, answers, row, column)
    layers = range(run.model.config.n_layers)
    experts, chosen = [reader.experts(layer) for layer in layers], [reader.chosen(layer) for layer in layers]
    slots = [share[which] for share, which in zip(experts, chosen, strict=True)]
    parts = {
        "embed": ((), numpy(reader.share(reader.at("hook_embed"))[0, 0]), "embedding"),
        "heads": (("layer", "head"), _stack([reader.heads(i) for i in layers]), "each head"),
        "attn_bias": (("layer",), _stack([reader.bias(i) for i in layers]), "attention's b_O"),
        "experts": (("layer", "expert"), _stack(experts), "each expert, 0 where not routed"),
    }
    total = float(reader.total())
    explained = sum(float(np.sum(values, dtype=np.float64)) for _, values, _ in parts.values())
    variables = {name: (dims, values, quantity(said, "logits")) for name, (dims, values, said) in parts.items()}
    variables |= {
        "slots": (("layer", "slot"), _stack(slots), quantity("each routed expert, by slot", "logits")),
        "chosen": (("layer", "slot"), _stack(chosen), quantity("expert in the slot")),
        "total": ((), total, quantity(reader.said, "logits")),
        "residual": ((), total - explained, quantity("total less the sum of the parts", "logits")),
    }
    sizes = {"layer": len(layers), "head": run.model.config.n_heads, "expert": run.model.config.n_experts}
    coords = {name: np.arange(size) for name, size in sizes.items()} | {"slot": np.arange(len(slots[0]))}
    attrs = provenance(run, "direct_logit_attribution", row, position=column, answers=reader.said)
    return xr.Dataset(variables, coords, attrs | {"token": run.str_tokens(row)[column]})


def column_of(run: Run, row: int, position: int) -> int:
    """A position as a column of the run; negative ones count a row's real tokens from the end.

    Raises:
        ValueError: for one that is not there, or is padding.
    """
    columns = real_columns(run, row).tolist()
    if position < 0 and -position <= len(columns):
        return columns[position]
    if position not in columns:
        raise ValueError(f"position={position}: the run has positions {columns[0]} to {columns[-1]} in row {row}")
    return position


def _stack(values: list[Tensor]) -> np.ndarray:
    return np.stack([numpy(value) for value in values])


@dataclass(frozen=True, eq=False)
class Reader:
    """One position of a run, read along one direction."""

    run: Run
    row: int
    column: int
    direction: Float[Tensor, " d_model"]
    ids: tuple[int, ...]
    said: str

    @classmethod
    def of(cls, run: Run, answers: tuple[Token, Token] | Token, row: int, column: int) -> Reader:
        """For (right, wrong), or one token, at a column of a row.

        Raises:
            ValueError: for something else, or a token that is not there.
        """
        model = run.model
        named = answers if isinstance(answers, tuple) else (answers,)
        ids = tuple(token_id(model, token) for token in named)
        if len(ids) not in (1, 2):
            raise ValueError(f"answers={answers!r}: expected one token, or (right, wrong)")
        unembedded = [at_least_float32(model.unembed.weight[i]) for i in ids]
        direction = unembedded[0] - unembedded[1] if len(ids) == 2 else unembedded[0]
        scale = run["ln_final.hook_scale"][row, column]
        direction = direction * model.ln_final.w.to(direction) / scale.to(direction)
        return cls(run, row, column, direction, ids, " − ".join(f"logit of {name!r}" for name in named))

    @property
    def model(self) -> HookedGptOss:
        return self.run.model

    def at(self, site: str) -> Tensor:
        """A site at the position, with batch and position axes of one: [1, 1, …]."""
        return at_least_float32(self.run[site][self.row, self.column])[None, None]

    def share(self, written: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead"]:
        return (written.to(self.direction) * self.direction).sum(-1)

    def total(self) -> Tensor:
        logits = at_least_float32(self.run.logits[self.row, self.column])
        return logits[self.ids[0]] - logits[self.ids[1]] if len(self.ids) == 2 else logits[self.ids[0]]

    def heads(self, layer: int) -> Float[Tensor, " head"]:
        return self.share(head_writes(self.model, layer, self.at(f"blocks.{layer}.attn.hook_z")))[0, 0]

    def bias(self, layer: int) -> Float[Tensor, ""]:
        return self.share(self.model.blocks[layer].attn.b_O)

    def chosen(self, layer: int) -> Tensor:
        return self.at(f"blocks.{layer}.mlp.hook_expert_indices")[0, 0]

    def experts(self, layer: int) -> Float[Tensor, " expert"]:
        indices, weights = (self.at(f"blocks.{layer}.mlp.hook_expert_{part}") for part in ("indices", "weights"))
        written = expert_writes(indices, weights, self.outputs(layer), self.model.config.n_experts)
        return self.share(written)[0, 0]

    def outputs(self, layer: int) -> Float[Tensor, "1 1 slot d_model"]:
        """What the routed experts put out, before their weights."""
        site = f"blocks.{layer}.mlp.hook_expert_out"
        if site in self.run.cache.cache_dict or self.run.interventions:
            return self.at(site)
        block, chosen = self.model.blocks[layer], self.chosen(layer)[None, None]
        stream = self.run[f"blocks.{layer}.hook_resid_mid"][self.row, self.column][None, None]
        each = normed(block.ln2, stream)[:, :, None].expand(-1, -1, chosen.shape[-1], -1)
        return at_least_float32(slots_out(block.mlp.experts, each, chosen, self.model.config))
