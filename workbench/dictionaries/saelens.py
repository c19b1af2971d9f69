"""SAELens' form on disk (github.com/decoderesearch/SAELens, 6.x): cfg.json and sae_weights.safetensors.

W_enc [d_in d_sae], W_dec [d_sae d_in], b_dec [d_in]; of the kinds "standard" and "topk" b_enc, of "jumprelu" b_enc and
threshold, of "gated" b_gate, b_mag and r_mag. Before 6.0 the names in cfg.json differed: hook_point, activation_fn_str.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.json_file import JsonObject, read_json
from workbench.checkpoints.safetensors_file import TORCH_DTYPES, SafetensorsFile
from workbench.dictionaries.dictionary import BIASES, Dictionary

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
# The form's version, not that of a package that wrote it: SAELens reads what names none as the older form.
_FORM = "6.0.0"
_KINDS = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}
_DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def read_saelens(folder: Path, norm_scaling_factor: float | None, dtype: torch.dtype | None) -> Dictionary:
    """The dictionary in a folder.

    Args:
        norm_scaling_factor: by which inputs were multiplied in training, for one that says "expected_average_only_in".
        dtype: of the weights; None for the file's.

    Raises:
        CheckpointError: for files that do not hold together, and kinds and options that are not handled.
    """
    config = read_json(folder / CONFIG)
    about = config.inner("metadata") if "metadata" in config else config
    kind, k = _kind(config)
    weights = _weights(folder / WEIGHTS, dtype)
    weights = _of_kind(folder / WEIGHTS, weights, kind, config)
    normalisation = config.values.get("normalize_activations") or "none"
    if normalisation in ("expected_average_only_in", True):
        weights, normalisation = _folded(config, weights, norm_scaling_factor), "none"
    elif norm_scaling_factor is not None:
        raise config.error("normalize_activations", "'expected_average_only_in', as norm_scaling_factor was given")
    if normalisation not in ("none", "constant_norm_rescale", "layer_norm"):
        raise config.error("normalize_activations", "'none', 'constant_norm_rescale' or 'layer_norm'")
    _refuse_reshaping(config)
    site = about.values.get("hook_name") or about.values.get("hook_point")
    if not isinstance(site, str | None):
        raise about.error("hook_name" if "hook_name" in about else "hook_point", "the name of a site")
    try:
        return Dictionary(
            weights,
            _KINDS[kind],  # pyright: ignore[reportArgumentType]  its values are the kinds
            k=k,
            subtract_bias=bool(config.values.get("apply_b_dec_to_input", True)),
            normalisation=normalisation,
            site=site,
            about={"form": "SAELens", "model": str(about.values.get("model_name") or "")},
        )
    except ValueError as error:
        raise CheckpointError(f"{folder / WEIGHTS}: {error}") from error


def save_dictionary(dictionary: Dictionary, folder: str | Path, overwrite: bool = False) -> Path:
    """Write a dictionary as SAELens does: cfg.json and sae_weights.safetensors.

    Returns:
        The folder, made if it was not there.

    Raises:
        FileExistsError: if it has a dictionary already, unless ``overwrite``.
    """
    folder = Path(folder).expanduser()
    if not overwrite and (there := [name for name in (CONFIG, WEIGHTS) if (folder / name).exists()]):
        raise FileExistsError(f"{folder} has {' and '.join(there)} already; say overwrite=True or another folder")
    folder.mkdir(parents=True, exist_ok=True)
    kind = next(theirs for theirs, ours in _KINDS.items() if ours == dictionary.activation)
    config: dict[str, Any] = {
        "architecture": kind,
        "d_in": dictionary.d_model,
        "d_sae": dictionary.n_features,
        "dtype": str(dictionary.W_enc.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": dictionary.subtract_bias,
        "normalize_activations": dictionary.normalisation,
        "reshape_activations": "none",
        "metadata": {
            "sae_lens_version": _FORM,
            "model_name": dictionary.about.get("model", ""),
            "hook_name": dictionary.site,
        },
    }
    if dictionary.k is not None:
        config["k"] = dictionary.k
    tensors = {name: tensor.contiguous().cpu() for name, tensor in dictionary.state_dict().items()}
    # Each beside its place and then over it: a reader never meets half a file.
    save_file(tensors, folder / f"{WEIGHTS}.part")
    (folder / f"{CONFIG}.part").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for name in (WEIGHTS, CONFIG):
        os.replace(folder / f"{name}.part", folder / name)
    return folder


def _kind(config: JsonObject) -> tuple[str, int | None]:
    """The kind, and its k."""
    kind = config.values.get("architecture", "standard")
    function = config.values.get("activation_fn_str") or config.values.get("activation_fn") or "relu"
    if kind in ("standard", "topk") and function == "topk":  # before 6.0
        return "topk", config.inner("activation_fn_kwargs").whole("k")
    if not isinstance(kind, str) or kind not in _KINDS:
        raise config.error("architecture", f"one of {sorted(_KINDS)}", "Others are not read here")
    if function != "relu" and not (kind == "jumprelu" and function == "jumprelu"):
        raise config.error(
            "activation_fn_str" if "activation_fn_str" in config else "activation_fn", "'relu' or 'topk'"
        )
    return kind, config.whole("k") if kind == "topk" else None


def _weights(file: Path, dtype: torch.dtype | None) -> dict[str, Tensor]:
    if not file.exists():
        there = ", ".join(sorted(path.name for path in file.parent.iterdir())[:8])
        raise CheckpointError(Problem(file.parent, "", file.name, there))
    held = SafetensorsFile(file)
    for name, info in held.tensors.items():
        if TORCH_DTYPES.get(info.dtype) not in _DTYPES:
            raise CheckpointError(Problem(file, f"tensor {name!r}", "floating point", info.dtype))
    weights = {name: held.read(name) for name in held.tensors}
    return weights if dtype is None else {name: tensor.to(dtype) for name, tensor in weights.items()}


def _of_kind(file: Path, weights: dict[str, Tensor], kind: str, config: JsonObject) -> dict[str, Tensor]:
    """The weights by our names: older spellings read, norms of the decoder folded in, leftovers refused."""
    weights = dict(weights)
    if "log_threshold" in weights:
        weights["threshold"] = weights.pop("log_threshold").exp()
    scaling = weights.pop("scaling_factor", None)  # older ones carry ones about that mean nothing
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        hint = "A fine-tuned output scale is not handled: fold it into W_dec first"
        raise CheckpointError(Problem(file, "tensor 'scaling_factor'", "ones, or none", "something else", hint))
    expected = {"W_enc", "W_dec", "b_dec", *BIASES[_KINDS[kind]]}
    if set(weights) != expected:
        found = f"missing {sorted(expected - set(weights))}, unread {sorted(set(weights) - expected)}"
        raise CheckpointError(Problem(file, "", f"the tensors {sorted(expected)} of a {kind} dictionary", found))
    sizes = (config.whole("d_in"), config.whole("d_sae"))
    if tuple(weights["W_enc"].shape) != sizes:
        found = str(tuple(weights["W_enc"].shape))
        raise CheckpointError(Problem(file, "tensor 'W_enc'", f"{sizes}, d_in and d_sae of {CONFIG}", found))
    if config.values.get("rescale_acts_by_decoder_norm"):
        weights = _with_unit_rows(weights)
    return weights


def _with_unit_rows(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Features counted in the length that they write: the k largest are then the same as SAELens chooses."""
    norms = weights["W_dec"].norm(dim=-1)
    scaled = {"W_enc": weights["W_enc"] * norms, "b_enc": weights["b_enc"] * norms}
    return {**weights, **scaled, "W_dec": weights["W_dec"] / norms[:, None]}


def _folded(config: JsonObject, weights: dict[str, Tensor], factor: float | None) -> dict[str, Tensor]:
    """A dictionary of scaled inputs as one of inputs as they are."""
    if factor is None:
        hint = "The factor is not in the file: give norm_scaling_factor=, √d_model / mean length of the site's vectors"
        raise config.error("normalize_activations", "'none', with the factor folded into the weights", hint)
    changed = {
        "W_enc": weights["W_enc"] * factor,
        "W_dec": weights["W_dec"] / factor,
        "b_dec": weights["b_dec"] / factor,
    }
    return weights | changed


def _refuse_reshaping(config: JsonObject) -> None:
    about = config.inner("metadata") if "metadata" in config else config
    before = (
        "hook_z" if str(about.values.get("hook_name") or about.values.get("hook_point")).endswith("hook_z") else None
    )
    if (config.values.get("reshape_activations") or before or "none") != "none":
        raise config.error("reshape_activations", "'none'", "Dictionaries over all heads' z at once are not handled")
