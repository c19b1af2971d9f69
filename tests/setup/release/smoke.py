"""What any installation must do, whatever its Python, its packages and its compiler: run by itself, outside the tree.

    python smoke.py

Needs nothing but the installed workbench. Each step prints one line; the last line is JSON. The network is refused.
"""

import importlib.metadata
import importlib.util
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

INTERNET = {socket.AF_INET, socket.AF_INET6}


def refuse_the_network() -> None:
    """A connection to another machine is an error; sockets of this machine (kernels, Dask) are not used here either."""
    connect = socket.socket.connect

    def refuse(self: socket.socket, address: Any) -> None:
        if self.family in INTERNET:
            raise AssertionError(f"a connection to {address} was tried")
        connect(self, address)

    socket.socket.connect = refuse  # type: ignore[method-assign]


class Smoke:
    """The steps share what the first ones made."""

    def __init__(self, folder: Path) -> None:
        import workbench as wb

        self.wb = wb
        self.folder = folder

    def imports_every_public_name(self) -> str:
        for name in self.wb.__all__:
            getattr(self.wb, name)
        return f"{len(self.wb.__all__)} names"

    def loads_nano_and_answers(self) -> str:
        self.model = self.wb.load("nano")
        self.run = self.wb.run(self.model, "Mia went to the park. Mia is in the")
        assert self.run.logits.isfinite().all()
        return f"engine {self._engine()}"

    def computes_what_transformers_computes(self) -> str:
        found = self.wb.verify("nano", out=self.folder / "certificate.json", progress=False)
        assert found.agrees, found.reasons
        return f"{found.verdict}, logits within {found.ends.logits.rms:.1e}"

    def edits(self) -> str:
        edit = self.wb.AblateHead(layer=1, head=0)
        edited = self.wb.run(self.model, "Mia went to the park. Mia is in the", interventions=[edit])
        again = self.wb.run(self.model, "Mia went to the park. Mia is in the")
        assert not (edited.logits == self.run.logits).all()
        assert (again.logits == self.run.logits).all(), "an edit was left behind"
        return "one head, and back"

    def generates_a_chat(self) -> str:
        chat = self.wb.Chat().user("Where is Mia?")
        tokens = self.model.to_tokens(chat)
        steps = list(self.model.generate(tokens, max_new_tokens=8, temperature=0.0))
        return f"{len(steps)} tokens"

    def shows_a_static_bench(self) -> str:
        bench = self.wb.Bench(self.model, "Mia went to the park")
        try:
            assert bench.run.logits.isfinite().all()  # waits for the first run
            html = bench.static()
        finally:
            bench.close()
        assert "park" in html and "http://" not in html.replace("http://www.w3.org/", "")
        return f"{len(html):,} characters"

    def saves_and_reads_back(self) -> str:
        self.wb.save_pretrained(self.model, self.folder / "saved é")
        again = self.wb.load(self.folder / "saved é")
        assert (self.wb.run(again, "Mia went to the park. Mia is in the").logits == self.run.logits).all()
        return "the same logits"

    def keeps_a_result_on_disk(self) -> str:
        import xarray as xr

        data = xr.Dataset({"load": (("layer",), [0.25, 0.75])}, coords={"layer": [0, 1]})
        data.to_netcdf(self.folder / "result.nc")
        with xr.open_dataset(self.folder / "result.nc") as back:
            assert back.load().equals(data)
        return "netCDF"

    def builds_an_atlas(self) -> str:
        texts = ["Mia went to the park.", "Ben has a red cup."]
        atlas = self.wb.atlas(self.model, texts, self.folder / "atlas", progress=False)
        rows = atlas.sql("select count(*) as n from routing")["n"][0]
        assert rows > 0
        return f"{rows} rows of routing"

    def says_what_is_missing(self) -> str:
        grid = self.wb.Grid(number=[1, 2])
        results = self.wb.sweep(lambda cells: [float(cell["number"]) for cell in cells], grid, model=None)
        if importlib.util.find_spec("zarr") is not None:
            results.to_zarr(self.folder / "results.zarr")
            return "zarr is there"
        message = refused(lambda: results.to_zarr(self.folder / "results.zarr"))
        assert "pip install 'gpt-oss-workbench[scale]'" in message, message
        return "the extra that to_zarr needs"

    def has_the_command(self) -> str:
        command = [sys.executable, "-m", "workbench", "info", "nano"]
        environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONIOENCODING": ""}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, timeout=300)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return f"{len(done.stdout)} bytes of workbench info"

    def _engine(self) -> str:
        from workbench.model.engines import native

        return f"native ({native.isa()})" if native.available() else f"torch ({str(native.why_not()).splitlines()[0]})"


STEPS = (
    Smoke.imports_every_public_name,
    Smoke.loads_nano_and_answers,
    Smoke.computes_what_transformers_computes,
    Smoke.edits,
    Smoke.generates_a_chat,
    Smoke.shows_a_static_bench,
    Smoke.saves_and_reads_back,
    Smoke.keeps_a_result_on_disk,
    Smoke.builds_an_atlas,
    Smoke.says_what_is_missing,
    Smoke.has_the_command,
)


def refused(call: Callable[[], Any]) -> str:
    """The message of the ImportError that a call raises."""
    try:
        call()
    except ImportError as error:
        return str(error)
    raise AssertionError("it was not refused")


def main() -> int:
    """Every step, and the versions they ran on."""
    refuse_the_network()
    failed = ""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        smoke = Smoke(Path(folder))
        for step in STEPS:
            begun = time.perf_counter()
            try:
                said = step(smoke)
            except Exception as error:  # the next steps use what this one makes
                traceback.print_exc()
                failed = f"{step.__name__}: {type(error).__name__}: {error}"
                break
            print(f"{step.__name__:36} {time.perf_counter() - begun:6.1f} s  {said}", flush=True)
    import workbench

    names = ("torch", "transformers", "transformer-lens", "numpy", "pandas", "xarray")
    versions = {name: importlib.metadata.version(name) for name in names}
    record = {"python": platform.python_version(), "versions": versions, "from": workbench.__file__, "failed": failed}
    print(json.dumps(record))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
