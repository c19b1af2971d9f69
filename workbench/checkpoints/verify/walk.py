"""The comparison: one forward pass of ours, and beside each of its layers transformers' own on the same stream."""

from __future__ import annotations

import hashlib
import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm
from transformer_lens.hook_points import HookPoint

from workbench.checkpoints.configs import read_config
from workbench.checkpoints.errors import CheckpointError, Problem
from workbench.checkpoints.load import load
from workbench.checkpoints.resolve import resolve
from workbench.checkpoints.verify.certificate import Certificate, Ends, LayerResult, standard_file
from workbench.checkpoints.verify.errors import REASONS, Error, error_of, explained_flips, same_sets
from workbench.checkpoints.verify.pages import let_go
from workbench.checkpoints.verify.reference import Reference, require
from workbench.checkpoints.verify.text import standard_tokens
from workbench.checkpoints.verify.weights import LAYER, differing
from workbench.model.engines import engine_name, native
from workbench.model.fingerprint import fingerprint
from workbench.model.packed import PackedExperts
from workbench.model.transformer import HookedGptOss

_SITES = (
    *("hook_resid_pre", "hook_attn_out", "hook_resid_mid", "mlp.hook_router_logits", "mlp.hook_expert_indices"),
    *("hook_mlp_out", "hook_resid_post"),
)
_SAMPLES, _SAMPLE = 64, 65_536  # of each file: 4 MB, and its ends


def verify(
    path_or_name: str | Path,
    *,
    model: HookedGptOss | None = None,
    tokens: Int[Tensor, "batch pos"] | None = None,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> Certificate:
    """Compare a checkpoint, as it is loaded here, with transformers' own modules, layer by layer.

    Both get the same input at each layer, so that an error is named where it is made. Weights must be the same bits.
    One layer of transformers is in memory at a time, twice as wide for a moment: 4 GB for gpt-oss-20b.

    Args:
        path_or_name: as for ``wb.load``, in a Hugging Face form.
        model: compare this one, loaded from there before; None loads it.
        tokens: [batch pos], longer than the sliding window; a standard text if None.
        out: the file to write the certificate to; None puts it where ``wb.certificate(model)`` finds it.
        progress: show a bar, a step a layer.
        options: of ``wb.load``, as in ``dtype="float32"``.

    Returns:
        The certificate, also if it differs: look at its ``verdict``.

    Raises:
        CheckpointError: for what cannot be loaded, or a form that transformers does not read.
        NoReference: without transformers.
    """
    started, version = time.monotonic(), require()
    directory, name = resolve(path_or_name)
    _refuse_other_forms(directory, name)
    if model is not None and options:
        raise ValueError(f"model was given, so that {sorted(options)} would do nothing; leave one of them out")
    # Pages of a model that somebody else uses are left where they are.
    model, mine = (load(directory, **options), True) if model is None else (model, False)
    chosen, source = standard_tokens(model) if tokens is None else (model.as_batch(tokens)[0], "given")
    walk = _Walk(model, Reference(directory, model.embed.weight.dtype, model.embed.weight.device), mine, progress)
    walk.run(chosen)
    assert walk.ends is not None
    digest = hashlib.sha256(str(chosen.tolist()).encode()).hexdigest()
    found = Certificate(
        model=_described(model, name),
        files=tuple(_sampled(file) for file in sorted(directory.iterdir()) if file.suffix in (".safetensors", ".json")),
        versions=_versions(version),
        engine=_engine(model),
        dtype=str(model.embed.weight.dtype).removeprefix("torch."),
        tokens={"count": chosen.numel(), "source": source, "sha256": digest},
        bounds=REASONS["half" if walk.half else "float32"],
        layers=tuple(walk.layers),
        ends=walk.ends,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - started, 1),
    )
    found.save(standard_file(found.model["fingerprint"]) if out is None else Path(out).expanduser())
    return found


class _Walk:
    """The hooks of one forward pass: when a layer of ours is done, transformers' does the same and is dropped again."""

    def __init__(self, model: HookedGptOss, reference: Reference, may_let_go: bool, progress: bool) -> None:
        self.model, self.reference, self.may_let_go, self.progress = model, reference, may_let_go, progress
        self.half = reference.dtype != torch.float32
        self.layers: list[LayerResult] = []
        self.ends: Ends | None = None
        self._seen: dict[str, Tensor] = {}

    @torch.no_grad()
    def run(self, tokens: Int[Tensor, "batch pos"]) -> None:
        n_layers = self.model.config.n_layers
        names = [f"blocks.{layer}.{site}" for layer in range(n_layers) for site in _SITES]
        with tqdm(total=n_layers + 1, desc="verifying", unit="layer", disable=not self.progress) as bar:

            def keep(x: Tensor, hook: HookPoint) -> None:
                site = str(hook.name)
                self._seen[site if site == "hook_embed" else site.split(".", 2)[2]] = x.to(self.reference.device)
                if site.endswith("hook_resid_post"):
                    self.layers.append(self._compare(len(self.layers)))
                    bar.update()

            logits = self.model.run_with_hooks(tokens, fwd_hooks=[(name, keep) for name in ("hook_embed", *names)])
            self.ends = self._compare_ends(tokens.to(self.reference.device), logits.to(self.reference.device))
            bar.update()

    def _compare(self, index: int) -> LayerResult:
        pre, mid = self._seen["hook_resid_pre"], self._seen["hook_resid_mid"]
        layer, block = self.reference.layer(index), self.model.blocks[index]
        weights = differing(block, layer, LAYER)
        theirs = self.reference.run(layer, pre, mid)
        exact = self.reference.run(layer.float(), pre.float(), mid.float()) if self.half else None
        if self.may_let_go:
            let_go((*block.parameters(), *block.buffers()))
        routes, router = _flat(self._seen["mlp.hook_expert_indices"]), _flat(self._seen["mlp.hook_router_logits"])
        same = same_sets(routes, theirs.routes)
        agreed, whole = same, same_sets(routes, theirs.block_routes)
        if exact is not None:
            agreed = agreed & same_sets(exact.routes, theirs.routes)
            whole = whole & same_sets(exact.block_routes, theirs.block_routes)
        unexplained = ~same & ~explained_flips(router, theirs.router, routes.shape[-1])

        def error(site: str, part: str, tokens: Tensor | None = None) -> Error:
            reference = None if exact is None else _flat(getattr(exact, part))
            return error_of(_flat(self._seen[site]), _flat(getattr(theirs, part)), reference, tokens)

        return LayerResult(
            layer=index,
            attention=error("hook_attn_out", "attention"),
            router=error("mlp.hook_router_logits", "router"),
            mlp=error("hook_mlp_out", "mlp", agreed),
            block=error("hook_resid_post", "block", whole),
            routes_agreed=float(same.float().mean()),
            unexplained_routes=int(unexplained.sum()),
            weights=weights,
        )

    def _compare_ends(self, tokens: Int[Tensor, "batch pos"], logits: Tensor) -> Ends:
        embedding = self.reference.embedding()
        weights = differing(self.model, embedding, {"weight": "embed.weight"})
        # Looking up is no arithmetic: the same bits, or wrong.
        off = error_of(_flat(self._seen["hook_embed"]), _flat(embedding(tokens)))
        embedded = Error(off.rms, off.max, 0.0, 0.0)
        del embedding
        if self.may_let_go:
            let_go(self.model.embed.parameters())
        stream = self._seen["hook_resid_post"]
        norm, head = self.reference.norm(), self.reference.head()
        weights |= differing(self.model, norm, {"weight": "ln_final.w"})
        weights |= differing(self.model, head, {"weight": "unembed.weight"})
        theirs = _flat(head(norm(stream)))
        exact = _flat(head.float()(norm(stream.float()))) if self.half else None
        return Ends(embedded, error_of(_flat(logits), theirs, exact), weights)


def _flat(x: Tensor) -> Tensor:
    """Batch and positions as one axis."""
    return x.reshape(-1, x.shape[-1])


def _refuse_other_forms(directory: Path, name: str) -> None:
    _, table = read_config(directory, name)
    if not table.form.startswith("Hugging Face"):
        hint = "Verify the Hugging Face form of the same model (in gpt-oss' repositories it is the top folder)"
        expected = "a Hugging Face form: transformers, which is the other side here, reads no other"
        raise CheckpointError(Problem(directory / "config.json", "", expected, f"the {table.form} form", hint))


def _described(model: HookedGptOss, name: str) -> dict[str, Any]:
    config = model.config
    return {
        "name": name,
        "fingerprint": fingerprint(model),
        "n_layers": config.n_layers,
        "n_experts": config.n_experts,
        "n_parameters": config.n_params,
    }


def _versions(transformers_version: str) -> dict[str, str]:
    return {
        "workbench": sys.modules["workbench"].__version__,  # an import would lead up the layers
        "torch": torch.__version__,
        "transformers": transformers_version,
        "python": platform.python_version(),
    }


def _engine(model: HookedGptOss) -> dict[str, str]:
    """How the experts of the first layer are multiplied."""
    experts, weight = model.blocks[0].mlp.experts, model.embed.weight
    where = {"device": str(weight.device), "machine": platform.machine()}
    if not isinstance(experts, PackedExperts):
        return where | {"experts": "dense", "engine": "torch"}
    name = engine_name(weight.device, weight.dtype)
    isa = {"instruction_set": native.isa()} if name == "native" else {}
    return where | {"experts": "packed", "engine": name} | isa


def _sampled(file: Path) -> dict[str, Any]:
    """Name, size, and SHA-256 over the size and evenly spaced samples, the first and the last bytes among them."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as opened:
        for n in range(_SAMPLES + 1):
            opened.seek(max(0, size - _SAMPLE) * n // _SAMPLES)
            digest.update(opened.read(_SAMPLE))
    return {"name": file.name, "bytes": size, "sampled_sha256": digest.hexdigest()}
