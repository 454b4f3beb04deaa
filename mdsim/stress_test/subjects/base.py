"""The interface of what a stress test examines."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch

from mdsim.interfaces import Potential
from mdsim.state import System


@runtime_checkable
class Subject(Protocol):
    """A force field of any origin. It gives the `Potential` of a system, which integrators and scans call."""

    @property
    def name(self) -> str:
        """As the user called it."""
        ...

    @property
    def kind(self) -> str:
        """Its origin, such as "ASE calculator"."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of positions in dynamics."""
        ...

    @property
    def device(self) -> torch.device:
        """Device of the dynamics."""
        ...

    def potential(self, system: System, precise: bool = False) -> Potential:
        """Energies and forces of structures of a system.

        Args:
            system: atoms, cell and bonds.
            precise: take positions in float64 on the CPU and use no faster approximation, for derivatives by
                differences. Otherwise positions are of `dtype` and on `device`.

        Raises:
            UserError: the force field cannot describe this system.
        """
        ...

    def close(self) -> None:
        """Release processes and memory."""
        ...
