"""A JupyterLab server for tests: its own folders, its own kernels, and gone whatever happens to the test.

A keeper process stands between us and the server. It ends the server and its kernels when our end of a pipe closes,
which the system does even where we are killed.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from tests import fetch

FOLDERS = ("CONFIG", "DATA", "RUNTIME")
# Every cell is in the page and keeps its place: 4.6's default leaves out those below the fold. And no questions.
SETTINGS = {
    "@jupyterlab/notebook-extension/tracker": {"windowingMode": "none", "recordTiming": False},
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
KEEPER = """
import os, shutil, signal, subprocess, sys
server = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, start_new_session=True)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda *_: sys.exit())
try:
    sys.stdin.read()
finally:
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(server.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    shutil.rmtree(sys.argv[1], ignore_errors=True)
"""


class Server:
    """JupyterLab on 127.0.0.1, serving an empty temporary folder.

    Attributes:
        url: its address, with a / at the end.
        root: the folder whose notebooks it serves.
    """

    def __init__(self, ipykernel: str | None = None, timeout: float = 60) -> None:
        """
        Args:
            ipykernel: a version other than the installed one, for the kernels of this server: "6.31.0".
        """
        self._scratch = tempfile.TemporaryDirectory(prefix="workbench-lab-", ignore_cleanup_errors=True)
        self.home = Path(self._scratch.name)
        self.root = self.home / "notebooks"
        self.root.mkdir()
        self.token, self.port = secrets.token_hex(16), _free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        _write_settings(self.home / "settings")
        _write_kernel(self.home / "data", ipykernel)
        self._log = (self.home / "log.txt").open("wb")
        self._keeper = self._start()
        try:
            self._wait(timeout)
        except BaseException:
            self.stop()
            raise

    def _start(self) -> subprocess.Popen[bytes]:
        options = {
            "ServerApp.port_retries": 0,
            "ServerApp.root_dir": self.root,
            "ServerApp.allow_root": True,
            "IdentityProvider.token": self.token,
            "LabApp.expose_app_in_browser": True,
            "LabApp.news_url": None,
            "LabApp.extension_manager": "readonly",
            "LanguageServerManager.autodetect": False,
        }
        lab = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={self.port}"]
        lab += [f"--{name}={value}" for name, value in options.items()]
        keeper = [sys.executable, "-c", KEEPER, str(self.home), *lab]
        return subprocess.Popen(
            keeper,
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            env=self._environment(),
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        own = {f"JUPYTER_{name}_DIR": self.home / name.lower() for name in FOLDERS}
        own |= {f"JUPYTERLAB_{name}_DIR": self.home / name.lower() for name in ("SETTINGS", "WORKSPACES")}
        own |= {"IPYTHONDIR": self.home / "ipython", "JUPYTER_PREFER_ENV_PATH": "0", "HF_HUB_OFFLINE": "1"}
        checkout = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [checkout, os.environ.get("PYTHONPATH")]))
        # As on a user's machine: packages are compiled once (else a kernel would compile ours at each start), and a
        # lesson keeps its progress beside the notebook.
        ours = {"PYTHONDONTWRITEBYTECODE", "WORKBENCH_PROGRESS", "WORKBENCH_LESSONS"}
        given = {name: value for name, value in os.environ.items() if name not in ours}
        return given | {name: str(value) for name, value in own.items()} | {"PYTHONPATH": path}

    def _wait(self, timeout: float) -> None:
        end = time.perf_counter() + timeout
        while time.perf_counter() < end:
            try:
                self.ask("api/status")
                return
            except OSError:
                if self._keeper.poll() is not None:
                    break
            time.sleep(0.05)
        raise RuntimeError(f"JupyterLab did not start within {timeout} s:\n{self.log[-4000:]}")

    def ask(self, path: str, method: str = "GET") -> object:
        """The server's own API: ask("api/kernels") lists the running kernels."""
        request = urllib.request.Request(
            self.url + path, method=method, headers={"Authorization": f"token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            body = answer.read()
        return json.loads(body) if body else None

    @property
    def log(self) -> str:
        """What the server and its kernels wrote."""
        return (self.home / "log.txt").read_text(errors="replace")

    def stop(self) -> None:
        """End the server, its kernels, and its folders."""
        if self._keeper.stdin is not None and not self._keeper.stdin.closed:
            self._keeper.stdin.close()
        try:
            self._keeper.wait(20)
        except subprocess.TimeoutExpired:
            self._keeper.kill()
            self._keeper.wait()
        self._log.close()
        self._scratch.cleanup()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *problem: object) -> None:
        self.stop()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _write_settings(folder: Path) -> None:
    for name, values in SETTINGS.items():
        path = folder / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))


# ---------------------------------------------------------------- the kernel


def _write_kernel(data: Path, version: str | None) -> None:
    """A kernelspec python3 of our own, so that it is this Python and, where asked for, that ipykernel."""
    folder = data / "kernels" / "python3"
    folder.mkdir(parents=True)
    command = [sys.executable, "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": command, "display_name": "Python 3", "language": "python", "metadata": {"debugger": False}}
    if version is not None:
        places = [str(ipykernel_directory(version)), str(Path(__file__).resolve().parents[2])]
        spec["env"] = {"PYTHONPATH": os.pathsep.join(places)}
    (folder / "kernel.json").write_text(json.dumps(spec))


def ipykernel_directory(version: str) -> Path:
    """A folder with one version of ipykernel, to stand on PYTHONPATH before the installed one; fetched once."""

    def make(work: Path) -> None:
        # ipykernel 6 wants nest-asyncio, 7 nest-asyncio2; what else they need is installed.
        packages = [f"ipykernel=={version}", "nest-asyncio"]
        options = ["--quiet", "--no-deps", "--no-compile", "--disable-pip-version-check", "--target", str(work)]
        command = [sys.executable, "-m", "pip", "install", *options, *packages]
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
        shutil.rmtree(work / "share", ignore_errors=True)

    return fetch._cached(f"ipykernel-{version}", make)
