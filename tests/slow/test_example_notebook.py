"""The example notebook runs from the first cell to the last, and its progress is one line."""

from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "notebook" / "cartpole.ipynb"


@pytest.mark.slow
def test_the_example_notebook_trains_draws_and_acts(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    preprocessors = pytest.importorskip("nbconvert.preprocessors")
    pytest.importorskip("ipykernel")
    pytest.importorskip("pandas")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    preprocessors.ExecutePreprocessor(timeout=600, kernel_name="python3").preprocess(notebook, resources)
    training, shown, figure, frame, acting = (cell.outputs for cell in notebook.cells if cell.cell_type == "code")

    lines = [output for output in training if output.output_type == "display_data"]
    assert [line.data["text/plain"].split("  ")[0] for line in lines] == ["round 60/60"]
    # What runs is said once; progress is no text.
    (opening,) = (output.text for output in training if output.get("name") == "stdout")
    assert opening.startswith("strategy fedpg-br, ")
    assert opening.count("\n") == 1
    assert shown[0].data["text/html"].startswith("<table>")
    assert "data:image/png;base64," in shown[0].data["text/html"]
    assert shown[0].data["text/plain"].startswith("<Run runs/")
    assert "image/png" in figure[0].data
    assert "bytes_up" in frame[0].data["text/html"]
    assert "held the pole for" in acting[0].text
