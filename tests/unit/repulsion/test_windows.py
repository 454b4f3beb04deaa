"""Windows from the closest contacts of frames."""

import math

import pytest
import torch
from ase.data import covalent_radii
from paths import ROOT
from scattered_waters import waters
from tiny import GEOMETRY, water

from mdsim.datasets.folder import load_dataset
from mdsim.geometry import all_pairs, pair_distances
from mdsim.neighbors import neighbors
from mdsim.repulsion.windows import closest_contacts, window, windows_from_frames
from mdsim.repulsion.zbl import ZBL, Window


@pytest.mark.parametrize("selection", ["all", "nonbonded", "between_molecules"])
def test_closest_contacts_against_all_pairs(selection):
    system, trajectory = waters(12, 9.0 * torch.eye(3), 70, torch.float64)
    frames = trajectory.positions[:, 0]
    pairs = all_pairs(system.n_atoms)
    if selection != "all":
        pairs = pairs[system.molecules[pairs[:, 0]] != system.molecules[pairs[:, 1]]]
    distances, numbers = pair_distances(frames, pairs, system.cell), system.atomic_numbers[pairs].sum(1)
    found = closest_contacts(selection, system, frames, 3.0)
    for a, b in ((1, 1), (1, 8), (8, 8)):
        assert found[a, b].item() == pytest.approx(distances[:, numbers == a + b].min().item(), abs=1e-12)
    assert found.isfinite().sum() == 3


def test_the_rule():
    assert window(1, 1, 1.4) == (1.0976, 1.372)
    touch = covalent_radii[6] + covalent_radii[8]
    assert window(6, 8, math.inf).off_A == window(6, 8, 3.4).off_A == pytest.approx(touch, abs=1e-4)
    assert window(6, 8, 3.2).off_A == pytest.approx(3.136)
    assert window(6, 8, math.inf, cutoff_A=1.2).off_A == 1.2


@pytest.mark.parametrize(
    ("data", "selection"),
    [
        (("water_spcfw", "water", "20"), "between_molecules"),
        (("aspirin_gfn2", "aspirin", "40"), "nonbonded"),
        (("aspirin_gfn2", "aspirin", "40"), "all"),
    ],
)
def test_the_repulsion_is_zero_in_every_training_frame(data, selection):
    """And in float32 too; a little closer, it acts."""
    dataset = load_dataset(ROOT / "data" / "bundled", *data)
    for dtype in (torch.float32, torch.float64):
        system, frames = dataset.system(dtype), dataset.train.positions.to(dtype)
        zbl = ZBL.of(selection, windows_from_frames(selection, system, frames, 5.0))
        assert not zbl.atomic_energies(system, frames, neighbors(system, frames, 5.0)).any()
        wider = ZBL.of(selection, {pair: Window(on, 1.05 * off) for pair, (on, off) in zbl.windows})
        assert wider.atomic_energies(system, frames, neighbors(system, frames, 5.0)).any()


def test_elements_that_are_not_in_the_frames():
    system, trajectory = waters(4, None, 2, torch.float64)
    found = windows_from_frames("nonbonded", system, trajectory.positions[:, 0], 5.0, elements=(1, 6, 8))
    assert found.keys() == {(1, 1), (1, 6), (1, 8), (6, 6), (6, 8), (8, 8)}
    assert found[6, 6] == window(6, 6, math.inf)


def test_one_molecule_alone():
    with pytest.raises(ValueError, match="a single molecule of 3 atoms; use nonbonded"):
        windows_from_frames("between_molecules", water(), GEOMETRY[None], 5.0)
