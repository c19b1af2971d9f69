"""Small hand-made datasets of the experiments on parts: ablation, patching, attribution, routing, weights, probes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from tests.figures.data import coords, lens, values

LAYERS, HEADS, EXPERTS = 4, 4, 8
FIRST = 7  # the column of the first token, as `coords` has it


def axes(**more: Sequence[object]) -> dict:
    """Coordinates of layers, heads and experts, and others."""
    return {"layer": np.arange(LAYERS), "head": np.arange(HEADS), "expert": np.arange(EXPERTS), **more}


def signed(*shape: int, seed: int = 0) -> np.ndarray:
    return values(*shape, seed=seed) - 0.5


def patched(tokens: Sequence[str], kind: str = "site", share: str = "recovered") -> xr.Dataset:
    n = len(tokens)
    dims, shape = (("site", "layer", "pos"), (2, 3, n)) if kind == "site" else (("layer", kind, "pos"), (3, 4, n))
    table = values(*shape)
    if kind != "site":
        table[1, 2] = 0
    made = {"metric": (dims, table), share: (dims, table - 0.5 * (table > 0)), "clean": 3.0, "corrupted": -2.0}
    at = {"layer": [0, 1, 2], kind: ["resid_pre", "mlp_out"] if kind == "site" else [0, 1, 2, 3]}
    return xr.Dataset(made, coords(tokens) | at, {"metric": f"logit of {tokens[0]!r}"})


def patched_together(tokens: Sequence[str], kind: str = "head") -> xr.Dataset:
    table = values(3, 4)
    table[2, 1] = np.nan
    made = {"metric": (("layer", kind), table), "recovered": (("layer", kind), table), "clean": 3.0, "corrupted": -2.0}
    return xr.Dataset(made, {"layer": [0, 1, 2], kind: [0, 1, 2, 3]}, {"metric": f"logit of {tokens[0]!r}"})


def swept(
    policies: Sequence[str] = ("zero", "reroute"), floor: bool = True, specs: Sequence[str] | None = None
) -> xr.Dataset:
    n = 6 * len(policies) if specs is None else len(specs)
    at = np.arange(n)
    layer, index = at % 6 // 2, at % 2
    effect = np.random.default_rng(0).normal(size=(n, 5))
    made = {"effect": (("component", "prompt"), effect), "mean_effect": ("component", effect.mean(1))}
    if floor:
        made |= {"floor": ("component", np.full(n, 0.2)), "p": ("component", np.full(n, 0.05))}
    named = [f"AblateExpert(layer={i}, expert={j})" for i, j in zip(layer, index, strict=True)]
    policy = np.repeat(policies, 6) if specs is None else np.full(n, policies[0])
    each = {"spec": named if specs is None else list(specs), "layer": layer, "index": index, "policy": policy}
    about = {"metric": "logit" if specs is None else specs[0]}
    return xr.Dataset(made, {name: ("component", value) for name, value in each.items()}, about)


def knocked_out(tokens: Sequence[str]) -> xr.Dataset:
    steps = np.arange(len(tokens))
    made = {"mean": ("step", -steps.astype(float)), "chosen": ("step", list(tokens))}
    made |= {"control_mean": (("step", "control"), signed(len(steps), 3) - steps[:, None])}
    return xr.Dataset(made, {"step": steps}, {"metric": tokens[0]})


def direct(tokens: Sequence[str]) -> xr.Dataset:
    chosen = np.array([[i % EXPERTS, (i + 3) % EXPERTS] for i in range(LAYERS)])
    experts = np.zeros((LAYERS, EXPERTS), dtype=np.float32)
    np.put_along_axis(experts, chosen, signed(LAYERS, 2), axis=1)
    made = {"heads": (("layer", "head"), signed(LAYERS, HEADS, seed=1)), "experts": (("layer", "expert"), experts)}
    made |= {"attn_bias": ("layer", values(LAYERS, seed=2)), "chosen": (("layer", "slot"), chosen)}
    made |= {"embed": ((), 0.25), "total": ((), -1.5)}
    return xr.Dataset(made, {"layer": np.arange(LAYERS)}, {"answers": f"logit of {tokens[0]!r}", "token": tokens[-1]})


def attribution(tokens: Sequence[str]) -> xr.Dataset:
    n, sites = len(tokens), ["resid_pre", "attn_out"]
    made = {}
    for i, scale in enumerate(("effect", "recovered")):
        made[scale] = (("site", "layer", "pos"), signed(2, LAYERS, n, seed=i))
        made[f"head_{scale}"] = (("layer", "head", "pos"), signed(LAYERS, HEADS, n, seed=i + 2))
    made["routes_differ"] = (("layer", "pos"), values(LAYERS, n, seed=5) > 0.8)
    made["router_margin"] = (("layer", "pos"), values(LAYERS, n, seed=6))
    about = {"experiment": "attribution_patching", "metric": f"logit of {tokens[0]!r}"}
    return xr.Dataset(made, coords(tokens) | {"site": sites, "layer": np.arange(LAYERS)}, about)


def edges(tokens: Sequence[str]) -> xr.Dataset:
    score = signed(len(tokens), 7)
    score[:, 0] = np.nan
    dims = ("upstream", "downstream")
    at = {"upstream": list(tokens), "downstream": [f"L{i}H1.q" for i in range(7)]}
    return xr.Dataset({"score": (dims, score), "share": (dims, score / 2)}, at, {"metric": tokens[0]})


def expert_lens(tokens: Sequence[str]) -> xr.Dataset:
    n, dims = len(tokens), ("pos", "layer", "slot")
    top = np.array([[[[tokens[(i + j + k + r) % n] for r in range(3)] for k in range(2)] for j in range(LAYERS)]
                    for i in range(n)], dtype=str)  # fmt: skip
    made = {
        "magnitude": (dims, values(n, LAYERS, 2)),
        "contribution": (dims, signed(n, LAYERS, 2, seed=1)),
        "weight": (dims, values(n, LAYERS, 2, seed=2)),
        "chosen": (dims, np.random.default_rng(0).integers(0, EXPERTS, (n, LAYERS, 2))),
        "top_token": ((*dims, "rank"), top),
        "top_logit": ((*dims, "rank"), values(n, LAYERS, 2, 3)),
        "target_token": ("pos", np.array(tokens, dtype=str)),
    }
    return xr.Dataset(made, coords(tokens) | {"layer": np.arange(LAYERS)})


def lens_kl(names: Sequence[str]) -> xr.Dataset:
    layers = np.arange(-1, LAYERS)
    return xr.Dataset({"kl": (("lens", "layer"), values(len(names), LAYERS + 1))}, {"lens": names, "layer": layers})


def tuned_lens(tokens: Sequence[str]) -> xr.Dataset:
    return lens(tokens, LAYERS)


def steered(tokens: Sequence[str], n_controls: int = 3) -> xr.Dataset:
    scales = np.array([4.0, -4.0, 0.0])
    control, said = signed(n_controls, 3), {"long_name": f"mean change of {tokens[0]!r}"}
    bounds = np.quantile(control, [0.05, 0.5, 0.95], axis=0) if n_controls else np.full((3, 3), np.nan)
    made = {"effect": ("scale", signed(3, seed=1), said), "control_effect": (("control", "scale"), control)}
    made |= {"control_quantile": (("quantile", "scale"), bounds)}
    return xr.Dataset(made, {"scale": scales, "quantile": [0.05, 0.5, 0.95]}, {"site": tokens[-1]})


def probed(tokens: Sequence[str], n_shuffles: int = 4) -> xr.Dataset:
    made = {"score": (("layer", "fold"), values(LAYERS, 3)), "train_score": (("layer", "fold"), values(LAYERS, 3))}
    made |= {"shuffled_score": (("layer", "shuffle", "fold"), values(LAYERS, n_shuffles, 3))}
    return xr.Dataset(made, axes(), {"site": tokens[0], "metric": tokens[-1], "n_groups": 5})


def neurons(tokens: Sequence[str], n: int = 6) -> xr.Dataset:
    def named(count: int) -> tuple[tuple[str, str], np.ndarray]:
        table = [[tokens[(i + k) % len(tokens)] for k in range(count)] for i in range(n)]
        return ("neuron", "rank" if count == 8 else "example"), np.array(table, dtype=str)

    activation = values(n, 6)
    activation[:, -1] = np.nan
    made = {"size": ("neuron", values(n)), "direct_effect": ("neuron", signed(n))}
    made |= {f"{name}_token": named(8) for name in ("gate", "up", "raises", "lowers")}
    made |= {"example_token": named(6), "example_activation": (("neuron", "example"), activation)}
    about = {"layer": 1, "expert": 2, "target": tokens[0], "n_routed": 9, "n_tokens": 40}
    return xr.Dataset(made, {"neuron": np.arange(n) * 7}, about)


def circuits() -> xr.Dataset:
    made = {name: (("layer", "head"), signed(LAYERS, HEADS)) for name in ("copying", "matching")}
    return xr.Dataset(made, axes())


def compositions() -> xr.Dataset:
    dims = ("kind", "layer", "head", "to_layer", "to_head")
    score = values(3, LAYERS, HEADS, LAYERS, HEADS)
    earlier = np.arange(LAYERS)[:, None, None, None] < np.arange(LAYERS)[:, None]
    return xr.Dataset({"score": (dims, np.where(earlier, score, np.nan))}, axes(kind=list("QKV")), {"chance": 0.2})


def similar(kinds: Sequence[str] | None = ("reads", "writes")) -> xr.Dataset:
    dims, shape = ("layer", "expert", "other_expert"), (LAYERS, EXPERTS, EXPERTS)
    if kinds is None:
        return xr.Dataset({"similarity": (dims, signed(*shape))}, axes())
    made = {"similarity": (("kind", *dims), signed(len(kinds), *shape)), "chance": ("kind", values(len(kinds)))}
    return xr.Dataset(made, axes(kind=list(kinds)))


def router(tokens: Sequence[str]) -> xr.Dataset:
    table = [[[tokens[(i + j + k) % len(tokens)] for k in range(5)] for j in range(EXPERTS)] for i in range(LAYERS)]
    dims = ("layer", "expert", "rank")
    made = {"token": (dims, np.array(table, dtype=str)), "score": (dims, values(LAYERS, EXPERTS, 5))}
    return xr.Dataset(made, axes(rank=range(1, 6)))


def norms(tokens: Sequence[str]) -> xr.Dataset:
    n = len(tokens)
    made = {name: ("vocab", values(n, seed=i) + 0.1) for i, name in enumerate(("embed_distance", "unembed_distance"))}
    made |= {"glitch_score": ("vocab", values(n, seed=2))}
    return xr.Dataset(made, {"vocab": np.arange(n), "token": ("vocab", np.array(tokens, dtype=str))})


def statistics(names: Sequence[str]) -> xr.Dataset:
    made: dict = {name: ("layer", values(LAYERS)) for name in ("load_cv", "share_entropy", "token_entropy")}
    for what in ("token", "domain"):
        made |= {f"{what}_information{part}": ("layer", values(LAYERS)) for part in ("", "_null", "_spread")}
    for by in ("domain", "speaker"):
        made[f"{by}_load"] = (by, "layer", "expert"), values(len(names), LAYERS, EXPERTS)
    made |= {"coactivation": (("layer", "expert", "other_expert"), values(LAYERS, EXPERTS, EXPERTS))}
    return xr.Dataset(made, axes(domain=list(names), speaker=list(names)), {"even_load": 0.25})


def vocabulary(tokens: Sequence[str]) -> xr.Dataset:
    n = len(tokens)
    made = {"share": (("layer", "expert", "vocab"), values(LAYERS, EXPERTS, n)), "count": ("vocab", np.arange(n))}
    return xr.Dataset(made, axes(token=("vocab", np.array(tokens, dtype=str))), {"min_count": 4})


def saturated() -> xr.Dataset:
    return xr.Dataset({name: ("layer", values(LAYERS)) for name in ("saturation", "chance", "first_slot")}, axes())


def contrasted() -> xr.Dataset:
    dims = ("layer", "expert")
    made = {"contrast": (dims, signed(LAYERS, EXPERTS)), "noise": (dims, values(LAYERS, EXPERTS))}
    return xr.Dataset(made | {"largest_noise": 0.2}, axes())


def paths(n: int = 5) -> xr.Dataset:
    dims, rng = ("layer", "expert", "next_expert"), np.random.default_rng(0)
    counts = rng.integers(0, 50, (LAYERS - 1, EXPERTS, EXPERTS))
    made = {"transitions": (dims, counts), "expected": (dims, values(LAYERS - 1, EXPERTS, EXPERTS) * 50)}
    made |= {"path_expert": (("path", "path_layer"), rng.integers(0, EXPERTS, (n, LAYERS)))}
    made |= {"path_count": ("path", np.arange(n, 0, -1)), "n_different": 31}
    at = {"layer": np.arange(LAYERS - 1), "path_layer": np.arange(LAYERS), "expert": np.arange(EXPERTS)}
    return xr.Dataset(made, at, {"n_tokens": 100})


def matched() -> xr.Dataset:
    dims, kinds = ("kind", "layer", "head"), ["previous_token", "duplicate_token", "induction"]
    share = values(3, LAYERS, HEADS)
    share[1, 0] = np.nan
    made = dict.fromkeys(("share", "mean", "mean_without_sink"), (dims, share))
    return xr.Dataset(made | {"sink": (dims[1:], values(LAYERS, HEADS))}, axes(kind=kinds))


def graph(tokens: Sequence[str], n_layers: int = 3) -> xr.Dataset:
    """A node of each kind at every position and layer; edges from each embedding, and from all to the logits."""
    n, last = len(tokens), FIRST + len(tokens) - 1
    nodes = [(f"embed@{pos}", "embed", -1, -1, pos) for pos in range(FIRST, FIRST + n)]
    for layer in range(n_layers):
        nodes += [(f"L{layer}H1@{pos}", "head", layer, 1, pos) for pos in range(FIRST, FIRST + n)]
        nodes += [(f"L{layer}E{e}@{last}", "expert", layer, e, last) for e in (0, 5)]
    targets = [*(node for node in nodes if node[1] != "embed"), ("logits", "logits", n_layers, -1, last)]
    flow = values(len(targets), len(nodes)) ** 3
    data = {"adjacency": (("target", "source"), values(len(targets), len(nodes), seed=1) - 0.5)}
    data |= {"edge_influence": (("target", "source"), flow / flow.sum()), "value": ((), 2.5)}
    data |= {
        name: ("source", values(len(nodes), seed=i) - 0.3 * i) for i, name in enumerate(("influence", "activation"))
    }
    data |= {f"{name}_share": ((), share) for name, share in (("embed", 0.5), ("bias", 0.1), ("error", 0.4))}
    at = coords(tokens)
    for dim, rows in (("source", nodes), ("target", targets)):
        names = zip(("", "_kind", "_layer", "_index", "_pos"), zip(*rows, strict=True), strict=True)
        at |= {f"{dim}{name}": (dim, np.array(column)) for name, column in names}
    return xr.Dataset(data, at, {"experiment": "attribution_graph", "target": f"logit of {tokens[0]!r}"})


def mediated(tokens: Sequence[str]) -> xr.Dataset:
    """An edit of two rows, three layers."""
    parts = {
        name: ("batch", values(2, seed=i)) for i, name in enumerate(("total", "routing", "content", "interaction"))
    }
    layers = {name: (("batch", "layer"), values(2, 3)) for name in ("layer_routing", "layer_interaction")}
    return xr.Dataset(parts | layers, {"batch": [0, 1], "layer": [0, 1, 2]}, {"metric": str(tokens[0])})


def faithful() -> xr.Dataset:
    """A curve over sizes."""
    size = np.array([0.0, 0.01, 0.1, 1.0])
    return xr.Dataset({"faithfulness": ("size", [0.0, 0.4, 0.9, 1.0]), "cpr": 0.9, "cmd": 0.1}, {"size": size})


def featured(tokens: Sequence[str]) -> xr.Dataset:
    """Thirty features, of which the figure shows the strongest."""
    return xr.Dataset(
        {"activation": (("pos", "feature"), values(len(tokens), 30))}, coords(tokens) | {"feature": np.arange(30)}
    )


def grid_of(words: Sequence[str]) -> xr.Dataset:
    """A sweep's dataset over layers, words and seeds; one cell was not measured."""
    values = np.arange(3 * len(words) * 2, dtype=float).reshape(3, len(words), 2)
    values[0, 0, 0] = np.nan
    coords = {"layer": range(3), "word": list(words), "seed": [0, 1]}
    return xr.Dataset({"value": (("layer", "word", "seed"), values)}, coords)
