"""Findings in a data set that determine settings: sizes, ranges, contacts, fastest vibration, temperature."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from mdsim.datasets.folder import Dataset, load_dataset
from mdsim.datasets.inspection.check import Checked, bond_kinds, suspects
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.errors import DatasetError
from mdsim.geometry import angles_deg, half_height_A, pair_distances, volume
from mdsim.neighbors import Neighbors, neighbors
from mdsim.observables.adf import bonded_triplets
from mdsim.state import System
from mdsim.suggest.mixed import pairs_per_frame, simulated
from mdsim.suggest.place import Place, place_of
from mdsim.suggest.temperature import Temperature, temperature_of
from mdsim.typing import Float, Int, Tensor
from mdsim.units import FS, kT_eV

FEWEST_FRAMES = 5  # training frames, to estimate the spread
LARGEST_BOND_DEVIATION = 0.5  # fraction of the mean length beyond which a bond in the data is broken
FRAMES_LOOKED_AT = 2000
# Limits of memory and work for large systems, of which fewer frames are enough.
COORDINATES_AT_ONCE, COORDINATES_LOOKED_AT = 200_000, 10_000_000  # bond lengths, angles
DISTANCES_AT_ONCE, DISTANCES_LOOKED_AT = 1_000_000, 40_000_000  # longest distance in an open system
ATOMS_AT_ONCE, ATOMS_LOOKED_AT = 50_000, 400_000  # searches for neighbors
FIRST_REACH_A = 3.0  # of the search for the closest contact, which grows until there is one
#: Plausible periods of bonds to hydrogen, with a margin for noise: from H-H at 4400/cm to soft bonds at 2000/cm.
HYDROGEN_PERIOD_FS = (6.5, 17.0)


@dataclass(frozen=True)
class Spread:
    """Deviations of internal coordinates from their means over the training frames, Å or degrees."""

    largest_deviation: float
    largest_std: float


@dataclass(frozen=True)
class Vibration:
    """The bond that vibrates fastest: its elements, as in O-H, and its period."""

    bond: str
    period_fs: float


@dataclass(frozen=True)
class Contiguous:
    """The frames in time order."""

    n_frames: int
    interval_fs: float
    have_velocities: bool

    @property
    def length_ps(self) -> float:
        return (self.n_frames - 1) * self.interval_fs / 1000


@dataclass(frozen=True)
class Findings:
    """Findings in a data set. ``structures`` (Å) are those of all splits, in the largest size."""

    place: Place
    dataset: Dataset
    checked: Checked
    system: System
    reference: Dataset
    structures: Float[Tensor, "frame atom 3"]
    temperature: Temperature
    allow_reactions: bool = False  # bonds of the data may break and form
    mixed: MixedDataset | None = None  # all compositions, which the fit uses; `dataset` is the one to simulate

    @property
    def n_train(self) -> int:
        """Number of labeled training frames."""
        return len((self.mixed or self.dataset).train)

    @property
    def composition(self) -> str | None:
        """The composition to simulate, of several."""
        return None if self.mixed is None else next(iter(self.dataset.metadata.compositions))

    def labeled_pairs_within(self, cutoff_A: float) -> int:
        """Mean number of pairs within a cutoff per labeled frame."""
        return self.pairs_within(cutoff_A) if self.mixed is None else pairs_per_frame(self.mixed, cutoff_A)

    @cached_property
    def triplets(self) -> Tensor:
        return bonded_triplets(self.system)

    @property
    def is_liquid(self) -> bool:
        """Whether there are several molecules in a periodic cell, as suits the local estimator."""
        return self.system.cell is not None and self.system.n_molecules > 1

    @cached_property
    def bonds(self) -> Spread | None:
        """Spread of the bond lengths, Å.

        Raises:
            DatasetError: a bond of the data is broken.
        """
        if not len(self.system.bonds):
            return None
        means = self.dataset.reference_bond_lengths()
        lengths = self._bond_lengths_A
        deviation = (lengths - means).abs()
        worst = (deviation / means).amax(0)
        if float(worst.max()) > LARGEST_BOND_DEVIATION and not self.allow_reactions:
            bond = int(worst.argmax())
            atoms = " and ".join(map(str, self.system.bonds[bond].tolist()))
            furthest = float(lengths[deviation[:, bond].argmax(), bond])
            raise DatasetError(
                f"{self.place.folder}: the bond between atoms {atoms}, {float(means[bond]):.2f} Å on average, is"
                f" {furthest:.2f} Å in some frame. No tolerance on bond lengths separates such frames from unstable"
                " ones: see `mdsim data check` and leave out broken frames, or, if these are intended"
                " reactions, use --allow-reactions: the tolerance will be as wide as the data"
            )
        return Spread(float(deviation.max()), float(lengths.std(0).max()))

    @cached_property
    def _bond_lengths_A(self) -> Float[Tensor, "frame bond"]:
        return self._of_structures(pair_distances, self.system.bonds)

    @cached_property
    def angles(self) -> Spread | None:
        """Spread of the angles between bonds, degrees."""
        if not len(self.triplets):
            return None
        means = self.dataset.reference_angles_deg()
        angles = self._of_structures(angles_deg, self.triplets)
        return Spread(float((angles - means).abs().max()), float(angles.std(0).max()))

    @cached_property
    def longest_distance_A(self) -> float:
        """Longest distance of any pair of atoms of an open system, Å."""
        rows = max(1, DISTANCES_AT_ONCE // self.system.n_atoms)
        some = self._some(self.system.n_atoms**2 // 2, DISTANCES_LOOKED_AT)
        return max(float(torch.cdist(part, one).max()) for one in some for part in one.split(rows))

    @cached_property
    def closest_contact_A(self) -> float | None:
        """Shortest distance between atoms of different molecules, Å. All pairs up to it are searched, in any image."""
        molecules, reach_A = self.system.molecules, FIRST_REACH_A
        if self.system.n_molecules < 2:
            return None
        while True:
            contacts = []
            for pairs, positions in self._neighbors(reach_A):
                distances = torch.linalg.vector_norm(pairs.displacements(positions), dim=-1)
                first, second = (molecules[atoms % self.system.n_atoms] for atoms in (pairs.first, pairs.second))
                contacts.append(distances[first != second])
            if len(found := torch.cat(contacts)):
                return float(found.min())
            reach_A *= 1.5

    def pairs_within(self, cutoff_A: float) -> int:
        """Mean number of pairs within a cutoff per frame, which determines the cost of a force evaluation."""
        if self.system.cell is None:
            counts = [(pairs.n_pairs, len(positions)) for pairs, positions in self._neighbors(cutoff_A)]
            n_pairs, n_frames = map(sum, zip(*counts, strict=True))
            return round(n_pairs / n_frames)
        return round(0.5 * self.system.n_atoms**2 / float(volume(self.system.cell)) * 4 / 3 * math.pi * cutoff_A**3)

    def _neighbors(self, reach_A: float) -> Iterator[tuple[Neighbors, Float[Tensor, "frame atom 3"]]]:
        """All pairs within a distance, with the positions of their frames, for a few frames at a time."""
        some = self._some(self.system.n_atoms, ATOMS_LOOKED_AT)
        for part in some.split(max(1, ATOMS_AT_ONCE // self.system.n_atoms)):
            yield neighbors(self.system, part, reach_A), part

    @property
    def half_height_A(self) -> float | None:
        """Half the smallest height of the periodic cell, Å. Shorter distances have a unique image."""
        return None if self.system.cell is None else half_height_A(self.system.cell)

    @cached_property
    def fastest_vibration(self) -> Vibration | None:
        """Fastest bond vibration by equipartition, <x²> = kT / (μ ω²) per kind of bond. None without bonds."""
        if not len(self.system.bonds):
            return None
        reduced = 1 / (1 / self.system.masses[self.system.bonds]).sum(-1)
        kT = kT_eV(self.temperature.of_data_K or self.temperature.value_K)
        squared = (2 * math.pi / FS) ** 2 * reduced * self._bond_lengths_A.var(0) / kT
        found = [Vibration(kind, float(squared[of].mean().sqrt())) for kind, of in bond_kinds(self.system).items()]
        return min((one for one in found if one.period_fs > 0), key=lambda one: one.period_fs, default=None)

    def doubts(self) -> list[str]:
        """Warnings to check before using the settings."""
        found = []
        fastest, (low, high) = self.fastest_vibration, HYDROGEN_PERIOD_FS
        kelvin = self.temperature.of_data_K or self.temperature.value_K
        if fastest is not None and "H" in fastest.bond.split("-") and not low < fastest.period_fs < high:
            found.append(
                f"{fastest.bond} bonds spread as if they vibrated with a period of {fastest.period_fs:.1f} fs, where 9"
                f" to 12 fs are usual: is {kelvin:g} K the temperature of the frames?"
            )
        if broken := suspects(self.checked):
            found.append(f"{len(broken)} frames look broken: mdsim data check {self.place.folder}")
        return found

    @cached_property
    def contiguous(self) -> Contiguous | None:
        """The frames in time order, if there are any with a known interval."""
        frames, interval_fs = self.checked.parts.get("contiguous"), self.checked.interval_fs
        if frames is None or interval_fs is None:
            return None
        return Contiguous(len(frames), interval_fs, frames.velocities is not None)

    @property
    def has_reference_run(self) -> bool:
        return "reference.npz" in self.dataset.metadata.sha256

    def _of_structures(self, coordinates: Callable[..., Tensor], atoms: Int[Tensor, "tuple atom"]) -> Tensor:
        """Bond lengths or angles of the structures, a row for each."""
        size = max(1, COORDINATES_AT_ONCE // len(atoms))
        some = self._some(len(atoms), COORDINATES_LOOKED_AT).split(size)
        return torch.cat([coordinates(part, atoms, self.system.cell) for part in some])

    def _some(self, values_each: int, limit: int) -> Float[Tensor, "frame atom 3"]:
        """Evenly spaced structures, as many as a limit on the values of all of them allows, but two."""
        return self.structures[:: max(1, math.ceil(len(self.structures) / max(2, limit // values_each)))]


def inspect(
    path: Path, temperature_K: float | None = None, allow_reactions: bool = False, composition: str | None = None
) -> Findings:
    """Inspect a data set.

    Args:
        path: `<root>/<name>/<molecule>/<size>`.
        temperature_K: temperature of the dynamics. None: that of the data.
        allow_reactions: accept data in which bonds break and form.
        composition: the one to simulate, of a set of several. None: the most frequent.

    Raises:
        DatasetError: there is no such data set, it is damaged, has too few frames, or its temperature is not known.
    """
    place = place_of(path)
    dataset, checked, mixed = simulated(place.folder, composition)
    n_train = len(dataset.train)
    if n_train < FEWEST_FRAMES:
        of_what = "" if mixed is None else f" of {next(iter(dataset.metadata.compositions))} in the most frequent cell"
        raise DatasetError(
            f"{place.folder}: has {n_train} training frame{'s' * (n_train > 1)}{of_what}, and at least {FEWEST_FRAMES}"
            " are needed to estimate the spread of bonds and angles; make a larger --size"
        )
    if dataset.system().n_atoms < 2:
        raise DatasetError(f"{place.folder}: holds one atom, so there are no forces to learn")
    _ = (mixed or dataset).val, dataset.test  # read and check them, because pretraining and evaluation need them
    reference = largest_size(place, dataset) if mixed is None else dataset
    structures = torch.cat([checked.joined("positions"), reference.train.positions.double()])
    return Findings(
        place,
        dataset,
        checked,
        dataset.system(torch.float64),
        reference,
        structures[:: math.ceil(len(structures) / FRAMES_LOOKED_AT)],
        temperature_of(checked, temperature_K),
        allow_reactions,
        mixed,
    )


def largest_size(place: Place, dataset: Dataset) -> Dataset:
    """The size of the data set with the most training frames, for reference observables."""
    names = sorted(found.parent.name for found in place.folder.parent.glob("*/metadata.json"))
    sizes = [load_dataset(place.root, place.name, place.molecule, name) for name in names if name != place.size]
    return max([dataset, *sizes], key=lambda size: size.metadata.n_frames.get("train", 0))
