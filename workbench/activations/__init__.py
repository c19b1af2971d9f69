"""Runs: a forward pass, what was done to it and what it left."""

from workbench.activations.kept import affordable_sites, record_of, site_of
from workbench.activations.records import records
from workbench.activations.rerun import rerun
from workbench.activations.run import Run, provenance_of, run
from workbench.activations.written import same_record
from workbench.model.sites import STANDARD_SITES

__all__ = [
    "STANDARD_SITES",
    "Run",
    "affordable_sites",
    "provenance_of",
    "record_of",
    "records",
    "rerun",
    "run",
    "same_record",
    "site_of",
]
