"""Engines: who multiplies rows with packed experts. Every engine unpacks the same bits; sums may be rounded otherwise.

``native``: our C library, on the CPU, for bfloat16 and float32; it reads the packed bytes in place. It also multiplies
few rows with plain matrices (``dense_linear.py``), as in generation, at the speed at which they can be read.
``eager``: torch operations, on any device, for any floating type.

The best one is taken for each call. WORKBENCH_ENGINE=eager or :func:`use` asks for one by name.

| file | what |
|---|---|
| choice.py | which engine a call goes through |
| packed_linear.py | rows times packed experts |
| dense_linear.py | rows times plain matrices, of linear layers or of experts |
| eager.py, native/ | the engines |
"""

from __future__ import annotations

from workbench.model.engines import eager, native
from workbench.model.engines.choice import ENGINES, engine_name, use
from workbench.model.engines.dense_linear import Linear, grouped_dense_linear, linear
from workbench.model.engines.packed_linear import packed_linear

__all__ = [
    "ENGINES",
    "Linear",
    "engine_name",
    "grouped_dense_linear",
    "linear",
    "packed_linear",
    "release_scratch",
    "use",
]


def release_scratch() -> None:
    """Give back the buffers that calls keep for each other."""
    eager.release_scratch()
    if native.available():
        native.release_scratch()
