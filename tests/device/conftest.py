"""The pretend device as a fixture, and runs without figures."""

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
from pretend_device import Ledger, pretend_cuda


@pytest.fixture
def pretended() -> Iterator[Ledger]:
    """Two pretend GPUs, and the ledger of their work."""
    with pretend_cuda() as ledger:
        yield ledger


PIXEL = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==")


@pytest.fixture
def no_figures(monkeypatch) -> None:
    """Figures of one pixel: to draw them takes longer than the runs."""

    def save(figure, path, **settings) -> None:
        Path(path).write_bytes(PIXEL)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", save)
