"""An executed notebook gets a picture beside each figure, and keeps nothing of the machine that ran it."""

import base64

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.figures.data import text, words
from workbench import figures
from workbench.figures.static import PLOTLY, PNG, add_pictures, main, tidy

FIGURE = figures.tokens(text(words(6)))


def notebook():
    shown = new_output("display_data", data={PLOTLY: FIGURE.to_plotly_json(), "text/plain": "…"})
    pieces = [new_output("stream", name="stdout", text=piece) for piece in ("In", " the", " park")]
    cell = new_code_cell(
        "figure", outputs=[*pieces, shown, new_output("stream", name="stdout", text="after")], execution_count=1
    )
    cell.metadata["execution"] = {"iopub.status.busy": "2026-01-01T00:00:00"}
    return new_notebook(
        cells=[new_markdown_cell("text"), cell], metadata={"language_info": {"name": "python", "version": "3.11.2"}}
    )


def test_each_figure_gets_its_own_picture_at_its_own_size():
    made, drawn = notebook(), []
    assert add_pictures(made, lambda figure: drawn.append(figure) or b"picture") == 1
    output = made.cells[1].outputs[3]
    assert base64.b64decode(output.data[PNG]) == b"picture"
    assert output.data[PLOTLY] == FIGURE.to_plotly_json()
    assert output.metadata[PNG] == {"width": FIGURE.layout.width, "height": FIGURE.layout.height}
    assert drawn[0].to_plotly_json() == FIGURE.to_plotly_json()
    nbformat.validate(made)


def test_a_text_streamed_in_pieces_is_stored_as_one_and_nothing_of_the_execution_is():
    made = notebook()
    tidy(made)
    texts = [output.get("text") for output in made.cells[1].outputs]
    assert texts == ["In the park", None, "after"]
    assert "execution" not in made.cells[1].metadata
    assert made.metadata == {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.validate(made)


def test_without_a_notebook_it_says_how_it_is_called():
    with pytest.raises(SystemExit, match="usage"):
        main([])
