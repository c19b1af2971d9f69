"""Harmony, the conversation format of gpt-oss: build a chat, render it, label every token, parse it back."""

from workbench.text.harmony.chat import Chat, Developer, HarmonyError, Message, System, Tool
from workbench.text.harmony.label import Label, Labels, label
from workbench.text.harmony.parse import parse
from workbench.text.harmony.render import Rendering, render, rendering, visible

__all__ = [
    "Chat",
    "Developer",
    "HarmonyError",
    "Label",
    "Labels",
    "Message",
    "Rendering",
    "System",
    "Tool",
    "label",
    "parse",
    "render",
    "rendering",
    "visible",
]
