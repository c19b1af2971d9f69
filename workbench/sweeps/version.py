"""Which version of the workbench's own code gave a number."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
# What a number can depend on; how cells are handed out, and how numbers are shown, is not among it.
COMPUTES = """
    text model checkpoints dictionaries prompts compiled interventions activations experiments
""".split()


@cache
def code_version() -> str:
    """16 hex digits of SHA-256 over the sources that numbers come from: the same wherever the same version runs."""
    digest = hashlib.sha256()
    for folder in COMPUTES:
        for path in sorted((HERE / folder).rglob("*")):
            if path.suffix in (".py", ".c", ".h"):
                digest.update(path.relative_to(HERE).as_posix().encode() + b"\0")
                digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:16]
