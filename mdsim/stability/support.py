"""Support of reference frames: the range of every internal coordinate, closest contact and energy found in them.

A stability criterion bounds a few coordinates generously. A molecule may fold, and stay folded, within these bounds.
The support has a range for each bond length, bonded angle, dihedral and nonbonded contact, and for the energy.

*Classes.* Coordinates of atoms that the bonds do not distinguish (`equivalence_classes`) share one range, which is that
of all of them. A rotated methyl group is thus within the support, and all molecules of a liquid have the same ranges.

*Margin.* An exact simulation is longer than the reference and exceeds its extremes. Each side of a range is therefore
extended from its extreme among N values, measured from the median, to the extreme expected in a million frames, as for
a normal distribution: by the factor z(1/M) / z(1/(N + 1)) with the quantile function z and M = 10⁶ values per
coordinate. It is 2.4 for 40 frames, 1.5 for 1000, and 1.3 for 5000.

*Dihedrals* have a range only if it is at most a half circle after this extension. Others are free rotors. Dihedrals of
three atoms on a line have none.

*Contacts* have a lower bound by element pair, within molecules (1-4 and farther) and between them. Element pairs that
never come as close as the sum of their van der Waals radii have a fraction of that sum as their bound.

*Energies* are those of the model itself on the reference frames, so that a constant in its energy has no effect.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from ase.data import chemical_symbols
from scipy.stats import norm

from mdsim.geometry import angles_deg, dihedrals_deg, pair_distances
from mdsim.observables import cells
from mdsim.observables.adf import bonded_triplets
from mdsim.observables.histogram import VALUES_PER_CHUNK
from mdsim.stability.nonbonded import Contacts
from mdsim.stability.topology import bonded_quadruplets, classes_of_tuples
from mdsim.state import System, Trajectory
from mdsim.typing import Bool, Float, Int, Tensor
from mdsim.units import KB_EV_PER_K

FEWEST_FRAMES = 10  # that have a support
SIMULATED_FRAMES = 1e6  # to which the extremes of the reference are extrapolated
WIDEST_DIHEDRAL_DEG = 180.0  # extended range; a wider one is that of a free rotor
UNSEEN_CONTACT = 0.6  # bound of contacts that the reference does not have, in sums of van der Waals radii
SMALLEST_MARGIN_A, SMALLEST_MARGIN_DEG, SMALLEST_MARGIN_EV = 0.01, 1.0, 1e-3  # for coordinates that do not move

Measure = Callable[[Tensor, Tensor, Tensor | None], Tensor]


@dataclass(frozen=True, eq=False)
class BondedRanges:
    """Ranges of bonded coordinates of one kind: bonds, angles or dihedrals."""

    measure: Measure  # positions, tuples of atoms and cell to one value per tuple
    period: float | None  # of the values
    tuples: Int[Tensor, "coordinate order"]
    names: tuple[str, ...]
    center: Float[Tensor, "coordinate"]
    low: Float[Tensor, "coordinate"]  # relative to the center
    high: Float[Tensor, "coordinate"]

    def outside(
        self, positions: Float[Tensor, "row atom 3"], cell: Float[Tensor, "*row 3 3"] | None
    ) -> Bool[Tensor, "row coordinate"]:
        """Whether each coordinate is outside its range. False if it is not a number."""
        values = _relative(self.measure(positions, self.tuples, cell), self.center.to(positions), self.period)
        return (values < self.low.to(positions)) | (values > self.high.to(positions))

    def to(self, device: torch.device | str) -> BondedRanges:
        moved = {name: getattr(self, name).to(device) for name in ("tuples", "center", "low", "high")}
        return replace(self, **moved)


@dataclass(frozen=True, eq=False)
class Support:
    """Ranges of all coordinates. Lengths in Å, angles in degrees, energies in eV."""

    bonded: tuple[BondedRanges, ...]
    contacts: Contacts
    closest_A: Float[Tensor, "kind"]
    energy_eV: tuple[float, float] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """A name per coordinate, such as ``angle C10-O9-H13``, ``contact H-H`` or ``energy``."""
        bonded = [name for ranges in self.bonded for name in ranges.names]
        return (*bonded, *self.contacts.names, "energy")

    def outside(self, trajectory: Trajectory) -> Bool[Tensor, "frame replica coordinate"]:
        """Whether each coordinate is outside its range, on the device of the trajectory.

        A coordinate that is not a number counts as inside. Non-finite frames are always unstable.
        """
        rows = trajectory.positions.flatten(0, 1)
        size = max(1, VALUES_PER_CHUNK // (4 * max(1, len(self.names))))
        cell = cells.in_rows(self.contacts.system, trajectory).cell
        some = zip(rows.split(size), cells.split(cell, len(rows), size), strict=True)
        outside = torch.cat([self._structures_outside(*structures) for structures in some])
        outside = torch.cat([outside, self._energies_outside(trajectory).reshape(-1, 1)], dim=1)
        return outside.unflatten(0, trajectory.positions.shape[:2])

    def _structures_outside(
        self, positions: Float[Tensor, "row atom 3"], cell: Float[Tensor, "*row 3 3"] | None
    ) -> Bool[Tensor, "row coordinate"]:
        bonded = [ranges.outside(positions, cell) for ranges in self.bonded]
        closest = self.contacts.closest_A(positions, self._reach_A, cell)
        return torch.cat([*bonded, closest < self.closest_A.to(positions)], dim=1)

    def _energies_outside(self, trajectory: Trajectory) -> Bool[Tensor, "frame replica"]:
        if self.energy_eV is None or trajectory.energy is None:
            return torch.zeros(trajectory.positions.shape[:2], dtype=torch.bool, device=trajectory.positions.device)
        low, high = self.energy_eV
        return (trajectory.energy < low) | (trajectory.energy > high)

    @property
    def _reach_A(self) -> float:
        return float(self.contacts.van_der_waals_A.max())  # bounds are never larger

    def to(self, device: torch.device | str) -> Support:
        """The same support on another device."""
        contacts = Contacts(self.contacts.system.to(device))
        return replace(
            self,
            bonded=tuple(ranges.to(device) for ranges in self.bonded),
            contacts=contacts,
            closest_A=self.closest_A.to(device),
        )


def support_of(system: System, positions: Float[Tensor, "frame atom 3"]) -> Support:
    """The support of reference frames, without a range of energies.

    Args:
        system: the system of the frames. Its bonds define the coordinates.
        positions: reference frames, Å.

    Raises:
        ValueError: fewer than ten frames.
    """
    if len(positions) < FEWEST_FRAMES:
        raise ValueError(f"a support needs at least {FEWEST_FRAMES} reference frames, found {len(positions)}")
    kinds = (
        ("bond", pair_distances, None, system.bonds, SMALLEST_MARGIN_A),
        ("angle", angles_deg, None, bonded_triplets(system), SMALLEST_MARGIN_DEG),
        ("dihedral", dihedrals_deg, 360.0, bonded_quadruplets(system), SMALLEST_MARGIN_DEG),
    )
    bonded = tuple(_ranges(system, positions, *kind) for kind in kinds)
    contacts = Contacts(system)
    return Support(bonded, contacts, _closest_allowed(contacts, positions))


def with_energies(
    support: Support,
    energy_eV: Float[Tensor, "frame"],
    degrees_of_freedom: int,
    reference_temperature_K: float,
    temperature_K: float,
) -> Support:
    """The support with a range of potential energies.

    At another temperature than that of the reference, the range is extended to the mean energy and the spread that
    equipartition of harmonic degrees of freedom predicts. It never becomes narrower.

    Args:
        support: that of the structures.
        energy_eV: energies of the simulated force field on the reference frames. Non-finite ones are left out.
        degrees_of_freedom: vibrational degrees of freedom.
        reference_temperature_K: temperature of the reference frames.
        temperature_K: temperature of the simulation.
    """
    energies = energy_eV.double().cpu()
    energies = energies[torch.isfinite(energies)]
    if len(energies) < FEWEST_FRAMES:
        return support
    center = float(energies.median())
    margin = extension(len(energies)) * max(1.0, temperature_K / reference_temperature_K)
    shift = 0.5 * degrees_of_freedom * KB_EV_PER_K * (temperature_K - reference_temperature_K)
    low = center + min(0.0, shift) - margin * (center - float(energies.min())) - SMALLEST_MARGIN_EV
    high = center + max(0.0, shift) + margin * (float(energies.max()) - center) + SMALLEST_MARGIN_EV
    return replace(support, energy_eV=(low, high))


def extension(n_values: int, n_members: int = 1) -> float:
    """Factor from the extreme of ``n_values`` normal values to the extreme of a simulation.

    Args:
        n_values: values in the reference, of all members of a class.
        n_members: coordinates in the class.
    """
    expected = norm.isf(1 / (SIMULATED_FRAMES * n_members)) / norm.isf(1 / (n_values + 1))
    return max(1.0, float(expected))


def _ranges(
    system: System,
    positions: Float[Tensor, "frame atom 3"],
    noun: str,
    measure: Measure,
    period: float | None,
    tuples: Int[Tensor, "tuple order"],
    smallest_margin: float,
) -> BondedRanges:
    """The ranges of all classes of tuples; those of periodic coordinates only if they are at most a half circle."""
    center, low, high = (positions.new_full((len(tuples),), torch.nan, dtype=torch.float64) for _ in range(3))
    for members in classes_of_tuples(system, tuples):
        values = measure(positions.double(), tuples[members], system.cell).flatten()
        if not bool(torch.isfinite(values).all()):
            continue  # dihedrals of three atoms on a line
        middle = values.median() if period is None else _middle_of_range(values, period)
        deviations = _relative(values, middle, period)
        median, factor = deviations.median(), extension(len(values), len(members))
        least = median - factor * (median - deviations.min()) - smallest_margin
        most = median + factor * (deviations.max() - median) + smallest_margin
        if period is None or most - least <= WIDEST_DIHEDRAL_DEG:
            center[members], low[members], high[members] = middle, least, most
    kept = ~center.isnan()
    names = [coordinate_name(noun, system, atoms) for atoms in tuples[kept].tolist()]
    return BondedRanges(measure, period, tuples[kept], tuple(names), center[kept], low[kept], high[kept])


def _closest_allowed(contacts: Contacts, positions: Float[Tensor, "frame atom 3"]) -> Float[Tensor, "kind"]:
    """Lower bounds of the contacts of each kind, Å."""
    touching = contacts.van_der_waals_A.to(positions.device)
    closest = contacts.closest_A(positions.double(), float(touching.max())).minimum(touching)
    least, median = closest.min(0).values, closest.median(0).values
    seen = median - extension(len(positions)) * (median - least) - SMALLEST_MARGIN_A
    return torch.where(least < touching, seen.clamp_min(0.0), UNSEEN_CONTACT * touching)


def _relative(values: Tensor, center: Tensor, period: float | None) -> Tensor:
    """Deviations from the center; the shortest ones of periodic values."""
    deviations = values - center
    return deviations if period is None else torch.remainder(deviations + period / 2, period) - period / 2


def _middle_of_range(values: Float[Tensor, "value"], period: float) -> Float[Tensor, ""]:
    """Middle of the arc that remains of the circle when the largest empty arc is removed."""
    ordered = torch.remainder(values, period).sort().values
    gaps = torch.cat([ordered.diff(), ordered[:1] + period - ordered[-1:]])
    last = int(gaps.argmax())
    return ordered[last] + gaps[last] / 2 + period / 2


def coordinate_name(noun: str, system: System, atoms: Sequence[int]) -> str:
    """Such as ``angle C10-O9-H13``."""
    symbols = system.atomic_numbers.tolist()
    return f"{noun} " + "-".join(f"{chemical_symbols[symbols[atom]]}{atom}" for atom in atoms)
