"""What crosses between Python and the page: a header and binary buffers, as one frame."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Message:
    """One message that crossed: its direction ("out" is Python → page), its method, content and size in bytes."""

    way: str
    comm: str
    method: str
    content: Any
    size: int
    at: float


def pack(header: dict[str, Any], buffers: Sequence[Any] = ()) -> bytes:
    """A header and its buffers as one frame: length of the header, header, buffers, each at an odd offset.

    Odd, because in JupyterLab too a buffer begins anywhere: `new Float32Array(view.buffer, view.byteOffset)` throws.

    Raises:
        ValueError: the header holds NaN or an infinity, which JSON in a browser does not know.
    """
    views = [memoryview(buffer).cast("B") for buffer in buffers]
    text = json.dumps(header | {"sizes": [view.nbytes for view in views]}, allow_nan=False).encode()
    parts, length = [struct.pack("<I", len(text)), text], 4 + len(text)
    for view in views:
        gap = 1 + length % 2
        parts += [bytes(gap), view]
        length += gap + view.nbytes
    return b"".join(parts)


def unpack(frame: bytes) -> tuple[dict[str, Any], list[memoryview]]:
    """The opposite of `pack`."""
    view = memoryview(frame)
    (n,) = struct.unpack("<I", view[:4])
    header, at = json.loads(bytes(view[4 : 4 + n])), 4 + n
    buffers = []
    for size in header["sizes"]:
        at += 1 + at % 2
        buffers.append(view[at : at + size])
        at += size
    return header, buffers
