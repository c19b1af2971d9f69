"""`workbench freeze` takes the live widgets out of a notebook, so that GitHub and nbviewer show what is beside them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add(commands: Any) -> None:
    """The options of `workbench freeze`."""
    freeze = commands.add_parser("freeze", help="make a notebook readable without a kernel: live views to static ones")
    freeze.add_argument("notebooks", metavar="NOTEBOOK", nargs="+", type=Path, help="notebooks with live views in them")
    freeze.add_argument("--out", metavar="FOLDER", type=Path, help="write there, and leave the notebooks as they are")
    freeze.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Freeze each notebook, and say how many views were in it."""
    from workbench.widgets.freeze import freeze

    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    for source in arguments.notebooks:
        target = source if arguments.out is None else arguments.out / source.name
        n_taken = freeze(source, target)
        print(f"{target}: {n_taken} live {'view' if n_taken == 1 else 'views'} made static")
    return 0
