"""Nothing assumes Linux: what only some systems have is asked for first, and Windows' rules for files are kept.

Two ways to know it here: the syntax of every file, and processes in which such modules and calls are missing.
"""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "workbench"
PYTHON = sorted(PACKAGE.rglob("*.py"))

# Modules and names that some system is without. They may stand under a check (`if hasattr(os, …)`, `sys.platform`,
# `os.name`) or where an ImportError or AttributeError is caught.
MODULES = {"fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "posix", "msvcrt", "winreg", "_winapi"}
NAMES = set(
    "os.fork os.forkpty os.killpg os.getpgid os.setsid os.setpgid os.getuid os.geteuid os.getgid os.getlogin os.uname "
    "os.chown os.sched_getaffinity os.sched_setaffinity os.sysconf os.statvfs os.pread os.pwrite os.posix_fadvise "
    "os.posix_fallocate os.sendfile os.mkfifo os.nice os.wait os.O_DIRECTORY os.O_NOFOLLOW os.O_CLOEXEC os.O_DIRECT "
    "os.O_NONBLOCK os.O_BINARY os.WNOHANG os.startfile signal.SIGKILL signal.SIGHUP signal.SIGQUIT signal.SIGUSR1 "
    "signal.SIGUSR2 signal.SIGALRM signal.SIGCHLD signal.SIGPIPE signal.alarm signal.setitimer signal.pause "
    "socket.AF_UNIX mmap.MAP_PRIVATE mmap.MAP_SHARED mmap.PROT_READ mmap.PROT_WRITE mmap.MADV_DONTNEED time.tzset "
    "os.symlink os.link os.getloadavg".split()
)
GUARDS = ("sys.platform", "os.name", "platform.system", "hasattr(")
CAUGHT = {"ImportError", "ModuleNotFoundError", "AttributeError", "Exception"}


def unguarded(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) of what some system is without, where nothing has asked first."""
    yield from _look(ast.parse(source), False)


def _look(node: ast.AST, guarded: bool) -> Iterator[tuple[int, str]]:
    if not guarded:
        yield from _found(node)
    for field, value in ast.iter_fields(node):
        inside = guarded or (field != "handlers" and field in {"body", "orelse", "values"} and _asks(node))
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                # What follows `if …: return` in a function has been asked for as well.
                yield from _look(child, inside)
                inside = inside or (isinstance(child, ast.If) and _asks(child) and _leaves(child))


def _asks(node: ast.AST) -> bool:
    if isinstance(node, ast.If | ast.IfExp):
        return any(guard in ast.unparse(node.test) for guard in GUARDS)
    if isinstance(node, ast.BoolOp):  # `hasattr(os, …) and os.…`
        return isinstance(node.op, ast.And) and any(guard in ast.unparse(node.values[0]) for guard in GUARDS)
    if isinstance(node, ast.Try):
        return any(handler.type is None or set(_names(handler.type)) & CAUGHT for handler in node.handlers)
    return False


def _leaves(node: ast.If) -> bool:
    return isinstance(node.body[-1], ast.Return | ast.Raise | ast.Continue)


def _names(node: ast.AST) -> list[str]:
    return [each.id for each in ast.walk(node) if isinstance(each, ast.Name)]


def _found(node: ast.AST) -> Iterator[tuple[int, str]]:
    if isinstance(node, ast.Import):
        yield from ((node.lineno, alias.name) for alias in node.names if alias.name in MODULES)
    elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
        yield node.lineno, node.module
    elif isinstance(node, ast.Attribute) and (name := ast.unparse(node)) in NAMES:
        yield node.lineno, name
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith(("/proc/", "/dev/")):
        yield node.lineno, node.value


# What stands unguarded all the same, and why it is right.
KNOWN = {"provenance/facts.py": {"/proc/cpuinfo"}}  # a file that is not there is an OSError, which is caught


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import fcntl", ["fcntl"]),
        ("try:\n    import fcntl\nexcept ImportError:\n    pass", []),
        ("if sys.platform == 'win32':\n    import msvcrt\nelse:\n    import fcntl", []),
        ("os.sched_getaffinity(0)", ["os.sched_getaffinity"]),
        ("n = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1", []),
        ("def f():\n    if sys.platform != 'linux':\n        return\n    os.fork()", []),
        ("if hasattr(os, 'getuid') and os.getuid() == 0:\n    pass", []),
        ("def f():\n    if x:\n        return\n    os.fork()", ["os.fork"]),
        ("open('/proc/self/maps')", ["/proc/self/maps"]),
    ],
)
def test_the_search_knows_what_has_been_asked_for(source: str, names: list[str]):
    assert [name for _, name in unguarded(source)] == names


def test_what_only_some_systems_have_is_asked_for_first():
    found = {}
    for path in PYTHON:
        names = {name for _, name in unguarded(path.read_text(encoding="utf-8"))}
        if names:
            found[path.relative_to(PACKAGE).as_posix()] = names
    assert found == KNOWN


# ------------------------------------------------------------ files


def text_without_encoding(source: str) -> Iterator[int]:
    """Lines that read or write text in whatever encoding the system prefers (on Windows rarely UTF-8)."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        given = {keyword.arg for keyword in node.keywords}
        words = [each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)]
        if name.endswith((".read_text", ".write_text")):
            if "encoding" not in given and len(node.args) < 1 + name.endswith("write_text"):
                yield node.lineno
        elif name in {"open", "io.open", "os.fdopen"} or (name.endswith(".open") and (words or not node.args)):
            is_binary = any("b" in word and len(word) <= 3 for word in words) or name.startswith(("os.open", "Image."))
            takes_text = name in {"open", "io.open", "os.fdopen"} or any(len(word) <= 3 for word in words)
            if takes_text and not is_binary and "encoding" not in given:
                yield node.lineno
        elif "text" in given and "encoding" not in given and name.startswith("subprocess."):
            yield node.lineno


def test_text_is_read_and_written_as_utf_8():
    found = {path.relative_to(ROOT).as_posix(): [*text_without_encoding(path.read_text("utf-8"))] for path in PYTHON}
    assert not {name: lines for name, lines in found.items() if lines}


def test_no_two_files_differ_only_in_the_case_of_their_letters_and_windows_knows_every_name():
    from tests.windows import NO_NAME

    found = [path.relative_to(ROOT) for top in ("workbench", "notebooks", "tests") for path in (ROOT / top).rglob("*")]
    names = [path.as_posix() for path in found if not {"node_modules", "__pycache__"} & set(path.parts)]
    assert len({name.lower() for name in names}) == len(names)
    assert not [name for name in names for part in name.split("/") if NO_NAME.search(part)]
    assert max(map(len, names)) < 140  # a path has 260 characters on Windows, and an environment takes 100 of them


# ------------------------------------------------------------ in processes

ELSEWHERE = """
import importlib.abc, os, signal, sys

class Missing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in {"fcntl", "resource", "termios", "pwd", "grp"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

for name in ("fcntl", "resource", "termios"):
    sys.modules.pop(name, None)
import torch, transformer_lens, distributed  # they look at the system for themselves
sys.meta_path.insert(0, Missing())
for name in ("fork", "killpg", "sched_getaffinity", "sysconf", "getuid", "uname", "O_DIRECTORY", "posix_fadvise"):
    if hasattr(os, name):
        delattr(os, name)
"""
USED = """
import pathlib, tempfile
import workbench as wb
for name in wb.__all__:
    getattr(wb, name)
folder = pathlib.Path(tempfile.mkdtemp())
model = wb.load("nano")
run = wb.run(model, "Mia went to the park")
wb.save_pretrained(model, folder / "saved")
again = wb.load(folder / "saved")
wb.save_pretrained(again, folder / "more")
def numbers(cells):
    return [float(cell["i"]) for cell in cells]
for _ in range(2):
    wb.sweep(numbers, wb.Grid(i=range(4)), journal=folder / "journal", progress=False)
wb.estimate(model, length=64)
bench = wb.Bench(model, "Mia went to the park")
assert bench.run.logits.isfinite().all() and "Mia" in bench.static()
bench.save(folder / "workspace.json") if hasattr(bench, "save") else None
bench.close()
print("used")
"""


@pytest.mark.slow
def test_the_workbench_runs_where_what_only_linux_and_macos_have_is_missing_and_by_windows_rules_for_files(
    tmp_path: Path,
):
    rules = "from tests.windows import hook\nsys.addaudithook(hook)\n" if sys.platform == "linux" else ""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", ELSEWHERE + rules + USED]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.split()[-1] == "used"
