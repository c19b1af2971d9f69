"""Every comparison, one after the other; the README's table; the last line is JSON.

python -m tests.bench            all of it: up to 50 minutes on 2 cores, and 20 GB of disk for what it makes and keeps
python -m tests.bench --quick    small shapes, nothing to fetch or to build: under a minute
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path

from tests.bench.common import machine, readme
from tests.bench.common.options import Options, options_of, parser, show
from tests.bench.common.results import Part

SCRIPTS = (
    *("studies", "bench_widget", "bench_import", "bench_sweep", "bench_atlas"),
    *("nano", "random_110m", "moe_layer", "two_layers", "llama", "whole_20b"),
)
QUICK = ("nano", "random_110m")


def main() -> int:
    """Exit status 1 if a script broke; figures that fall short do not break it."""
    arguments = parser(__doc__)
    arguments.add_argument("--only", nargs="+", choices=SCRIPTS, default=None, help="some of the scripts")
    arguments.add_argument("--readme", action="store_true", help="put a whole run's figures into the README's table")
    given = arguments.parse_args()
    options, start = options_of(given), time.perf_counter()
    here = machine.describe(options.threads)
    print(machine.warning(here) + machine.sentence(here), flush=True)
    parts: list[Part] = []
    broken: dict[str, str] = {}
    for name in given.only or (QUICK if options.quick else SCRIPTS):
        parts += _parts_of(name, options, broken)
    _conclude(parts)
    if given.readme and not (broken or given.only or options.quick):  # the table is one whole run, or stays as it is
        readme.write(Path(__file__).resolve().parents[2] / "README.md", here, parts)
    seconds = round(time.perf_counter() - start)
    record = {"machine": here, "seconds": seconds, "malloc": options.malloc, "broken": broken}
    print(json.dumps(record | {"parts": {part.name: part.as_json() for part in parts}}))
    return 1 if broken else 0


def _parts_of(name: str, options: Options, broken: dict[str, str]) -> list[Part]:
    script = import_module(f"tests.bench.{name}")
    try:
        found = script.run(options)
    except Exception as error:
        traceback.print_exc()
        broken[name] = f"{type(error).__name__}: {error}"
        return []
    for part in found:
        show(part)
    return found


def _conclude(parts: list[Part]) -> None:
    print("what was asked for")
    for part in parts:
        for demand in part.demands:
            print(f"  {part.name:28} {demand.line()}")
    print(flush=True)


if __name__ == "__main__":
    sys.exit(main())
