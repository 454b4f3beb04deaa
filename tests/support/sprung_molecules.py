"""Molecules in thermal disorder whose bonds are springs, open or in cells, with energies, forces and stresses."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

SPRING_EV_PER_A2 = 30.0
ATOM_EV = {1: -13.0, 6: -1030.0, 7: -1480.0, 8: -2040.0}
BINDING_EV = 3.0  # per atom


def sprung(name: str, n_frames: int, seed: int = 0, cell: np.ndarray | None = None) -> list[Atoms]:
    """Frames of one molecule of ASE; in a cell if one is given, which changes a little from frame to frame."""
    rng = np.random.default_rng(seed)
    rest = molecule(name)
    distances = rest.get_all_distances()
    bonded = np.argwhere(np.triu((distances < 1.7) & (distances > 0.1)))
    lowest = sum(ATOM_EV[number] - BINDING_EV for number in rest.numbers)
    frames = []
    for number in range(n_frames):
        atoms = rest.copy()
        atoms.positions += 0.03 * rng.standard_normal((len(atoms), 3))
        arms = atoms.positions[bonded[:, 1]] - atoms.positions[bonded[:, 0]]
        lengths = np.linalg.norm(arms, axis=1)
        stretched = lengths - distances[bonded[:, 0], bonded[:, 1]]
        pull = (-SPRING_EV_PER_A2 * stretched / lengths)[:, None] * arms
        forces = np.zeros_like(atoms.positions)
        np.add.at(forces, bonded[:, 1], pull)
        np.add.at(forces, bonded[:, 0], -pull)
        results = {"energy": lowest + 0.5 * SPRING_EV_PER_A2 * np.square(stretched).sum(), "forces": forces}
        if cell is not None:
            atoms.cell, atoms.pbc = (1 + 0.01 * (number % 3)) * cell, True
            results["stress"] = np.einsum("bi,bj->ij", -pull, arms) / atoms.get_volume()
        atoms.calc = SinglePointCalculator(atoms, **results)
        frames.append(atoms)
    return frames


def isolated_atoms() -> list[Atoms]:
    """Single atoms with their energies, as some programs store them with the frames."""
    frames = []
    for number, energy in ATOM_EV.items():
        atoms = Atoms([number], info={"config_type": "IsolatedAtom"})
        atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=np.zeros((1, 3)))
        frames.append(atoms)
    return frames


def many_molecules(n_each: int = 12) -> list[Atoms]:
    """Ethanols, methanes, and ammonias in cells, in turn."""
    sets = (
        sprung("CH3CH2OH", n_each, 1),
        sprung("CH4", n_each, 2),
        sprung("NH3", n_each, 3, cell=np.diag([6.0, 6.5, 7.0])),
    )
    return [frame for together in zip(*sets, strict=True) for frame in together]
