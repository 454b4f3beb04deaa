"""Quality checks of reference data, as numbers and warnings. `figure.py` draws them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ase.data import chemical_symbols, covalent_radii

from mdsim.datasets.bonds import close_pairs
from mdsim.datasets.folder import Dataset, Metadata, read_metadata
from mdsim.datasets.npz import Frames, read_frames
from mdsim.datasets.repeats import repeated_frames
from mdsim.datasets.splits import parse_indices
from mdsim.datasets.systems import system_of
from mdsim.dynamics.velocities import angular_momentum
from mdsim.errors import DatasetError
from mdsim.geometry import all_pairs, center_of_mass, minimum_image, pair_distances
from mdsim.observables.vacf import autocorrelation
from mdsim.state import System
from mdsim.typing import Float, Tensor
from mdsim.units import KB_EV_PER_K

PARTS = ("train", "val", "test", "contiguous")
OUTLIER = 8.0  # robust standard deviations from the median
FORCE_OUTLIER = 12.0  # times the median size of the forces on one element
BOND_DEVIATION_A = 0.25  # smallest deviation from the median length; the limit in standard deviations is OUTLIER
CONTACT = 0.9  # of the sum of covalent radii: nonbonded pairs should never be this close
SAME_POSITION_A = 1e-4  # single precision rounds; in 0.1 fs atoms move by 5e-4 Å
DISTANCES_AT_ONCE = 2_000_000
HELD = 0.02  # fraction of its thermal mean square below which a total momentum counts as zero
MOST_DISTANCES = 200  # number of distances whose correlation times are computed
FEWEST_BLOCKS = 8  # smallest number of blocks for an estimate of the scatter


@dataclass(frozen=True)
class Checked:
    """The frames of one data set and their common properties."""

    name: str
    folder: Path
    parts: dict[str, Frames]
    system: System
    metadata: Metadata | None

    @property
    def temperature_K(self) -> float | None:
        return None if self.metadata is None else self.metadata.temperature_K

    @property
    def interval_fs(self) -> float | None:
        """Time between contiguous frames, fs."""
        return None if self.metadata is None else self.metadata.contiguous_frame_interval_fs

    def place(self, part: str, frame: int) -> str:
        """Location of a frame: its part and index, and its index in the source if known."""
        indices = {} if self.metadata is None else self.metadata.split.get("indices", {})
        source = parse_indices(indices[part]) if part in indices else np.empty(0)
        return f"{part}, frame {frame}" + (f" ({source[frame]} of the source)" if len(source) > frame else "")

    @property
    def first(self) -> Frames:
        return next(iter(self.parts.values()))

    def joined(self, of: str) -> Tensor:
        """A field of all parts that have it, concatenated, in double precision."""
        values = [getattr(frames, of) for frames in self.parts.values()]
        return torch.cat([value for value in values if value is not None]).double()


def open_checked(path: Path) -> list[Checked]:
    """The data set in a folder, all sizes of the folder above, or the frames of one npz file.

    Raises:
        DatasetError: there is no data set, or it is damaged.
    """
    if path.is_file():
        frames = read_frames(path)
        return [Checked(path.stem, path.parent, {path.stem: frames}, system_of(frames, torch.float64), None)]
    return [_open(folder) for folder in folders_of(path)]


def folders_of(path: Path) -> list[Path]:
    """The folders of the data sets at a path or below it.

    Raises:
        DatasetError: there is none.
    """
    folders = [path] if (path / "metadata.json").is_file() else sorted(p.parent for p in path.rglob("metadata.json"))
    if not folders:
        raise DatasetError(
            f"{path}: no data set here or below (a folder with metadata.json), and no npz file of frames"
        )
    return folders


def _open(folder: Path) -> Checked:
    dataset = Dataset(folder, read_metadata(folder / "metadata.json"))
    there = [part for part in PARTS if f"{part}.npz" in dataset.metadata.sha256]
    parts = {part: getattr(dataset, part) for part in there}
    if "train" not in parts:
        raise DatasetError(f"{folder / 'metadata.json'}: names no train.npz")
    return Checked(
        "/".join(folder.resolve().parts[-3:]), folder, parts, dataset.system(torch.float64), dataset.metadata
    )


@dataclass(frozen=True)
class Suspect:
    """A suspicious frame."""

    part: str
    frame: int
    reason: str


def net_force_eV_per_A(frames: Frames) -> Float[Tensor, "frame"]:
    """Norm of the sum of forces, which is zero without external forces."""
    return torch.linalg.vector_norm(frames.labels.double().sum(1), dim=-1)


def net_torque_eV(frames: Frames, system: System) -> Float[Tensor, "frame"]:
    """Norm of the sum of torques about the center of mass, which is zero with open boundaries."""
    positions = frames.positions.double()
    arms = positions - center_of_mass(positions, system.masses.double())
    return torch.linalg.vector_norm(torch.linalg.cross(arms, frames.labels.double()).sum(1), dim=-1)


def bond_kinds(system: System) -> dict[str, Tensor]:
    """Indices of the bonds of each pair of elements, such as C-H, most frequent first."""
    rank = torch.where(system.atomic_numbers == 1, 1000, system.atomic_numbers)  # C-H, C-N: hydrogen last
    order = rank[system.bonds].argsort(dim=1)
    numbers = system.atomic_numbers[system.bonds.gather(1, order)].tolist()
    names = np.array([f"{chemical_symbols[first]}-{chemical_symbols[second]}" for first, second in numbers])
    kinds, counts = np.unique(names, return_counts=True)
    return {str(kinds[i]): torch.from_numpy(np.flatnonzero(names == kinds[i])) for i in np.argsort(-counts)}


def bond_lengths(checked: Checked) -> Float[Tensor, "frame bond"]:
    """Lengths of all parts, concatenated, Å."""
    return pair_distances(checked.joined("positions"), checked.system.bonds, checked.first.cell)


def free_momenta(frames: Frames, system: System) -> Float[Tensor, "atom"]:
    """Number of free momenta of each atom. The sum is 3N minus the momenta that are held at zero.

    If total or angular momentum is (nearly) zero in all frames, each atom loses its share: m/M of each component,
    and m tr(r×ᵀ I⁻¹ r×) for the rotation about the center of mass.
    """
    assert frames.velocities is not None
    positions, velocities, masses = frames.positions.double(), frames.velocities.double(), system.masses.double()
    one_momentum = (masses[:, None] * velocities.square()).mean()
    free = torch.full_like(masses, 3.0)
    total = (masses[:, None] * velocities).sum(1)
    if total.square().mean() / masses.sum() < HELD * one_momentum:
        free -= 3 * masses / masses.sum()
    if system.cell is None and system.n_atoms > 1:
        arms = positions - center_of_mass(positions, masses)
        outer = (masses[:, None, None] * arms[..., :, None] * arms[..., None, :]).sum(1)
        inertia = outer.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None, None] * torch.eye(3, dtype=torch.float64) - outer
        inverse = torch.linalg.pinv(inertia, rtol=1e-10, hermitian=True)
        angular = angular_momentum(positions, velocities, masses)
        if torch.einsum("fi,fij,fj->f", angular, inverse, angular).mean() / 3 < HELD * one_momentum:
            along = torch.einsum("fai,fij,faj->fa", arms, inverse, arms)
            traces = inverse.diagonal(dim1=-2, dim2=-1).sum(-1)[:, None]
            free -= masses * (arms.square().sum(-1) * traces - along).mean(0)
    return free


def element_temperatures_K(frames: Frames, system: System, free: Float[Tensor, "atom"]) -> dict[str, float]:
    """Mean kinetic temperature of the atoms of each element, by equipartition over the momenta that are free."""
    assert frames.velocities is not None
    twice = system.masses.double() * frames.velocities.double().square().sum(-1).mean(0) / KB_EV_PER_K
    return {
        chemical_symbols[number]: float(twice[chosen].sum() / free[chosen].sum())
        for number in sorted(set(system.atomic_numbers.tolist()))
        if (chosen := system.atomic_numbers == number).any()
    }


def correlation_time(series: Float[Tensor, "frame"]) -> tuple[float, bool]:
    """Integrated correlation time τ in frames, and whether the series is long enough for it.

    The mean of n frames is as accurate as that of n / 2τ independent frames. 2τ is the factor by which the squared
    standard error of the mean grows when frames are averaged in blocks (Flyvbjerg & Petersen, J. Chem. Phys. 91, 461
    (1989)). The blocks grow until they are independent, b³ > 2 n (2τ)² (Lee et al., Phys. Rev. B 83, 075114 (2011)).
    Unlike a sum over the correlation function, this estimate is robust for vibrations with a slow drift.
    """
    values = series.double()
    n = len(values)
    if n < 2 * FEWEST_BLOCKS or float(values.var()) == 0:
        return 0.5, False
    inefficiency, size = 1.0, 1
    while n // size >= FEWEST_BLOCKS:
        means = values[: n // size * size].unflatten(0, (-1, size)).mean(1)
        inefficiency = max(1.0, float(means.var() * size / values.var()))
        if size**3 > 2 * n * inefficiency**2:
            return inefficiency / 2, True
        size *= 2
    return inefficiency / 2, False


def slowest_distance(frames: Frames, system: System) -> tuple[float, bool, int] | None:
    """The longest correlation time of distances between heavy atoms of a molecule.

    Returns:
        The time in frames, whether the series is long enough for it, and the number of distances. None without such
        distances, or in a liquid, whose molecules diffuse.
    """
    heavy = torch.nonzero(system.atomic_numbers > 1).ravel()
    if system.cell is not None or len(heavy) < 3:
        return None
    pairs = heavy[all_pairs(len(heavy))]
    pairs = pairs[:: -(-len(pairs) // MOST_DISTANCES)]
    distances = pair_distances(frames.positions.double(), pairs)
    times = [correlation_time(column) for column in distances.unbind(1)]
    longest = max(time for time, _ in times)
    return longest, all(known for _, known in times), len(pairs)


def correlation_function(series: Float[Tensor, "frame"], n_lags: int) -> Float[Tensor, "lag"]:
    """Normalized autocorrelation."""
    centered = (series.double() - series.double().mean())[:, None, None]
    correlation = autocorrelation(centered, min(n_lags, len(series)))[:, 0]
    return correlation / correlation[0].clamp_min(1e-300)


def work_slope(frames: Frames) -> float | None:
    """Slope of energy differences against the work of the forces, for frames in time order. One if consistent."""
    if frames.forces is None or len(frames) < 3:
        return None
    forces = frames.forces.double()
    steps = minimum_image(frames.positions[1:].double() - frames.positions[:-1].double(), frames.cell)
    work = -(0.5 * (forces[1:] + forces[:-1]) * steps).sum((1, 2))
    return float((work * frames.energy.diff()).sum() / work.square().sum())


def suspects(checked: Checked) -> list[Suspect]:
    """Suspicious frames: outliers of energies and forces, broken bonds, close contacts."""
    found = []
    for part, frames in checked.parts.items():
        for frame, reason in {**_energy_outliers(frames), **_force_outliers(frames)}.items():
            found.append(Suspect(part, frame, reason))
        for frame, reason in _geometry_outliers(checked, frames).items():
            found.append(Suspect(part, frame, reason))
    return found


def _energy_outliers(frames: Frames) -> dict[int, str]:
    centered = frames.energy - frames.energy.median()
    spread = 1.4826 * float(centered.abs().median())
    outlying = torch.nonzero(centered.abs() > OUTLIER * spread).ravel().tolist() if spread > 0 else []
    width = f"{OUTLIER:g} robust standard deviations are {OUTLIER * spread:.2f} eV"
    return {i: f"energy {float(centered[i]):+.2f} eV from the median ({width})" for i in outlying}


def _force_outliers(frames: Frames) -> dict[int, str]:
    if frames.forces is None:
        return {}
    size = torch.linalg.vector_norm(frames.forces.double(), dim=-1)
    limit = torch.empty(size.shape[1], dtype=torch.float64)
    for number in frames.atomic_numbers.unique():
        chosen = frames.atomic_numbers == number
        limit[chosen] = FORCE_OUTLIER * size[:, chosen].median()
    excess, atom = (size / limit.clamp_min(1e-12)).max(1)
    return {
        i: f"force of {float(size[i, atom[i]]):.1f} eV/Å on {_label(frames.atomic_numbers, int(atom[i]))}"
        for i in torch.nonzero(excess > 1).ravel().tolist()
    }


def _geometry_outliers(checked: Checked, frames: Frames) -> dict[int, str]:
    """Broken bonds, and nonbonded pairs closer than a bond."""
    return {**_contacts(checked, frames), **_torn_bonds(checked, frames)}


def _torn_bonds(checked: Checked, frames: Frames) -> dict[int, str]:
    bonds, numbers = checked.system.bonds, checked.system.atomic_numbers
    if not len(bonds):
        return {}
    lengths = pair_distances(checked.first.positions.double(), bonds, frames.cell)
    usual = lengths.median(0).values
    spread = 1.4826 * (lengths - usual).abs().median(0).values
    allowed = (OUTLIER * spread).clamp_min(BOND_DEVIATION_A)
    reasons: dict[int, str] = {}
    step = max(1, DISTANCES_AT_ONCE // len(bonds))
    for start in range(0, len(frames), step):
        distances = pair_distances(frames.positions[start : start + step].double(), bonds, frames.cell)
        for row, bond in torch.nonzero((distances - usual).abs() > allowed).tolist():
            first, second = (_label(numbers, int(atom)) for atom in bonds[bond])
            text = f"bond {first}-{second} is {float(distances[row, bond]):.2f} Å (median {float(usual[bond]):.2f})"
            reasons.setdefault(start + row, text)
    return reasons


def _contacts(checked: Checked, frames: Frames) -> dict[int, str]:
    system = checked.system
    bonded = system.bonds[:, 0] * system.n_atoms + system.bonds[:, 1]
    radii = CONTACT * torch.from_numpy(covalent_radii[system.atomic_numbers.numpy()])
    reasons: dict[int, str] = {}
    for frame, pairs, distances in close_pairs(frames.positions, frames.cell, radii):
        no_bond = ~torch.isin(pairs[:, 0] * system.n_atoms + pairs[:, 1], bonded)
        for row, pair, length in zip(frame[no_bond].tolist(), pairs[no_bond], distances[no_bond].tolist(), strict=True):
            first, second = (_label(system.atomic_numbers, int(atom)) for atom in pair)
            reasons.setdefault(row, f"{first} and {second}, no bond, are {length:.2f} Å apart")
    return reasons


def _label(numbers: Tensor, atom: int) -> str:
    return f"{chemical_symbols[int(numbers[atom])]}{atom}"


def shared_frames(checked: Checked) -> dict[str, int]:
    """Number of frames in two parts, by the names of both. Translated and rotated copies count."""
    parts = [part for part in ("train", "val", "test") if part in checked.parts]
    owner = np.repeat(np.arange(len(parts)), [len(checked.parts[part]) for part in parts])
    positions = np.concatenate([checked.parts[part].positions.numpy() for part in parts])
    cell = None if checked.first.cell is None else checked.first.cell.numpy()
    original = repeated_frames(positions, cell, SAME_POSITION_A)
    counts = {
        f"{parts[first]} and {parts[second]}": int(((owner[original] == first) & (owner == second)).sum())
        for first in range(len(parts))
        for second in range(first + 1, len(parts))
    }
    return {name: count for name, count in counts.items() if count}
