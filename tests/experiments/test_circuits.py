"""Circuits: as objects, run alone beside brute force, and scored beside sums by hand."""

import itertools
import json

import numpy as np
import pytest
import torch
import xarray as xr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from tests.experiments.pairs import RIGHT, WRONG, cached, difference, exact_model, far, written
from workbench.experiments.circuits.circuit import Circuit, auroc, compare_circuits
from workbench.experiments.circuits.faithfulness import completeness, faithfulness, faithfulness_curve, minimality
from workbench.experiments.circuits.runs import all_edges, run_circuit
from workbench.experiments.nodes import Node, all_nodes, all_receivers
from workbench.experiments.patching.paths import path_patching
from workbench.model import HookedGptOss
from workbench.prompts import Pair

EVERY = ("embed", "head", "expert")


@pytest.fixture(scope="module")
def model() -> HookedGptOss:
    return exact_model(n_layers=2, n_experts=3).requires_grad_(False)


@pytest.fixture(scope="module")
def texts(model: HookedGptOss, seed: int) -> tuple[Tensor, Tensor]:
    return far(model, seed)


@pytest.fixture(scope="module")
def pairs(model: HookedGptOss, seed: int) -> list[Pair]:
    """Three, of two lengths."""
    made = []
    for i, length in enumerate((9, 9, 7)):
        clean, corrupt = (tuple(side[0, :length].tolist()) for side in far(model, seed + i))
        made.append(Pair(clean, corrupt, RIGHT + i, WRONG + i))
    return made


def random_nodes(model: HookedGptOss, seed: int, kinds: tuple[str, ...] = EVERY, n_pos: int | None = 9) -> list[Node]:
    nodes = all_nodes(model.config, n_pos, kinds)
    chosen = np.random.default_rng(seed).random(len(nodes)) < 0.5
    return [node for node, take in zip(nodes, chosen, strict=True) if take]


def by_brute_force(model: HookedGptOss, nodes: list[Node], texts: tuple[Tensor, Tensor], ablation: str) -> Tensor:
    """Layer by layer, position by position: what is in writes live, what is out writes its reference."""
    live = {(node.kind, node.layer, node.index, node.pos) for node in nodes}
    reference = cached(model, texts[1])

    def given(kind: str, layer: int | None, index: int | None) -> Tensor:
        write = written(model, reference, kind, layer, index)
        return {"corrupt": write, "mean": write.mean(0, keepdim=True).expand_as(write), "zero": 0 * write}[ablation]

    def embed(x: Tensor, hook: object) -> Tensor:
        rows = [x[0, p] if ("embed", None, None, p) in live else given("embed", None, None)[p] for p in range(9)]
        return torch.stack(rows)[None]

    def attention(layer: int):
        def put(result: Tensor, hook: object) -> Tensor:
            made = result.clone()
            for head, pos in itertools.product(range(4), range(9)):
                if ("head", layer, head, pos) not in live:
                    made[0, pos, head] = given("head", layer, head)[pos]
            return made

        return put

    seen: dict[str, Tensor] = {}

    def experts(layer: int):
        def put(x: Tensor, hook: object) -> Tensor:
            made = torch.zeros_like(x)
            at = f"blocks.{layer}.mlp.hook_expert_"
            for expert, pos in itertools.product(range(3), range(9)):
                if ("expert", layer, expert, pos) in live:
                    for slot in range(2):
                        if seen[f"{at}indices"][0, pos, slot] == expert:
                            made[0, pos] += seen[f"{at}weights"][0, pos, slot] * seen[f"{at}out"][0, pos, slot]
                else:
                    made[0, pos] += given("expert", layer, expert)[pos]
            return made

        return put

    hooks = [("hook_embed", embed)]
    for layer in range(2):
        hooks.append((f"blocks.{layer}.attn.hook_result", attention(layer)))
        sites = [f"blocks.{layer}.mlp.hook_expert_{part}" for part in ("indices", "weights", "out")]
        hooks += [(site, lambda x, hook: seen.__setitem__(hook.name, x)) for site in sites]
        hooks.append((f"blocks.{layer}.hook_mlp_out", experts(layer)))
    with torch.no_grad():
        return model.run_with_hooks(texts[0], fwd_hooks=hooks)[:, -1]


# ------------------------------------------------------------------------------------------------------ as objects


def test_a_circuit_is_a_set_of_names_that_goes_to_json_and_back(tmp_path) -> None:
    one = Circuit(("L1E5@3", Node("head", 0, 2), "embed", "L0H2"), name="one", about={"from": "a test"})
    assert one.parts == ("L0H2", "L1E5@3", "embed") and len(one) == 3 and "L0H2" in one
    one.save(tmp_path / "one.json")
    again = Circuit.load(tmp_path / "one.json")
    assert again == one and hash(again) == hash(one) and (again.name, again.about) == ("one", {"from": "a test"})
    other = Circuit(("L0H2", "L0H3"))
    assert (one | other).parts == ("L0H2", "L0H3", "L1E5@3", "embed")
    assert (one & other).parts == ("L0H2",) and (one - other).parts == ("L1E5@3", "embed")
    edges = Circuit((("embed", "L0H1.q"), "L0H1->logits"), of="edges")
    assert Circuit.from_json(edges.to_json()) == edges and edges.parts == ("L0H1->logits", "embed->L0H1.q")
    assert [node.name for node in edges.nodes] == ["L0H1", "embed"]
    with pytest.raises(AttributeError):
        one.parts = ()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("parts", "of", "message"),
    [
        (("L1X2",), "nodes", "'L1X2' names no node"),
        (("L0H1",), "edges", "'L0H1' names no edge: expected one like 'L0H1->L1H7.q'"),
        (("L1H1->L1H2.q",), "edges", "L1H2.q reads before L1H1 writes"),
        (("L0H1@3->L1H2.q",), "edges", "holds at all positions"),
        (("L0attn->L1H2.q",), "edges", "edges lead from embed, a head or an expert"),
    ],
)
def test_what_is_no_part_is_refused(parts: tuple, of: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Circuit(parts, of)


@pytest.mark.parametrize("text", ["no json", "[]", "{}", json.dumps({"format": "workbench circuit 1", "parts": 3})])
def test_a_file_of_something_else_is_no_circuit(text: str, tmp_path) -> None:
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(ValueError, match=r"file\.json: this is no circuit"):
        Circuit.load(tmp_path / "file.json")


def test_two_circuits_are_compared_part_by_part() -> None:
    found = compare_circuits(Circuit(("L0H1", "L0H2", "L1E0")), Circuit(("L0H2", "L1E0", "L1E1", "embed")))
    assert float(found.jaccard) == 2 / 5 and float(found.precision) == 2 / 3 and float(found.recall) == 2 / 4
    assert list(found.part.values[found.in_first.values & ~found.in_second.values]) == ["L0H1"]
    with pytest.raises(ValueError, match="they share no kind of part"):
        compare_circuits(Circuit(("L0H1",)), Circuit(("L0H1->logits",), "edges"))


def test_auroc_is_scikit_learns(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(50):
        n = int(random.integers(2, 60))
        scores, truth = random.integers(-5, 6, n) / 3, random.random(n) < 0.3
        truth[:2] = [True, False]
        assert auroc(scores, truth) == pytest.approx(roc_auc_score(truth, scores))
        names = {f"L0H{i}": float(score) for i, score in enumerate(scores)}
        assert auroc(names, [f"L0H{i}" for i in np.flatnonzero(truth)]) == pytest.approx(auroc(scores, truth))
    with pytest.raises(ValueError, match="2 of 2 true"):
        auroc([0.1, 0.2], [True, True])
    with pytest.raises(ValueError, match="no score for \\['L9H9'\\]"):
        auroc({"L0H0": 1.0}, ["L9H9"])


# -------------------------------------------------------------------------------------------------------- run alone


@pytest.mark.parametrize("ablation", ["corrupt", "mean", "zero"])
def test_a_circuit_of_nodes_is_what_brute_force_makes_it(
    model: HookedGptOss, texts: tuple[Tensor, Tensor], ablation: str, seed: int
) -> None:
    nodes = random_nodes(model, seed)
    found = run_circuit(model, Circuit(tuple(nodes)), *texts, ablation=ablation, kinds=EVERY)
    torch.testing.assert_close(found, by_brute_force(model, nodes, texts, ablation), atol=1e-12, rtol=0)
    others = [node for node in all_nodes(model.config, 9, EVERY) if node not in nodes]
    without = run_circuit(model, Circuit(tuple(nodes)), *texts, ablation=ablation, kinds=EVERY, without=True)
    torch.testing.assert_close(without, by_brute_force(model, others, texts, ablation), atol=1e-12, rtol=0)


def test_kinds_that_are_not_taken_out_always_work(model: HookedGptOss, texts: tuple[Tensor, Tensor], seed: int) -> None:
    nodes = random_nodes(model, seed, ("head",))
    found = run_circuit(model, Circuit(tuple(nodes)), *texts, kinds=("head",))
    rest = all_nodes(model.config, 9, ("embed", "expert"))
    torch.testing.assert_close(found, by_brute_force(model, [*nodes, *rest], texts, "corrupt"), atol=1e-12, rtol=0)


def test_layers_stand_for_their_heads_and_experts(model: HookedGptOss, texts: tuple[Tensor, Tensor]) -> None:
    whole = Circuit(("L0attn", "L1mlp@8", "embed"))
    spelled = Circuit((*(f"L0H{i}" for i in range(4)), *(f"L1E{i}@8" for i in range(3)), "embed"))
    one, other = (run_circuit(model, circuit, *texts, kinds=EVERY) for circuit in (whole, spelled))
    assert torch.equal(one, other)


@pytest.mark.parametrize("of", ["nodes", "edges"])
def test_all_of_it_is_the_clean_run_and_none_of_it_the_corrupted_one(
    model: HookedGptOss, texts: tuple[Tensor, Tensor], of: str
) -> None:
    for without, text in ((True, texts[0]), (False, texts[1])):
        found = run_circuit(model, Circuit((), of), *texts, kinds=EVERY, without=without)
        torch.testing.assert_close(found, model(text)[:, -1], atol=1e-12, rtol=0)
    parts = all_edges(model.config) if of == "edges" else all_nodes(model.config, 9, EVERY)
    found = run_circuit(model, Circuit(tuple(parts), of), *texts, kinds=EVERY)
    torch.testing.assert_close(found, model(texts[0])[:, -1], atol=1e-12, rtol=0)


@pytest.mark.parametrize("ablation", ["corrupt", "mean", "zero"])
def test_all_edges_out_of_some_nodes_are_the_circuit_of_those_nodes(
    model: HookedGptOss, texts: tuple[Tensor, Tensor], ablation: str, seed: int
) -> None:
    nodes = random_nodes(model, seed, n_pos=None)
    readers = all_receivers(model.config)
    edges = Circuit(tuple((node, reader) for node in nodes for reader in readers if reader.reads(node)), "edges")
    of_edges = run_circuit(model, edges, *texts, ablation=ablation)
    of_nodes = run_circuit(model, Circuit(tuple(nodes)), *texts, ablation=ablation, kinds=EVERY)
    torch.testing.assert_close(of_edges, of_nodes, atol=1e-12, rtol=0)


@pytest.mark.parametrize("reader", ["L1H2.q", "L1KV1.k", "L1KV0.v", "L1router", "L1E1.in", "L1E0.in", "logits"])
def test_one_edge_and_all_that_follows_it_is_path_patching(
    model: HookedGptOss, texts: tuple[Tensor, Tensor], reader: str
) -> None:
    direct = Circuit((f"embed->{reader}",), "edges")
    follow = ("L1H", "L1E") if reader[-1] in "qkv" else "L1E"
    later = [edge for edge in all_edges(model.config) if edge.startswith(follow)]
    found = run_circuit(model, direct | Circuit(tuple(later), "edges"), *texts)
    expected = path_patching(model, *texts, (RIGHT, WRONG), ["embed"], [reader], progress=False)
    assert float(difference(found)[0]) == pytest.approx(float(expected.metric[0, 0]), abs=1e-11)


def test_rows_do_not_mix(model: HookedGptOss, seed: int) -> None:
    clean, corrupt = (torch.cat(sides) for sides in zip(far(model, seed), far(model, seed + 1), strict=True))
    for circuit in (Circuit(("L0H1", "L1E0")), Circuit(("embed->L0H1.q", "L0H1->logits"), "edges")):
        together = run_circuit(model, circuit, clean, corrupt)
        alone = [run_circuit(model, circuit, clean[i : i + 1], corrupt[i : i + 1]) for i in range(2)]
        torch.testing.assert_close(together, torch.cat(alone), atol=1e-12, rtol=0)


def test_what_does_not_fit_is_refused(model: HookedGptOss, texts: tuple[Tensor, Tensor]) -> None:
    for circuit, given, kwargs, message in [
        (Circuit(("L7H1",)), texts, {}, "layer=7"),
        (Circuit(("L0H1@9",)), texts, {}, "pos=9 of L0H1@9"),
        (Circuit(("embed",)), texts, {}, "embed is of kind 'embed', and kinds="),
        (Circuit(("L0H1",)), (texts[0], texts[1][:, 1:]), {}, "expected as many"),
        (Circuit(("L0H1",)), texts, {"kinds": ("attn",)}, "expected some of"),
    ]:
        with pytest.raises(ValueError, match=message):
            run_circuit(model, circuit, *given, **kwargs)
    assert not model.list_hooks()


# ------------------------------------------------------------------------------------------------------------ scored


def metric_of(model: HookedGptOss, circuit: Circuit, pairs: list[Pair], **kwargs) -> np.ndarray:
    found = []
    for pair in pairs:
        logits = run_circuit(model, circuit, torch.tensor([pair.clean]), torch.tensor([pair.corrupt]), **kwargs)[0]
        found.append(float(logits[pair.right] - logits[pair.wrong]))
    return np.array(found)


def test_faithfulness_is_the_ratio_of_means(model: HookedGptOss, pairs: list[Pair], seed: int) -> None:
    circuits = [Circuit(tuple(random_nodes(model, seed + i, ("head", "expert"), None))) for i in range(4)]
    data = faithfulness(model, circuits, pairs, progress=False)
    empty, whole = (metric_of(model, Circuit(()), pairs, without=without) for without in (False, True))
    with torch.no_grad():
        clean = [float(model(torch.tensor([p.clean]))[0, -1] @ _one(p)) for p in pairs]
    np.testing.assert_allclose(data.whole, clean, atol=1e-12)
    np.testing.assert_allclose(data.empty, empty, atol=1e-12)
    for i, circuit in enumerate(circuits):
        each = metric_of(model, circuit, pairs)
        np.testing.assert_allclose(data.metric[i], each, atol=1e-12)
        share = (each.mean() - empty.mean()) / (whole.mean() - empty.mean())
        assert float(data.faithfulness[i]) == pytest.approx(share, abs=1e-10)


def _one(pair: Pair) -> Tensor:
    made = torch.zeros(40, dtype=torch.float64)
    made[pair.right], made[pair.wrong] = 1, -1
    return made


def test_the_curve_and_its_areas_are_sums_by_hand(model: HookedGptOss, pairs: list[Pair], seed: int) -> None:
    random, nodes = np.random.default_rng(seed), all_nodes(model.config, kinds=("head", "expert"))
    scores = {node.name: float(random.normal()) for node in nodes}
    sizes = (0, 0.1, 0.25, 0.5, 1)
    for absolute in (True, False):
        data = faithfulness_curve(model, scores, pairs, sizes=sizes, absolute=absolute, progress=False)
        order = sorted(scores, key=lambda name: -(abs(scores[name]) if absolute else scores[name]))
        counts = [round(size * len(order)) for size in sizes]
        shares = [n / len(order) for n in counts]
        circuits = [Circuit(tuple(order[:n])) for n in counts]
        f = faithfulness(model, circuits, pairs, progress=False).faithfulness.values
        np.testing.assert_allclose(data.faithfulness, f, atol=1e-12)
        assert f[0] == pytest.approx(0, abs=1e-12) and f[-1] == pytest.approx(1, abs=1e-12)
        steps = list(itertools.pairwise(zip(shares, f, strict=True)))
        cpr = sum((k2 - k1) * (f1 + f2) / 2 for (k1, f1), (k2, f2) in steps)
        cmd = sum((k2 - k1) * (abs(1 - f1) + abs(1 - f2)) / 2 for (k1, f1), (k2, f2) in steps)
        assert float(data.cpr) == pytest.approx(cpr, abs=1e-12) and float(data.cmd) == pytest.approx(cmd, abs=1e-12)


def test_edges_have_a_curve_too(model: HookedGptOss, pairs: list[Pair], seed: int) -> None:
    edges = list(all_edges(model.config))
    np.random.default_rng(seed).shuffle(edges)
    data = faithfulness_curve(model, edges, pairs[:1], of="edges", sizes=(0, 0.5, 1), progress=False)
    assert float(data.faithfulness[-1]) == pytest.approx(1, abs=1e-10)
    half = faithfulness(model, Circuit(tuple(edges[: round(len(edges) / 2)]), "edges"), pairs[:1], progress=False)
    assert float(data.faithfulness[1]) == pytest.approx(float(half.faithfulness[0]), abs=1e-12)


def test_minimality_is_what_each_part_is_worth_to_the_circuit(model: HookedGptOss, pairs: list[Pair]) -> None:
    circuit = Circuit(("L0H0", "L0E1", "L1H3", "L1E2"))
    data = minimality(model, circuit, pairs, progress=False)
    empty, whole = (metric_of(model, Circuit(()), pairs, without=w).mean() for w in (False, True))
    for part in circuit:
        pair = [metric_of(model, some, pairs).mean() for some in (circuit, circuit - Circuit((part,)))]
        assert float(data.worth.sel(part=part)) == pytest.approx((pair[0] - pair[1]) / (whole - empty), abs=1e-10)


def test_completeness_compares_the_broken_circuit_with_the_broken_model(model: HookedGptOss, pairs: list[Pair]) -> None:
    circuit = Circuit(("L0H0", "L0E1", "L1H3", "L1E2"))
    sets = [Circuit(("L0H0",)), Circuit(("L1H3", "L1E2")), Circuit(())]
    data = completeness(model, circuit, pairs, taken_out=sets, progress=False)
    empty, whole = (metric_of(model, Circuit(()), pairs, without=w).mean() for w in (False, True))
    every = all_nodes(model.config, kinds=("head", "expert"))
    for i, some in enumerate(sets):
        left = Circuit(tuple(node for node in every if node.name not in some))
        f = [(metric_of(model, c, pairs).mean() - empty) / (whole - empty) for c in (circuit - some, left)]
        assert float(data.circuit[i]) == pytest.approx(f[0], abs=1e-10)
        assert float(data.model[i]) == pytest.approx(f[1], abs=1e-10)
        assert float(data.gap[i]) == pytest.approx(abs(f[0] - f[1]), abs=1e-10)
    with pytest.raises(ValueError, match="are taken out and not in the circuit"):
        completeness(model, circuit, pairs, taken_out=[Circuit(("L0H2",))])
    drawn = [completeness(model, circuit, pairs, n=4, seed=s, progress=False) for s in (1, 1)]
    assert drawn[0].equals(drawn[1])


def test_scores_can_be_stored_and_what_cannot_be_scored_is_refused(
    model: HookedGptOss, pairs: list[Pair], tmp_path
) -> None:
    data = faithfulness(model, Circuit(("L0H0",), name="one"), pairs, progress=False)
    data.to_netcdf(tmp_path / "f.nc")
    with xr.open_dataset(tmp_path / "f.nc") as again:
        assert again.faithfulness.equals(data.faithfulness) and list(again.circuit.values) == ["one"]
    for circuits, message in (
        ([], "0 circuits"),
        ([Circuit(()), Circuit((), "edges")], "all of nodes or all of edges"),
    ):
        with pytest.raises(ValueError, match=message):
            faithfulness(model, circuits, pairs)
    with pytest.raises(ValueError, match="no pairs"):
        faithfulness(model, Circuit(()), [])
    with pytest.raises(ValueError, match="pair 0: clean has 9 tokens and corrupt 8"):
        faithfulness(model, Circuit(()), [Pair(pairs[0].clean, pairs[0].corrupt[1:], 1, 2)])
    with pytest.raises(ValueError, match="expected at least two shares from 0 to 1"):
        faithfulness_curve(model, ["L0H0"], pairs, sizes=(0, 2))


def test_the_mean_is_over_the_corrupted_texts_of_all_pairs_whatever_their_lengths(
    model: HookedGptOss, pairs: list[Pair]
) -> None:
    caches = [cached(model, torch.tensor([pair.corrupt])) for pair in pairs]
    sites = [f"blocks.{layer}.attn.hook_z" for layer in range(model.config.n_layers)]
    means = {site: torch.cat([cache[site][0] for cache in caches]).mean(0) for site in sites}
    hooks = [(site, lambda z, hook: means[hook.name].expand_as(z)) for site in sites]
    logits = [model.run_with_hooks(torch.tensor([pair.clean]), fwd_hooks=hooks)[0, -1] for pair in pairs]
    truth = [float(row[pair.right] - row[pair.wrong]) for row, pair in zip(logits, pairs, strict=True)]
    data = faithfulness(model, Circuit(), pairs, ablation="mean", kinds=("head",), progress=False)
    np.testing.assert_allclose(data.empty, truth, rtol=1e-5, atol=1e-5)  # float32, summed in another order


def test_a_metric_that_names_a_token_a_pair_fits_pairs_of_several_lengths(
    model: HookedGptOss, pairs: list[Pair]
) -> None:
    named = ([pair.right for pair in pairs], [pair.wrong for pair in pairs])
    mixed = pairs[::-1]  # the short one first: batches are by length, and not in the order of the pairs
    for given, metric in ((pairs, named), (mixed, tuple(tokens[::-1] for tokens in named))):
        got = faithfulness(model, Circuit(("L0H1",)), given, metric, progress=False)
        own = faithfulness(model, Circuit(("L0H1",)), given, progress=False)
        np.testing.assert_array_equal(got.metric, own.metric)
    with pytest.raises(ValueError, match="names 2 tokens, one a row, and there are 3 prompts"):
        faithfulness(model, Circuit(), pairs, ([1, 2], [3, 4]), progress=False)


def test_what_is_no_pair_is_refused(model: HookedGptOss) -> None:
    with pytest.raises(ValueError, match=r"pairs\[0\] is str: expected clean and corrupt"):
        faithfulness(model, Circuit(), ["a text"], progress=False)
