"""Compiled loops and vector instructions that several fast paths share; they need numba (the extra `fast`)."""

from importlib.util import find_spec

HAS_NUMBA = find_spec("numba") is not None
NEEDS_NUMBA = "it needs numba, pip install 'mdsim[fast]'"
