"""The `workbench` command, run as a process of its own; a stand-in for JupyterLab records how it was started."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from workbench import cli
from workbench.cli import lab as lab_command

STAND_IN = """
import json, os, pathlib, signal, sys, time
def asked(*_): pathlib.Path(os.environ["RECORD"] + ".interrupted").touch()
signal.signal(signal.SIGINT, asked)
pathlib.Path(os.environ["RECORD"]).write_text(json.dumps(sys.argv[1:]))
time.sleep(float(os.environ.get("LASTS", "0")))
sys.exit(int(os.environ.get("ENDS_WITH", "0")))
"""


class Lab:
    """`workbench lab` with a JupyterLab that only writes down its arguments."""

    def __init__(self, folder: Path, root: Path) -> None:
        package = folder / "stand-in" / "jupyterlab"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "__main__.py").write_text(STAND_IN)
        self.cwd = folder / "user"
        self.cwd.mkdir()
        self.record = folder / "record.json"
        paths = os.pathsep.join([str(package.parent), str(root)])
        self.environment = {**os.environ, "PYTHONPATH": paths, "RECORD": str(self.record)}

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "workbench", "lab", *arguments]
        environment = self.environment | environment
        return subprocess.run(command, cwd=self.cwd, env=environment, capture_output=True, text=True, timeout=180)

    @property
    def started_with(self) -> dict[str, str]:
        options = [argument.partition("=") for argument in json.loads(self.record.read_text())]
        return {name: value for name, _, value in options}


@pytest.fixture
def lab(tmp_path: Path, root: Path) -> Lab:
    return Lab(tmp_path, root)


@pytest.fixture
def shipped(root: Path) -> dict[str, bytes]:
    """The notebooks of the checkout, by name."""
    folder = root / "notebooks"
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not {".ipynb_checkpoints", ".ruff_cache"} & set(path.parts)
    ]
    files = [path for path in files if not path.name.startswith("lesson-progress")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_lab_in_a_checkout_opens_its_own_notebooks_and_copies_none(lab: Lab, root: Path):
    assert lab().returncode == 0
    assert Path(lab.started_with["--ServerApp.root_dir"]) == root / "notebooks"
    assert lab.started_with["--LabApp.default_url"] == "/lab/tree/00_start.ipynb"
    assert not contents(lab.cwd)


def test_lab_with_a_folder_copies_the_notebooks_there_and_opens_the_first(lab: Lab, shipped: dict[str, bytes]):
    done = lab("--dir", "mine")
    assert done.returncode == 0
    assert contents(lab.cwd / "mine") == shipped
    assert "00_start.ipynb" in shipped
    assert Path(lab.started_with["--ServerApp.root_dir"]) == (lab.cwd / "mine").resolve()
    assert "copied     00_start.ipynb" in done.stdout


def test_a_notebook_that_the_user_changed_is_never_overwritten(lab: Lab):
    lab("--dir", "mine")
    (lab.cwd / "mine" / "00_start.ipynb").write_text("my own work")
    done = lab("--dir", "mine")
    assert (lab.cwd / "mine" / "00_start.ipynb").read_text() == "my own work"
    assert "kept yours 00_start.ipynb" in done.stdout


def test_what_one_student_has_done_is_not_copied_to_another(tmp_path: Path):
    (tmp_path / "from").mkdir()
    for name in ("01.ipynb", "lesson-progress.json", "lesson-progress.broken-1.json"):
        (tmp_path / "from" / name).write_text("{}")
    lab_command.copy_notebooks(tmp_path / "from", tmp_path / "to")
    assert set(contents(tmp_path / "to")) == {"01.ipynb"}


def test_a_copy_that_ended_half_way_is_made_again_and_not_taken_for_the_users(tmp_path: Path, monkeypatch):
    (tmp_path / "from").mkdir()
    (tmp_path / "from/01.ipynb").write_text("a whole notebook")

    def full(original: Path, copy: Path) -> None:
        copy.write_text("a wh")
        raise OSError("the disk is full")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="disk is full"):
        patched.setattr(lab_command.shutil, "copyfile", full)
        lab_command.copy_notebooks(tmp_path / "from", tmp_path / "to")
    lab_command.copy_notebooks(tmp_path / "from", tmp_path / "to")
    assert contents(tmp_path / "to") == {"01.ipynb": b"a whole notebook"}


def test_a_notebook_that_the_user_removed_comes_back_and_other_files_stay(lab: Lab, shipped: dict[str, bytes]):
    lab("--dir", "mine")
    (lab.cwd / "mine" / "00_start.ipynb").unlink()
    (lab.cwd / "mine" / "notes.txt").write_text("mine")
    lab("--dir", "mine")
    assert contents(lab.cwd / "mine") == shipped | {"notes.txt": b"mine"}


def test_lab_hands_on_port_and_browser_and_asks_nothing_of_the_network(lab: Lab):
    lab("--port", "9123", "--no-browser")
    assert lab.started_with["--ServerApp.port"] == "9123"
    assert "--no-browser" in lab.started_with
    assert lab.started_with["--LabApp.news_url"] == "None"
    assert lab.started_with["--LabApp.extension_manager"] == "readonly"


def test_lab_opens_a_browser_on_a_free_port_unless_told_otherwise(lab: Lab):
    lab()
    assert not {"--no-browser", "--ServerApp.port"} & set(lab.started_with)


def test_lab_ends_with_the_exit_status_of_jupyterlab(lab: Lab):
    assert lab(ENDS_WITH="7").returncode == 7


@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to a console, not to a process group")
def test_after_ctrl_c_lab_still_waits_for_jupyterlab_to_end(lab: Lab):
    environment = lab.environment | {"LASTS": "1.5", "ENDS_WITH": "5"}
    command = [sys.executable, "-m", "workbench", "lab"]
    process = subprocess.Popen(
        command, cwd=lab.cwd, env=environment, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    wait_until(lab.record.exists, process)
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 5
    assert Path(f"{lab.record}.interrupted").exists()
    assert errors == b""


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http"])
def test_a_port_that_cannot_be_is_refused_with_what_can(lab: Lab, port: str):
    done = lab(f"--port={port}")
    assert done.returncode == 2
    assert f"'{port}' is not a port; give a whole number from 1 to 65535" in done.stderr
    assert not lab.record.exists()


def test_a_file_where_the_folder_should_be_is_one_message_and_no_traceback(lab: Lab):
    (lab.cwd / "taken").write_text("")
    done = lab("--dir", "taken")
    assert done.returncode == 1
    assert done.stderr.startswith("workbench: ")
    assert "taken" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_its_notebooks_an_installation_says_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lab_command, "PACKAGE", tmp_path / "workbench")
    with pytest.raises(FileNotFoundError, match=r"no 'notebooks'.*install the workbench again"):
        lab_command.shipped("notebooks", "_notebooks")


def test_the_command_line_alone_imports_nothing_heavy(root: Path):
    code = "import sys, workbench.cli; print(*({'torch', 'transformer_lens', 'plotly'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_command_is_answered_with_the_commands(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == 2
    shown = capsys.readouterr().out
    assert all(command in shown for command in ("lab", "lessons", "grade", "info", "verify"))


def test_the_real_jupyterlab_takes_these_options_and_serves_the_notebook(tmp_path: Path, root: Path):
    port = free_port()
    environment = {**os.environ, "PYTHONPATH": str(root), "JUPYTER_TOKEN": "test", "HOME": str(tmp_path)}
    options = ["--no-browser", f"--port={port}", f"--dir={tmp_path / 'mine'}"]
    command = [sys.executable, "-m", "workbench", "lab", *options]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: answers(port), process)
        assert request(port, "/").url.endswith("/lab/tree/00_start.ipynb")
        assert json.load(request(port, "/lab/api/news")) == {"news": []}
        assert json.load(request(port, "/lab/api/update")) == {"notification": None}
        listed = json.load(request(port, "/api/contents"))["content"]
        assert "00_start.ipynb" in {entry["name"] for entry in listed}
    finally:
        if answers(port):
            request(port, "/api/shutdown", method="POST")
        process.wait(120)
    assert process.returncode == 0


def wait_until(happened, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 180
    while not happened():
        assert process.poll() is None, f"ended early with status {process.returncode}"
        assert time.monotonic() < end, "nothing happened for three minutes"
        time.sleep(0.1)


def free_port() -> int:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def request(port: int, path: str, method: str = "GET"):
    address = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    address.add_header("Authorization", "token test")
    return urllib.request.urlopen(address, timeout=20)


def answers(port: int) -> bool:
    try:
        return request(port, "/api").status == 200
    except OSError:
        return False
