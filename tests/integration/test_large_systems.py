"""Checks and suggestions for thousands of atoms: work and memory grow with the atoms, not with their square."""

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from mdsim.cli.main import main
from mdsim.neighbors import Neighbors, cell_list, search

pytestmark = pytest.mark.slow
N_FRAMES, SPREAD_A = 8, 0.05
MOST_PAIRS_PER_ATOM = 150  # in one search of one frame, where all pairs of 1,000 atoms are 500 per atom
FEW_ATOMS = 300  # all pairs of so many may be listed


def triclinic() -> Atoms:
    """2,744 atoms in fourteen primitive cells along each axis."""
    return bulk("Cu").repeat(14)


def nearly_cubic() -> Atoms:
    """1,000 atoms in a cell with off-diagonal elements that only rounding makes different from zero."""
    atoms = bulk("Cu", cubic=True).repeat((5, 5, 10))
    rounding = 1e-15 * np.array([[0, 1, -1], [1, 0, 1], [-1, 1, 0]])
    atoms.set_cell(atoms.cell.array + rounding)
    return atoms


def labeled(atoms: Atoms) -> list[Atoms]:
    generator, images = np.random.default_rng(0), []
    for _ in range(N_FRAMES):
        image = atoms.copy()
        image.positions += generator.normal(0, SPREAD_A, image.positions.shape)
        image.calc = EMT()
        labels = {"energy": image.get_potential_energy(), "forces": image.get_forces()}
        image.calc = SinglePointCalculator(image, **labels)
        images.append(image)
    return images


@pytest.fixture(params=[triclinic, nearly_cubic])
def data_set(request, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("copper.traj", labeled(request.param()))
    names = ["--name", "copper", "--molecule", "bulk", "--size", "100percent", "--db_path", "data"]
    assert main(["data", "convert", "copper.traj", *names, "--test_frames", "1", "--temperature-K", "300"]) == 0
    return "data/copper/bulk/100percent"


@pytest.fixture
def work(monkeypatch) -> dict[str, float]:
    """The most pairs per atom and frame that a search has returned, and how often all pairs were listed."""
    found = {"pairs": 0.0, "listings": 0}

    def counted(function):
        def searching(cell, positions, cutoff):
            pairs: Neighbors = function(cell, positions, cutoff)
            each = pairs.n_pairs / (positions.shape[0] * positions.shape[1])
            found["pairs"] = max(found["pairs"], each)
            return pairs

        return searching

    def listing(rows, *arguments, **options):
        found["listings"] += rows > FEW_ATOMS
        return own(rows, *arguments, **options)

    own = torch.triu_indices
    monkeypatch.setattr(search, "cell_list_search", counted(cell_list.cell_list_search))
    monkeypatch.setattr(search, "direct_search", lambda *_: pytest.fail("all pairs of a large cell were compared"))
    monkeypatch.setattr(torch, "triu_indices", listing)
    return found


def test_large_cells_are_checked_by_their_neighbors(data_set, work):
    assert main(["data", "check", data_set]) == 0
    assert 0 < work["pairs"] < MOST_PAIRS_PER_ATOM
    assert work["listings"] == 0


def test_configurations_for_large_cells_are_suggested_by_their_neighbors(data_set, work):
    assert main(["init", "--data", data_set, "--model", "schnet", "--out", "configs"]) == 0
    assert 0 < work["pairs"] < MOST_PAIRS_PER_ATOM
    assert work["listings"] <= 1, "the suggested RDF is tried on one frame"
