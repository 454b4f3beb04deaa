"""Values of a configuration that follow from the data, each with its reason.

The starting points are the recipe of the bundled systems (`mdsim/config/recipes/stable_training.yml`, docs/recipe.md)
and the configurations of the bundled aspirin, tetrapeptide and water. Values differ where the data require it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mdsim.models.record import Chosen, ModelRecord
from mdsim.observables.distances import pairs_of_elements
from mdsim.observables.rotatable import rotatable_dihedrals
from mdsim.suggest.findings import Findings, Spread

PAPER_BOND_TOLERANCE_A = {True: 0.25, False: 0.5}  # in training, in the evaluation
RECIPE_ANGLE_TOLERANCE_DEG = 45.0
PAPER_CONTACT_A = 1.2  # for water
BEYOND_THE_DATA = 1.2  # smallest ratio of a tolerance to the largest deviation in the data
#: Smallest ratio of a tolerance to the standard deviation of the softest bond. A simulation has a hundred times more
#: frames than the data, and rare fluctuations of an intact molecule must not count as broken.
STANDARD_DEVIATIONS = 7.0
LARGEST_ANGLE_TOLERANCE_DEG = 90.0  # a larger tolerance would be useless
CONTACT_OF_THE_DATA = 0.9
STEPS_PER_VIBRATION = 8.0
SAMPLES_PER_BIN, SAMPLES_PER_DIHEDRAL_BIN = 100, 10
MOST_DIHEDRALS = 12  # with a panel and a row of the table for each
SMALL, MEDIUM = 300, 1500  # upper limits of pairs within the cutoff for a molecule such as aspirin, and a tetrapeptide
MOST_EVALUATIONS, FEWEST_EVALUATIONS = 600_000, 50_000
GPU_FACTOR = 10

Section = dict[str, Any]


@dataclass(frozen=True)
class File:
    """The checkpoint that the force field starts from, in place of a fit.

    Attributes:
        path: of the file, or the name of weights that come with the model's package.
        options: keyword arguments of the reader of another package's files.
        allow_unpickling: that package may unpickle it.
    """

    path: str
    options: Mapping[str, str] = field(default_factory=dict)
    allow_unpickling: bool = False

    @property
    def section(self) -> Section:
        """The keys of the `model` section."""
        keys = {"checkpoint": self.path, **self.options}
        trust: Section = {"allow_unpickling": Chosen(True, "the file is trusted")} if self.allow_unpickling else {}
        return {key: Chosen(value) for key, value in keys.items()} | trust


@dataclass(frozen=True)
class Machine:
    """The machine that the configurations are for."""

    gpu: bool

    @property
    def name(self) -> str:
        return "GPU" if self.gpu else "CPU"


def cutoff_A(found: Findings, model: ModelRecord, machine: Machine) -> Chosen:
    """The cutoff of the force field."""
    paper, shorter = model.cutoff_A, model.start.cutoff_of_liquid_on_cpu_A
    if found.is_liquid and not machine.gpu and shorter is not None:
        return Chosen(shorter, f"instead of the paper's {paper:g}: far fewer pairs of the liquid, for a CPU")
    return Chosen(paper, f"that of the paper: {found.pairs_within(paper)} pairs of atoms in a frame")


def timestep_fs(found: Findings) -> Chosen:
    """One or half a femtosecond, depending on the fastest vibration."""
    fastest = found.fastest_vibration
    if fastest is None:
        return Chosen(1.0, "no bonds vibrate")
    step = 1.0 if fastest.period_fs >= STEPS_PER_VIBRATION else 0.5
    return Chosen(step, f"the fastest vibration, {fastest.bond}, has a period of {fastest.period_fs:.1f} fs")


def bond_tolerance_A(bonds: Spread, training: bool) -> Chosen:
    """At least the paper's tolerance, and above all deviations expected in a long run."""
    needed = max(BEYOND_THE_DATA * bonds.largest_deviation, STANDARD_DEVIATIONS * bonds.largest_std)
    value = max(PAPER_BOND_TOLERANCE_A[training], _up(needed, 0.05))
    why = (
        f"the data deviate by up to {bonds.largest_deviation:.2f} Å, the softest bond by {bonds.largest_std:.3f} (std)"
    )
    return Chosen(value, why)


def angle_tolerance_deg(angles: Spread) -> Chosen | None:
    """At least the recipe's tolerance, and above all deviations in the data. None if that would be useless."""
    value = max(RECIPE_ANGLE_TOLERANCE_DEG, _up(BEYOND_THE_DATA * angles.largest_deviation, 5.0))
    why = f"the data deviate by up to {angles.largest_deviation:.0f} degrees (largest std {angles.largest_std:.1f})"
    return Chosen(value, why) if value <= LARGEST_ANGLE_TOLERANCE_DEG else None


def contact_tolerance_A(closest_A: float) -> Chosen:
    """At most the paper's tolerance, and below all contacts in the data."""
    value = min(PAPER_CONTACT_A, _down(CONTACT_OF_THE_DATA * closest_A, 0.01))
    return Chosen(value, f"the closest contact in the data is {closest_A:.2f} Å")


def criteria(found: Findings, training: bool) -> list[Chosen]:
    """Stability criteria. Training also checks angles, which fold long before a bond breaks."""
    judged: list[Chosen] = []
    if found.closest_contact_A is not None:
        contact = contact_tolerance_A(found.closest_contact_A)
        judged.append(Chosen({"name": "minimum_intermolecular_distance", "tolerance_A": contact.value}, contact.why))
    if found.bonds is not None:
        bond = bond_tolerance_A(found.bonds, training)
        judged.append(Chosen({"name": "bond_length_deviation", "bond_dev_tol_A": bond.value}, bond.why))
    if training and found.angles is not None and (angle := angle_tolerance_deg(found.angles)) is not None:
        judged.append(Chosen({"name": "angle_deviation", "angle_dev_tol_deg": angle.value}, angle.why))
    return judged


def rdf_range_A(found: Findings) -> tuple[float, str]:
    """Range of RDFs: beyond the longest distance in a molecule, or within half a periodic cell."""
    if found.half_height_A is not None:
        reach = min(_down(found.half_height_A, 0.1), 10.0)
        return reach, f"half the height of the cell is {found.half_height_A:.2f} Å"
    return float(math.ceil(found.longest_distance_A + 1)), f"the longest distance is {found.longest_distance_A:.1f} Å"


def rdfs(found: Findings) -> list[Chosen]:
    """RDFs of all pairs in a molecule, or of each pair of elements if there are several molecules."""
    reach, why = rdf_range_A(found)
    n_frames = len(found.reference.train)
    n_pairs = found.system.n_atoms * (found.system.n_atoms - 1) // 2
    width = _width((0.02, 0.05, 0.1), reach, n_frames * n_pairs)
    common: Section = {"name": "rdf", "max_distance_A": reach, "bin_width_A": width}
    why = f"{why}; {n_frames} frames"
    pairs = element_pairs(found)
    if found.system.n_molecules == 1 or not pairs:
        return [Chosen(common, why)]
    return [Chosen({**common, "pair": list(pair)}, why if pair == pairs[0] else "") for pair in pairs]


def dihedrals(found: Findings) -> list[Chosen]:
    """Dihedrals about rotatable bonds, one distribution each, or a single one if there are many. None without them."""
    named = rotatable_dihedrals(found.system)
    if not named:
        return []
    n_frames = len(found.reference.train)
    width = _width((10.0, 15.0, 20.0, 30.0), 360.0, n_frames, SAMPLES_PER_DIHEDRAL_BIN)
    chosen: Section = {"name": "dihedrals", "bin_width_deg": width}
    if len(named) > MOST_DIHEDRALS:
        chosen["pooled"] = True
    return [Chosen(chosen, f"{len(named)} rotatable bond{'s' * (len(named) > 1)}; {n_frames} frames")]


def element_pairs(found: Findings) -> list[tuple[str, str]]:
    """Pairs of elements, heavy ones first. None if there are too many pairs for one figure each, or too few atoms."""
    kept = pairs_of_elements(found.system)
    return kept if len(kept) <= 6 else []


def targets(found: Findings) -> list[Chosen]:
    """Training targets: those of the recipe if there are bonds and angles, otherwise distances."""
    terms = []
    if found.bonds is not None:
        bonds = {"name": "bond_lengths", "max_length_A": 5.0, "bin_width_A": 0.05}
        terms.append(Chosen({"observable": bonds, "loss": "reverse_kl"}, "the range also includes broken bonds"))
    if found.angles is not None:
        terms.append(Chosen({"observable": {"name": "adf", "bin_width_deg": 2.0}, "loss": "reverse_kl"}))
    if not terms:
        terms = [Chosen({"observable": rdf.value, "loss": "reverse_kl"}, rdf.why) for rdf in rdfs(found)]
    return terms


def replicas(found: Findings, machine: Machine, pairs: int, training: bool) -> Chosen:
    """Number of replicas: more for small systems, and enough for the fractions and confidence bounds of the recipe."""
    if machine.gpu:
        return Chosen(128 if pairs <= MEDIUM else 32, "for a GPU; 128 in the paper")
    if pairs > MEDIUM:
        return Chosen(8 if training else 4, f"few, because a frame has {pairs} pairs")
    if pairs > SMALL and training:
        return Chosen(16, f"a frame has {pairs} pairs within the cutoff")
    return Chosen(24, "enough to tell a mean stable time to a third")


def evaluations(model: ModelRecord, machine: Machine, pairs: int) -> Chosen:
    """Budget of force evaluations for training."""
    seconds = 900 if pairs <= MEDIUM else 1800
    affordable = seconds * model.start.pairs_per_second / max(1, pairs)
    count = min(MOST_EVALUATIONS, max(FEWEST_EVALUATIONS, _two_digits(affordable)))
    if machine.gpu:
        return Chosen(count * GPU_FACTOR, "dynamics and gradients together; ends the training")
    minutes = max(1, round(count * pairs / model.start.pairs_per_second / 60))
    fast = " with the extra `fast`" if model.start.has_loops else ""
    return Chosen(count, f"dynamics and gradients together; some {minutes} minutes of a CPU core{fast}")


def _width(widths: tuple[float, ...], reach: float, n_samples: int, per_bin: int = SAMPLES_PER_BIN) -> float:
    """The narrowest bins that hold enough samples."""
    return next((width for width in widths if n_samples * width / reach >= per_bin), widths[-1])


def _up(value: float, step: float) -> float:
    return round(math.ceil(value / step - 1e-9) * step, 6)


def _down(value: float, step: float) -> float:
    return round(math.floor(value / step + 1e-9) * step, 6)


def _two_digits(value: float) -> int:
    scale = 10 ** max(0, math.floor(math.log10(max(value, 1))) - 1)
    return int(value // scale * scale)
