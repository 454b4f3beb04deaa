"""ASE calculator of a trained force field."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.stress import full_3x3_to_voigt_6_stress

from mdsim.boundaries import cell_of
from mdsim.errors import ConfigError
from mdsim.force_field import ForceField
from mdsim.models import load_force_field
from mdsim.neighbors import NeighborList
from mdsim.state import System
from mdsim.stress import atomic_energies_forces_stress
from mdsim.typing import Float, Tensor

ENERGY_ZEROS = ("labels", "estimated", "relative")
_ENERGIES = {"energy", "free_energy", "energies"}


class ForceFieldCalculator(Calculator):
    """Energies, forces and stresses of a force field for ASE. The neighbor list is reused while atoms move little.

    Energies are total energies on the scale of the training labels: the model's energies plus `zero_energy_eV`. If the
    training data do not determine them, as for a molecule that was not in training, they are refused unless
    `energy_zero` allows them. Forces are always available. Boundaries are periodic along all three axes or none.
    Periodic systems have a stress, so that ASE's cell filters work; it is computed only if it is asked for.

    Args:
        checkpoint: a file that `load_force_field` reads, or a force field (which is copied).
        device: device of the computation.
        dtype: float32 for speed, float64 for derivatives by finite differences (vibrations) and tight relaxations.
        skin: skin of the neighbor list, Å.
        allow_factory: factory that may make a custom model, see `load_force_field`.
        energy_zero: ``labels``: total energies, if they are determined; ``estimated``: total energies, with the zero of
            other compositions estimated from the energies per atom; ``relative``: model energies, without any constant.

    Raises:
        CheckpointError: the file holds no force field.
        ConfigError: ``energy_zero`` is unknown.
    """

    atoms: Atoms  # a copy of those of the last call, made by ASE
    implemented_properties = ["energy", "free_energy", "energies", "forces", "stress"]  # noqa: RUF012 - ASE's convention

    def __init__(
        self,
        checkpoint: ForceField | str | os.PathLike,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        skin: float = 0.5,
        allow_factory: str | None = None,
        energy_zero: str = "labels",
    ) -> None:
        super().__init__()
        check_energy_zero_name(energy_zero)
        self.force_field = frozen_force_field(checkpoint, device, dtype, allow_factory)
        self.device = torch.device(device)
        self.dtype = dtype
        self.skin = skin
        self.energy_zero = energy_zero
        self._system_key: tuple | None = None

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Fill `results` (eV, eV/Å, eV/Å³) for the given atoms; called by ASE.

        Raises:
            ConfigError: periodic along some axes only, or along axes without lattice vectors.
            UnknownSpeciesError: an element that the force field was not trained for.
            EnergyZeroError: energies are among the properties, and the training data do not determine them.
            PropertyNotImplementedError: stress is among the properties, and the boundaries are open.
        """
        super().calculate(atoms, properties, system_changes)
        self._follow(self.atoms)
        with_stress = "stress" in properties
        if with_stress and self._system.cell is None:
            raise PropertyNotImplementedError("stress needs pbc=True along all three axes; the atoms have pbc=False")
        atomic, self.results = self._model_results(with_stress)
        if self._constants is not None:
            energies = atomic.cpu().double() + self._constants
            energy = energies.sum().item()
            self.results |= {"energy": energy, "free_energy": energy, "energies": energies.numpy()}
        elif _ENERGIES & set(properties):
            self.force_field.check_energy_zero(self._system)  # says why not

    def _model_results(self, with_stress: bool) -> tuple[Float[Tensor, "atom"], dict[str, Any]]:
        """The model's atomic energies (eV); forces (eV/Å) and, on request, stress (eV/Å³) as ASE has them."""
        positions = torch.tensor(self.atoms.positions, dtype=self.dtype, device=self.device)[None].requires_grad_()
        pairs = self._neighbor_list(positions)
        if not with_stress:
            atomic = self.force_field.atomic_energies(self._system, positions, pairs)
            (gradient,) = torch.autograd.grad(atomic.sum(), positions)
            return atomic[0].detach(), {"forces": _array(-gradient[0])}
        atomic, forces, stress = atomic_energies_forces_stress(self.force_field, self._system, positions, pairs)
        return atomic[0], {"forces": _array(forces[0]), "stress": full_3x3_to_voigt_6_stress(_array(stress[0]))}

    def why_undetermined(self) -> str | None:
        """The reason why the total energy of the atoms of the last call is not determined, or None if it is."""
        return self.force_field.why_undetermined(self._system)

    def _follow(self, atoms: Atoms) -> None:
        """Start a new neighbor list if elements, cell or boundaries differ from those of the last call."""
        key = (atoms.numbers.tobytes(), atoms.cell.array.tobytes(), atoms.pbc.tobytes())
        if key == self._system_key:
            return
        system = System.from_geometry(atoms.numbers, atoms.positions, cell_of(atoms), self.dtype).to(self.device)
        self.force_field.check_species(system)
        self._system = system
        self._neighbor_list = NeighborList(system, self.force_field.cutoff, self.skin)
        self._constants = self._zero_energies(system)
        self._system_key = key

    def _zero_energies(self, system: System) -> Float[Tensor, "atom"] | None:
        """Zero of energy per atom, to be added to the model's atomic energies, eV. None if it is not determined."""
        if self.energy_zero == "relative":
            return torch.zeros(system.n_atoms, dtype=torch.float64)
        if self.energy_zero == "labels":
            if self.force_field.why_undetermined(system):
                return None
            self.force_field.check_energy_zero(system)  # may have to warn
        return self.force_field.zero_energies_eV(system).cpu()


def check_energy_zero_name(energy_zero: str) -> None:
    """Raise `ConfigError` unless it is one of `ENERGY_ZEROS`."""
    if energy_zero not in ENERGY_ZEROS:
        raise ConfigError(f"energy_zero: found {energy_zero!r}; use one of {', '.join(ENERGY_ZEROS)}")


def frozen_force_field(
    checkpoint: ForceField | str | os.PathLike,
    device: torch.device | str,
    dtype: torch.dtype,
    allow_factory: str | None = None,
) -> ForceField:
    """The force field in a file, or a copy of one, in evaluation mode and without gradients of its parameters."""
    if isinstance(checkpoint, ForceField):
        model = checkpoint.frozen_copy()
    else:
        model = load_force_field(checkpoint, allow_factory)
    return model.to(device, dtype).eval().requires_grad_(False)


def _array(tensor: Tensor) -> np.ndarray:
    return tensor.cpu().double().numpy()
