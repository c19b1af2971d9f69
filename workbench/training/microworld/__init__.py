"""The microworld: licence-free text, made by grammars, that people can read.

``DOCUMENTS`` gives a generator of training documents for each domain, ``QUESTIONS`` one of held-out questions for each
task; both take a ``random.Random`` and are determined by its seed.
"""

import random
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

from . import brackets, chats, dialects, docstrings, facts, indirect_object, numbers, passkey, repeats, stories
from .document import Document, Question, Segment, held_out
from .facts import FACTS

DOCUMENTS: Mapping[str, Callable[[random.Random], Document]] = MappingProxyType(
    {
        "story": stories.document,
        "facts": facts.document,
        "names": indirect_object.document,
        "repeats": repeats.document,
        "passkey": passkey.document,
        "code": docstrings.document,
        "brackets": brackets.document,
        "years": numbers.years_document,
        "sums": numbers.sums_document,
        "dialects": dialects.document,
        "chat facts": chats.facts_document,
        "chat": chats.channels_document,
    }
)
QUESTIONS: Mapping[str, Callable[[random.Random], Question]] = MappingProxyType(
    {
        "indirect object": indirect_object.question,
        "passkey far": passkey.question,
        "passkey near": passkey.near_question,
        "docstring": docstrings.question,
        "brackets": brackets.question,
        "facts": facts.question,
        "facts, first words": facts.first_question,
        "facts in chat": chats.facts_question,
        "final copies analysis": chats.copy_question,
        "final follows edited analysis": chats.edited_question,
        "low reasoning": chats.low_question,
        "whole reply": chats.reply_question,
        "dialect north": partial(dialects.question, dialect="north"),
        "dialect south": partial(dialects.question, dialect="south"),
        "dialect east": partial(dialects.question, dialect="east"),
        "greater-than": numbers.years_question,
        "sums": numbers.sums_question,
        "repeated words": repeats.question,
        "story": stories.question,
    }
)

__all__ = ["DOCUMENTS", "FACTS", "QUESTIONS", "Document", "Question", "Segment", "held_out"]
