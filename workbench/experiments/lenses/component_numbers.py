"""What each component of a run does there: how active it is, how much it writes, and what of that reaches the answer.

Only one kind of component is read: a head's write does not wait for the experts'.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.activations import Run, site_of
from workbench.experiments.lenses.direct import Reader, column_of
from workbench.experiments.metrics import Token
from workbench.experiments.nodes import expert_writes
from workbench.experiments.rows import provenance, quantity, real_columns
from workbench.model import Config
from workbench.model.interrupts import without_gradients

Component = Literal["head", "expert", "layer", "sink"]

# kind → what its activation is, its unit
ACTIVATION: dict[str, tuple[str, str]] = {
    "head": ("attention that the head pays to tokens: 1 − what its sink takes", "share"),
    "expert": ("routing weight, 0 where it was not chosen", "share"),
    "layer": ("norm of the residual stream that the layer reads", "norm"),
    "sink": ("attention that the sink takes", "share"),
}


def component_shape(kind: str, config: Config) -> tuple[int, int]:
    """(layers, components of this kind in each)."""
    return config.n_layers, {"head": config.n_heads, "expert": config.n_experts, "sink": config.n_heads}.get(kind, 1)


@without_gradients
def component_numbers(
    run: Run,
    kind: str,
    answers: tuple[Token, Token] | Token,
    position: int | None = None,
    *,
    row: int = 0,
    read: Callable[[str], np.ndarray] | None = None,
) -> xr.Dataset:
    """Activation, write norm and direct effect of every head, expert, layer or sink.

    Args:
        run: with the standard sites, or some of them.
        kind: "head", "expert", "layer" or "sink".
        answers: (right, wrong), or one token: whose logit, or difference of logits, the direct effect is of.
        position: of activation and norm; None for their mean over the text.
        read: gives a site that the run did not keep, without its batch axis; None works it out from the run itself,
            which must not take anything from elsewhere then.

    Returns:
        On layer and index (head or expert; 0 for a whole layer): activation, see ACTIVATION; norm, the length of what
        it adds to the residual stream; direct, what it adds to the answer's logits after the last token, through the
        final norm alone. Of a sink, norm and direct are of what its head would write more without it (in the mean,
        positions at which the sink takes all are left out).

    Raises:
        ValueError: for a kind, a row, a position or a token that is not there.
    """
    if kind not in get_args(Component):
        raise ValueError(f"kind={kind!r}: expected one of {get_args(Component)}")
    last = column_of(run, row, -1)
    columns = real_columns(run, row).tolist() if position is None else [column_of(run, row, position)]
    at = slice(columns[0], columns[-1] + 1)
    reader = Reader.of(run, answers, row, last)
    here = _Place(
        run, row, reader, at, last, answers, (lambda site: _worked_out(run, site, row)) if read is None else read
    )
    rows = [[part.cpu().numpy() for part in _READERS[kind](here, layer)] for layer in range(run.model.config.n_layers)]
    size = component_shape(kind, run.model.config)
    tables = (np.stack(column).astype(np.float32).reshape(size) for column in zip(*rows, strict=True))
    said, unit = ACTIVATION[kind]
    about = (
        quantity(said, unit),
        quantity("length of what it writes"),
        quantity(f"direct effect on {reader.said}", "logits"),
    )
    variables = {
        name: (("layer", "index"), table, attrs)
        for name, table, attrs in zip(("activation", "norm", "direct"), tables, about, strict=True)
    }
    coords = {"layer": np.arange(size[0]), "index": np.arange(size[1])}
    where = "mean" if position is None else columns[0]
    return xr.Dataset(variables, coords, provenance(run, "component_numbers", row, kind=kind, position=where))


def _worked_out(run: Run, site: str, row: int) -> np.ndarray:
    values = site_of(run, site)[row].detach().cpu()
    return (values.float() if values.is_floating_point() else values).numpy()


@dataclass(frozen=True, eq=False)
class _Place:
    """A run, the columns of activation and norm, and the reader of the direct effect at the last column."""

    run: Run
    row: int
    reader: Reader
    at: slice
    last: int
    answers: tuple[Token, Token] | Token
    read: Callable[[str], np.ndarray]

    def site(self, layer: int, name: str, last: bool = False) -> Tensor:
        """A site at the chosen columns, or at the last one; without its batch axis, on the CPU."""
        whole, at = f"blocks.{layer}.{name}", slice(self.last, self.last + 1) if last else self.at
        if whole in self.run.cache.cache_dict:
            values = self.run[whole][self.row][at].detach().cpu()
            return values.float() if values.is_floating_point() else values
        return torch.from_numpy(np.asarray(self.read(whole)))[at]

    def share(self, written: Float[Tensor, "*lead d_model"]) -> Float[Tensor, "*lead"]:
        return self.reader.share(written.to(self.reader.direction.device))


def _head(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    tokens = 1 - here.site(layer, "attn.hook_sink")
    return tokens.mean(0), _head_norms(here, layer).mean(0), _head_shares(here, layer)


def _sink(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Without its sink, a head's pattern is the same over 1 − sink: it writes sink / (1 − sink) more."""
    sink, end = (here.site(layer, "attn.hook_sink", last=last) for last in (False, True))
    norm = (_head_norms(here, layer) * sink / _tokens_mass(here, layer, sink)).nanmean(0)
    more = (end / _tokens_mass(here, layer, end, last=True))[0]
    return sink.mean(0), norm, _head_shares(here, layer).cpu() * more


def _tokens_mass(here: _Place, layer: int, sink: Tensor, last: bool = False) -> Float[Tensor, "pos head"]:
    """1 − sink, NaN where that is nothing. The pattern knows it better where the sink takes nearly all."""
    name = f"blocks.{layer}.attn.hook_pattern"
    mass = 1 - sink
    if not here.run.interventions and name in here.run.cache.cache_dict:
        at = slice(here.last, here.last + 1) if last else here.at
        mass = here.run[name][here.row][:, at].sum(-1).T.float().cpu()
    return torch.where(mass > 0, mass, torch.nan)


def _layer(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    written, end = (
        here.site(layer, "hook_attn_out", last=last) + here.site(layer, "hook_mlp_out", last=last)
        for last in (False, True)
    )
    read = here.site(layer, "hook_resid_pre").norm(dim=-1).mean(0)
    return read, written.norm(dim=-1).mean(0), here.share(end[0])


def _expert(here: _Place, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    kinds, n = ("indices", "weights"), here.run.model.config.n_experts
    chosen, weights = (here.site(layer, f"mlp.hook_expert_{kind}") for kind in kinds)
    last = [here.site(layer, f"mlp.hook_expert_{kind}", last=True)[None] for kind in kinds]
    norms, final = _expert_outputs(here, layer)
    by_id = torch.zeros(len(weights), n)
    activation = by_id.scatter_add(1, chosen.long(), weights).mean(0)
    norm = by_id.scatter_add(1, chosen.long(), weights.abs() * norms).mean(0)
    return activation, norm, here.share(expert_writes(last[0].long(), last[1], final, n)[0, 0])


def _expert_outputs(here: _Place, layer: int) -> tuple[Float[Tensor, "pos slot"], Float[Tensor, "1 1 slot d_model"]]:
    """(lengths at the chosen columns, what is put out at the last one), of each slot and before its weight."""
    if not here.run.interventions and here.at.stop - here.at.start == 1:  # two positions can be worked out alone
        at = Reader.of(here.run, here.answers, here.row, here.at.start)
        there, final = (each.outputs(layer).float().cpu() for each in (at, here.reader))
        return there[0].norm(dim=-1), final
    name = f"blocks.{layer}.mlp.hook_expert_out"
    kept = name in here.run.cache.cache_dict
    out = here.run[name][here.row].float().cpu() if kept else torch.from_numpy(np.asarray(here.read(name)))
    return out[here.at].norm(dim=-1), out[here.last : here.last + 1][None]


def _head_norms(here: _Place, layer: int) -> Float[Tensor, "pos head"]:
    """‖z W_O‖ of each head, by way of W_O W_Oᵀ: what all heads write at all positions would not fit."""
    z = here.site(layer, "attn.hook_z")
    weight = here.run.model.blocks[layer].attn.W_O.float().cpu()
    return torch.einsum("phi,hij,phj->ph", z, weight @ weight.mT, z).clamp(min=0).sqrt()


def _head_shares(here: _Place, layer: int) -> Float[Tensor, " head"]:
    z = here.site(layer, "attn.hook_z", last=True)[0]
    weight, direction = here.run.model.blocks[layer].attn.W_O.float(), here.reader.direction.float()
    return torch.einsum("hi,hij,j->h", z.to(weight.device), weight, direction)


_READERS: dict[str, Callable[[_Place, int], tuple[Tensor, Tensor, Tensor]]] = {
    "head": _head,
    "sink": _sink,
    "expert": _expert,
    "layer": _layer,
}
