"""The licence of everything that is installed with the workbench, written by `python -m tests.setup.licences`.

What a package says of itself in its metadata, as SPDX identifiers. A package that says nothing that is known here is
"unknown", which the tests refuse: look it up, and enter it below with where it says so.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "licences.md"
EXTRAS = ("scale", "pictures")  # what users install; the tests' own packages go to nobody
# Anything else needs a look: what a classifier says, and what stands in the old free field.
CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
}
WORDS = (
    (r"^MPL-2.0 AND MIT", "MPL-2.0 AND MIT"),
    (r"^MIT OR Apache-2.0", "MIT OR Apache-2.0"),
    (r"^MPL-2.0", "MPL-2.0"),
    (r"^(PSF|PSFL)\b", "PSF-2.0"),
    (r"^Apache\b|^Apache Software License", "Apache-2.0"),
    (r"^(BSD 2-Clause|BSD-2-Clause)", "BSD-2-Clause"),
    (r"^(BSD|3-Clause BSD|BSD 3-Clause|BSD-3-Clause)", "BSD-3-Clause"),
    (r"^(The )?MIT\b", "MIT"),
    (r"^ISC\b", "ISC"),
)
PERMISSIVE = set(
    "0BSD Apache-2.0 BSD-2-Clause BSD-3-Clause BSL-1.0 CC0-1.0 CNRI-Python HPND ISC LLVM-exception MIT MIT-0 MIT-CMU "
    "PSF-2.0 Python-2.0 Unlicense Zlib".split()
)
# Licences that ask for changes of their own files to be shared, and leave ours alone: allowed package by package.
WEAK = {
    "certifi": ("MPL-2.0", "a list of certificates, used as it is"),
    "fqdn": ("MPL-2.0", "checks names of hosts for Jupyter's schemas, used as it is"),
    "tqdm": ("MPL-2.0 AND MIT", "progress bars, used as they are"),
}


def closure(lines: Iterable[str]) -> dict[str, metadata.Distribution]:
    """Every package that is installed here because of these requirements, by name."""
    found: dict[str, metadata.Distribution] = {}
    left = [Requirement(line) for line in lines]
    seen: set[tuple[str, str]] = set()
    while left:
        wanted = left.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            try:
                found[name] = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                continue  # for another system
            needs = [Requirement(line) for line in found[name].requires or []]
            left += [need for need in needs if not need.marker or need.marker.evaluate({"extra": extra})]
    return found


def licence(package: metadata.Distribution) -> str:
    """Its licence as SPDX, or "unknown"."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    text = " ".join(str(about.get("License") or "").split())
    for pattern, known in WORDS:
        if re.search(pattern, text):
            return known
    classified = [
        line.split("::")[-1].strip() for line in about.get_all("Classifier") or [] if line.startswith("License ::")
    ]
    names = {CLASSIFIERS.get(line, "unknown") for line in classified if line != "OSI Approved"}
    return " AND ".join(sorted(names)) or "unknown"


def is_allowed(name: str, expression: str) -> bool:
    """Whether a package of this licence may be needed at run time."""
    if name in WEAK:
        return expression == WEAK[name][0]
    choices = re.split(r"\s+OR\s+", expression.replace("(", " ").replace(")", " ").strip())
    return any(set(re.split(r"\s+(?:AND|WITH)\s+", choice.strip())) <= PERMISSIVE for choice in choices)


def tables() -> dict[str, dict[str, str]]:
    """What needs them → package → licence. "workbench" comes first; an extra has what it adds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    core = closure(project["dependencies"])
    made = {"workbench": {name: licence(core[name]) for name in sorted(core)}}
    for extra in EXTRAS:
        more = closure(project["optional-dependencies"][extra])
        made[extra] = {name: licence(more[name]) for name in sorted(set(more) - set(core))}
    return made


HEAD = """\
# Licences of what is installed with the workbench

The workbench is Apache-2.0. Here is every package that `pip install gpt-oss-workbench` brings (on Linux, Python 3.11,
in the versions of `constraints.txt`), with the licence that its own metadata names, as SPDX identifiers; and what the
extras add. `make licences` writes this page again, and a test compares it with what is installed. Nothing here is under
the GPL, the LGPL or the AGPL. Three packages are under the Mozilla Public License 2.0, which asks for changes of their
own files to be shared and leaves other code alone.

Wheels of compiled packages carry libraries of others (netCDF4 brings HDF5, numpy and scipy bring OpenBLAS, torch brings
many): their notices are in those wheels. What is in the browser's bundle is in `workbench/widgets/static/licences.txt`.
"""


def page() -> str:
    """docs/licences.md."""
    parts = [HEAD]
    for what, packages in tables().items():
        title = "With the workbench" if what == "workbench" else f"With the extra `{what}`"
        rows = [f"| {name} | {spdx} |" for name, spdx in packages.items()]
        parts.append(
            "\n".join([f"## {title}: {len(packages)} packages\n", "| package | licence |", "|---|---|", *rows])
        )
    return "\n".join(part + "\n" for part in parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(f"{PAGE.relative_to(ROOT)}: {sum(map(len, tables().values()))} packages")
