"""Compiled loops and vector instructions shared by the fast paths. They need numba (the extra `fast`)."""

from importlib.util import find_spec

HAS_NUMBA = find_spec("numba") is not None
NEEDS_NUMBA = "it needs numba, pip install 'mdsim[fast]'"
