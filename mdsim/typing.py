"""Types for annotations of tensor shapes, which the tests check at run time (see `tests/conftest.py`)."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
