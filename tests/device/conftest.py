"""The pretend device as a fixture."""

from collections.abc import Iterator

import pytest
from pretend_device import Ledger, pretend_cuda


@pytest.fixture
def pretended() -> Iterator[Ledger]:
    """Two pretend GPUs, and the ledger of their work."""
    with pretend_cuda() as ledger:
        yield ledger
