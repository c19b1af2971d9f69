"""Interventions: frozen specs, and the hooks that carry them out."""

from workbench.interventions.edits import all_edits, edits
from workbench.interventions.specs import AblateExpert

__all__ = ["AblateExpert", "all_edits", "edits"]
