"""What an atlas refuses."""

from __future__ import annotations


class AtlasError(ValueError):
    """An atlas that cannot be built, opened or asked; the message says what was given, and what to do."""


class CorpusError(AtlasError):
    """A corpus, or an entry of one, that cannot be read; the message names the file and the line."""
