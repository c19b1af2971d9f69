"""Runs: a forward pass, what was done to it and what it left."""

from workbench.activations.run import Run, provenance_of, run
from workbench.model.sites import STANDARD_SITES

__all__ = ["STANDARD_SITES", "Run", "provenance_of", "run"]
