"""config.json → Config, whichever form it is of."""

from __future__ import annotations

from pathlib import Path

from workbench.checkpoints import huggingface, openai
from workbench.checkpoints.errors import CheckpointError
from workbench.checkpoints.json_file import read_json
from workbench.checkpoints.tables import Table
from workbench.model.config import Config, ConfigError


def read_config(directory: Path, name: str) -> tuple[Config, Table]:
    """The shape that the folder's config.json states, and the name table of the form that it announces.

    Args:
        directory: a checkpoint folder.
        name: what the model is to be called.

    Raises:
        CheckpointError: for a config.json that is absent, not of gpt-oss, or says what gpt-oss cannot be.
    """
    keys = read_json(directory / "config.json")
    try:
        if "model_type" in keys:
            return huggingface.read_config(keys, name), huggingface.table_of(keys)
        if "num_experts" in keys:
            return openai.read_config(keys, name), openai.PACKED
    except ConfigError as error:
        raise CheckpointError(f"{keys.file}: {str(error)[:1000]}") from error
    except (ArithmeticError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{keys.file}: its numbers cannot be computed with ({error}); look at rope_theta, and the rope's factors"
        ) from error
    raise keys.error("model_type", "'gpt_oss' (Hugging Face), or the key num_experts (OpenAI)")
