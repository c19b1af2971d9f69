"""Any dictionary that is read here, by the files in its folder."""

from __future__ import annotations

from pathlib import Path

import torch

from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.dictionaries import dictionary_learning, saelens
from workbench.dictionaries.dictionary import Dictionary


def load_dictionary(
    folder: str | Path, *, norm_scaling_factor: float | None = None, dtype: torch.dtype | None = None
) -> Dictionary:
    """Read a sparse autoencoder from a folder: SAELens' cfg.json and sae_weights.safetensors, or dictionary_learning's
    config.json and ae.pt.

    Args:
        norm_scaling_factor: by which inputs were multiplied in training, for a SAELens dictionary that says
            "expected_average_only_in" and does not have it folded into its weights.
        dtype: of the weights; None for the file's.

    Raises:
        CheckpointError: (a ValueError) for a folder that holds neither, files that do not hold together, and kinds or
            options that are not handled, each named with what was expected.
    """
    folder = Path(folder).expanduser()
    if (folder / saelens.CONFIG).exists():
        return saelens.read_saelens(folder, norm_scaling_factor, dtype)
    if (folder / dictionary_learning.CONFIG).exists():
        if norm_scaling_factor is not None:
            raise CheckpointError(
                f"{folder}: norm_scaling_factor is for SAELens dictionaries; this form has it in its biases"
            )
        return dictionary_learning.read_dictionary_learning(folder, dtype)
    there = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) if folder.is_dir() else "no such folder"
    expected = (
        f"{saelens.CONFIG} with {saelens.WEIGHTS}, or {dictionary_learning.CONFIG} with {dictionary_learning.WEIGHTS}"
    )
    raise CheckpointError(Problem(folder, "", expected, there or "an empty folder"))
