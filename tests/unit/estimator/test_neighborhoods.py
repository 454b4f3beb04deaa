"""Neighborhoods of the local estimator: selection and weights."""

import pytest
import torch

from mdsim.estimator.neighborhoods import NeighborhoodSampler, central_atoms, stratified, worst_bond_of_molecules
from mdsim.state import System

OH_A = 1.0


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def waters() -> tuple[System, torch.Tensor]:
    """Four water molecules and an argon atom in a box of 12 Å, hydrogen first; 5 jittered frames."""
    molecule = torch.tensor([[OH_A, 0, 0], [0, 0, 0], [0, OH_A, 0]], dtype=torch.float64)
    corners = torch.tensor([[1.0, 1, 1], [5, 1, 1], [1, 5, 1], [1, 1, 7]], dtype=torch.float64)
    positions = torch.cat([*(molecule + corner for corner in corners), torch.tensor([[8.0, 8, 8]])]).double()
    numbers = torch.tensor([1, 8, 1] * 4 + [18])
    system = System.from_geometry(numbers, positions, 12 * torch.eye(3), torch.float64)
    jitter = 0.03 * torch.randn(5, 13, 3, generator=_generator(1), dtype=torch.float64)
    return system, positions + jitter


def _sampler(system: System, **settings) -> NeighborhoodSampler:
    return NeighborhoodSampler(torch.full((len(system.bonds),), OH_A), **settings)


def test_central_atoms_are_the_heaviest(waters):
    assert central_atoms(waters[0]).tolist() == [1, 4, 7, 10, 12]


def test_worst_bond_of_each_molecule(waters):
    system, positions = waters
    found = worst_bond_of_molecules(system, positions, torch.full((8,), OH_A))
    for frame in range(5):
        for molecule in range(4):
            h1, o, h2 = positions[frame, 3 * molecule : 3 * molecule + 3]
            worst = max(abs(float((h - o).norm()) - OH_A) for h in (h1, h2))
            assert float(found[frame, molecule]) == pytest.approx(worst, abs=1e-12)
    assert (found[:, 4] == 0).all()


def test_all_molecules_of_all_frames(waters):
    system, positions = waters
    drawn = _sampler(system)(system, positions, _generator())
    assert drawn.frames.tolist() == [frame for frame in range(5) for _ in range(5)]
    assert drawn.molecules.tolist() == list(range(5)) * 5
    assert (drawn.membership == (system.molecules == drawn.molecules[:, None])).all()
    assert drawn.weights is None


def test_a_few_molecules_of_each_frame(waters):
    system, positions = waters
    drawn = _sampler(system, per_frame=2, n_molecules=3)(system, positions, _generator())
    assert drawn.frames.bincount().tolist() == [2] * 5
    pairs = set(zip(drawn.frames.tolist(), drawn.molecules.tolist(), strict=True))
    assert len(pairs) == 10, "no molecule twice in a frame"
    assert len(set(drawn.molecules.tolist())) > 2, "not the same ones in every frame"
    sizes = torch.bincount(system.molecules)
    for members, central in zip(drawn.membership, drawn.molecules, strict=True):
        touched = system.molecules[members].unique()
        assert len(touched) == 3 and central in touched
        assert int(members.sum()) == int(sizes[touched].sum()), "molecules are whole"


def test_strata_bound_the_common_and_keep_the_rare():
    values = torch.cat([torch.rand(1000, generator=_generator()) * 0.1, torch.tensor([0.95, 30.0])])
    kept, stands_for = stratified(values, 10, 20, _generator())
    assert len(kept) == 22 and {1000, 1001} <= set(kept.tolist()), "beyond the largest deviation all count as broken"
    assert (kept.diff() > 0).all()
    assert stands_for.tolist() == [50.0] * 20 + [1.0] * 2
    assert float(stands_for.sum()) == len(values)


def test_weighted_strata_leave_averages_alone():
    """The mean over many draws in units of its standard error; without the weights it is far off."""
    values = 0.2 * torch.randn(3000, generator=_generator(2), dtype=torch.float64).abs()
    quantity = values.square() + 0.05 * torch.randn(3000, generator=_generator(3), dtype=torch.float64)
    weighted, flat = [], []
    for seed in range(200):
        kept, stands_for = stratified(values, 20, 30, _generator(seed))
        assert len(kept) < 600
        weighted.append(float((stands_for * quantity[kept]).sum() / len(values)))
        flat.append(float(quantity[kept].mean()))
    draws = torch.tensor([weighted, flat])
    z = (draws.mean(1) - quantity.mean()) / (draws.std(1) / 200**0.5)
    assert abs(float(z[0])) < 4
    assert abs(float(z[1])) > 40


def test_equal_deviations_share_a_stratum():
    kept, stands_for = stratified(torch.zeros(9), 100, 4, _generator())
    assert len(kept) == 4 and stands_for.tolist() == [9 / 4] * 4
