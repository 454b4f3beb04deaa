"""Potential energy per molecule, and the enthalpy of vaporization of a liquid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mdsim.observables.histogram import finite_frames
from mdsim.state import System, Trajectory
from mdsim.typing import Float, Tensor
from mdsim.units import KJ_PER_MOL, kT_eV


@dataclass(frozen=True)
class EnergyPerMolecule:
    """Potential energy per molecule in kJ/mol.

    It depends on the parameters of the force field through the energy itself. It is a metric and no training target,
    see `EnergyDistribution`.

    Args:
        zero_eV: total energy at which the energy of the trajectory is zero.
    """

    zero_eV: float = 0.0

    name: ClassVar[str] = "energy_per_molecule"
    unit: ClassVar[str] = "kJ/mol"
    has_mean: ClassVar[bool] = True
    depends_on_parameters: ClassVar[bool] = True

    def __call__(self, system: System, trajectory: Trajectory) -> Float[Tensor, "frame replica 1"]:
        """The energy of each frame in kJ/mol; NaN for frames with an energy or a coordinate that is not finite.

        Args:
            system: its number of molecules.
            trajectory: positions in Å and energies in eV.

        Raises:
            ValueError: the trajectory has no energies.
        """
        if trajectory.energy is None:
            raise ValueError(f"{self.name} needs a trajectory with energies, but it has none")
        known = finite_frames(trajectory.positions) & trajectory.energy.isfinite()
        energies_eV = (trajectory.energy.double() + self.zero_eV) / system.n_molecules
        values = self._of_molecule_eV(energies_eV) / KJ_PER_MOL
        return torch.where(known, values, torch.nan)[..., None].to(trajectory.energy)

    def _of_molecule_eV(self, energies_eV: Float[Tensor, "frame replica"]) -> Float[Tensor, "frame replica"]:
        return energies_eV


@dataclass(frozen=True)
class EnthalpyOfVaporization(EnergyPerMolecule):
    """Enthalpy of vaporization in kJ/mol, <U_gas> - <U_liquid> / N + k_B T, of a liquid of one kind of molecules.

    The vapor is an ideal gas, and the volume of the liquid is neglected. Nuclei are classical, and no correction for
    polarization is made.

    Args:
        zero_eV: total energy at which the energy of the trajectory is zero.
        gas_energy_eV: mean potential energy of one molecule in the gas at the same temperature, total.
        temperature_K: temperature.
    """

    gas_energy_eV: float = 0.0
    temperature_K: float = 300.0

    name: ClassVar[str] = "enthalpy_of_vaporization"

    def _of_molecule_eV(self, energies_eV: Float[Tensor, "frame replica"]) -> Float[Tensor, "frame replica"]:
        return self.gas_energy_eV - energies_eV + kT_eV(self.temperature_K)
