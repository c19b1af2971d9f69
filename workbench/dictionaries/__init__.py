"""Dictionaries (sparse autoencoders): read, written in SAELens' form, and put on a site of the model."""

from workbench.dictionaries.attach import Attachment, FeatureOp, ablate, add, attached, feature_edit_hook, scale, set_to
from workbench.dictionaries.dictionary import Dictionary
from workbench.dictionaries.load import load_dictionary
from workbench.dictionaries.saelens import save_dictionary

__all__ = [
    "Attachment",
    "Dictionary",
    "FeatureOp",
    "ablate",
    "add",
    "attached",
    "feature_edit_hook",
    "load_dictionary",
    "save_dictionary",
    "scale",
    "set_to",
]
