"""Checkpoints on disk: read in three forms, written in the same three."""

from workbench.checkpoints.embedded import EMBEDDED, embedded_path
from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.load import load
from workbench.checkpoints.save import save_pretrained

__all__ = ["load", "save_pretrained", "CheckpointError", "Problem", "embedded_path", "EMBEDDED"]
