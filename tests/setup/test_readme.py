"""The README promises nothing that the repository does not have."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)\b", README))))
def test_a_make_command_of_the_readme_exists(target: str):
    assert re.search(rf"^{target}:", MAKEFILE, flags=re.MULTILINE)


def test_the_two_commands_come_first():
    assert re.findall(r"^make (\w+)", README, flags=re.MULTILINE) == ["lab", "test"]


@pytest.mark.parametrize("path", re.findall(r"^\| `([^`]+)` \|", README, flags=re.MULTILINE))
def test_a_folder_that_the_readme_lists_is_there(path: str):
    assert (ROOT / path).exists()


def test_every_folder_of_the_package_has_its_line():
    folders = {path.parent.name for path in (ROOT / "workbench").glob("*/__init__.py")}
    assert folders <= set(re.findall(r"^\| `workbench/(\w+)/` \|", README, flags=re.MULTILINE))


@pytest.mark.parametrize("link", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_a_link_inside_the_repository_leads_somewhere(link: str):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("code", re.findall(r"^```python\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL))
def test_the_code_of_the_readme_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})


def test_ci_runs_the_checks_then_the_command_of_the_readme_and_builds_the_site():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.findall(r"^make (\w+)$", script, flags=re.MULTILINE) == ["check", "test", "docs"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100


@pytest.mark.parametrize("target", ["lab", "test", "check", "nano", "bench"])
def test_a_make_command_installs_before_it_runs_and_always_with_the_constraints(target: str, tmp_path: Path):
    command = ["make", "--dry-run", target, f"VENV={tmp_path / 'venv'}"]
    lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    installs = [line for line in lines if "pip install" in line]
    assert len(installs) == 1
    assert "-c constraints.txt" in installs[0]
    assert any(" -m venv " in line for line in lines[: lines.index(installs[0])])
    assert lines[-1] != installs[0]


def test_without_a_python_that_is_new_enough_make_says_which_and_how(tmp_path: Path):
    command = ["make", "lab", f"VENV={tmp_path / 'venv'}", "BASE_PYTHON="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "needs Python 3.11, 3.12 or 3.13" in done.stdout
    assert not (tmp_path / "venv").exists()


def test_every_figure_of_nano_in_the_readme_is_one_that_its_scorecard_measured():
    table = README.split("| nano, held-out data")[1].split("\n\n")[0]
    figures = re.findall(r"\d\.\d{3}", table)
    card = (ROOT / "data/nano/card.md").read_text(encoding="utf-8")
    assert len(figures) > 10
    assert [figure for figure in figures if figure not in card] == []
