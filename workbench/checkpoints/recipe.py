"""How a model is loaded again, as plain data: what travels to another process in the place of its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """The arguments of ``wb.load`` that say which model it is.

    Attributes:
        path: "nano", a folder (the same on every machine that loads it), or a hub id.
        dtype, device, experts: as ``wb.load`` takes them, by name.
        fingerprint: of the model that it was made from; ``load_once`` refuses anything else. None: whatever is there.
    """

    path: str
    dtype: str | None = None
    device: str | None = None
    experts: str = "auto"
    fingerprint: str | None = None

    def arguments(self) -> dict[str, Any]:
        """What ``wb.load`` takes besides the path, where it is not its default."""
        given = {
            "dtype": self.dtype,
            "device": self.device,
            "experts": None if self.experts == "auto" else self.experts,
        }
        return {name: value for name, value in given.items() if value is not None}

    def code(self) -> str:
        """The Python that loads it."""
        return f"wb.load({', '.join([repr(self.path), *(f'{k}={v!r}' for k, v in self.arguments().items())])})"
