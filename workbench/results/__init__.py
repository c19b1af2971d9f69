"""Labelled results: every number knows its axes, its tokens and where it came from. No torch in here."""

from workbench.results.labels import labelled, token_coordinates

__all__ = ["labelled", "token_coordinates"]
