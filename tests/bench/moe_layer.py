"""One MoE layer of the real 20b shape on packed experts: each engine against the roofline.

The roofline is max(packed bytes of the experts hit ÷ read bandwidth, operations ÷ bfloat16 GEMM rate). Both rates are
measured in the same rounds; the bandwidth on memory-mapped file pages, where the experts lie. Best over best.

python -m tests.bench.moe_layer
"""

from __future__ import annotations

from dataclasses import replace

from tests.bench.common import roofline
from tests.bench.common.checkpoints import in_page_cache, synth_20b
from tests.bench.common.options import Options, main
from tests.bench.common.process import Failed
from tests.bench.common.results import Demand, Part
from tests.bench.common.rounds import Bench, Subject, Work

SIZES = (1, 16, 128, 1024)
ASKED = {"native": {1: 0.50, 128: 0.35, 1024: 0.45}, "eager": {1: 0.03, 128: 0.05, 1024: 0.25}}


def run(options: Options) -> list[Part]:
    """With malloc as a user finds it, and tuned."""
    kinds = ("default", "tuned") if options.malloc == "default" and not options.quick else (options.malloc,)
    return [_one(replace(options, malloc=malloc)) for malloc in kinds]


def _one(options: Options) -> Part:
    tuned = ", malloc tuned" if options.malloc == "tuned" else ""
    part = Part(f"MoE layer{tuned}", f"one MoE layer of the real 20b shape, bfloat16{tuned}", list(ASKED))
    try:
        path = synth_20b(options.folder / "synth20b-2layers", layers=2)
    except Failed as failure:
        part.notes.append(f"not run: {failure}")
        return part
    in_page_cache(path)
    options.say(part.title)
    how = {"path": str(path), "dtype": "bfloat16"}
    engines = [Subject(name, "moe", how, loads=False, environment={"WORKBENCH_ENGINE": name}) for name in ASKED]
    shape = roofline.Shape.of(path, "bfloat16")
    with Bench(part, [*engines, roofline.subject(path)], options.threads, options.malloc, options.say) as bench:
        bench.load(1)
        for count in [size for size in SIZES if size <= (16 if options.quick else options.longest)]:
            _measure(bench, count, options.rounds or (2 if options.quick else 5))
            asker = next((name for name in ASKED if name in part.about), None)
            hits = bench.question(asker, "hits", count=count)["hits"] if asker else 0.0
            for name in ASKED:
                _judge(part, shape, name, count, hits)
    for name in ASKED:
        del part.cells["load", 0, name]
    roofline.finish(part)
    return part


def _measure(bench: Bench, count: int, rounds: int) -> None:
    work = Work("layer", count, only=tuple(ASKED), answer="answer")
    bench.compare(work, {"count": count})
    for number in range(rounds):
        bench.measure(work, {"count": count}, rounds=1, quiet=number < rounds - 1)
        roofline.measure(bench, "bfloat16")


def _judge(part: Part, shape: roofline.Shape, name: str, count: int, hits: float) -> None:
    n_bytes = hits * shape.one_expert * shape.expert_bytes
    operations = 2.0 * count * shape.experts_per_token * shape.one_expert
    fraction = roofline.note(part, "layer", count, n_bytes, operations, name)
    target = ASKED[name].get(count)
    if target is not None:
        percent = None if fraction is None else 100 * fraction
        text = f"{name} engine, {count} token{'s' if count > 1 else ''}: share of the roofline"
        why = (part.cells["layer", count, name].error or "") if ("layer", count, name) in part.cells else "not loaded"
        part.demands.append(Demand(text, percent, 100 * target, unit=" %", why=why))


if __name__ == "__main__":
    main(run, __doc__)
