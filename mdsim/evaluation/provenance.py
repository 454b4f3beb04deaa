"""The origin of results: versions of the packages that they depend on."""

from __future__ import annotations

import platform
from importlib.metadata import version

import mdsim

PACKAGES = ("torch", "numpy", "scipy", "ase", "e3nn")


def versions() -> dict[str, str]:
    """Versions of Python, mdsim and the packages that do the arithmetic."""
    return {
        "python": platform.python_version(),
        "mdsim": mdsim.__version__,
        **{name: version(name) for name in PACKAGES},
    }
