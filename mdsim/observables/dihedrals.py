"""Distributions of dihedral angles, and their free-energy profiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.geometry import dihedrals_deg
from mdsim.observables.bins import Bins
from mdsim.observables.histogram import molecule_histogram, tuple_histogram
from mdsim.observables.rotatable import Quadruplet
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Int, Tensor
from mdsim.units import kT_eV

#: Density, relative to the uniform one, that stands for an empty bin in a free-energy profile.
EMPTY = 1e-3


@dataclass(frozen=True)
class DihedralDistribution:
    """Probability density in 1/degree of dihedral angles over (-180, 180] degrees, averaged over the given ones.

    An undefined angle (three atoms on a line, see `mdsim.geometry.dihedrals`) is not counted, so that the density of
    its frame integrates to less than 1.

    Args:
        atoms: indices of i, j, k and l for each dihedral, for example from `rotatable_dihedrals`.
        bin_width_deg: width of a bin, which must divide 360 degrees.
        label: added to the name of the results.

    Raises:
        ValueError: no dihedral, one that does not have four atoms, or a width that does not divide 360 degrees.
    """

    atoms: tuple[Quadruplet, ...]
    bin_width_deg: float
    label: str = ""

    unit: ClassVar[str] = "degree"

    def __post_init__(self) -> None:
        Bins.spanning(-180.0, 180.0, self.bin_width_deg)
        if not self.atoms:
            raise ValueError("a distribution of dihedral angles needs at least one of them")
        for quadruplet in self.atoms:
            if len(quadruplet) != 4 or len(set(quadruplet)) != 4 or min(quadruplet) < 0:
                raise ValueError(f"a dihedral angle has four different atoms i, j, k, l; found {list(quadruplet)}")

    @property
    def name(self) -> str:
        return f"dihedral_{self.label}" if self.label else "dihedral"

    @property
    def bins(self) -> Bins:
        return Bins.spanning(-180.0, 180.0, self.bin_width_deg)

    @property
    def bin_centers(self) -> Float[Tensor, "bin"]:
        return self.bins.centers

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica bin"]:
        """The density in each bin; NaN for frames with a coordinate that is not finite.

        Args:
            system: the system of the frames.
            trajectory: positions in Å.

        Raises:
            ValueError: an atom that the system does not have.
        """
        counts = tuple_histogram(
            dihedrals_deg, trajectory.positions, self._quadruplets(system), trajectory.in_cells(system).cell, self.bins
        )
        return counts / (len(self.atoms) * self.bins.width)

    def per_molecule(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica molecule bin"]:
        """Contribution of each molecule. The mean over molecules is the density of the frame, see `LocalObservable`."""
        counts = molecule_histogram(dihedrals_deg, trajectory.positions, self._quadruplets(system), system, self.bins)
        return counts * (system.n_molecules / (len(self.atoms) * self.bins.width))

    def _quadruplets(self, system: System) -> Int[Tensor, "dihedral 4"]:
        if missing := [one for one in self.atoms if max(one) >= system.n_atoms]:
            raise ValueError(f"dihedral {list(missing[0])}: the system has the atoms 0 to {system.n_atoms - 1}")
        return torch.tensor(self.atoms, device=system.bonds.device)


def free_energy_eV(density: Float[Tensor, "*batch bin"], temperature_K: float) -> Float[Tensor, "*batch bin"]:
    """Free-energy profile -kT ln(p / p_uniform) in eV along an angle, zero where the density is that of free rotation.

    Args:
        density: in 1/degree. Bins with less than `EMPTY` times the uniform density, 1/360, count as having that much,
            so that the profile ends at -kT ln `EMPTY` = 6.9 kT.
        temperature_K: temperature of the ensemble.
    """
    return -kT_eV(temperature_K) * (360.0 * density).clamp_min(EMPTY).log()
