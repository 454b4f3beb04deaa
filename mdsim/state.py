"""The central data types: the simulated `System`, one instant of all replicas (`MDState`) and a `Trajectory`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace

import ase.data
import numpy as np
import torch
from ase import Atoms
from ase.neighborlist import natural_cutoffs, neighbor_list
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from mdsim.typing import Bool, Float, Int, Tensor
from mdsim.units import KB_EV_PER_K

BOND_TOLERANCE = 1.2  # a pair closer than this times the sum of its covalent radii is bonded


@dataclass(frozen=True)
class System:
    """One chemical system, of which every replica is a copy. Masses in amu, cell in Å (rows are lattice vectors).

    Only `Trajectory.in_cells` gives a system of several cells, for measurements.
    """

    atomic_numbers: Int[Tensor, "atom"]
    masses: Float[Tensor, "atom"]
    cell: Float[Tensor, "*frames 3 3"] | None
    bonds: Int[Tensor, "bond 2"]
    molecules: Int[Tensor, "atom"]

    @classmethod
    def from_geometry(
        cls,
        atomic_numbers: Int[Tensor, "atom"] | np.ndarray,
        positions: Float[Tensor, "atom 3"] | np.ndarray,
        cell: Float[Tensor, "3 3"] | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
        masses: Float[Tensor, "atom"] | np.ndarray | None = None,
    ) -> System:
        """A system with bonds from covalent radii. Molecules are the connected components of the bonds.

        Args:
            atomic_numbers: one per atom.
            positions: an intact geometry in Å, ideally an energy minimum or the mean of many frames.
            cell: lattice vectors as rows in Å, or None for open boundaries.
            dtype: type of masses and cell.
            masses: amu. None: the natural isotopic averages.
        """
        numbers = np.asarray(atomic_numbers, dtype=np.int64)
        lattice = None if cell is None else np.asarray(cell, dtype=np.float64)
        atoms = Atoms(numbers, np.asarray(positions, dtype=np.float64), cell=lattice, pbc=cell is not None)
        first, second = neighbor_list("ij", atoms, natural_cutoffs(atoms, mult=BOND_TOLERANCE))
        once = first < second
        bonds = np.unique(np.stack([first[once], second[once]], axis=1), axis=0).astype(np.int64)
        return cls.from_bonds(numbers, torch.from_numpy(bonds), lattice, masses, dtype)

    @classmethod
    def from_bonds(
        cls,
        atomic_numbers: Int[Tensor, "atom"] | np.ndarray,
        bonds: Int[Tensor, "bond 2"],
        cell: Float[Tensor, "3 3"] | np.ndarray | None = None,
        masses: Float[Tensor, "atom"] | np.ndarray | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> System:
        """A system with given bonds. Molecules are the connected components of the bonds.

        Args:
            atomic_numbers: one per atom.
            bonds: each once, i < j.
            cell: lattice vectors as rows in Å, or None for open boundaries.
            masses: amu. None: the natural isotopic averages.
            dtype: type of masses and cell.
        """
        numbers = np.asarray(atomic_numbers, dtype=np.int64)
        graph = coo_matrix((np.ones(len(bonds)), bonds.numpy().T), shape=(len(numbers), len(numbers)))
        return cls(
            atomic_numbers=torch.from_numpy(numbers),
            masses=torch.as_tensor(ase.data.atomic_masses[numbers] if masses is None else masses, dtype=dtype),
            cell=None if cell is None else torch.as_tensor(cell, dtype=dtype),
            bonds=bonds,
            molecules=torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64)),
        )

    @property
    def n_atoms(self) -> int:
        return self.atomic_numbers.shape[0]  # of any size in a traced model, unlike `len`

    @property
    def n_molecules(self) -> int:
        return int(self.molecules.max()) + 1

    @property
    def internal_degrees_of_freedom(self) -> int:
        """Number of momenta that remain when total momentum and, with open boundaries, angular momentum are zero."""
        if self.n_atoms == 1:
            return 0
        rotations = 0 if self.cell is not None else (2 if self.n_atoms == 2 else 3)
        return 3 * self.n_atoms - 3 - rotations

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> System:
        """The same system on another device, or with floating-point fields of another type."""
        return System(
            self.atomic_numbers.to(device),
            self.masses.to(device, dtype),
            None if self.cell is None else self.cell.to(device, dtype),
            self.bonds.to(device),
            self.molecules.to(device),
        )


@dataclass(frozen=True)
class MDState:
    """One instant of all replicas, in Å, eV, eV/Å and ASE velocity units. Positions are unwrapped.

    Attributes:
        thermostat: variables of the thermostat.
        cell: lattice vectors of each replica as rows (Å), where they move. None: all have `System.cell`.
        stress: of the potential energy (eV/Å³), where the cell moves.
        barostat: variables of the barostat.
        kT: thermal energy of the bath of each replica (eV). None: that of the integrator.
        pressure: external pressure on each replica (eV/Å³). None: that of the integrator.
    """

    positions: Float[Tensor, "replica atom 3"]
    velocities: Float[Tensor, "replica atom 3"]
    forces: Float[Tensor, "replica atom 3"]
    energy: Float[Tensor, "replica"]
    thermostat: Float[Tensor, "replica ..."] | None = None
    cell: Float[Tensor, "replica 3 3"] | None = None
    stress: Float[Tensor, "replica 3 3"] | None = None
    barostat: Float[Tensor, "replica ..."] | None = None
    kT: Float[Tensor, "replica"] | None = None
    pressure: Float[Tensor, "replica"] | None = None

    @property
    def n_replicas(self) -> int:
        return len(self.energy)

    def __getitem__(self, index: Int[Tensor, "chosen"] | Bool[Tensor, "replica"] | slice) -> MDState:
        """The chosen replicas."""
        return self._map(lambda field: field[index])

    def detach(self) -> MDState:
        return self._map(torch.Tensor.detach)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> MDState:
        return self._map(lambda field: field.to(device, dtype))

    def assign(self, index: Int[Tensor, "chosen"] | Bool[Tensor, "replica"], other: MDState) -> MDState:
        """A copy in which the chosen replicas are those of ``other``, in order."""
        new = {}
        for name, value in self.tensors().items():
            new[name] = value.clone()
            new[name][index] = other.tensors()[name]
        return replace(self, **new)

    @staticmethod
    def cat(states: Sequence[MDState]) -> MDState:
        """All replicas of several states, in order."""
        names = states[0].tensors()
        return replace(states[0], **{name: torch.cat([state.tensors()[name] for state in states]) for name in names})

    def tensors(self) -> dict[str, Tensor]:
        """The fields that are present, by name; `MDState(**tensors)` restores the state."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if value is not None}

    def _map(self, function) -> MDState:
        return replace(self, **{name: function(value) for name, value in self.tensors().items()})


@dataclass(frozen=True)
class Trajectory:
    """Evenly spaced frames of all replicas, in Å, eV and ASE velocity units. Positions are unwrapped.

    Attributes:
        cell: lattice vectors as rows (Å), where they move. None: all frames have `System.cell`.
    """

    positions: Float[Tensor, "frame replica atom 3"]
    velocities: Float[Tensor, "frame replica atom 3"] | None
    energy: Float[Tensor, "frame replica"] | None
    frame_interval_fs: float
    cell: Float[Tensor, "frame replica 3 3"] | None = None

    @property
    def n_frames(self) -> int:
        return len(self.positions)

    @property
    def n_replicas(self) -> int:
        return self.positions.shape[1]

    def __getitem__(self, frames: slice | Int[Tensor, "chosen"]) -> Trajectory:
        """The chosen frames. The frame interval is scaled by the step of a slice."""
        step = (frames.step or 1) if isinstance(frames, slice) else 1
        return self.map(lambda field: field[frames], self.frame_interval_fs * step)

    def in_cells(self, system: System) -> System:
        """The system with the cells of the frames, if they move: of shape (frame, replica, 3, 3) instead of (3, 3)."""
        return system if self.cell is None else replace(system, cell=self.cell)

    def replicas(self, index: Int[Tensor, "chosen"] | Bool[Tensor, "replica"] | slice) -> Trajectory:
        """The chosen replicas."""
        return self.map(lambda field: field[:, index])

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Trajectory:
        return self.map(lambda field: field.to(device, dtype))

    @staticmethod
    def cat(pieces: Sequence[Trajectory]) -> Trajectory:
        """Consecutive stretches of the same replicas as one trajectory."""

        def joined(name: str) -> Tensor | None:
            values = [getattr(piece, name) for piece in pieces]
            return None if values[0] is None else torch.cat(values)

        positions, interval_fs = torch.cat([piece.positions for piece in pieces]), pieces[0].frame_interval_fs
        return Trajectory(positions, joined("velocities"), joined("energy"), interval_fs, joined("cell"))

    def map(self, function: Callable[[Tensor], Tensor], frame_interval_fs: float | None = None) -> Trajectory:
        """A function of each array, at the same interval unless another one is given."""
        return Trajectory(
            function(self.positions),
            None if self.velocities is None else function(self.velocities),
            None if self.energy is None else function(self.energy),
            self.frame_interval_fs if frame_interval_fs is None else frame_interval_fs,
            None if self.cell is None else function(self.cell),
        )


def kinetic_energy_eV(
    velocities: Float[Tensor, "*batch atom 3"], masses: Float[Tensor, "atom"]
) -> Float[Tensor, "*batch"]:
    """Kinetic energy in eV from velocities in ASE units."""
    return 0.5 * (masses[:, None] * velocities.square()).sum((-2, -1))


def kinetic_temperature_K(
    velocities: Float[Tensor, "*batch atom 3"], masses: Float[Tensor, "atom"], degrees_of_freedom: int
) -> Float[Tensor, "*batch"]:
    """Temperature by equipartition over the given degrees of freedom."""
    return 2 * kinetic_energy_eV(velocities, masses) / (degrees_of_freedom * KB_EV_PER_K)
