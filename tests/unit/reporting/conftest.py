"""The console as tests of it find it, and leave it to others."""

import logging

import pytest

from mdsim.reporting.console import STYLE
from mdsim.reporting.live import clear


@pytest.fixture(autouse=True)
def restored_logger(monkeypatch):
    """No command has begun. Later tests find no live line, and the logger without handlers, passing its records on."""
    monkeypatch.setattr(STYLE, "begun_s", None)
    yield
    clear()
    logger = logging.getLogger("mdsim")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)
    logging.captureWarnings(False)
