"""The models that travel inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

EMBEDDED = ("nano",)


def embedded_path(name: str) -> Path:
    """The folder of an embedded model: in the installed package, or in the source checkout.

    Raises:
        FileNotFoundError: if this installation lacks it. The message names both places.
    """
    package = Path(str(files("workbench")))
    places = (package / "_data" / name, package.parent / "data" / name)
    for place in places:
        if (place / "config.json").is_file():
            return place
    raise FileNotFoundError(f"the embedded model {name!r} is in neither of {', '.join(map(str, places))}")
