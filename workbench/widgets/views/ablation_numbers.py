"""What each component of a run does there: how active it is, how much it writes, and what of that reaches the answer.

Only the kind of component that is on screen is read: a head's write does not wait for the experts'.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run
from workbench.experiments.direct import _Reader
from workbench.experiments.nodes import expert_writes
from workbench.widgets.session import Session
from workbench.widgets.views.ablation_parts import shape

Table = Float[np.ndarray, "layer index"]

# kind → what its activation is, its unit
ACTIVATION = {
    "head": ("attention that the head pays to tokens: 1 − what its sink takes", "share"),
    "expert": ("routing weight, 0 where it was not chosen", "share"),
    "layer": ("norm of the residual stream that the layer reads", "norm"),
    "sink": ("attention that the sink takes", "share"),
}


@dataclass(frozen=True)
class Numbers:
    """Three tables of one run, [layer index].

    Attributes:
        activation: see ACTIVATION; at one position, or the mean over all.
        norm: length of what it adds to the residual stream, at the same positions. Of a sink: of what its head would
            write more without it.
        direct: what it adds to the difference of the answer's logits at the end of the text, through the final norm
            alone. Of a sink: what its removal would add in this way.
    """

    activation: Table
    norm: Table
    direct: Table


@torch.no_grad()
def numbers(session: Session, run: Run, kind: str, position: int | None, answer: tuple[int, int]) -> Numbers:
    """Read them off a run.

    Args:
        position: of activation and norm; None for the mean over the text.
        answer: the right and the wrong token, by id.
    """
    read = {"head": _head, "sink": _sink, "expert": _expert, "layer": _layer}[kind]
    last = run.tokens.shape[1] - 1
    at = slice(None) if position is None else slice(position, position + 1)
    reader = _Reader.of(run, answer, 0, last)
    here = _Place(session, run, reader, at, answer)
    rows = [[part.cpu().numpy() for part in read(here, layer)] for layer in range(session.config.n_layers)]
    made = [
        np.stack(column).astype(np.float32).reshape(shape(kind, session.config)) for column in zip(*rows, strict=True)
    ]
    return Numbers(*made)


@dataclass(frozen=True, eq=False)
class _Place:
    """A run, the columns of activation and norm, and the reader of the direct effect."""

    session: Session
    run: Run
    reader: _Reader
    at: slice
    answer: tuple[int, int]

    def site(self, layer: int, name: str, last: bool = False) -> Tensor:
        """A site at the chosen columns, or at the last one; without its batch axis, on the CPU."""
        whole, at = f"blocks.{layer}.{name}", slice(-1, None) if last else self.at
        if whole in self.run.cache.cache_dict:
            values = self.run[whole][0][at].detach().cpu()
            return values.float() if values.is_floating_point() else values
        return torch.from_numpy(np.asarray(self.session.site(self.run, whole, remember=False)))[at]


def _head(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    tokens = 1 - here.site(layer, "attn.hook_sink")
    return tokens.mean(0), _head_norms(here, layer).mean(0), _head_shares(here, layer)


def _sink(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Without its sink, a head's pattern is the same over 1 − sink: it writes sink / (1 − sink) more."""
    sink, end = (here.site(layer, "attn.hook_sink", last=last) for last in (False, True))
    norm = (_head_norms(here, layer) * sink / _tokens_mass(here, layer, sink)).nanmean(0)
    more = (end / _tokens_mass(here, layer, end, last=True))[0]
    return sink.mean(0), norm, _head_shares(here, layer) * more.to(here.reader.direction.device)


def _tokens_mass(here: _Place, layer: int, sink: Tensor, last: bool = False) -> Float[Tensor, "pos head"]:
    """1 − sink, NaN where that is nothing. The pattern knows it better where the sink takes nearly all."""
    name = f"blocks.{layer}.attn.hook_pattern"
    mass = 1 - sink
    if not here.run.interventions and name in here.run.cache.cache_dict:
        mass = here.run[name][0][:, slice(-1, None) if last else here.at].sum(-1).T.float().cpu()
    return torch.where(mass > 0, mass, torch.nan)


def _layer(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    written, end = (
        here.site(layer, "hook_attn_out", last=last) + here.site(layer, "hook_mlp_out", last=last)
        for last in (False, True)
    )
    read = here.site(layer, "hook_resid_pre").norm(dim=-1).mean(0)
    direct = here.reader.share(end[0].to(here.reader.direction.device))
    return read, written.norm(dim=-1).mean(0), direct


def _expert(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    kinds, n = ("indices", "weights"), here.session.config.n_experts
    chosen, weights = (here.site(layer, f"mlp.hook_expert_{kind}") for kind in kinds)
    last = [here.site(layer, f"mlp.hook_expert_{kind}", last=True)[None] for kind in kinds]
    norms, final = _expert_outputs(here, layer)
    by_id = torch.zeros(len(weights), n)
    activation = by_id.scatter_add(1, chosen.long(), weights).mean(0)
    norm = by_id.scatter_add(1, chosen.long(), weights.abs() * norms).mean(0)
    written = expert_writes(last[0].long(), last[1], final, n)[0, 0]
    return activation, norm, here.reader.share(written.to(here.reader.direction.device))


def _expert_outputs(here: _Place, layer: int) -> tuple[Float[Tensor, "pos slot"], Float[Tensor, "1 1 slot d_model"]]:
    """(lengths at the chosen columns, what is put out at the last one), of each slot and before its weight."""
    if not here.run.interventions and here.at != slice(None):  # two positions can be worked out alone
        at, end = _Reader.of(here.run, here.answer, 0, here.at.start), here.reader
        there, final = (each.outputs(layer).float().cpu() for each in (at, end))
        return there[0].norm(dim=-1), final
    out = torch.from_numpy(
        np.asarray(here.session.site(here.run, f"blocks.{layer}.mlp.hook_expert_out", remember=False))
    )
    return out[here.at].norm(dim=-1), out[-1:][None]


def _head_norms(here: _Place, layer: int) -> Float[Tensor, "pos head"]:
    """‖z W_O‖ of each head, by way of W_O W_Oᵀ: what all heads write at all positions would not fit."""
    z = here.site(layer, "attn.hook_z")
    weight = here.session.model.blocks[layer].attn.W_O.float().cpu()
    return torch.einsum("phi,hij,phj->ph", z, weight @ weight.mT, z).clamp(min=0).sqrt()


def _head_shares(here: _Place, layer: int) -> Float[Tensor, " head"]:
    z = here.site(layer, "attn.hook_z", last=True)[0]
    weight, direction = here.session.model.blocks[layer].attn.W_O.float(), here.reader.direction.float()
    return torch.einsum("hi,hij,j->h", z.to(weight.device), weight, direction)
