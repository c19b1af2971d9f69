"""Ctrl-C in the command line: one line, exit status 130, no traceback, and nothing half-written that looks whole."""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from workbench import cli
from workbench.checkpoints import CheckpointError, load

SYNTH = ["synth", "20b", "--layers", "1", "--experts", "4", "--out"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no SIGINT to one process")
def test_a_command_that_is_interrupted_says_so_in_one_line(tmp_path: Path, root: Path, draw: random.Random, full: bool):
    for number in range(12 if full else 1):
        place, out = tmp_path / str(number), tmp_path / f"{number}.txt"
        with out.open("w") as file:
            command = [sys.executable, "-m", "workbench", *SYNTH, str(place)]
            process = subprocess.Popen(command, cwd=root, stdout=file, stderr=file, env=os.environ | {"LANG": "C"})
            while process.poll() is None and not place.exists():
                time.sleep(0.01)
            time.sleep(draw.random() * 0.2)
            process.send_signal(signal.SIGINT)
            process.wait(60)
        said = out.read_text()
        assert process.returncode == 130, said
        assert "Traceback" not in said and "workbench: stopped" in said.splitlines()[-1], said
        with pytest.raises(CheckpointError):
            load(place)


@pytest.mark.parametrize("command", [each.__name__.rsplit(".", 1)[1] for each in cli.COMMANDS])
def test_every_command_ends_with_130_where_nothing_in_it_expects_an_interrupt(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def stopped(_: object) -> int:
        raise KeyboardInterrupt

    given = argparse.Namespace(command=command, run=stopped)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", lambda *_: given)
    assert cli.main([command]) == 130
    assert capsys.readouterr().err == "workbench: stopped\n"
