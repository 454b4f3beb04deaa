"""Observables with a neighbor search: the values of a search over all pairs, in linear time."""

import pytest
import torch
from scattered_waters import waters

from mdsim.geometry import all_pairs
from mdsim.observables import RDF, DistanceDistribution, MinimumDistance, contacts, histogram, pairs
from mdsim.observables.distances import SAME_MOLECULE
from mdsim.observables.pairs import PairKind
from mdsim.state import Trajectory

CELLS = {
    "open": None,
    "cubic": 26.0 * torch.eye(3),
    "orthorhombic": torch.diag(torch.tensor([25.0, 27.0, 30.0])),
    "triclinic": torch.tensor([[26.0, 0, 0], [6.0, 25.0, 0], [-5.0, 4.0, 26.0]]),
}
KINDS = {
    "all": PairKind(),
    "O-O": PairKind(("O", "O")),
    "H-O": PairKind(("H", "O")),
    "between molecules": PairKind(None, same_molecule=False),
    "O-H within molecules": PairKind(("O", "H"), same_molecule=True),
    "O-H between molecules": PairKind(("O", "H"), same_molecule=False),
}


def among_all_pairs(monkeypatch, function):
    """The function where no search is made."""
    with monkeypatch.context() as patch:
        for module in (pairs, contacts):
            patch.setattr(module, "searchable", lambda *_: False)
        return function()


@pytest.fixture
def searched(monkeypatch) -> list[int]:
    """Rows that went through the search."""
    rows, search = [], pairs.search

    def counting(system, some, *arguments):
        rows.append(len(some))
        return search(system, some, *arguments)

    for module in (pairs, contacts):
        monkeypatch.setattr(module, "search", counting)
    return rows


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
def test_distances_are_bit_for_bit_those_of_all_pairs(cell, kind, searched, monkeypatch):
    monkeypatch.setattr(histogram, "HAS_NUMBA", False)  # the loops round otherwise: test_compiled_counts.py
    system, trajectory = waters(400 if cell is None else 200, cell, 2)
    among = {same: among for among, same in SAME_MOLECULE.items()}[kind.same_molecule]
    distances = DistanceDistribution(4.0, 0.02, kind.elements, among)
    found = distances(system, trajectory)
    assert searched == [3]
    expected = among_all_pairs(monkeypatch, lambda: distances(system, trajectory))
    assert found[1, 1].isnan().all() and expected[1, 1].isnan().all()
    assert torch.equal(found.nan_to_num(), expected.nan_to_num()) and found[0].sum() > 0


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_kinds_of_pairs(kind):
    system, _ = waters(7, None, 2)
    listed = kind.all_of(system)
    assert kind.count(system) == len(listed)
    first, second = all_pairs(system.n_atoms).T
    held = kind.holds(system, first, second)
    assert torch.equal(torch.stack([first, second], 1)[held], listed)
    assert torch.equal(kind.atoms(system), listed.unique())


def test_no_such_pairs():
    system, _ = waters(1, None, 2)
    with pytest.raises(ValueError, match="pair between molecules"):
        PairKind(same_molecule=False).count(system)
    with pytest.raises(ValueError, match="no C-H pair"):
        PairKind(("C", "H")).count(system)


def test_a_range_near_half_the_cell_is_not_searched(searched):
    system, trajectory = waters(200, CELLS["cubic"], 2)
    RDF(13.0, 0.1)(system, trajectory)
    assert not searched


def test_smeared_rdf_and_its_gradient(searched, monkeypatch):
    system, trajectory = waters(200, CELLS["triclinic"], 2, torch.float64)
    weights = torch.rand(40, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rdf = RDF(4.0, 0.1, ("O", "O"), smearing_A=0.08)

    def value_and_gradient() -> tuple[torch.Tensor, torch.Tensor]:
        positions = trajectory.positions.clone().requires_grad_()
        values = rdf(system, Trajectory(positions, None, None, 1.0))
        (values[0] @ weights).sum().backward()
        return values.detach(), positions.grad[0]

    found = value_and_gradient()
    assert searched
    expected = among_all_pairs(monkeypatch, value_and_gradient)
    torch.testing.assert_close(found, expected, equal_nan=True)
    assert expected[1].abs().max() > 0


def test_shares_of_molecules(searched, monkeypatch):
    system, trajectory = waters(200, CELLS["orthorhombic"], 2)
    rdf = RDF(4.0, 0.5, ("O", "H"), "ideal_gas")
    found = rdf.per_molecule(system, trajectory)
    assert searched == [3]
    expected = among_all_pairs(monkeypatch, lambda: rdf.per_molecule(system, trajectory))
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())


@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("first_reach_A", [0.3, 3.0], ids=["found later", "found at once"])
def test_minimum_distance(cell, first_reach_A, searched, monkeypatch):
    system, trajectory = waters(200, cell, 2)
    expected = among_all_pairs(monkeypatch, lambda: MinimumDistance()(system, trajectory))
    monkeypatch.setattr(contacts, "FIRST_REACH_A", first_reach_A)
    found = MinimumDistance()(system, trajectory)
    assert len(searched) == 1 if first_reach_A == 3.0 else len(searched) > 0
    assert torch.equal(found.nan_to_num(), expected.nan_to_num()) and int(found.isnan().sum()) == 1


def test_molecules_far_apart(searched):
    """Nothing is found within any reach that is worth a search: all pairs tell."""
    system, trajectory = waters(200, None, 2)
    molecule = torch.arange(200.0).repeat_interleave(3)
    positions = trajectory.positions + 500.0 * molecule[:, None]
    found = MinimumDistance()(system, Trajectory(positions, None, None, 1.0))
    assert found[0].min() > 400 and searched


def test_all_frames_broken():
    system, trajectory = waters(200, CELLS["cubic"], 2)
    broken = Trajectory(torch.full_like(trajectory.positions, torch.inf), None, None, 1.0)
    assert RDF(4.0, 0.1)(system, broken).isnan().all() and RDF(4.0, 0.1)(system, broken).shape == (2, 2, 40)
    assert MinimumDistance()(system, broken).isnan().all()
