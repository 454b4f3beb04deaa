"""Notebooks of the manual (`docs/notebooks`): executed once for the manual and for the tests.

A notebook is a Python file in the percent format of jupytext. Its outputs are kept in ``build/notebooks`` under a key
of its code and of the package, so that whoever comes second, the manual or a test, finds them there. Outputs of a long
notebook are part of the repository, and the slow tests execute it again. After a change of its code, write them anew:

    python docs/_ext/notebooks.py docs/notebooks/stabilize_your_model.py
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import jupytext
import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "notebooks"
STORED = ROOT / "docs" / "notebooks" / "outputs"  # of long notebooks
READ = ("data", "configs", "qm_pretrained_checkpoints", "stable_checkpoints")  # of the checkout, which stays unchanged
LONGEST_CELL_S = 600
KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

#: A last cell, which is not shown, prints the numbers and texts that the notebook has computed, and its processor time.
VALUES = """
import json, time
cpu_s = time.process_time()
print(json.dumps({name: value for name, value in globals().items()
                  if not name.startswith("_") and type(value) in (bool, int, float, str)}))
"""


def executed(text: str, stored: bool = True) -> NotebookNode:
    """The notebook of a text with its outputs. ``metadata["computed"]`` has its variables that are numbers or text.

    Args:
        text: a notebook in the percent format.
        stored: take the outputs in the repository, if there are any of this code.
    """
    notebook = jupytext.reads(text, fmt="py:percent")
    code = _key(notebook)
    kept = STORED / f"{code}.ipynb"
    if not (stored and kept.exists()):
        kept = KEPT / f"{code}-{_key_of_the_package()}.ipynb"
    if not kept.exists():
        _keep(_run(notebook), kept)
    done = nbformat.read(kept, as_version=4)
    for cell, source in zip(_code(notebook), _code(done), strict=True):
        cell.outputs, cell.execution_count = source.outputs, source.execution_count
    notebook.metadata.update(done.metadata)
    return notebook


def store(path: Path) -> Path:
    """Execute a notebook and write its outputs to the repository, in place of earlier ones."""
    text = path.read_text(encoding="utf-8")
    notebook = executed(text, stored=False)
    for earlier in STORED.glob("*.ipynb"):
        if nbformat.read(earlier, as_version=4).metadata.get("name") == path.stem:
            earlier.unlink()
    notebook.metadata["name"] = path.stem
    kept = STORED / f"{_key(notebook)}.ipynb"
    _keep(notebook, kept)
    return kept


def _key(notebook: NotebookNode) -> str:
    """Of the code of a notebook, without the text between cells."""
    return _digest(cell.source.encode() for cell in _code(notebook))


def _key_of_the_package() -> str:
    """Of the package, and of this file."""
    return _digest(path.read_bytes() for path in (Path(__file__), *sorted((ROOT / "mdsim").rglob("*.py"))))


def _digest(parts: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _run(notebook: NotebookNode) -> NotebookNode:
    """The notebook, executed in a folder that sees the data and checkpoints of the checkout."""
    running = nbformat.from_dict({**notebook, "cells": [*notebook.cells, nbformat.v4.new_code_cell(VALUES)]})
    paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with tempfile.TemporaryDirectory() as folder:
        for name in READ:
            (Path(folder) / name).symlink_to(ROOT / name)
        kernel = AsyncKernelManager(kernel_name=KERNEL["name"], transport="ipc", ip=f"{folder}/kernel")
        client = NotebookClient(running, kernel, timeout=LONGEST_CELL_S, resources={"metadata": {"path": folder}})
        client.execute(env=os.environ | {"PYTHONPATH": paths, "PATH": f"{Path(sys.executable).parent}:{os.defpath}"})
    for output in (output for cell in _code(running) for output in cell.outputs if "text" in output):
        output.text = output.text.replace(folder, "CHECKOUT")
    values = running.cells.pop()
    running.metadata["kernelspec"] = KERNEL
    running.metadata["computed"] = json.loads("".join(output.text for output in values.outputs))
    return running


def _keep(notebook: NotebookNode, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    nbformat.write(notebook, temporary)
    temporary.replace(path)


def _offer(app: Sphinx, name: str, source: list[str]) -> None:
    """A line below the title with the notebook to download."""
    folder, _, page = name.rpartition("/")
    if folder == "notebooks" and Path(app.env.doc2path(name)).suffix == ".py":
        title, _, rest = source[0].partition("\n#\n")
        link = f"# *Download as a notebook, to run in a checkout: {{nb-download}}`{page}.ipynb`.*"
        source[0] = f"{title}\n#\n{link}\n#\n{rest}"


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("source-read", _offer)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    print(store(Path(sys.argv[1])))
