from itertools import combinations

import numpy as np
import pytest
import torch
from ase.build import molecule
from paths import ROOT
from scipy.stats import norm

from mdsim.datasets.folder import load_dataset
from mdsim.geometry import dihedrals_deg, pair_distances
from mdsim.stability import nonbonded
from mdsim.stability.support import extension, support_of, with_energies
from mdsim.stability.topology import pairs_held_by_bonds
from mdsim.state import System, Trajectory
from mdsim.units import KB_EV_PER_K

BUNDLED = ROOT / "data" / "bundled"
SETS = {
    "aspirin_gfn2": ("aspirin", 15.0),
    "ac_ala3_nhme_gfn2": ("ac_Ala3_NHMe", 10.0),
    "water_spcfw": ("water", 10.0),
}  # molecule, interval between test frames (fs)


def _trajectory(positions: torch.Tensor, energy: torch.Tensor | None = None, interval_fs: float = 1.0) -> Trajectory:
    return Trajectory(positions[:, None], None, None if energy is None else energy[:, None], interval_fs)


def _outside(support, positions: torch.Tensor) -> list[set[str]]:
    """Names of the coordinates outside in each frame."""
    flags = support.outside(_trajectory(positions))[:, 0]
    return [{name for name, flag in zip(support.names, row, strict=True) if flag} for row in flags.tolist()]


def _dimer(lengths: torch.Tensor) -> torch.Tensor:
    positions = torch.zeros(len(lengths), 2, 3, dtype=torch.float64)
    positions[:, 1, 0] = lengths
    return positions


def test_the_extension_is_the_ratio_of_normal_extremes():
    assert extension(999) == pytest.approx(norm.isf(1e-6) / norm.isf(1e-3))
    assert extension(999, 10) == pytest.approx(norm.isf(1e-7) / norm.isf(1e-3))
    assert extension(10**7) == 1.0, "a range is never narrowed"
    rng = np.random.default_rng(0)
    extremes = rng.standard_normal((400, 99)).max(1)
    beyond = norm.sf(extremes * extension(99))
    assert np.median(beyond) < 1e-5, "about one in a million frames is beyond"


def test_ranges_are_extended_from_the_median():
    system = System.from_geometry(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0.74, 0, 0]]), dtype=torch.float64)
    lengths = torch.linspace(0.70, 0.80, 101, dtype=torch.float64)
    lengths[50] = 0.75
    support = support_of(system, _dimer(lengths))
    edge = 0.05 * extension(101) + 0.01
    inside = torch.tensor([0.75 - edge + 1e-9, 0.75 + edge - 1e-9], dtype=torch.float64)
    beyond = torch.tensor([0.75 - edge - 1e-9, 0.75 + edge + 1e-9], dtype=torch.float64)
    assert _outside(support, _dimer(inside)) == [set(), set()]
    assert _outside(support, _dimer(beyond)) == [{"bond H0-H1"}] * 2


def test_coordinates_that_are_not_numbers_are_left_to_the_criteria():
    system = System.from_geometry(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0.74, 0, 0]]), dtype=torch.float64)
    support = support_of(system, _dimer(torch.full((20,), 0.74)))
    assert _outside(support, _dimer(torch.tensor([torch.nan, 0.74]))) == [set(), set()]


def test_too_few_frames_have_no_support():
    system = System.from_geometry(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0.74, 0, 0]]))
    with pytest.raises(ValueError, match="at least 10 reference frames, found 9"):
        support_of(system, _dimer(torch.full((9,), 0.74)))


def _peroxides(wanted_deg: torch.Tensor) -> tuple[System, torch.Tensor]:
    """Hydrogen peroxide with the given dihedrals H-O-O-H."""
    atoms = molecule("H2O2")
    oxygens, hydrogens = np.flatnonzero(atoms.numbers == 8), np.flatnonzero(atoms.numbers == 1)
    system = System.from_geometry(atoms.numbers, atoms.positions, dtype=torch.float64)
    bonded = {tuple(bond) for bond in system.bonds.tolist()}
    first = next(h for h in hydrogens if tuple(sorted((int(oxygens[0]), int(h)))) in bonded)
    chain = (first, oxygens[0], oxygens[1], next(h for h in hydrogens if h != first))
    frames = []
    for dihedral in wanted_deg.tolist():
        atoms.set_dihedral(*chain, dihedral, mask=[index == chain[3] for index in range(4)])
        frames.append(torch.from_numpy(atoms.positions.copy()))
    found = dihedrals_deg(frames[0], torch.tensor([[int(atom) for atom in chain]]))
    assert abs((float(found) - float(wanted_deg[0]) + 180) % 360 - 180) < 1e-6
    return system, torch.stack(frames)


def test_a_dihedral_has_a_range_across_180_degrees():
    around = 180 + torch.linspace(-20, 20, 401)
    system, frames = _peroxides(around)
    support = support_of(system, frames)
    (name,) = [name for name in support.names if name.startswith("dihedral")]
    edge = 20 * extension(401) + 1
    _, probes = _peroxides(180 + torch.tensor([-edge + 0.01, edge - 0.01, -edge - 0.01, edge + 0.01, 180.0]))
    outside = [name in names for names in _outside(support, probes)]
    assert outside == [False, False, True, True, True]


def test_a_free_rotor_has_no_range():
    for dihedrals in (torch.linspace(0, 359, 360), torch.cat([60 + torch.arange(20), 300 - torch.arange(20)])):
        system, frames = _peroxides(dihedrals)
        support = support_of(system, frames)
        assert not [name for name in support.names if name.startswith("dihedral")]


def test_equal_atoms_share_their_range():
    """Exchanging two hydrogens of a methyl group, as a rotation does, stays within the support."""
    system, frames = _ethanols(200)
    support = support_of(system, frames)
    order = list(range(system.n_atoms))
    hydrogens = [atom for atom in range(system.n_atoms) if system.atomic_numbers[atom] == 1]
    of_carbon = [[h for h in hydrogens if _partner(system, h) == carbon] for carbon in (0, 1)]
    (methyl,) = [some for some in of_carbon if len(some) == 3]
    order[methyl[0]], order[methyl[1]], order[methyl[2]] = methyl[1], methyl[2], methyl[0]
    assert _outside(support, frames[:, order]) == [set()] * len(frames)


def _partner(system: System, atom: int) -> int:
    return next(sum(bond) - atom for bond in system.bonds.tolist() if atom in bond)


def _ethanols(n_frames: int) -> tuple[System, torch.Tensor]:
    atoms = molecule("CH3CH2OH")
    geometry = torch.from_numpy(atoms.positions)
    system = System.from_geometry(atoms.numbers, geometry, dtype=torch.float64)
    noise = torch.randn(n_frames, *geometry.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return system, geometry + 0.03 * noise


def test_a_fold_is_named():
    system, frames = _ethanols(300)
    support = support_of(system, frames)
    folded = frames[:1].clone()
    h, o = 3, 2  # the hydroxyl hydrogen, moved onto its carbon
    assert _partner(system, h) == o
    carbon = next(c for c in (0, 1) if [min(c, o), max(c, o)] in system.bonds.tolist())
    direction = folded[0, carbon] - folded[0, o]
    folded[0, h] = folded[0, o] + 0.97 * direction / direction.norm()
    (names,) = _outside(support, folded)
    assert f"angle C{carbon}-O{o}-H{h}" in names or f"angle H{h}-O{o}-C{carbon}" in names
    assert any(name.startswith("contact") for name in names)


def test_contacts_are_the_closest_nonbonded_pairs():
    data = load_dataset(BUNDLED, "water_spcfw", "water", "20")
    system = data.system(torch.float64)
    frames = data.train.positions[:4].double()
    contacts = nonbonded.Contacts(system)
    found = contacts.closest_A(frames, 4.0)
    held = {tuple(pair) for pair in pairs_held_by_bonds(system).tolist()}
    pairs = torch.tensor([pair for pair in combinations(range(system.n_atoms), 2) if pair not in held])
    distances = pair_distances(frames, pairs, system.cell)
    numbers = system.atomic_numbers[pairs].sort(-1).values
    for kind, wanted in {"H-H": [1, 1], "H-O": [1, 8], "O-O": [8, 8]}.items():
        of_kind = (numbers == torch.tensor(wanted)).all(-1)
        column = contacts.names.index(f"contact {kind} between molecules")
        torch.testing.assert_close(found[:, column], distances[:, of_kind].amin(-1), rtol=0, atol=1e-12)
        assert torch.isinf(found[:, contacts.names.index(f"contact {kind}")]).all(), "water has no 1-4 pairs"


def test_a_search_finds_the_same_contacts_as_all_pairs(monkeypatch):
    data = load_dataset(BUNDLED, "water_spcfw", "water", "20")
    system = data.system(torch.float64)
    frames = data.train.positions[:6].double()
    frames[2, 5, 1] = torch.nan
    contacts = nonbonded.Contacts(system)
    found = {}
    for searched in (True, False):
        monkeypatch.setattr(nonbonded, "searchable", lambda *_, searched=searched: searched)
        found[searched] = contacts.closest_A(frames, 3.0)
    within = (found[False] <= 3.0) & (torch.arange(6) != 2)[:, None]
    assert within.any()
    torch.testing.assert_close(found[True][within], found[False][within], rtol=0, atol=1e-12)
    assert not (found[True][2] < 3.0).any(), "a frame that is not finite is left to the criteria"


def test_energies_have_no_zero():
    system = System.from_geometry(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0.74, 0, 0]]), dtype=torch.float64)
    support = support_of(system, _dimer(torch.full((20,), 0.74)))
    energies = torch.linspace(-0.1, 0.2, 101, dtype=torch.float64)
    for zero in (0.0, -5000.0):
        low, high = with_energies(support, energies + zero, 6, 300.0, 300.0).energy_eV
        factor = extension(101)
        assert low - zero == pytest.approx(0.05 - 0.15 * factor - 1e-3)
        assert high - zero == pytest.approx(0.05 + 0.15 * factor + 1e-3)
    spoiled = with_energies(support, torch.cat([energies, torch.tensor([torch.nan, torch.inf])]), 6, 300.0, 300.0)
    assert spoiled.energy_eV == with_energies(support, energies, 6, 300.0, 300.0).energy_eV


def test_energies_at_another_temperature_are_those_of_equipartition():
    system = System.from_geometry(torch.tensor([1, 1]), torch.tensor([[0.0, 0, 0], [0.74, 0, 0]]), dtype=torch.float64)
    support = support_of(system, _dimer(torch.full((20,), 0.74)))
    generator, freedom = torch.Generator().manual_seed(3), 30
    normal = torch.randn(20000, freedom, generator=generator, dtype=torch.float64)
    energies = 0.5 * KB_EV_PER_K * normal.square().sum(-1)  # of harmonic modes at 1 K
    same = with_energies(support, 300 * energies[:500], freedom, 300.0, 300.0).energy_eV
    for temperature_K in (150.0, 600.0):
        low, high = with_energies(support, 300 * energies[:500], freedom, 300.0, temperature_K).energy_eV
        assert low <= same[0] and high >= same[1]
        there = temperature_K * energies
        assert float(((there < low) | (there > high)).double().mean()) < 1e-3


def _longest_run(flags: torch.Tensor) -> int:
    longest = run = 0
    for flag in flags.tolist():
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize(
    ("name", "size", "most_outside"),
    [
        ("aspirin_gfn2", "40", 0.03),
        ("aspirin_gfn2", "1k", 1e-3),
        ("aspirin_gfn2", "5k", 1e-3),
        ("ac_ala3_nhme_gfn2", "5percent", 2e-3),
        ("ac_ala3_nhme_gfn2", "100percent", 2e-3),
        ("water_spcfw", "100", 4e-3),
    ],
)
def test_the_dynamics_of_the_reference_does_not_depart(name, size, most_outside):
    """False alarms: frames of the reference that are not in the support's own frames, in their order in time.

    Measured: no frame outside, except 1.5 % with 38 frames of aspirin; the longest excursion is 15 fs of 500.
    """
    molecule_name, test_interval_fs = SETS[name]
    data = load_dataset(BUNDLED, name, molecule_name, size)
    system = data.system(torch.float64)
    support = support_of(system, data.train.positions.double())
    freedom, T = system.internal_degrees_of_freedom, data.metadata.temperature_K
    support = with_energies(support, data.train.energy, freedom, T, T)
    for frames, interval_fs in (
        (data.test, test_interval_fs),
        (data.contiguous, data.metadata.contiguous_frame_interval_fs),
    ):
        outside = support.outside(_trajectory(frames.positions.double(), frames.energy.double()))[:, 0].any(-1)
        assert float(outside.double().mean()) <= most_outside
        assert _longest_run(outside) * interval_fs <= 50.0
