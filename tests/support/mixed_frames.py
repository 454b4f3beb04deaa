"""Frames of several compositions and cells, labeled by a random force field and energies of atoms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import molecule
from ase.calculators.singlepoint import SinglePointCalculator

from mdsim.datasets.folder import Metadata, write_dataset
from mdsim.datasets.mixed import MixedFrames
from mdsim.datasets.npz import UNITS_WITH_STRESS
from mdsim.models.schnet.model import SchNet
from mdsim.state import System
from mdsim.stress import energy_forces_stress

ATOMS_EV = {1: -13.6, 6: -1029.0, 8: -2043.0}
CUTOFF_A = 3.0
MOLECULES = ("CH3OH", "H2O", "CH4")


def teacher() -> SchNet:
    """Energies of some eV that vary with the geometry; float64."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        model = SchNet(8, 8, 1, 8, cutoff=CUTOFF_A, species=tuple(ATOMS_EV)).double()
        torch.nn.init.normal_(model.lin2.weight, std=2.0)
    return model.eval()


def geometries(n_each: int, seed: int = 0) -> list[Atoms]:
    """In turn: methanol, water and methane, and a periodic ice-like pair of waters, whose cell varies."""
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(n_each):
        for name in MOLECULES:
            atoms = molecule(name)
            atoms.positions += 0.05 * rng.standard_normal((len(atoms), 3))
            frames.append(atoms)
        first, second = molecule("H2O"), molecule("H2O")
        second.positions += [1.6, 1.8, 1.7]
        atoms = first + second
        atoms.positions += 0.05 * rng.standard_normal((6, 3))
        atoms.cell = np.eye(3) * (4.0 + 0.1 * (number % 3)) + 0.05 * np.triu(rng.standard_normal((3, 3)), 1)
        atoms.pbc = True
        frames.append(atoms)
    return frames


def labeled(frames: list[Atoms]) -> list[Atoms]:
    """The frames with energies, forces and, where they are periodic, stresses, one by one."""
    model = teacher()
    for atoms in frames:
        cell = atoms.cell.array if atoms.pbc.all() else None
        system = System.from_geometry(atoms.numbers, atoms.positions, cell, torch.float64)
        positions = torch.tensor(atoms.positions)[None]
        results = {}
        if cell is None:
            energy, forces = model(system, positions)
        else:
            energy, forces, stress = energy_forces_stress(model, system, positions)
            xx, yy, zz, yz, xz, xy = (stress[0, i, j] for i, j in ((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1)))
            results["stress"] = np.array([float(one) for one in (xx, yy, zz, yz, xz, xy)])
        total = float(energy) + sum(ATOMS_EV[number] for number in atoms.numbers)
        atoms.calc = SinglePointCalculator(atoms, energy=total, forces=forces[0].numpy(), **results)
    return frames


def mixed(images: list[Atoms]) -> MixedFrames:
    """Labeled frames of ASE as a mixed set, without any converter."""
    stresses = [
        atoms.get_stress(voigt=False) if "stress" in atoms.calc.results else np.full((3, 3), np.nan) for atoms in images
    ]
    return MixedFrames(
        torch.cat([torch.from_numpy(atoms.numbers).long() for atoms in images]),
        torch.from_numpy(np.concatenate([atoms.positions for atoms in images])),
        torch.tensor([len(atoms) for atoms in images]),
        torch.tensor([atoms.get_potential_energy() for atoms in images], dtype=torch.float64),
        torch.from_numpy(np.concatenate([atoms.get_forces() for atoms in images])),
        torch.from_numpy(np.stack([atoms.cell.array * atoms.pbc.all() for atoms in images])),
        torch.from_numpy(np.stack(stresses)),
    )


def write_mixed_data(root: Path, n_each: int = 6) -> Path:
    """`<root>/toy/mixed/all`."""
    parts = {
        name: mixed(labeled(geometries(count, seed)))
        for name, count, seed in (("train", n_each, 0), ("val", 2, 1), ("test", 3, 2))
    }
    compositions = MixedFrames.cat(list(parts.values())).compositions
    metadata = Metadata(
        source="a random network",
        level_of_theory="none",
        license="MIT",
        atomic_numbers=sorted(ATOMS_EV),
        temperature_K=300.0,
        timestep_fs=None,
        structural_frame_interval_fs=None,
        contiguous_frame_interval_fs=None,
        split={"seed": 0},
        program_versions={},
        command="pytest",
        settings={},
        units=UNITS_WITH_STRESS,
        n_frames={},
        sha256={},
        compositions=compositions,
    )
    own = {name: parts[name] for name in ("train", "val")}
    write_dataset(root / "toy" / "mixed" / "all", own, {"test": parts["test"]}, metadata)
    return root
