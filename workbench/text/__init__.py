"""Strings ↔ tokens: the checkpoint's tokenizer and chat template, and harmony conversations. No torch in here."""

from workbench.text.files import TokenizerError
from workbench.text.harmony import (
    Chat,
    Developer,
    HarmonyError,
    Label,
    Labels,
    Message,
    Rendering,
    System,
    Tool,
    label,
    parse,
    render,
    rendering,
    visible,
)
from workbench.text.padding import pad
from workbench.text.template import DateNeeded, TemplateError, render_template
from workbench.text.tokenizer import Tokenizer

__all__ = [
    "Chat",
    "DateNeeded",
    "Developer",
    "HarmonyError",
    "Label",
    "Labels",
    "Message",
    "Rendering",
    "System",
    "TemplateError",
    "Tokenizer",
    "TokenizerError",
    "Tool",
    "label",
    "pad",
    "parse",
    "render",
    "render_template",
    "rendering",
    "visible",
]
