"""The command line: `workbench COMMAND`, one file here for each command.

Thin on purpose: what a command does is a call into a folder below, and nothing heavy is imported before it is needed.
Each file has `add(commands)`, which adds its options and names the function that runs it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from workbench import __version__
from workbench.cli import freeze, grade, info, lab, lessons, synth, verify

COMMANDS = (lab, lessons, grade, info, synth, verify, freeze)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0 when it worked, 1 (with one message on stderr) when it did not,
    2 for a command that cannot be understood, 130 after Ctrl-C."""
    commands = parser()
    arguments = commands.parse_args(argv)
    if arguments.command is None:
        commands.print_help()
        return 2
    try:
        return int(arguments.run(arguments))
    except (OSError, ValueError) as error:
        print(f"workbench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("workbench: stopped", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Every command with its options."""
    top = argparse.ArgumentParser(prog="workbench", description="An interpretability workbench for gpt-oss.")
    top.add_argument("--version", action="version", version=f"workbench {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    for command in COMMANDS:
        command.add(commands)
    return top
