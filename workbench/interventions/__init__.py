"""Interventions: frozen specs that name things, and the hooks that carry them out.

| file | what |
|---|---|
| base.py | what every spec is; JSON, code |
| ablate.py | a head, a layer, a position, any site made to say nothing |
| experts.py | experts ablated, forced, swapped, biased, weighed anew |
| attention.py | sinks and edges of the pattern |
| patches.py | what is taken from other runs, and vectors that are added |
| context.py, writing.py, edits.py | how they are checked and become hooks |
"""

from workbench.interventions.ablate import (
    AblateAttention,
    AblateHead,
    AblateLayer,
    AblateMLP,
    AblatePosition,
    AblateSite,
)
from workbench.interventions.attention import EditSink, KnockOut
from workbench.interventions.base import (
    KINDS,
    Intervention,
    InterventionError,
    as_dict,
    code,
    from_dict,
    from_json,
    to_json,
)
from workbench.interventions.context import Context
from workbench.interventions.edits import all_edits, check_all, edits
from workbench.interventions.experts import AblateExpert, BiasExpert, ForceExpert, ReweightExpert, SwapExperts
from workbench.interventions.patches import FreezePatterns, FreezeRouting, Patch, PatchExpert, Steer

__all__ = [
    "KINDS",
    "AblateAttention",
    "AblateExpert",
    "AblateHead",
    "AblateLayer",
    "AblateMLP",
    "AblatePosition",
    "AblateSite",
    "BiasExpert",
    "Context",
    "EditSink",
    "ForceExpert",
    "FreezePatterns",
    "FreezeRouting",
    "Intervention",
    "InterventionError",
    "KnockOut",
    "Patch",
    "PatchExpert",
    "ReweightExpert",
    "Steer",
    "SwapExperts",
    "all_edits",
    "as_dict",
    "check_all",
    "code",
    "edits",
    "from_dict",
    "from_json",
    "to_json",
]
