"""Runs: a forward pass, what was done to it and what it left."""

from workbench.activations.run import STANDARD_SITES, Run, run

__all__ = ["STANDARD_SITES", "Run", "run"]
