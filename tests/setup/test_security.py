"""What the tree may not do: read off the syntax of every file, so that it holds for lines that no test runs.

Each exception is named here with its reason; one that is no longer needed fails too.
"""

import ast
import json
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from workbench.checkpoints import resolve

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "workbench"
PYTHON = sorted(PACKAGE.rglob("*.py"))
BUNDLES = sorted((PACKAGE / "widgets" / "static").glob("*.[jc]s*"))  # what a browser gets: made from widgets/js/src
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]

# What is found → where it may stand, and why.
ALLOWED = {
    "pickle": {
        "sweeps/workers.py": "a measure of the user's, to workers that the user started, and their answers",
        "sweeps/executors.py": "those answers",
        "atlases/workers.py": "an error, written and read again in one process, to see whether it can travel",
        "dictionaries/dictionary_learning.py": "the name of an error: that format is read with weights_only",
    },
    "torch.load, weights only": {
        "training/trainer.py": "a training that was interrupted, in its own folder: tensors and plain numbers",
        "dictionaries/dictionary_learning.py": "the only form of those dictionaries: tensors alone, or it is refused",
    },
    "code run from text": {"lessons/grading/child.py": "what students handed in, in a process of its own"},
    "network": {
        "sweeps/workers.py": "socket.gethostname alone: on which machine a worker failed",
        "checkpoints/resolve.py": "the download of a model whose hub id the user gave",
    },
    "another program": {
        "cli/lab.py": "JupyterLab",
        "lessons/grading/grade.py": "the grader's own child, a Python",
        "model/engines/native/build.py": "the C compiler, when the package is installed",
    },
}
PICKLES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
NETWORK = set(
    "socket ssl http urllib ftplib smtplib xmlrpc requests httpx aiohttp urllib3 websocket websockets tornado "
    "huggingface_hub boto3 paramiko".split()
)
HARMLESS = "urllib.parse"  # texts alone, though its siblings open connections
TELEMETRY = {"wandb", "sentry_sdk", "posthog", "mlflow", "opentelemetry", "segment", "mixpanel", "scarf", "amplitude"}
FORBIDDEN_MODULES = {"yaml", "ruamel", "imp", "code", "codeop", "xml", "lxml", "telnetlib", *TELEMETRY}
RUNS_TEXT = {"eval", "exec", "compile", "__import__", "execfile"}
STARTS_PROGRAMS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn"}


def imports(tree: ast.AST) -> Iterator[str]:
    """The top module of every import, wherever it stands; also import_module("…") of a constant."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names if alias.name != HARMLESS)
        elif isinstance(node, ast.ImportFrom) and node.module not in {None, HARMLESS} and not node.level:
            yield str(node.module).partition(".")[0]
        elif isinstance(node, ast.Call) and name_of(node.func).endswith("import_module"):
            yield from (str(given.value).partition(".")[0] for given in node.args if isinstance(given, ast.Constant))


def name_of(node: ast.AST) -> str:
    """``a.b.c`` as it stands in the source, or ""."""
    return ast.unparse(node) if isinstance(node, ast.Name | ast.Attribute) else ""


def found_in(source: str) -> set[str]:
    """What of all this a Python file does."""
    tree = ast.parse(source)
    modules = set(imports(tree))
    found = {f"import of {name}" for name in modules & FORBIDDEN_MODULES}
    found |= {"pickle"} if modules & PICKLES else set()
    found |= {"network"} if modules & NETWORK else set()
    found |= {"another program"} if modules & {"subprocess", "pexpect", "pty"} else set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            found |= set(of_call(name_of(node.func), node))
    return found


def of_call(name: str, call: ast.Call) -> Iterator[str]:
    """What one call does."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}

    def is_given(argument: str, value: object) -> bool:
        return isinstance(held := given.get(argument), ast.Constant) and held.value is value

    last = name.rpartition(".")[2]
    if name in RUNS_TEXT or name in {"builtins.eval", "builtins.exec"}:
        yield "code run from text"
    if name in STARTS_PROGRAMS or last.startswith(("create_subprocess_shell", "execv", "spawnv")):
        yield f"call of {name}"
    if "shell" in given and not is_given("shell", False):
        yield "a shell"
    if name == "torch.load":
        yield "torch.load, weights only" if is_given("weights_only", True) else "torch.load of anything"
    if name.startswith(("torch.hub", "torch.jit.load")) or last == "set_default_load_weights_only":
        yield f"call of {name}"
    if name in {"np.load", "numpy.load"} and not is_given("allow_pickle", False):
        yield "numpy.load of objects"
    if "trust_remote_code" in given and not is_given("trust_remote_code", False):
        yield "code from a hub"
    if name in {"pd.read_pickle", "pandas.read_pickle", "tempfile.mktemp"} or last == "read_pickle":
        yield f"call of {name}"


def test_no_file_does_what_it_may_not_and_every_exception_is_needed():
    found = {path.relative_to(PACKAGE).as_posix(): found_in(path.read_text(encoding="utf-8")) for path in PYTHON}
    where = {what: {name for name, did in found.items() if what in did} for did in found.values() for what in did}
    assert len(found) > 300
    assert where == {what: set(places) for what, places in ALLOWED.items()}


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from dill import loads", "pickle"),
        ("eval(x)", "code run from text"),
        ("exec(compile(x, '', 'exec'))", "code run from text"),
        ("import yaml", "import of yaml"),
        ("import_module('wandb.sdk')", "import of wandb"),
        ("torch.load(f)", "torch.load of anything"),
        ("torch.load(f, weights_only=False)", "torch.load of anything"),
        ("torch.load(f, weights_only=True)", "torch.load, weights only"),
        ("np.load(f)", "numpy.load of objects"),
        ("subprocess.run(c, shell=True)", "a shell"),
        ("os.system(c)", "call of os.system"),
        ("M.from_pretrained(p, trust_remote_code=x)", "code from a hub"),
        ("from urllib.request import urlopen", "network"),
    ],
)
def test_the_search_finds_what_it_looks_for(source: str, what: str):
    assert what in found_in(source)


@pytest.mark.parametrize("source", ["model.eval()", "re.compile(x)", "np.load(f, allow_pickle=False)", "run(c)"])
def test_the_search_takes_nothing_harmless_for_harm(source: str):
    assert not found_in(source)


# ------------------------------------------------------------ nothing is fetched, nobody is told

NAMESPACES = re.compile(r"https?://www\.w3\.org/(2000/svg|1999/xhtml|1998/Math/MathML)")  # names, which nobody fetches
FETCHES = re.compile(
    r"https?://|//cdn|\bfetch\s*\(|XMLHttpRequest|WebSocket|EventSource|sendBeacon|importScripts|\beval\s*\("
    r"|new\s+Function\s*\(|@import|\bimport\s*\(|document\.write"
)
# What a browser would fetch by itself when it shows a notebook: not a link, which a person has to click.
REMOTE = re.compile(
    r"<(?!a\b)[a-z]+\b[^>]*\b(src|srcset|href|data|poster|action)\s*=\s*[\"']?(https?:)?//|url\(\s*[\"']?(https?:)?//",
    re.IGNORECASE,
)


@pytest.mark.parametrize("path", BUNDLES, ids=lambda path: path.name)
def test_the_widgets_fetch_nothing_and_run_no_text(path: Path):
    text = NAMESPACES.sub("", path.read_text(encoding="utf-8"))
    assert not [text[max(0, hit.start() - 60) : hit.end() + 60] for hit in FETCHES.finditer(text)]


@pytest.mark.parametrize(
    "html", ['<script src="https://a/b.js">', "<img alt=x src='//a/b.png'>", '<p style="background: url(http://a)">']
)
def test_the_search_finds_what_a_browser_would_fetch(html: str):
    assert REMOTE.search(html)


@pytest.mark.parametrize("html", ['<a href="https://arxiv.org">', '<img src="data:image/png;base64,//x">', "https://a"])
def test_a_link_and_a_picture_in_the_page_itself_are_no_fetch(html: str):
    assert not REMOTE.search(html)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_a_stored_notebook_fetches_nothing_when_it_is_shown(path: Path):
    notebook = json.loads(path.read_text(encoding="utf-8"))
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", [])]
    html = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    html += "".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    assert not REMOTE.search(html)
    assert "<script" not in html.lower()
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert not {"application/javascript", "text/javascript"} & kinds


def test_a_download_tells_the_hub_nothing_of_what_is_installed_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)
    sent = []

    def snapshot_download(hub_id: str, **_: object) -> str:
        sent.append(build_hf_headers()["user-agent"])
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    resolve.resolve("some/model")
    assert "torch" in build_hf_headers()["user-agent"]  # as it would be without us, and is again after us
    assert sent and "torch" not in sent[0]


def test_the_policy_names_every_exception():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    missing = {name for places in ALLOWED.values() for name in places if f"workbench/{name}" not in text}
    assert not missing


def test_importing_the_workbench_brings_no_telemetry_of_its_own():
    runtime = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    assert not {re.split(r"[<>=!~\[ ]", line)[0] for line in runtime} & TELEMETRY
    assert sys.modules.get("wandb") is None or "workbench" not in str(getattr(sys.modules["wandb"], "__file__", ""))
