"""The model: its shape, its parts, its sites."""

from workbench.model.config import GPT_OSS_20B, GPT_OSS_120B, NANO, Config, ConfigError, Rope, preset
from workbench.model.generate import Generation, Step
from workbench.model.init import fresh_weights, random_weights
from workbench.model.recording import Recording
from workbench.model.sites import Site, Sites, UnknownSite
from workbench.model.state import KeyValueCache
from workbench.model.transformer import HookedGptOss

__all__ = [
    "GPT_OSS_120B",
    "GPT_OSS_20B",
    "NANO",
    "Config",
    "ConfigError",
    "Generation",
    "HookedGptOss",
    "KeyValueCache",
    "Recording",
    "Rope",
    "Site",
    "Sites",
    "Step",
    "UnknownSite",
    "fresh_weights",
    "preset",
    "random_weights",
]
