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
def code_version(*more: str) -> str:
    """16 hex digits of SHA-256 over the sources that numbers come from: the same wherever the same version runs.

    Args:
        more: folders of the workbench that this number depends on too.
    """
    digest = hashlib.sha256()
    for folder in (*COMPUTES, *more):
        for path in sorted((HERE / folder).rglob("*")):
            if path.suffix in (".py", ".c", ".h"):
                digest.update(path.relative_to(HERE).as_posix().encode() + b"\0")
                digest.update(path.read_bytes().replace(b"\r\n", b"\n") + b"\0")
    return digest.hexdigest()[:16]


def check_same_code(here: str, there: str, work: str) -> None:
    """In a worker, before it computes anything.

    Raises:
        RuntimeError: its code is not the code of whoever sent the work ("sweep", "atlas").
    """
    if here != there:
        raise RuntimeError(
            f"the workbench's code here is {here} and {there} where the {work} began: have the same version on every "
            "machine, and restart workers that are older than it"
        )
