"""What people install: the wheel and the sdist, built once here, and the wheel used away from the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from workbench.model.engines.native.build import LIBRARY, BuildError, compiler

NATIVE = "workbench/model/engines/native"

OFFLINE = """
import socket
def refuse(*_): raise AssertionError("a connection was tried")
socket.socket.connect = socket.socket.connect_ex = refuse
"""


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one wheel and one sdist of the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build(root, folder)
    return folder


def build(tree: Path, folder: Path, *targets: str, **environment: str) -> str:
    """Wheel and sdist, or the targets named; what the builder says."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder), *targets]
    environment = {**os.environ, **environment}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def has_compiler() -> bool:
    try:
        return bool(compiler())
    except BuildError:
        return False


@pytest.fixture
def source(built: Path, tmp_path: Path) -> Path:
    """The sdist, unpacked."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "source", filter="data")
    (tree,) = (tmp_path / "source").iterdir()
    return tree


def wheel_names(folder: Path) -> set[str]:
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked into a fresh folder, as pip lays it out."""
    target = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet", "--target", str(target)]
    subprocess.run([*command, *map(str, built.glob("*.whl"))], check=True, capture_output=True, timeout=300)
    return target


def run(code: str, installed: Path, cwd: Path) -> str:
    """The output of Python code that sees the installed wheel before any checkout."""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("WORKBENCH_NATIVE_LIBRARY", None)  # the tests of the engine set it for this process
    command = [sys.executable, "-c", OFFLINE + code]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files_of(folder: Path, *suffixes: str) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name not in {".gitkeep", ".DS_Store"})
    found = (path for path in found if path.suffix not in {".so", ".dylib", ".dll"})  # built here, in no repository
    hidden = {"__pycache__", ".ipynb_checkpoints", ".ruff_cache"}
    names = {path.relative_to(folder) for path in found if not hidden & set(path.parts)}
    return {name.as_posix() for name in names if not suffixes or name.suffix in suffixes}


def notebooks_of(root: Path) -> set[str]:
    """The notebooks, without the files that they write when they are run."""
    names = files_of(root / "notebooks")
    return {name for name in names if not name.startswith(("ablation-study/", "lessons/lesson-progress"))}


def test_the_wheel_holds_the_package_the_model_the_notebooks_the_library_and_nothing_else(
    built: Path, root: Path, has_compiler: bool
):
    # The sources of the JavaScript stay at home: its bundle is what runs.
    code = {f"workbench/{name}" for name in files_of(root / "workbench") if not name.startswith("widgets/js/")}
    model = {f"workbench/_data/nano/{name}" for name in files_of(root / "data/nano")}
    notebooks = {f"workbench/_notebooks/{name}" for name in notebooks_of(root)}
    library = {f"{NATIVE}/{LIBRARY}"} if has_compiler else set()
    inside = {name for name in wheel_names(built) if ".dist-info/" not in name}
    assert inside == code | model | notebooks | library
    needed = {"py.typed", "_data/nano/model.safetensors", "_data/nano/tokenizer.json", "_notebooks/00_start.ipynb"}
    needed |= {"_notebooks/lessons/01_build_gpt_oss.ipynb", "lessons/measured.json"}
    assert {f"workbench/{name}" for name in needed} <= inside


def test_the_wheel_fits_this_machine_and_any_python_3(built: Path, has_compiler: bool):
    (wheel,) = built.glob("*.whl")
    _, _, interpreter, abi, platform = wheel.stem.split("-")
    assert (interpreter, abi) == ("py3", "none")
    own = {tag.platform for tag in sys_tags() if "linux" not in tag.platform or tag.platform.startswith("linux_")}
    assert platform in (own - {"any"} if has_compiler else {"any"})


@pytest.mark.parametrize("command", ["no-such-compiler", "false"])
def test_without_a_working_compiler_the_wheel_has_no_library_fits_every_system_and_says_so(
    source: Path, tmp_path: Path, command: str
):
    said = build(source, tmp_path / "dist", "-t", "wheel", CC=command)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert f"{NATIVE}/{LIBRARY}" not in wheel_names(tmp_path / "dist")
    (line,) = [line for line in said.splitlines() if "native" in line]
    assert f"installed without the native engine (torch is used): the C compiler {command}" in line


def test_an_editable_install_builds_the_library_where_it_is_looked_for(
    source: Path, tmp_path: Path, has_compiler: bool
):
    library, stale = source / NATIVE / LIBRARY, b"built from other sources"
    assert not library.exists()
    library.write_bytes(stale)
    code = "from hatchling.build import build_editable; print(build_editable('.'))"
    subprocess.run([sys.executable, "-c", code], cwd=source, check=True, capture_output=True, timeout=300)
    assert (library.read_bytes() != stale) == has_compiler


def test_the_sdist_alone_builds_the_same_wheel(built: Path, source: Path, tmp_path: Path):
    build(source, tmp_path / "dist", "-t", "wheel")
    assert wheel_names(tmp_path / "dist") == wheel_names(built)
    assert (source / "tests" / "conftest.py").exists()
    assert (source / "constraints.txt").exists()


def test_the_installed_wheel_has_the_native_engine(installed: Path, tmp_path: Path, has_compiler: bool):
    code = "from workbench.model.engines import native; print(native.library_path(), native.available())"
    path, available = run(code, installed, tmp_path).rsplit(maxsplit=1)
    assert Path(path).is_relative_to(installed)
    assert (available == "True") == has_compiler


def test_the_installed_wheel_loads_nano_without_a_network_or_the_checkout(installed: Path, tmp_path: Path):
    code = "import workbench as wb; m = wb.load('nano'); print(wb.__file__, tuple(m(m.to_tokens('Mia')).shape)[-1])"
    file, d_vocab = run(code, installed, tmp_path).split()
    assert Path(file).is_relative_to(installed)
    assert int(d_vocab) > 100


def test_the_installed_wheel_copies_its_notebooks_into_the_users_folder(installed: Path, tmp_path: Path, root: Path):
    code = """
from workbench import cli
cli.lab.wait = lambda command: print("serves", *command[3:]) or 0
cli.main(["lab", "--no-browser"])
"""
    shown = run(code, installed, tmp_path)
    copies = tmp_path / "workbench-notebooks"
    assert files_of(copies) == notebooks_of(root)
    assert (copies / "00_start.ipynb").read_bytes() == (root / "notebooks" / "00_start.ipynb").read_bytes()
    assert f"serves --ServerApp.root_dir={copies.resolve()} --LabApp.default_url=/lab/tree/00_start.ipynb" in shown


def test_the_wheel_brings_the_workbench_command(built: Path):
    (wheel,) = built.glob("*.whl")
    (name,) = [name for name in wheel_names(built) if name.endswith("entry_points.txt")]
    assert "workbench = workbench.cli:main" in zipfile.ZipFile(wheel).read(name).decode()
