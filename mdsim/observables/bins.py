"""Bins of equal width for histograms."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mdsim.typing import Float, Tensor


@dataclass(frozen=True)
class Bins:
    """``count`` equal bins of ``width`` from ``start``. The last bin includes its upper edge."""

    start: float
    width: float
    count: int

    @classmethod
    def spanning(cls, start: float, stop: float, width: float) -> Bins:
        """Bins of this width that fill the range exactly.

        Raises:
            ValueError: the range is not a positive whole number of bins.
        """
        if not (width > 0 and stop > start):
            raise ValueError(f"bins need a positive width and range, found width {width} from {start} to {stop}")
        count = round((stop - start) / width)
        if count < 1 or abs(count * width - (stop - start)) > 1e-6 * (stop - start):
            raise ValueError(f"the range {start} to {stop} is not a whole number of bins of width {width}")
        return cls(start, (stop - start) / count, count)

    @property
    def stop(self) -> float:
        return self.start + self.count * self.width

    @property
    def edges(self) -> Float[Tensor, "edge"]:
        return self.start + self.width * torch.arange(self.count + 1, dtype=torch.float64)

    @property
    def centers(self) -> Float[Tensor, "bin"]:
        return self.start + self.width * (torch.arange(self.count, dtype=torch.float64) + 0.5)
