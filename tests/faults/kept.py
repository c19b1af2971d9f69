"""What a journal holds, and what was measured, as read from outside the process that writes them."""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

from workbench.sweeps.journal import ABOUT, Journal


def names_in(folder: Path) -> Counter[str]:
    """The cells of the one study in a journal, by name, with how often each is there; none if there is no study yet."""
    studies = [path.parent.name for path in folder.glob(f"*/{ABOUT}")]
    assert len(studies) <= 1, studies
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of an end that a kill has torn
        return Counter(name for study in studies for name, _ in Journal(folder, study).read())


def lines_of(path: Path) -> list[str]:
    """The whole lines of a file."""
    return path.read_text().split("\n")[:-1] if path.exists() else []
