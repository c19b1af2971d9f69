"""All kinds of input."""

from __future__ import annotations

from tests.fuzz import of_bench, of_checkpoints, of_data, of_texts

KINDS = [*of_checkpoints.KINDS, *of_texts.KINDS, *of_data.KINDS, *of_bench.KINDS]
