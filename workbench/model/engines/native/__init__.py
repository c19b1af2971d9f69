"""The native engine: one small C library (no torch headers) behind ctypes, for the CPU.

``unpack`` gives the bits of ``mxfp4.unpack``; ``grouped_linear`` multiplies rows sorted by expert with packed matrices,
read in place; ``dense_linear`` multiplies rows with a plain matrix, ``dense_grouped_linear`` rows sorted by expert with
plain matrices. The library picks the best instruction set of the machine when it runs.

Environment: WORKBENCH_NATIVE_ISA (generic, avx2, avx512, avx512_bf16) forces an instruction set,
WORKBENCH_NATIVE_LIBRARY names another library file, WORKBENCH_NATIVE_POOL=own keeps off torch's threads.

| file | what |
|---|---|
| library.py | the library found, loaded and asked |
| products.py | the four functions |
| build.py | compiles c/ |
| hatch_build.py | runs build.py when the package is installed |
| c/ | the sources; native.h is the interface |
"""

from workbench.model.engines.native.library import available, isa, isas, library_path, release_scratch, why_not
from workbench.model.engines.native.products import dense_grouped_linear, dense_linear, grouped_linear, unpack

__all__ = [
    "dense_grouped_linear",
    "available",
    "why_not",
    "isa",
    "isas",
    "library_path",
    "release_scratch",
    "unpack",
    "grouped_linear",
    "dense_linear",
]
