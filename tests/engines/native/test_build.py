"""Where the library comes from: compiled, recompiled when it is of other sources, and refused while it is."""

import pytest
import torch

from workbench.model import mxfp4
from workbench.model.engines import native
from workbench.model.engines.native import build
from workbench.model.engines.native import library as native_library


@pytest.fixture
def reload():
    """Forget the loaded library, now and when the test is done."""
    native_library.load.cache_clear()
    yield native_library.load.cache_clear
    native_library.load.cache_clear()


def test_the_library_carries_the_digest_of_its_sources(library):
    assert build.digest_of(library) == build.source_digest()


def test_a_stale_library_is_built_anew_and_a_fresh_one_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(build, "FLAGS", [flag.replace("-O3", "-O0") for flag in build.FLAGS])  # compiles in no time
    stale = tmp_path / build.LIBRARY
    stale.write_bytes(b"of another machine")
    assert build.digest_of(stale) == ""
    assert build.digest_of(build.ensure_library(tmp_path)) == build.source_digest()
    built = stale.stat().st_mtime_ns
    assert build.ensure_library(tmp_path) == stale
    assert stale.stat().st_mtime_ns == built
    assert [path.name for path in tmp_path.iterdir()] == [build.LIBRARY]


def test_a_library_of_other_sources_is_not_used(monkeypatch, library, reload):
    monkeypatch.delenv("WORKBENCH_NATIVE_LIBRARY")
    monkeypatch.setattr(native_library, "library_path", lambda: library)
    assert native.available()
    monkeypatch.setattr(build, "source_digest", lambda: "other")
    reload()
    assert not native.available()
    assert "other sources" in native.why_not()


def test_a_library_of_another_interface_is_not_used(monkeypatch, reload):
    monkeypatch.setattr(native_library, "ABI_VERSION", 99)
    assert not native.available()
    assert "version 99" in native.why_not()


def test_a_file_that_is_no_library_is_not_used(monkeypatch, tmp_path, reload):
    (tmp_path / "broken").write_bytes(b"no library")
    monkeypatch.setenv("WORKBENCH_NATIVE_LIBRARY", str(tmp_path / "broken"))
    assert not native.available()
    assert "cannot be loaded" in native.why_not()


@pytest.mark.parametrize(("command", "words"), [("no-such-compiler", "cannot be run"), ("false", "failed")])
def test_a_compiler_that_does_not_work_is_named(monkeypatch, tmp_path, command, words):
    monkeypatch.setenv("CC", command)
    with pytest.raises(build.BuildError, match=f"the C compiler {command} {words}"):
        build.compile_library(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_compiler_the_error_says_what_was_looked_for(monkeypatch):
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(build.BuildError, match="tried cc, gcc and clang"):
        build.compiler()


def test_a_machine_without_known_instruction_sets_gets_the_generic_path_alone(monkeypatch, tmp_path, reload):
    path = build.compile_library(tmp_path, ("-DWB_GENERIC_ONLY",))
    monkeypatch.setenv("WORKBENCH_NATIVE_LIBRARY", str(path))
    assert native.isas() == ["generic"]
    draw = torch.Generator().manual_seed(0)
    blocks = torch.randint(0, 256, (2, 9, 3, 16), dtype=torch.uint8, generator=draw)
    scales = torch.randint(100, 140, (2, 9, 3), dtype=torch.uint8, generator=draw)
    assert torch.equal(native.unpack(blocks, scales), mxfp4.unpack(blocks, scales))
