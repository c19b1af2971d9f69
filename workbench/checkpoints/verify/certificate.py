"""What a verification found, as frozen data: kept as JSON, found by the model's fingerprint, shown as a badge."""

from __future__ import annotations

import html
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from workbench.checkpoints.verify.errors import Error
from workbench.model.fingerprint import fingerprint
from workbench.model.transformer import HookedGptOss

SCHEMA = 1
COMPONENTS = ("attention", "router", "mlp", "block")


@dataclass(frozen=True)
class LayerResult:
    """One layer: attention and block on the same incoming stream, router and mlp on the same stream before the experts.

    Attributes:
        routes_agreed: share of tokens that both route to the same experts.
        unexplained_routes: tokens routed otherwise though their experts are not nearly tied.
        weights: our name → how it differs, for weights that are not the same bits.
    """

    layer: int
    attention: Error
    router: Error
    mlp: Error
    block: Error
    routes_agreed: float
    unexplained_routes: int = 0
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """What is wrong with it, a sentence each."""
        where = f"layer {self.layer}"
        found = [f"{where} weights {name}: {how}" for name, how in self.weights.items()]
        found += [f"{where} {part}: {error}" for part in COMPONENTS if not (error := getattr(self, part)).agrees]
        if self.unexplained_routes:
            found.append(f"{where} routes: {self.unexplained_routes} tokens go elsewhere without a near tie")
        return found


@dataclass(frozen=True)
class Ends:
    """What is before and after the layers: the embedded tokens, and the logits of the same last stream."""

    embedding: Error
    logits: Error
    weights: Mapping[str, str] = field(default_factory=dict)

    @property
    def reasons(self) -> list[str]:
        """What is wrong with them, a sentence each."""
        found = [f"weights {name}: {how}" for name, how in self.weights.items()]
        return found + [f"{part}: {e}" for part in ("embedding", "logits") if not (e := getattr(self, part)).agrees]


@dataclass(frozen=True)
class Certificate:
    """How a loaded checkpoint compares with transformers.

    Attributes:
        model: name, fingerprint (of the model as it was loaded: its dtype, packed or dense), layers, parameters.
        files: name, bytes and a SHA-256 over samples, of each file of the checkpoint.
        versions: of workbench, torch, transformers and Python.
        engine: how the experts were multiplied: packed or dense, engine, instruction set; and the device.
        dtype: of the comparison.
        tokens: how many, and whether they were the standard text.
        bounds: what an error may be, and why.
        layers, ends: the errors.
        date: when, in UTC; seconds: how long it took.
        schema: version of this form.
    """

    model: Mapping[str, Any]
    files: tuple[Mapping[str, Any], ...]
    versions: Mapping[str, str]
    engine: Mapping[str, str]
    dtype: str
    tokens: Mapping[str, Any]
    bounds: str
    layers: tuple[LayerResult, ...]
    ends: Ends
    date: str
    seconds: float
    schema: int = SCHEMA

    @property
    def reasons(self) -> list[str]:
        """Where and how it differs; empty if it agrees."""
        return [reason for part in (*self.layers, self.ends) for reason in part.reasons]

    @property
    def agrees(self) -> bool:
        """Whether every weight is the same and every error within its bound."""
        return not self.reasons

    @property
    def verdict(self) -> str:
        """ "agrees" or "differs"."""
        return "agrees" if self.agrees else "differs"

    @property
    def routes_agreed(self) -> float:
        """Share of (token, layer) that go to the same experts."""
        return sum(layer.routes_agreed for layer in self.layers) / max(len(self.layers), 1)

    @property
    def badge(self) -> str:
        """One line for a view."""
        against = f"transformers {self.versions['transformers']}, {self.dtype}"
        if self.agrees:
            return f"✓ verified against {against} · routes {_percent(self.routes_agreed)}"
        first = self.reasons[0].split(":")[0]
        more = f" and {len(self.reasons) - 1} more" if len(self.reasons) > 1 else ""
        return f"✗ differs from {against} · {first}{more}"

    def _repr_html_(self) -> str:
        colour = "#1a7f37" if self.agrees else "#b42318"
        title = f"{self.model['name']} {self.model['fingerprint']}, {self.date}"
        lines = "".join(f"<li>{html.escape(reason)}</li>" for reason in self.reasons[:5])
        return (
            f'<span title="{html.escape(title)}" style="border:1px solid {colour};border-radius:4px;padding:1px 6px;'
            f'color:{colour};font-size:90%">{html.escape(self.badge)}</span>' + (f"<ul>{lines}</ul>" if lines else "")
        )

    def to_json(self) -> str:
        """Everything, with the verdict and its reasons spelled out for other readers."""
        said = {"verdict": self.verdict, "reasons": self.reasons, "routes_agreed": self.routes_agreed}
        return json.dumps({"schema": self.schema} | said | _plain(asdict(self)), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read what :meth:`to_json` wrote.

        Raises:
            ValueError: for anything else, or a schema of another version.
        """
        try:
            found = json.loads(text)
            if found["schema"] != SCHEMA:
                raise ValueError(f"schema {found['schema']}, and this workbench reads {SCHEMA}")
            for key in ("verdict", "reasons", "routes_agreed"):
                found.pop(key)
            layers = tuple(LayerResult(**layer | _errors(layer, COMPONENTS)) for layer in found.pop("layers"))
            ends = found.pop("ends")
            ends = Ends(**ends | _errors(ends, ("embedding", "logits")))
            return cls(**found | {"layers": layers, "ends": ends, "files": tuple(found["files"])})
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(
                f"not a certificate: {type(error).__name__}: {error}. Run `workbench verify` again"
            ) from error

    def save(self, file: Path) -> Path:
        """Write it whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        beside = file.with_name(f"{file.name}.{os.getpid()}.part")
        beside.write_text(self.to_json() + "\n", encoding="utf-8")
        return beside.replace(file)


def certificate(model: HookedGptOss, file: str | Path | None = None) -> Certificate | None:
    """The certificate of exactly this model: these weights, in this dtype and form. None if there is none.

    Args:
        file: where it is; None looks where ``verify`` puts it by itself.

    Raises:
        ValueError: for a file that is no certificate, or that of another model.
    """
    mine = fingerprint(model)
    path = standard_file(mine) if file is None else Path(file).expanduser()
    if file is None and not path.is_file():
        return None
    try:
        found = Certificate.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if found.model["fingerprint"] != mine:
        raise ValueError(
            f"{path} is of {found.model['name']} {found.model['fingerprint']}, and this model is {model.config.name} "
            f"{mine}: another one, or loaded in another dtype or form, or edited since. Verify it as it is now"
        )
    return found


def standard_file(model_fingerprint: str) -> Path:
    """Where a certificate is kept: the user's cache, for a checkpoint's folder may be read-only. $WORKBENCH_CACHE, if
    set, takes its place."""
    chosen = os.environ.get("WORKBENCH_CACHE")
    folder = Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("workbench", appauthor=False)
    return folder / "certificates" / f"{model_fingerprint}.json"


def _percent(share: float) -> str:
    """Never "100 %" for less than all."""
    return f"{math.floor(share * 1000) / 10:g} %"


def _errors(part: dict[str, Any], names: tuple[str, ...]) -> dict[str, Error]:
    numbers = {name: {key: float(n) if isinstance(n, str) else n for key, n in part[name].items()} for name in names}
    return {name: Error(**numbers[name]) for name in names}


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become the words."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
