"""ASE calculators of known behavior for stress tests: a sound molecule, and the same with one deliberate fault each.

The molecule is ethanol as a network of pair potentials: Morse bonds, springs between the ends of each angle, and
Lennard-Jones pairs farther apart.
"""

import numpy as np
import torch
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from ase.cluster import Icosahedron
from paths import ROOT

from mdsim.observables.adf import bonded_triplets
from mdsim.state import System

ASPIRIN = "qm_pretrained_checkpoints/schnet/aspirin_gfn2-aspirin_40_schnet/checkpoints/best_checkpoint.pt"
BOND_EV_PER_A2, BOND_EV, ANGLE_EV_PER_A2 = 30.0, 4.5, 8.0
EPSILON_EV, SIGMA_A = 0.01, 2.2
CUTOFF_A = 2.8


def ethanol() -> Atoms:
    return molecule("CH3CH2OH")


def copper() -> Atoms:
    return Icosahedron("Cu", 2)


class PairMolecule(Calculator):
    """Ethanol. `unit` scales all, `swirl_eV_per_A2` adds forces that are no gradient, `cutoff_A` truncates."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's convention

    def __init__(self, unit=1.0, energy_unit=1.0, swirl_eV_per_A2=0.0, cutoff_A=None, wall=True):
        super().__init__()
        self.unit, self.energy_unit, self.swirl, self.cutoff_A, self.wall = (
            unit,
            energy_unit,
            swirl_eV_per_A2,
            cutoff_A,
            wall,
        )
        atoms = ethanol()
        system = System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64)
        n = len(atoms)
        self.i, self.j = np.triu_indices(n, 1)
        self.kind = np.full(len(self.i), 2)
        ends = {tuple(sorted(pair)) for pair in bonded_triplets(system)[:, [0, 2]].tolist()}
        bonds = {tuple(pair) for pair in system.bonds.tolist()}
        for place, pair in enumerate(zip(self.i.tolist(), self.j.tolist(), strict=True)):
            self.kind[place] = 0 if pair in bonds else 1 if pair in ends else 2
        self.rest = atoms.get_all_distances()[self.i, self.j]

    def calculate(self, atoms=None, properties=("energy",), system_changes=tuple(all_changes)):
        super().calculate(atoms, properties, system_changes)
        if self.atoms.get_chemical_symbols() != ethanol().get_chemical_symbols():
            raise ValueError("only ethanol is known")
        x = self.atoms.positions
        arms = x[self.j] - x[self.i]
        r = np.linalg.norm(arms, axis=1)
        energy, slope = self._pairs(r)
        pull = (slope / r)[:, None] * arms
        forces = np.zeros_like(x)
        np.add.at(forces, self.i, pull)
        np.add.at(forces, self.j, -pull)
        forces += self.swirl * np.cross([0.0, 0.0, 1.0], x - x.mean(0))
        self.results = {"energy": energy.sum() * self.unit * self.energy_unit, "forces": forces * self.unit}

    def _pairs(self, r):
        """Energy of each pair, eV, and its slope."""
        stretch = r - self.rest
        width = np.sqrt(BOND_EV_PER_A2 / (2 * BOND_EV))
        decay = np.exp(-width * stretch)
        morse, morse_slope = BOND_EV * (1 - decay) ** 2, 2 * BOND_EV * width * (1 - decay) * decay
        spring, spring_slope = 0.5 * ANGLE_EV_PER_A2 * stretch**2, ANGLE_EV_PER_A2 * stretch
        sixth = (SIGMA_A / r) ** 6
        twelfth = sixth**2 if self.wall else 0 * sixth
        far, far_slope = 4 * EPSILON_EV * (twelfth - sixth), -24 * EPSILON_EV * (2 * twelfth - sixth) / r
        if self.cutoff_A is not None:
            far, far_slope = np.where(r < self.cutoff_A, far, 0.0), np.where(r < self.cutoff_A, far_slope, 0.0)
        kinds = [self.kind == 0, self.kind == 1]
        return np.select(kinds, [morse, spring], far), np.select(kinds, [morse_slope, spring_slope], far_slope)


def sound():
    return PairMolecule()


def in_kcal():
    return PairMolecule(unit=units.mol / units.kcal)


def energies_in_hartree():
    return PairMolecule(energy_unit=1 / units.Hartree)


def truncated():
    return PairMolecule(cutoff_A=CUTOFF_A)


def swirling():
    return PairMolecule(swirl_eV_per_A2=0.1)


def fails_later():
    """Raises an error for every structure but the first."""

    class Fails(PairMolecule):
        calls = 0

        def calculate(self, *arguments, **options):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("out of luck")
            super().calculate(*arguments, **options)

    return Fails()


def not_a_calculator():
    return 42


def inverted():
    class Inverted(PairMolecule):
        def calculate(self, *arguments, **options):
            super().calculate(*arguments, **options)
            self.results["forces"] = -self.results["forces"]

    return Inverted()


def halved():
    """Energies are half of what the forces say, as in a sum over pairs that counts each once too few."""
    return PairMolecule(energy_unit=0.5)


def torch_sim_aspirin():
    from mdsim.export.torchsim import TorchSimModel

    return TorchSimModel(ROOT / ASPIRIN, dtype=torch.float64, energy_zero="relative")
