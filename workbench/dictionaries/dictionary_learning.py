"""dictionary_learning's form on disk (github.com/saprmarks/dictionary_learning): config.json and ae.pt.

ae.pt is the state dict of the class that config.json names under trainer.dict_class; it is unpickled with weights
only, so that a file that would run code is refused. The gpt-oss-20b set andyrdt/saes-gpt-oss-20b is of this form:
``resid_post_layer_11/trainer_0``, class BatchTopKSAE.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.json_file import JsonObject, read_json
from workbench.dictionaries.dictionary import Activation, Dictionary

CONFIG, WEIGHTS = "config.json", "ae.pt"
_LINEAR = {"W_enc": "encoder.weight", "b_enc": "encoder.bias", "W_dec": "decoder.weight"}
_PLAIN = {name: name for name in ("W_enc", "b_enc", "W_dec", "b_dec")}


@dataclass(frozen=True)
class Kind:
    """One of their classes: its weights by our names, and what else its state dict holds without meaning here."""

    activation: Activation
    weights: dict[str, str]
    unused: tuple[str, ...] = ()
    subtract_bias: bool = True


# A BatchTopK dictionary is trained to have k features a token on average; once trained, it lets through what is above
# one threshold for all, which is a JumpReLU. A TopK one keeps a threshold too, but encodes by the k largest.
KINDS = {
    "AutoEncoder": Kind("relu", _LINEAR | {"b_dec": "bias"}),
    "AutoEncoderNew": Kind("relu", _LINEAR | {"b_dec": "decoder.bias"}, subtract_bias=False),
    "AutoEncoderTopK": Kind("topk", _LINEAR | {"b_dec": "b_dec"}, ("k", "threshold")),
    "BatchTopKSAE": Kind("jumprelu", _LINEAR | {"b_dec": "b_dec", "threshold": "threshold"}, ("k",)),
    "MatryoshkaBatchTopKSAE": Kind("jumprelu", _PLAIN | {"threshold": "threshold"}, ("k", "group_sizes")),
    "JumpReluAutoEncoder": Kind("jumprelu", _PLAIN | {"threshold": "threshold"}, subtract_bias=False),
    "GatedAutoEncoder": Kind(
        "gated",
        {
            "W_enc": "encoder.weight",
            "W_dec": "decoder.weight",
            "b_dec": "decoder_bias",
            "b_gate": "gate_bias",
            "b_mag": "mag_bias",
            "r_mag": "r_mag",
        },
    ),
}
# What torch.load raises for a pickle with more than tensors in it, and for damaged files.
_UNREADABLE = (UnpicklingError, RuntimeError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
_SITES = {"resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out"}


def read_dictionary_learning(folder: Path, dtype: torch.dtype | None) -> Dictionary:
    """The dictionary in a folder.

    Args:
        dtype: of the weights; None for the file's.

    Raises:
        CheckpointError: for a pickle that holds more than tensors, an unknown class, or weights that do not fit it.
    """
    config = read_json(folder / CONFIG)
    trainer = config.inner("trainer")
    name = trainer.values.get("dict_class")
    if not isinstance(name, str) or name not in KINDS:
        raise trainer.error("dict_class", f"one of {sorted(KINDS)}")
    state = read_tensors(folder / WEIGHTS)
    weights = _named(folder / WEIGHTS, state, str(name), KINDS[name])
    sizes = (trainer.whole("activation_dim"), trainer.whole("dict_size"))
    if tuple(weights["W_enc"].shape) != sizes:
        found = str(tuple(weights["W_enc"].shape))
        expected = f"{sizes}, activation_dim and dict_size of {CONFIG}"
        raise CheckpointError(Problem(folder / WEIGHTS, "encoder", expected, found))
    try:
        return Dictionary(
            weights if dtype is None else {name: tensor.to(dtype) for name, tensor in weights.items()},
            KINDS[name].activation,
            k=_k(folder, trainer, state) if KINDS[name].activation == "topk" else None,
            subtract_bias=KINDS[name].subtract_bias,
            site=_site(trainer),
            about={"form": f"dictionary_learning {name}", "model": str(trainer.values.get("lm_name") or "")},
        )
    except ValueError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error}") from error


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of a state dict in torch's pickle form; nothing in it is ever executed.

    Raises:
        CheckpointError: for a file that is not there, is none, or holds anything but tensors by name.
    """
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        there = ", ".join(sorted(path.name for path in file.parent.iterdir())[:8])
        raise CheckpointError(Problem(file.parent, "", file.name, there)) from error
    except _UNREADABLE as error:
        hint = (
            "It was not unpickled, because a pickle can run any code. If you trust it, load it yourself with "
            "torch.load, save the tensors alone and read those"
        )
        found = f"a file that is refused ({type(error).__name__}: {str(error).split(chr(10))[0][:120]})"
        raise CheckpointError(Problem(file, "", "a torch file of tensors alone", found, hint)) from error
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise CheckpointError(Problem(file, "", "tensors by name", f"a {type(state).__name__} with something else"))
    return {str(name): tensor.detach() for name, tensor in state.items()}


def _named(file: Path, state: dict[str, Tensor], name: str, kind: Kind) -> dict[str, Tensor]:
    missing = sorted(set(kind.weights.values()) - set(state))
    unread = sorted(set(state) - set(kind.weights.values()) - set(kind.unused))
    if missing or unread:
        raise CheckpointError(Problem(file, "", f"the tensors of a {name}", f"missing {missing}, unread {unread}"))
    weights = {ours: state[theirs] for ours, theirs in kind.weights.items()}
    for ours, theirs in kind.weights.items():
        if theirs in ("encoder.weight", "decoder.weight"):  # an nn.Linear holds [out, in]
            weights[ours] = weights[ours].T.contiguous()
    if "threshold" in weights and weights["threshold"].ndim == 0:
        n_features = weights["W_enc"].shape[1]
        weights["threshold"] = weights["threshold"].to(weights["W_enc"].dtype).repeat(n_features)
    return weights


def _k(folder: Path, trainer: JsonObject, state: dict[str, Tensor]) -> int:
    k = trainer.whole("k")
    if "k" in state and int(state["k"]) != k:
        raise CheckpointError(Problem(folder / WEIGHTS, "k", f"{k}, as {CONFIG} says", str(int(state["k"]))))
    return k


def _site(trainer: JsonObject) -> str | None:
    """``resid_post_layer_11`` → ``blocks.11.hook_resid_post``; None for what names no site of the stream."""
    site, _, layer = str(trainer.values.get("submodule_name") or "").rpartition("_layer_")
    return f"blocks.{int(layer)}.hook_{site}" if site in _SITES and layer.isdecimal() else None
