"""`workbench lab` opens the notebooks in JupyterLab."""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

START = "00_start.ipynb"
PROGRESS = "lesson-progress"  # how the files begin that hold what one student has done: never copied
PACKAGE = Path(__file__).resolve().parents[1]


def add(commands: Any) -> None:
    """The options of `workbench lab`."""
    lab = commands.add_parser("lab", help=f"open the notebooks in JupyterLab, at {START}")
    lab.add_argument("--dir", type=Path, metavar="DIR", help="where your copies of the notebooks live")
    lab.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    lab.add_argument("--port", type=port, metavar="PORT", help="the port to serve on (default: the first free one)")
    lab.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """`workbench lab`."""
    return open_lab(given.dir, browser=not given.no_browser, port=given.port)


def port(text: str) -> int:
    """A TCP port from the command line."""
    if text.isdecimal() and 0 < int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a port; give a whole number from 1 to 65535")


def open_lab(folder: Path | None, *, browser: bool = True, port: int | None = None) -> int:
    """Start JupyterLab on the notebooks and wait until it ends; its exit status."""
    source = shipped("notebooks", "_notebooks")
    if folder is None and source.parent != PACKAGE:
        folder = source  # a checkout: work on its own notebooks
    else:
        folder = (folder or Path("workbench-notebooks")).expanduser().resolve()
        for line in copy_notebooks(source, folder):
            print(line)
    print(f"Opening JupyterLab on {folder} ...", flush=True)
    return wait(lab_command(folder, browser=browser, port=port))


def shipped(in_checkout: str, in_wheel: str) -> Path:
    """A folder that travels with the package: inside it in a wheel, beside it in a checkout."""
    for place in (PACKAGE / in_wheel, PACKAGE.parent / in_checkout):
        if place.is_dir():
            return place
    raise FileNotFoundError(
        f"this installation has no {in_checkout!r}: looked for {PACKAGE / in_wheel} (an installed wheel) "
        f"and {PACKAGE.parent / in_checkout} (a checkout); install the workbench again"
    )


def copy_notebooks(source: Path, folder: Path) -> list[str]:
    """Copy what is missing, never touch what is there; one line for each file that says which."""
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for original in sorted(path for path in source.rglob("*") if path.is_file()):
        name = original.relative_to(source)
        if any(part.startswith(".") for part in name.parts):
            continue  # a checkout's own .ipynb_checkpoints
        if original.name.startswith(PROGRESS):
            continue
        copy = folder / name
        if not copy.exists():
            copy.parent.mkdir(parents=True, exist_ok=True)
            part = copy.with_name(f".{copy.name}.part")  # half a copy would be kept as yours for ever
            shutil.copyfile(original, part)
            part.replace(copy)
            lines.append(f"copied     {name}")
        elif copy.read_bytes() == original.read_bytes():
            lines.append(f"unchanged  {name}")
        else:
            lines.append(f"kept yours {name} (it differs from the shipped one; rename it to get that)")
    return lines


def lab_command(folder: Path, *, browser: bool, port: int | None) -> list[str]:
    """The command that serves `folder` with JupyterLab, offline, opened at the first notebook."""
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={folder}"]
    command += [f"--LabApp.default_url=/lab/tree/{START}"]
    # Nothing leaves the machine: no news, no question about news, no list of extensions.
    command += ["--LabApp.news_url=None", "--LabApp.extension_manager=readonly"]
    command += ["--LabApp.check_for_updates_class=jupyterlab.handlers.announcements.NeverCheckForUpdate"]
    if not browser:
        command.append("--no-browser")
    if port is not None:
        command.append(f"--ServerApp.port={port}")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # containers run as root; the server listens on localhost and wants its token
    return command


def wait(command: Sequence[str]) -> int:
    """Run a command to its end and hand back its exit status."""
    # The kernel of this interpreter, also where the user has another one called python3.
    environment = {**os.environ, "JUPYTER_PREFER_ENV_PATH": "1"}
    process = subprocess.Popen(command, env=environment)
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # Ctrl-C reaches JupyterLab too, which asks before it stops
