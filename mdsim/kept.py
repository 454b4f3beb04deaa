"""Values that follow from a tensor and are kept: a GPU makes them by launches, and the host waits to read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from mdsim.typing import Tensor

Value = TypeVar("Value")


class Kept(Generic[Value]):
    """A function of a tensor whose values are kept for the latest tensors, by identity and version.

    Tensors with gradients, on whose graph no one may hold, and inference tensors, which have no version, are evaluated
    anew each time.

    Args:
        function: of a tensor and hashable arguments.
        most: values kept; the oldest is dropped first.
    """

    def __init__(self, function: Callable[..., Value], most: int = 16) -> None:
        self.function, self.most = function, most
        self._kept: dict[tuple[Any, ...], tuple[Tensor, int, Value]] = {}

    def __call__(self, tensor: Tensor, *arguments: Any) -> Value:
        """The value for a tensor, with further arguments of the function."""
        if tensor.requires_grad or tensor.is_inference():
            return self.function(tensor, *arguments)
        key = id(tensor), *arguments
        kept = self._kept.get(key)
        if kept is None or kept[0] is not tensor or kept[1] != tensor._version:
            while len(self._kept) >= self.most:
                del self._kept[next(iter(self._kept))]
            kept = self._kept[key] = tensor, tensor._version, self.function(tensor, *arguments)
        return kept[2]
