"""Is it ready for strangers? `python -m tests.setup.release [CASE …]` builds it, installs it elsewhere and uses it.

| case | what is installed |
|---|---|
| wheel | the wheel that the sdist builds, with the versions of constraints.txt |
| no-compiler | the same from the sdist, where no C compiler is to be found |
| oldest | the lowest version of every direct dependency that pyproject.toml allows |
| newest | the highest that pip takes, but for torch: that is gigabytes of CUDA on Linux |
| python3.12, python3.13 (3.11) | the wheel on that interpreter, if it is on the PATH |

Each case has an environment of its own in a temporary folder (up to 8 GB on Linux, where pip's torch brings CUDA),
removed at its end; smoke.py, run there, says what an installation must do. Needs the network. A table, then JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import venv
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[3]
SMOKE = Path(__file__).with_name("smoke.py")
LARGEST_WHEEL = 12_000_000  # bytes
INTERPRETERS = ("python3.11", "python3.12", "python3.13")
COMPILERS = ("cc", "gcc", "clang", "c99", "tcc")


def lowest(extras: tuple[str, ...] = ()) -> list[str]:
    """name==version: the lower bound of every direct dependency."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    bounds = {}
    for requirement in map(Requirement, lines):
        (bound,) = (part.version for part in requirement.specifier if part.operator == ">=")
        bounds.setdefault(requirement.name, bound)
    return [f"{name}=={bound}" for name, bound in sorted(bounds.items())]


@dataclass
class Case:
    """One environment, and what became of it."""

    name: str
    interpreter: str
    pins: list[str]
    from_sdist: bool = False
    without_compiler: bool = False
    tests: tuple[str, ...] = ()
    found: dict[str, object] = field(default_factory=dict)

    def run(self, built: Path, folder: Path) -> None:
        """Install, use; raises CalledProcessError with what was said."""
        python = self._environment(folder)
        (folder / "pins.txt").write_text("\n".join(self.pins) + "\n", encoding="utf-8")
        (what,) = built.glob("*.tar.gz" if self.from_sdist else "*.whl")
        begun = time.monotonic()
        install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        self._call([*install, "-c", str(folder / "pins.txt"), str(what)], folder)
        self.found["install_seconds"] = round(time.monotonic() - begun)
        said = self._call([str(python), str(SMOKE)], folder)
        self.found |= json.loads(said.splitlines()[-1])
        assert self.found["from"] != str(ROOT / "workbench" / "__init__.py"), "the checkout was used"
        if self.without_compiler:
            assert "engine torch" in said, said
        if self.tests:
            self._call([*install, "-c", str(folder / "pins.txt"), f"{what}[test]"], folder)
            self._test(python, folder)

    def _environment(self, folder: Path) -> Path:
        place = folder / "environment"
        if self.interpreter == sys.executable:
            venv.create(place, with_pip=True)
        else:
            subprocess.run([self.interpreter, "-m", "venv", str(place)], check=True, capture_output=True)
        return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    def _test(self, python: Path, folder: Path) -> None:
        # The tests and what they read, but not the package: that one is the installed one.
        shutil.copytree(ROOT / "tests", folder / "tree" / "tests")
        shutil.copytree(ROOT / "data", folder / "tree" / "data")
        shutil.copy(ROOT / "pyproject.toml", folder / "tree")
        said = self._call([str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", *self.tests], folder / "tree")
        self.found["tests"] = said.splitlines()[-1]

    def _call(self, command: list[str], folder: Path) -> str:
        kept = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
        environment = kept | {"PYTHONDONTWRITEBYTECODE": "1", "WORKBENCH_PROGRESS": "off"}
        if self.without_compiler:
            environment |= {"PATH": without_compilers(folder), "CC": ""}
        form = {"capture_output": True, "encoding": "utf-8", "errors": "replace"}
        done = subprocess.run(command, cwd=folder, env=environment, **form)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
        return done.stdout


def without_compilers(folder: Path) -> str:
    """A PATH without one: links to every other program."""
    place = folder / "programs"
    if not place.exists():
        place.mkdir()
        for each in os.environ["PATH"].split(os.pathsep):
            for program in Path(each).glob("*"):
                if program.name not in COMPILERS and not (place / program.name).exists():
                    (place / program.name).symlink_to(program)
    return str(place)


def cases() -> dict[str, Case]:
    """All that can be tried here."""
    pins = [line for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines() if "==" in line]
    torch = [line for line in pins if line.startswith("torch==")]
    here = sys.executable
    tests = ("tests/text", "tests/prompts", "tests/interventions", "tests/checkpoints", "-m", "not slow")
    made = [
        Case("wheel", here, pins),
        Case("no-compiler", here, pins, from_sdist=True, without_compiler=True),
        Case("oldest", here, lowest(), tests=tests),
        Case("newest", here, torch),
    ]
    own = f"python{sys.version_info.major}.{sys.version_info.minor}"
    made += [Case(name, name, pins) for name in INTERPRETERS if name != own and runs(name)]
    return {case.name: case for case in made}


def runs(interpreter: str) -> bool:
    """Whether this is a Python that can make environments (a name on the PATH may be a shim that runs nothing)."""
    if shutil.which(interpreter) is None:
        return False
    return subprocess.run([interpreter, "-c", "import venv, ensurepip"], capture_output=True).returncode == 0


def build(folder: Path) -> dict[str, int]:
    """The sdist of the tree, and the wheel of that sdist; how large they are, in bytes."""
    hatch = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*hatch, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as unpacked:
        shutil.unpack_archive(sdist, unpacked, filter="data")
        (tree,) = Path(unpacked).iterdir()
        subprocess.run([*hatch, "-t", "wheel"], cwd=tree, check=True, capture_output=True)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert max(size for name, size in sizes.items() if name.endswith(".whl")) <= LARGEST_WHEEL, sizes
    return sizes


def main() -> int:
    """Every case that was named, or all."""
    known = cases()
    options = argparse.ArgumentParser(prog="python -m tests.setup.release")
    options.add_argument("case", nargs="*", help=f"of: {', '.join(known)} (default: all)")
    wanted = options.parse_args().case or list(known)
    if unknown := sorted(set(wanted) - set(known)):
        options.error(f"no {', '.join(unknown)} here; there are {', '.join(known)}")
    failed = []
    with tempfile.TemporaryDirectory(prefix="workbench-release-") as place:
        sizes = build(Path(place))
        for name, size in sizes.items():
            print(f"{name}: {size / 1e6:.1f} MB", flush=True)
        for case in map(known.__getitem__, wanted):
            with tempfile.TemporaryDirectory(prefix=f"workbench-{case.name}-", ignore_cleanup_errors=True) as folder:
                try:
                    case.run(Path(place), Path(folder))
                    said = f"ok, installed in {case.found['install_seconds']} s {case.found.get('tests', '')}"
                except Exception as error:
                    failed.append(case.name)
                    said = f"FAILED: {error}"
            print(f"{case.name:12} {said}", flush=True)
    found = {name: known[name].found for name in wanted}
    print(json.dumps({"sizes": sizes, "cases": found, "failed": failed}))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
