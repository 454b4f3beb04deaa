"""The structure of a stress test: its system, its starting positions, and the covalent bonds that must hold."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.data import chemical_symbols, covalent_radii

from mdsim.boundaries import cell_of
from mdsim.datasets.sources.ase_files import read_images_in_A
from mdsim.errors import DatasetError
from mdsim.geometry import pair_distances, whole_molecules
from mdsim.state import System
from mdsim.typing import Bool, Float, Tensor

log = logging.getLogger("mdsim")

#: Elements whose bonds among one another are covalent. Bonds of metals change partners in ordinary dynamics.
NONMETALS = {
    *("H", "B", "C", "N", "O", "F", "Si", "P", "S", "Cl", "Ge", "As", "Se", "Br", "Te", "I"),
}
CLOSEST = 0.5  # distance over the sum of covalent radii, below which the structure is refused


@dataclass(frozen=True, eq=False)
class Structure:
    """Starting structures of one composition and cell, in float64.

    Args:
        system: with all bonds by covalent radii, as force fields get it.
        topology: the same with covalent bonds only, for stability criteria.
        positions: Å. The first one is the reference of bonds and angles.
        name: name of the file.
    """

    system: System
    topology: System
    positions: Float[Tensor, "structure atom 3"]
    name: str

    @property
    def reference(self) -> Float[Tensor, "atom 3"]:
        return self.positions[0]

    @property
    def formula(self) -> str:
        return Atoms(self.system.atomic_numbers.numpy()).get_chemical_formula()

    @cached_property
    def is_metallic_like(self) -> Bool[Tensor, "atom"]:
        """Atoms without a covalent bond that have neighbors within bonding distance."""
        covalent, any_bond = (torch.zeros(self.system.n_atoms, dtype=torch.bool) for _ in range(2))
        covalent[self.topology.bonds.flatten()] = True
        any_bond[self.system.bonds.flatten()] = True
        return any_bond & ~covalent


def read_structure(path: Path) -> Structure:
    """The structures of a file that ASE reads.

    Raises:
        DatasetError: the file cannot be read, contains several systems, or atoms that lie on one another.
    """
    try:
        images, _ = read_images_in_A(path)
    except DatasetError as error:
        raise DatasetError(f"--structure {str(error).split('; name the format')[0]}") from error
    first = images[0]
    try:
        cell = cell_of(first)
    except ValueError as error:
        raise DatasetError(f"--structure {path}: {error}") from error
    for number, image in enumerate(images):
        if not (
            np.array_equal(image.numbers, first.numbers)
            and np.array_equal(image.pbc, first.pbc)
            and np.allclose(image.cell.array, first.cell.array)
        ):
            raise DatasetError(
                f"--structure {path}: structure {number} has other elements, boundaries or another cell than the first "
                "one; give structures of one system"
            )
        if not np.isfinite(image.positions).all():
            raise DatasetError(f"--structure {path}: structure {number} has positions that are not finite")
    if any(image.constraints for image in images):
        log.warning("--structure %s: its constraints are left out, all atoms move", path)
    if len(first) < 2:
        raise DatasetError(f"--structure {path}: has a single atom, on which no force acts; give at least two atoms")
    positions = torch.from_numpy(np.stack([image.positions for image in images]))
    system = System.from_geometry(first.numbers, first.positions, cell, torch.float64)
    _check_distances(path, system, positions[0])
    return Structure(system, covalent(system), whole_molecules(positions, system.bonds, system.cell), path.name)


def covalent(system: System) -> System:
    """The system with the bonds between nonmetals only."""
    known = torch.tensor([chemical_symbols[number] in NONMETALS for number in system.atomic_numbers.tolist()])
    kept = system.bonds[known[system.bonds].all(-1)]
    return System.from_bonds(system.atomic_numbers, kept, system.cell, system.masses, system.masses.dtype)


def covalent_radii_A(system: System) -> Float[Tensor, "atom"]:
    """Covalent radius of each atom, Å."""
    return torch.from_numpy(covalent_radii[system.atomic_numbers.numpy()])


def _check_distances(path: Path, system: System, positions: Float[Tensor, "atom 3"]) -> None:
    """Refuse atoms that lie on one another: the file has another unit, or is damaged."""
    if not len(system.bonds):
        return
    radii = covalent_radii_A(system)
    ratios = pair_distances(positions, system.bonds, system.cell) / radii[system.bonds].sum(-1)
    worst = int(ratios.argmin())
    if ratios[worst] < CLOSEST:
        i, j = system.bonds[worst].tolist()
        names = [f"{chemical_symbols[int(system.atomic_numbers[atom])]}{atom}" for atom in (i, j)]
        distance = float(pair_distances(positions, system.bonds[worst][None], system.cell))
        raise DatasetError(
            f"--structure {path}: {names[0]} and {names[1]} are {distance:.2f} Å apart, {ratios[worst]:.2f} times the "
            "sum of their covalent radii; positions must be in Å"
        )
