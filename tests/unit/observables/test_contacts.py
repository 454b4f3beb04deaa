import numpy as np
import pytest
import torch
from ase import Atoms

from mdsim.observables import MinimumDistance
from mdsim.state import System, Trajectory


def trajectory_of(positions: torch.Tensor) -> Trajectory:
    return Trajectory(positions, None, None, frame_interval_fs=1.0)


def dimers(n_molecules: int, cell: torch.Tensor | None) -> System:
    n_atoms = 2 * n_molecules
    return System(
        torch.ones(n_atoms, dtype=torch.long),
        torch.ones(n_atoms, dtype=torch.float64),
        cell,
        torch.arange(n_atoms).reshape(-1, 2),
        torch.arange(n_molecules).repeat_interleave(2),
    )


@pytest.mark.parametrize("periodic", [False, True])
def test_equals_ase(generator, periodic):
    cell = torch.tensor([[7.0, 0.0, 0.0], [1.0, 6.0, 0.0], [0.5, -1.0, 6.5]], dtype=torch.float64)
    system = dimers(5, cell if periodic else None)
    positions = 12.0 * torch.rand(4, 2, 10, 3, dtype=torch.float64, generator=generator)
    found = MinimumDistance()(system, trajectory_of(positions))
    for frame in range(4):
        for replica in range(2):
            atoms = Atoms("H10", positions[frame, replica].numpy(), cell=cell.numpy(), pbc=periodic)
            distances = atoms.get_all_distances(mic=periodic)
            different = system.molecules[:, None] != system.molecules
            assert found[frame, replica].item() == pytest.approx(distances[different.numpy()].min())


def test_atoms_of_one_molecule_do_not_count():
    positions = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [3.0, 0, 0], [3.1, 0, 0]], dtype=torch.float64)
    found = MinimumDistance()(dimers(2, None), trajectory_of(positions[None, None]))
    assert found.shape == (1, 1, 1) and found.item() == pytest.approx(2.9)


def test_chunks_do_not_matter(generator, monkeypatch):
    system = dimers(6, 9.0 * torch.eye(3, dtype=torch.float64))
    trajectory = trajectory_of(9.0 * torch.rand(5, 2, 12, 3, dtype=torch.float64, generator=generator))
    whole = MinimumDistance()(system, trajectory)
    for values_per_chunk in (150, 7):
        monkeypatch.setattr("mdsim.observables.contacts.VALUES_PER_CHUNK", values_per_chunk)
        assert torch.equal(MinimumDistance()(system, trajectory), whole)


def test_dft_water_keeps_its_distance(reference_path):
    """Hydrogen bonds are some 1.7 Å long; the O-H bonds of 1 Å within molecules must not be found."""
    folder = reference_path / "water_dft" / "data_0"
    numbers = np.array([8, 1])[np.loadtxt(folder / "type.raw", dtype=int)]
    positions = np.load(folder / "set.000" / "coord.npy").reshape(-1, 192, 3)[:5]
    box = np.load(folder / "set.000" / "box.npy")[0].reshape(3, 3)
    system = System.from_geometry(numbers, positions[0], box)
    assert len(system.molecules.unique()) == 64
    found = MinimumDistance()(system, trajectory_of(torch.as_tensor(positions, dtype=torch.float32)[:, None]))
    assert (found > 1.3).all() and (found < 1.8).all()


def test_single_molecule(aspirin, aspirin_geometry):
    with pytest.raises(ValueError, match="single molecule of 21 atoms"):
        MinimumDistance()(aspirin, trajectory_of(torch.as_tensor(aspirin_geometry[1])[None, None]))
