"""Stability criteria and ranges that follow from a structure alone, or from reference frames if there are any.

A replica is *unstable* when a covalent bond has changed by 0.5 Å, an angle between two of them by 60 degrees, a new
contact is closer than a bond, an atom has left a cluster or crystal, or the kinetic temperature is impossible. Metallic
and ionic bonds change partners in ordinary dynamics, and have no such bound.

A replica *leaves its range* earlier. With reference frames the ranges are those of `mdsim.stability.support`.
Without them they lie around the structure: 0.25 Å for bonds, 35 degrees for angles, and 0.6 times the sum of
the van der Waals radii for contacts, unless the structure itself has closer ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from ase.data import chemical_symbols

from mdsim.datasets.bonds import bond_radii
from mdsim.geometry import angles_deg, minimum_image, pair_distances
from mdsim.interfaces import StabilityCriterion
from mdsim.observables.adf import bonded_triplets
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.stability.criteria import AngleDeviation, BondLengthDeviation, TemperatureExplosion
from mdsim.stability.nonbonded import Contacts
from mdsim.stability.support import UNSEEN_CONTACT, BondedRanges, Support, coordinate_name, support_of
from mdsim.stability.verdict import non_finite
from mdsim.state import System, Trajectory
from mdsim.stress_test.structure import NONMETALS, Structure, covalent_radii_A
from mdsim.typing import Bool, Float, Tensor

BROKEN_BOND_A, BROKEN_ANGLE_DEG = 0.5, 60.0
RANGE_BOND_A, RANGE_ANGLE_DEG = 0.25, 35.0
COLLISION = 0.65  # of the sum of covalent radii, for pairs with a metal or noble gas
CLOSER_THAN_START = 0.85  # of the closest contact of a kind in the structure
DETACHED = 1.6  # distance to the nearest atom, in sums of bond radii
IMPOSSIBLE_SIGMAS, IMPOSSIBLE_FACTOR = 10.0, 4.0  # of the kinetic temperature


@dataclass(frozen=True, eq=False)
class NewContact:
    """Unstable when a pair three bonds apart or farther is closer than a bond: a collision, or a bond that formed.

    Args:
        contacts: kinds of pairs.
        closest_A: bound of each kind, Å.
    """

    contacts: Contacts
    closest_A: Float[Tensor, "kind"]
    name: str = "new_contact"

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        """Mask of the frames with such a pair."""
        rows = trajectory.positions.flatten(0, 1)
        closest = self.contacts.closest_A(rows, float(self.closest_A.max()))
        close = (closest < self.closest_A.to(rows)).any(-1)
        return close.unflatten(0, trajectory.positions.shape[:2]) | non_finite(trajectory)


@dataclass(frozen=True, eq=False)
class DetachedAtom:
    """Unstable when an atom of a cluster or crystal has lost all its neighbors.

    Args:
        atoms: indices of the atoms that must have a neighbor.
        radii_A: bond radius of every atom, Å.
    """

    atoms: Tensor
    radii_A: Float[Tensor, "atom"]
    name: str = "detached_atom"

    def __call__(self, system: System, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        """Mask of the frames with such an atom."""
        rows = trajectory.positions.flatten(0, 1)
        per_row = len(self.atoms) * system.n_atoms * (1 if system.cell is None else 27)
        lost = torch.cat([self._lost(system, some) for some in rows.split(max(1, VALUES_PER_CHUNK // per_row))])
        return lost.unflatten(0, trajectory.positions.shape[:2]) | non_finite(trajectory)

    def _lost(self, system: System, rows: Float[Tensor, "row atom 3"]) -> Bool[Tensor, "row"]:
        arms = minimum_image(rows[:, self.atoms, None] - rows[:, None], system.cell)
        reach = (self.radii_A[self.atoms, None] + self.radii_A).to(rows)
        near = torch.linalg.vector_norm(arms, dim=-1) / reach
        near[:, torch.arange(len(self.atoms)), self.atoms] = torch.inf
        return near.amin(-1).gt(DETACHED).any(-1)


def criteria_of(structure: Structure, max_temperature_K: float, degrees_of_freedom: int) -> list[StabilityCriterion]:
    """The criteria of a structure.

    Args:
        structure: its first structure is the reference of bonds and angles.
        max_temperature_K: highest temperature of the bath.
        degrees_of_freedom: under the integrator.
    """
    topology, reference = structure.topology, structure.reference
    found: list[StabilityCriterion] = [hottest(max_temperature_K, degrees_of_freedom)]
    contacts = Contacts(topology)
    found.append(NewContact(contacts, _collisions_A(contacts, reference)))
    if len(topology.bonds):
        lengths = pair_distances(reference, topology.bonds, topology.cell)
        found.append(BondLengthDeviation(lengths, BROKEN_BOND_A))
    if len(triplets := bonded_triplets(topology)):
        found.append(AngleDeviation(angles_deg(reference, triplets, topology.cell), BROKEN_ANGLE_DEG))
    if bool(structure.is_metallic_like.any()):
        atoms = structure.is_metallic_like.nonzero()[:, 0]
        found.append(DetachedAtom(atoms, bond_radii(topology.atomic_numbers)))
    return found


def hottest(temperature_K: float, degrees_of_freedom: int) -> TemperatureExplosion:
    """The bound of the kinetic temperature: ten standard deviations above the mean, and at least four times it."""
    factor = max(IMPOSSIBLE_FACTOR, 1 + IMPOSSIBLE_SIGMAS * math.sqrt(2 / degrees_of_freedom))
    return TemperatureExplosion(factor * temperature_K, degrees_of_freedom)


def ranges_of(structure: Structure, frames: Float[Tensor, "frame atom 3"] | None) -> Support:
    """The ranges whose first departure shows where a replica goes wrong.

    Args:
        structure: the structure of the test.
        frames: reference frames, Å. None: the ranges lie around the structure.
    """
    if frames is not None:
        return support_of(structure.topology, frames.double())
    topology, reference = structure.topology, structure.reference
    contacts = Contacts(topology)
    here = contacts.closest_A(reference[None], float(contacts.van_der_waals_A.max()))[0]
    closest = torch.minimum(UNSEEN_CONTACT * contacts.van_der_waals_A, CLOSER_THAN_START * here)
    kinds = (
        ("bond", pair_distances, topology.bonds, RANGE_BOND_A),
        ("angle", angles_deg, bonded_triplets(topology), RANGE_ANGLE_DEG),
    )
    bonded = []
    for noun, measure, tuples, margin in kinds:
        center = measure(reference, tuples, topology.cell)
        names = tuple(coordinate_name(noun, topology, atoms) for atoms in tuples.tolist())
        half = torch.full_like(center, margin)
        bonded.append(BondedRanges(measure, None, tuples, names, center, -half, half))
    return Support(tuple(bonded), contacts, closest)


def _collisions_A(contacts: Contacts, reference: Float[Tensor, "atom 3"]) -> Float[Tensor, "kind"]:
    """Bound of the contacts of each kind, Å: a bond, or a collision with a metal; below that of the structure."""
    system = contacts.system
    radii = {int(number): r for number, r in zip(system.atomic_numbers, covalent_radii_A(system), strict=True)}
    bonds = {int(number): r for number, r in zip(system.atomic_numbers, bond_radii(system.atomic_numbers), strict=True)}
    bounds = []
    for first, second in contacts.element_pairs:
        both = {chemical_symbols[first], chemical_symbols[second]} <= NONMETALS
        bounds.append(bonds[first] + bonds[second] if both else COLLISION * (radii[first] + radii[second]))
    limits = torch.stack([torch.as_tensor(bound) for bound in bounds]).repeat(len(contacts.names) // len(bounds))
    here = contacts.closest_A(reference[None], float(limits.max()))[0]
    return torch.minimum(limits, CLOSER_THAN_START * here)
