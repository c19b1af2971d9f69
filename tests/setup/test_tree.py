"""What may lie in the repository: known names at the top, small files, notebooks that show nothing private."""

import re
import shutil
import subprocess
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES_AT_THE_TOP = {
    "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md",
    "constraints.txt", "pyproject.toml", "setup.py",
}  # fmt: skip
FOLDERS_AT_THE_TOP = {"data", "docs", "notebooks", "tests", "workbench"}
LARGEST_FILE = 4_500_000  # bytes
LARGEST_MODEL = 6_000_000  # bytes, all of data/nano
PRIVATE = {
    "a path of one machine": re.compile(r"/(home|Users|root|tmp|private|mnt)/\w|[A-Z]:\\+Users\\+|site-packages/"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "another service's key": re.compile(r"\b(sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|AKIA[0-9A-Z]{16})"),
}


def project_files() -> list[Path]:
    """What git tracks; before the first commit what it would track; without git all but hidden folders."""
    for others in ([], ["--others", "--exclude-standard"]) if shutil.which("git") else ():
        command = ["git", "ls-files", "-z", "--cached", *others]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        if listed.returncode == 0 and listed.stdout:
            return [Path(name) for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return [path for path in found if not any(part.startswith(".") for part in path.parts)]


FILES = project_files()
NOTEBOOKS = [path for path in FILES if path.suffix == ".ipynb"]


def test_the_top_level_holds_only_the_agreed_names():
    visible = [path for path in FILES if not path.parts[0].startswith(".")]
    assert {path.name for path in visible if len(path.parts) == 1} <= FILES_AT_THE_TOP
    assert {path.parts[0] for path in visible if len(path.parts) > 1} <= FOLDERS_AT_THE_TOP


def test_the_files_that_the_user_fixed_are_there():
    for name in ("pyproject.toml", "README.md", "workbench", "notebooks", "tests", "data"):
        assert (ROOT / name).exists(), name


def test_no_file_is_large():
    large = {str(path): size for path in FILES if (size := (ROOT / path).stat().st_size) > LARGEST_FILE}
    assert not large, f"over {LARGEST_FILE} bytes"


def test_the_embedded_model_fits_in_six_megabytes():
    assert sum(path.stat().st_size for path in (ROOT / "data" / "nano").rglob("*") if path.is_file()) <= LARGEST_MODEL


def test_no_pickle_is_shipped():
    assert not [path for path in FILES if path.suffix in {".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth"}]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_was_run_from_top_to_bottom_without_an_error(path: Path):
    notebook = nbformat.read(ROOT / path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    shown = [output for cell in code for output in cell.outputs]
    assert not [output for output in shown if output.output_type == "error"]
    assert not [output.text for output in shown if output.get("name") == "stderr"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_names_the_kernel_that_every_installation_has(path: Path):
    assert nbformat.read(ROOT / path, as_version=4).metadata.kernelspec.name == "python3"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=str)
def test_a_notebook_shows_nothing_private(path: Path):
    text = (ROOT / path).read_text(encoding="utf-8")
    found = {what: hit[0] for what, pattern in PRIVATE.items() if (hit := pattern.search(text))}
    assert not found
    assert str(ROOT) not in text


@pytest.mark.parametrize(
    "text", ["/home/ada/x.py", "C:\\\\Users\\\\ada", "/Users/ada", "hf_" + "a" * 34, "sk-" + "b" * 24]
)
def test_the_search_for_private_things_finds_them(text: str):
    assert any(pattern.search(text) for pattern in PRIVATE.values())
