"""The C code under AddressSanitizer and UndefinedBehaviorSanitizer, and its threads under ThreadSanitizer."""

import subprocess
from pathlib import Path

import pytest

from workbench.model.engines import native
from workbench.model.engines.native import build

FLAGS = (
    *("-O0", "-g", "-std=c11", "-D_POSIX_C_SOURCE=200809L"),
    *("-Wall", "-Wextra", "-Wshadow", "-Werror", "-fno-sanitize-recover=all"),
)


def run_driver(tmp_path, *flags):
    driver, program = Path(__file__).parent / "sanitised_driver.c", tmp_path / "driver"
    sources = [str(path) for path in sorted(build.SOURCES.glob("*.c"))]
    command = [*build.compiler(), *FLAGS, *flags, f"-I{build.SOURCES}", *sources, str(driver)]
    built = subprocess.run([*command, "-o", str(program), "-pthread", "-lm"], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    done = subprocess.run([str(program)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("sanitisers", ["address,undefined", "thread"])
def test_no_byte_outside_a_buffer_is_touched_no_behaviour_is_undefined_and_no_threads_race(tmp_path, sanitisers):
    assert run_driver(tmp_path, f"-fsanitize={sanitisers}") == native.isas()


def test_the_generic_path_alone_compiles_without_a_warning_and_is_right(tmp_path):
    assert run_driver(tmp_path, "-DWB_GENERIC_ONLY", "-Wconversion", "-fsanitize=undefined") == ["generic"]
