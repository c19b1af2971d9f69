"""Interventions: frozen specs, and the hooks that carry them out."""

from workbench.interventions.edits import all_edits, edits
from workbench.interventions.specs import AblateExpert, check_all

__all__ = ["AblateExpert", "all_edits", "check_all", "edits"]
