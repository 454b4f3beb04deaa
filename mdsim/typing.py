"""Names for tensor shapes; checked at run time in the tests (see `tests/conftest.py`)."""

from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Tensor"]
