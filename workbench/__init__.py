"""A workbench to look inside gpt-oss: read, edit and explain its activations, routing and attention.

>>> import workbench as wb
>>> model = wb.load("nano")
>>> logits, cache = model.run_with_cache("Mia went to the park")
"""

from workbench.activations import Run, run
from workbench.checkpoints import CheckpointError, load, save_pretrained
from workbench.interventions import AblateExpert
from workbench.model import GPT_OSS_20B, GPT_OSS_120B, NANO, Config, HookedGptOss, UnknownSite, preset
from workbench.text import Chat, Tokenizer

__version__ = "0.1.0"

__all__ = [
    "GPT_OSS_120B",
    "GPT_OSS_20B",
    "NANO",
    "AblateExpert",
    "Chat",
    "CheckpointError",
    "Config",
    "HookedGptOss",
    "Run",
    "Tokenizer",
    "UnknownSite",
    "load",
    "preset",
    "run",
    "save_pretrained",
]
