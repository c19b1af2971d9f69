"""`workbench synth` from the command line: what it writes, what it says, and how it is stopped."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import workbench as wb
from workbench.checkpoints import synth as package
from workbench.checkpoints.synth import files
from workbench.cli import main
from workbench.cli import synth as command


def test_synth_writes_what_info_and_load_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "trial"
    assert main(["synth", "nano", "--out", str(out), "--layers", "2", "--experts", "3"]) == 0
    assert f"{out}: 0.00 GB of random weights in " in capsys.readouterr().out
    assert main(["info", str(out)]) == 0
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert all(row in shown for row in (["n_layers", "2"], ["n_experts", "3"], ["form", "Hugging", "Face", "MXFP4"]))
    assert wb.load(out)("Hello").shape[-1] == wb.NANO.d_vocab


def test_fewer_experts_than_a_token_takes_makes_it_take_them_all(tmp_path: Path):
    assert main(["synth", "nano", "--out", str(tmp_path / "x"), "--layers", "1", "--experts", "1"]) == 0
    assert wb.load(tmp_path / "x").config.experts_per_token == 1


def test_synth_offers_the_forms_that_there_are():
    assert list(command.FORMS) == list(package.FORMS)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["20b"], 2, "--out"),
        (
            ["20b", "--out", "x", "--layers", "0"],
            2,
            "'0' is no number of layers or experts; give a whole number",
        ),
        (["20b", "--out", "x", "--form", "gguf"], 2, "huggingface-mxfp4"),
        (["21b", "--out", "x"], 1, "no preset '21b'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(
    arguments, status, message, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    try:
        ended = main(["synth", *arguments])
    except SystemExit as stopped:
        ended = stopped.code
    assert ended == status
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_after_ctrl_c_it_says_that_the_same_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "piece", interrupted)
    assert main(["synth", "nano", "--out", str(tmp_path / "x")]) == 130
    assert capsys.readouterr().err == "workbench: stopped; the same command goes on from here\n"


def test_a_killed_synth_goes_on_to_the_same_files(tmp_path: Path, root: Path):
    slow = """
import sys, time
from workbench.checkpoints.synth import files
quick = files.piece
files.piece = lambda *given: (time.sleep(0.05), quick(*given))[1]
from workbench.cli import main
sys.exit(main(sys.argv[1:]))
"""
    options = ["synth", "nano", "--layers", "2", "--out"]
    process = subprocess.Popen(
        [sys.executable, "-c", slow, *options, str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    partial = tmp_path / "killed" / "model.safetensors.partial"
    end = time.monotonic() + 120
    while not (partial.exists() and partial.stat().st_size > 300_000):
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    process.kill()
    process.wait(60)
    assert partial.exists()
    for name in ("killed", "whole"):
        assert main([*options, str(tmp_path / name)]) == 0
    killed, whole = ({file.name: file.read_bytes() for file in (tmp_path / n).iterdir()} for n in ("killed", "whole"))
    assert killed == whole
