"""Where the records are."""

from __future__ import annotations

import os
from pathlib import Path

PLACE = "WORKBENCH_RECORDS"  # environment: another file; "off" keeps nothing
FOLDER, FILE = "gpt-oss-workbench", "records.sqlite"


def place() -> Path | None:
    """The file that records go to: what WORKBENCH_RECORDS names, else one in the user's data folder; None for "off"."""
    named = os.environ.get(PLACE, "")
    if named == "off":
        return None
    if named:
        return Path(named).expanduser().absolute()
    import platformdirs

    return platformdirs.user_data_path(FOLDER, appauthor=False) / FILE
