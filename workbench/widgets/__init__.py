"""Live, linked views in a notebook. See README.md in this folder for how its parts talk to each other."""

from workbench.widgets import view
from workbench.widgets.bench import Bench
from workbench.widgets.selection import Selection

__all__ = ["Bench", "Selection", "view"]
