"""Force fields as models of torch-sim: any number of systems of several compositions and cells, evaluated together.

Needs torch-sim (`torch-sim-atomistic` on PyPI, Python 3.11 or later).
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from torch_sim import SimState
from torch_sim.models.interface import ModelInterface

from mdsim.boundaries import why_unsupported
from mdsim.calculator import check_energy_zero_name, frozen_force_field
from mdsim.errors import ConfigError
from mdsim.export.batch import Batch
from mdsim.force_field import ForceField
from mdsim.state import System
from mdsim.typing import Tensor


class TorchSimModel(ModelInterface):
    """Energies (eV), forces (eV/Å) and, in periodic systems, stresses (eV/Å³) of a force field for torch-sim.

    All systems are evaluated in one call, as one large system without pairs between its parts. Custom force fields
    whose `message_steps` are unknown may depend on more than pairs, and are evaluated system by system.

    Bonds, on which some repulsions of nuclei depend, are found anew whenever the number of systems or their atoms
    change.

    Args:
        checkpoint: a file that `load_force_field` reads, or a force field (which is copied).
        device: device of the computation.
        dtype: that of the states. In float32 large total energies are rounded, to 1 meV at 10,000 eV.
        skin: skin of the neighbor lists, Å.
        allow_factory: factory that may make a custom model, see `load_force_field`.
        energy_zero: see `ForceFieldCalculator`. ``relative`` keeps all digits in float32.
        compute_stress: compute the stress of periodic systems.

    Raises:
        CheckpointError: the file holds no force field.
        ConfigError: ``energy_zero`` is unknown.
    """

    def __init__(
        self,
        checkpoint: ForceField | str | os.PathLike,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        skin: float = 0.5,
        allow_factory: str | None = None,
        energy_zero: str = "labels",
        compute_stress: bool = True,
    ) -> None:
        super().__init__()
        check_energy_zero_name(energy_zero)
        self.force_field = frozen_force_field(checkpoint, device, dtype, allow_factory)
        self.skin, self.energy_zero = skin, energy_zero
        self._device, self._dtype = torch.device(device), dtype
        self._compute_forces, self._compute_stress = True, compute_stress
        self._layout: tuple[Tensor, Tensor, bool] | None = None  # atomic numbers, their systems, whether periodic
        self._batch: Batch
        self._constants: Tensor  # the zero of energy of each system, eV, float64

    def forward(self, state: SimState | dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """``energy`` of each system, ``forces`` of all atoms and, with boundaries, ``stress`` of each system.

        Raises:
            ConfigError: the state is periodic along some axes only. `torch_sim.initialize_state` of release 0.3 takes
                the boundaries of slabs for open ones: check ASE atoms with `mdsim.boundaries.cell_of` before.
            UnknownSpeciesError: an element that the force field was not trained for.
            EnergyZeroError: the training data do not determine the energy of a system.
        """
        if isinstance(state, dict):
            state = SimState(**{"masses": torch.ones_like(state["positions"][:, 0]), **state})
        positions = state.positions.detach().to(self._dtype)
        cells = state.row_vector_cell.detach().to(self._dtype) if _is_periodic(state.pbc) else None
        self._follow(state, positions, cells)
        results = self._batch(positions, cells)
        energy = self._constants.index_add(0, self._batch.owners, results.atomic.double())
        output = {"energy": energy.to(self._dtype), "forces": results.forces}
        if self._compute_stress and results.stress is not None:
            output["stress"] = results.stress
        return output

    def _follow(self, state: SimState, positions: Tensor, cells: Tensor | None) -> None:
        """Set up the batch anew if the state has other atoms, other systems or other boundaries than the last one."""
        numbers, owners = state.atomic_numbers, state.system_idx
        if self._layout is not None:
            known_numbers, known_owners, was_periodic = self._layout
            same = torch.equal(numbers, known_numbers) and torch.equal(owners, known_owners)
            if same and was_periodic == (cells is not None):
                return
        sizes = torch.bincount(owners).tolist()
        of_each = zip(numbers.split(sizes), positions.split(sizes), strict=True)
        systems = [self._system(z, x, None if cells is None else cells[i]) for i, (z, x) in enumerate(of_each)]
        constants = torch.stack([self._zero_energy(system) for system in systems])
        self._batch, self._constants = Batch(self.force_field, systems, self.skin), constants.to(self._device)
        self._layout = numbers.clone(), owners.clone(), cells is not None

    def _system(self, numbers: Tensor, positions: Tensor, cell: Tensor | None) -> System:
        found = System.from_geometry(numbers.cpu(), positions.cpu(), None if cell is None else cell.cpu(), self._dtype)
        self.force_field.check_species(found)
        return found.to(self._device)

    def _zero_energy(self, system: System) -> Tensor:
        """The zero of energy of a system, eV, float64."""
        if self.energy_zero == "relative":
            return torch.zeros((), dtype=torch.float64)
        if self.energy_zero == "labels":
            self.force_field.check_energy_zero(system)
        return self.force_field.zero_energy_eV(system)


def _is_periodic(pbc: bool | Tensor) -> bool:
    axes = torch.as_tensor(pbc)
    if bool(axes.any()) != bool(axes.all()):
        raise ConfigError(f"{why_unsupported(axes.cpu().expand(3).numpy(), np.eye(3))}")
    return bool(axes.all())
