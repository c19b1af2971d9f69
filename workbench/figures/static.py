"""Give an executed notebook a still picture of each figure, so that it can be read where no script runs.

``python -m workbench.figures.static notebooks/00_start.ipynb`` runs the notebook from top to bottom and stores it with
its outputs: plotly's own form for JupyterLab, and beside it a PNG for GitHub, nbviewer and nbconvert. It needs the
packages kaleido and pillow and a Chromium or Chrome; reading and running the notebook needs none of them.
"""

from __future__ import annotations

import base64
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

PLOTLY, PNG = "application/vnd.plotly.v1+json", "image/png"
_KEPT = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}

Draw = Callable[[go.Figure], bytes]


def add_pictures(notebook: Any, draw: Draw) -> int:
    """Put a PNG beside every plotly output of a notebook, in place, and say how many.

    Args:
        notebook: as nbformat reads it.
        draw: a figure → the bytes of its PNG.
    """
    n = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            drawn = output.get("data", {}).get(PLOTLY)
            if drawn is None:
                continue
            figure = go.Figure({"data": drawn["data"], "layout": drawn["layout"]})
            output["data"][PNG] = base64.b64encode(draw(figure)).decode("ascii")
            # The picture has more pixels than its place on the page: this is the place.
            size = {"width": figure.layout.width, "height": figure.layout.height}
            output["metadata"][PNG] = {name: value for name, value in size.items() if value}
            n += 1
    return n


FOLDED = "workbench_folded"  # an output's metadata: {"line": what to click, "after": HTML under the picture}


def fold(notebook: Any) -> int:
    """Make of each output that asks for it a picture under a line that the reader opens, in place; how many there were.

    A lesson's predictions come out so: who only looks has not seen the answer yet.
    """
    n = 0
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            asked = output.get("metadata", {}).pop(FOLDED, None)
            if asked is None or PNG not in output.get("data", {}):
                continue
            width = output.metadata.pop(PNG, {}).get("width", 760)
            source = f"data:{PNG};base64,{output.data[PNG]}"
            picture = f'<img alt="the figure" style="max-width: {width}px; width: 100%" src="{source}">'
            html = f"<details><summary>{asked['line']}</summary>{picture}{asked['after']}</details>"
            output["data"] = type(output["data"])({"text/html": html, "text/plain": asked["line"]})
            n += 1
    return n


def tidy(notebook: Any) -> None:
    """Take out what only this execution knew (times, the Python version), and join what was printed piece by piece."""
    notebook.metadata = type(notebook.metadata)(_KEPT)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:
            cell.outputs = _joined(cell.outputs)


def _joined(outputs: list[Any]) -> list[Any]:
    """Neighbouring outputs of one stream as one: a text streamed token by token is one text."""
    made: list[Any] = []
    for output in outputs:
        streams = made and made[-1].output_type == output.output_type == "stream" and made[-1].name == output.name
        if streams:
            made[-1].text += output.text
        else:
            made.append(output)
    return made


def png(figure: go.Figure, scale: float = 2, n_colours: int = 256) -> bytes:
    """A figure's PNG, with as few colours as its flat areas need: a fifth of the bytes, and no difference to see."""
    from PIL import Image  # pyright: ignore[reportMissingImports]  only whoever makes pictures needs it

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The kopts argument", UserWarning)  # plotly's, of every picture by a server
        drawn = figure.to_image("png", scale=scale)
    # This method keeps rare colours (a thin line), which a median cut would drop.
    picture = Image.open(io.BytesIO(drawn)).convert("RGB").quantize(n_colours, method=Image.Quantize.MAXCOVERAGE)
    small = io.BytesIO()
    picture.save(small, "PNG", optimize=True)
    return small.getvalue()


def execute(path: Path, timeout: int = 600) -> None:
    """Run a notebook from top to bottom in its own folder and store it with outputs and pictures.

    Raises:
        nbclient.exceptions.CellExecutionError: where a cell fails; the file is then left as it was.
    """
    import kaleido  # pyright: ignore[reportMissingImports]
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=timeout, resources={"metadata": {"path": str(path.parent)}}).execute()
    kaleido.start_sync_server(silence_warnings=True)
    try:
        n = add_pictures(notebook, png)
    finally:
        kaleido.stop_sync_server(silence_warnings=True)
    fold(notebook)
    tidy(notebook)
    nbformat.write(notebook, path)
    print(f"{path}: {n} pictures, {path.stat().st_size:,} bytes")


def main(arguments: Sequence[str]) -> None:
    """Execute each notebook named on the command line."""
    if not arguments:
        sys.exit("usage: python -m workbench.figures.static NOTEBOOK.ipynb …")
    for argument in arguments:
        execute(Path(argument))


if __name__ == "__main__":
    main(sys.argv[1:])
