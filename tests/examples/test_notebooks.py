"""The notebooks of `examples/` run from end to end, with fewer images and epochs than they show, and are committed with what they show."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))

SHORTER = {
    '"digits_proxies",': '"digits_proxies", data={"subset": 320},',
    '"patch_size": 4, "embed_dim": 32, "depth": 2,': '"patch_size": 8, "embed_dim": 16, "depth": 1,',
    '"epochs": 4}': '"epochs": 1}',
    '"trials": 3,': '"trials": 2,',
    '"replicates": 2,': '"replicates": 1,',
    '"epochs": 5,': '"epochs": 1,',
    '"warmup_epochs": 1}': '"warmup_epochs": 0}',
    "seeds=3": "seeds=2",
}
"""What a cell says, and what is run: the kinds of output stay the same."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    # Small outputs: the figure's data alone, without the library that draws it.
    monkeypatch.setenv("PLOTLY_RENDERER", "plotly_mimetype")
    notebook = nbformat.read(path, as_version=4)
    kept = [_kinds(cell) for cell in notebook.cells]
    for said, run in SHORTER.items():
        (cell,) = (cell for cell in notebook.cells if cell.cell_type == "code" and said in cell.source)
        cell.source = cell.source.replace(said, run)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [_kinds(cell) for cell in notebook.cells]
    assert shown == kept, "what the committed notebook shows is of another version; execute it again"
    assert any("text/html" in kinds for kinds in shown)


def _kinds(cell: nbformat.NotebookNode) -> set[str]:
    """The kinds of output of a cell, what went to stderr left out."""
    outputs = [output for output in cell.get("outputs", []) if output.get("name") != "stderr"]
    return {kind for output in outputs for kind in output.get("data", {"stdout": ""})}
