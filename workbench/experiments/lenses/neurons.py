"""Neurons of one expert: what excites each, on which tokens it fires, and what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from workbench.experiments.metrics import Token, token_id
from workbench.experiments.rows import check_index, quantity
from workbench.experiments.texts import about, activations, read_out, rows_of, token_texts
from workbench.model import HookedGptOss
from workbench.model.interrupts import without_gradients

BEFORE, AFTER = 8, 3  # tokens shown around a neuron's strongest ones


@dataclass(frozen=True)
class _Fired:
    """The expert's activations on the tokens that were routed to it, and where those stand."""

    act: Float[Tensor, "token d_mlp"]
    weight: Float[Tensor, " token"]
    scale: Float[Tensor, " token"]
    text: np.ndarray
    pos: np.ndarray


@without_gradients
def neurons(
    model: HookedGptOss,
    texts: Sequence[Any],
    layer: int,
    expert: int,
    *,
    target: Token | None = None,
    top_neurons: int = 10,
    top_k: int = 5,
    n_examples: int = 5,
    progress: bool = True,
) -> xr.Dataset:
    """The strongest neurons of an expert on the tokens that go to it.

    A neuron's activation is what the down projection reads, (up + 1) · gate · σ(1.702 · gate) after the clamps. It
    writes the activation times its column of W_down, times the routing weight.

    Args:
        texts: texts, Chats or rows of ids.
        target: rank the neurons by |direct effect| on this token's logit instead of by size.
        top_neurons, top_k, n_examples: how many neurons; tokens in each list; strongest places of each neuron.

    Returns:
        On ``neuron``, the strongest first: size, the mean over the expert's tokens of |activation| · ‖W_down column‖;
        mean_activation, max_activation; writes_norm, the column's norm; with a target direct_effect, the mean over the
        expert's tokens of w · activation · column · (γ ⊙ W_U[:, target]) / rms(final).
        (neuron, rank): raises_token, lowers_token, with raises_logit, lowers_logit, column · (γ ⊙ W_U) for an
        activation of 1; gate_token, up_token, with gate_score, up_score, the tokens whose normalised embedding gives
        the largest gate and up, biases left out; each with its _id. (neuron, example): example_activation,
        example_weight, example_token, example_text, example_pos, example_context, the strongest by |activation|; NaN,
        "" and −1 where there are fewer.

    Raises:
        ValueError: for a layer, expert or number that is not there, or an expert that no token goes to.
    """
    config = model.config
    for what, value, size in (("layer", layer, config.n_layers), ("expert", expert, config.n_experts)):
        check_index(what, value, size)
    wrong = not 1 <= top_neurons <= config.d_mlp or not 1 <= top_k <= config.d_vocab or n_examples < 1
    if wrong:
        raise ValueError(f"top_neurons={top_neurons}, top_k={top_k}, n_examples={n_examples}: expected 1 to "
                         f"d_mlp={config.d_mlp}, 1 to d_vocab={config.d_vocab}, and at least 1")  # fmt: skip
    rows = rows_of(model, texts)
    fired = _fired(model, rows, layer, expert, progress)
    columns = model.blocks[layer].mlp.experts.W_down[expert].detach().float().T.cpu()
    mean_size = fired.act.abs().mean(0) * columns.norm(dim=-1)
    by_neuron = {"size": mean_size, "mean_activation": fired.act.mean(0), "max_activation": fired.act.amax(0)}
    by_neuron |= {"writes_norm": columns.norm(dim=-1)}
    order_by = mean_size
    if target is not None:
        by_neuron["direct_effect"] = order_by = _direct_effect(model, fired, columns, target)
    kept = order_by.abs().argsort(descending=True, stable=True)[:top_neurons]
    variables = {name: ("neuron", v[kept].numpy(), quantity(_MEANING[name])) for name, v in by_neuron.items()}
    variables |= _writes(model, columns[kept], top_k) | _excited_by(model, layer, expert, kept, top_k)
    variables |= _examples(model, rows, fired, kept, n_examples)
    coords = {"neuron": kept.numpy(), "rank": np.arange(1, top_k + 1), "example": np.arange(n_examples)}
    more = {"layer": layer, "expert": expert, "target": "" if target is None else str(target)}
    more |= {"n_tokens": sum(map(len, rows)), "n_routed": len(fired.weight)}
    return xr.Dataset(variables, coords, about(model, "neurons", **more))


_MEANING = {
    "size": "mean |activation| · ‖W_down column‖",
    "mean_activation": "mean activation",
    "max_activation": "largest activation",
    "writes_norm": "‖W_down column‖",
    "direct_effect": "mean direct effect on the target's logit",
}


def _fired(model: HookedGptOss, rows: list[Tensor], layer: int, expert: int, progress: bool) -> _Fired:
    here = f"blocks.{layer}.mlp.hook_expert"
    sites = [f"{here}_{kind}" for kind in ("indices", "weights", "act")] + ["ln_final.hook_scale"]
    parts: list[tuple[Tensor, ...]] = []
    for number, values in enumerate(activations(model, rows, sites, progress)):
        indices, weights, act, scale = (values[site].cpu() for site in sites)
        pos, slot = (indices == expert).nonzero(as_tuple=True)
        at = (torch.full_like(pos, number), pos)
        parts.append((act[pos, slot].float(), weights[pos, slot].float(), scale[pos, 0].float(), *at))
    act, weight, scale, text, pos = (torch.cat(part) for part in zip(*parts, strict=True))
    if not len(act):
        raise ValueError(f"none of the {sum(map(len, rows))} tokens goes to expert {expert} of layer {layer}; "
                         "give other texts, or an expert that routing_statistics shows at work")  # fmt: skip
    return _Fired(act, weight, scale, text.numpy(), pos.numpy())


def _direct_effect(
    model: HookedGptOss, fired: _Fired, columns: Float[Tensor, "d_mlp d_model"], target: Token
) -> Float[Tensor, " d_mlp"]:
    direction = model.tokens_to_residual_directions(token_id(model, target)).float().cpu()
    return (fired.act * (fired.weight / fired.scale)[:, None]).mean(0) * (columns @ direction)


def _writes(model: HookedGptOss, columns: Float[Tensor, "neuron d_model"], top_k: int) -> dict[str, tuple]:
    columns, made = columns.to(model.unembed.weight.device), {}
    for name, sign in (("raises", 1), ("lowers", -1)):
        ids, logits = read_out(model, sign * columns, top_k)
        made |= _ranked(model, name, "logit", ids, sign * logits, f"tokens it {name} when its activation is 1")
    return made


def _excited_by(model: HookedGptOss, layer: int, expert: int, kept: Tensor, top_k: int) -> dict[str, tuple]:
    block, made = model.blocks[layer], {}
    gain, rows = block.ln2.w.detach().float(), block.mlp.experts.W_gate_up[expert].detach().float()
    for name, start in (("gate", 0), ("up", 1)):
        chosen = rows[start::2][kept.to(rows.device)] * gain
        found = []
        for part in model.embed.weight.detach().split(8192):
            wide = part.float()
            unit = wide / (wide.square().mean(-1, keepdim=True) + model.config.rms_eps).sqrt()
            found.append((unit @ chosen.T.to(unit.device)).T)
        top = torch.cat(found, dim=1).topk(top_k, dim=1)
        ids, scores = top.indices.cpu().numpy(), top.values.cpu().numpy()
        made |= _ranked(model, name, "score", ids, scores, f"tokens whose embedding gives the largest {name}")
    return made


def _ranked(
    model: HookedGptOss, name: str, unit: str, ids: np.ndarray, numbers: np.ndarray, said: str
) -> dict[str, tuple]:
    dims = ("neuron", "rank")
    return {
        f"{name}_token": (dims, token_texts(model, ids), quantity(said)),
        f"{name}_id": (dims, ids, quantity(said)),
        f"{name}_{unit}": (dims, numbers, quantity(said)),
    }


def _examples(model: HookedGptOss, rows: list[Tensor], fired: _Fired, kept: Tensor, n: int) -> dict[str, tuple]:
    """Of each neuron, the places where it was the strongest."""
    act, shape = fired.act[:, kept].T, (len(kept), n)
    best = act.abs().argsort(dim=1, descending=True, stable=True)[:, :n].numpy()
    there = best.shape[1]
    numbers = {name: np.full(shape, np.nan, np.float32) for name in ("activation", "weight")}
    where = {name: np.full(shape, -1) for name in ("text", "pos")}
    words = {name: np.full(shape, "", dtype=object) for name in ("token", "context")}
    numbers["activation"][:, :there] = np.take_along_axis(act.numpy(), best, axis=1)
    numbers["weight"][:, :there] = fired.weight.numpy()[best]
    where["text"][:, :there], where["pos"][:, :there] = fired.text[best], fired.pos[best]
    for i, j in np.ndindex(best.shape):
        ids, pos = rows[where["text"][i, j]].cpu().numpy(), where["pos"][i, j]
        texts = token_texts(model, ids[max(0, pos - BEFORE) : pos + AFTER + 1])
        words["token"][i, j], words["context"][i, j] = texts[min(pos, BEFORE)], "".join(texts)
    every = numbers | where | {name: values.astype(str) for name, values in words.items()}
    return {
        f"example_{name}": (("neuron", "example"), values, quantity(f"{name} of its strongest places"))
        for name, values in every.items()
    }
