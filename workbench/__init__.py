"""A workbench to look inside gpt-oss: read, edit and explain its activations, routing and attention.

>>> import workbench as wb
>>> model = wb.load("nano")
>>> logits, cache = model.run_with_cache("Mia went to the park")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workbench.activations import Run, affordable_sites, records, rerun, run
    from workbench.atlases import atlas
    from workbench.checkpoints import Certificate, CheckpointError, certificate, estimate, load, save_pretrained, verify
    from workbench.interventions import (
        AblateAttention,
        AblateExpert,
        AblateHead,
        AblateLayer,
        AblateMLP,
        AblatePosition,
        AblateSite,
        BiasExpert,
        EditSink,
        ForceExpert,
        FreezePatterns,
        FreezeRouting,
        InterventionError,
        KnockOut,
        Patch,
        PatchExpert,
        ReweightExpert,
        Steer,
        SwapExperts,
    )
    from workbench.model import GPT_OSS_20B, GPT_OSS_120B, NANO, Config, HookedGptOss, UnknownSite, preset
    from workbench.model.memory import NotEnoughMemory
    from workbench.sweeps import Grid, sweep
    from workbench.text import Chat, Tokenizer, Tool
    from workbench.widgets import Bench, Selection, view

__version__ = "0.1.0"

__all__ = [
    "GPT_OSS_120B",
    "GPT_OSS_20B",
    "NANO",
    "AblateAttention",
    "AblateExpert",
    "AblateHead",
    "AblateLayer",
    "AblateMLP",
    "AblatePosition",
    "AblateSite",
    "BiasExpert",
    "EditSink",
    "ForceExpert",
    "FreezePatterns",
    "FreezeRouting",
    "InterventionError",
    "KnockOut",
    "Patch",
    "PatchExpert",
    "ReweightExpert",
    "Steer",
    "SwapExperts",
    "Bench",
    "Certificate",
    "Chat",
    "CheckpointError",
    "Config",
    "Grid",
    "HookedGptOss",
    "NotEnoughMemory",
    "Run",
    "Selection",
    "Tokenizer",
    "Tool",
    "UnknownSite",
    "affordable_sites",
    "atlas",
    "certificate",
    "estimate",
    "load",
    "preset",
    "records",
    "rerun",
    "run",
    "save_pretrained",
    "sweep",
    "verify",
    "view",
]

# Each name's folder, imported when the name is first used: `workbench --help`, or a figure of stored results,
# needs no torch.
_FOLDERS = {
    "activations": ("Run", "affordable_sites", "records", "rerun", "run"),
    "atlases": ("atlas",),
    "checkpoints": ("Certificate", "CheckpointError", "certificate", "estimate", "load", "save_pretrained", "verify"),
    "interventions": (
        "AblateAttention",
        "AblateExpert",
        "AblateHead",
        "AblateLayer",
        "AblateMLP",
        "AblatePosition",
        "AblateSite",
        "BiasExpert",
        "EditSink",
        "ForceExpert",
        "FreezePatterns",
        "FreezeRouting",
        "InterventionError",
        "KnockOut",
        "Patch",
        "PatchExpert",
        "ReweightExpert",
        "Steer",
        "SwapExperts",
    ),
    "model": ("GPT_OSS_120B", "GPT_OSS_20B", "NANO", "Config", "HookedGptOss", "UnknownSite", "preset"),
    "model.memory": ("NotEnoughMemory",),
    "sweeps": ("Grid", "sweep"),
    "text": ("Chat", "Tokenizer", "Tool"),
    "widgets": ("Bench", "Selection", "view"),
}
_FOLDER_OF = {name: folder for folder, names in _FOLDERS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _FOLDER_OF:
        raise AttributeError(f"module 'workbench' has no attribute {name!r}; it has {', '.join(__all__)}")
    value = getattr(import_module(f"workbench.{_FOLDER_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
