"""Checkpoints on disk: read in three forms, written in the same three, and made up in two to try hardware."""

from workbench.checkpoints.embedded import EMBEDDED, embedded_path
from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.estimate import estimate
from workbench.checkpoints.load import load
from workbench.checkpoints.once import load_once, recipe_of
from workbench.checkpoints.recipe import Recipe
from workbench.checkpoints.save import save_pretrained
from workbench.checkpoints.synth import synthesise
from workbench.checkpoints.verify import Certificate, certificate, verify

__all__ = [
    "Recipe",
    "load",
    "load_once",
    "recipe_of",
    "save_pretrained",
    "synthesise",
    "estimate",
    "verify",
    "certificate",
    "Certificate",
    "CheckpointError",
    "Problem",
    "embedded_path",
    "EMBEDDED",
]
