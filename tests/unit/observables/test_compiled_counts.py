"""Histograms in compiled loops: equal to tensor operations, also at bin edges."""

import pytest
import torch
from scattered_waters import waters

from mdsim.geometry import pair_distances
from mdsim.observables import ADF, RDF, BondLengthDistribution, DistanceDistribution, histogram
from mdsim.observables.bins import Bins

pytest.importorskip("numba")

OBSERVABLES = {
    "rdf": RDF(5.0, 0.1),
    "rdf of a pair": RDF(5.0, 0.1, ("O", "H"), intermolecular_only=True),
    "rdf of another type": RDF(5.0, 0.1, None, "ideal_gas"),
    "distances": DistanceDistribution(5.0, 0.1, ("O", "H"), "within_molecules"),
    "adf": ADF(2.0),
    "bond lengths": BondLengthDistribution(5.0, 0.05),
}
CELLS = {"open": None, "orthorhombic": torch.diag(torch.tensor([11.0, 12.0, 13.0]))}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS.values(), ids=CELLS)
@pytest.mark.parametrize("observable", OBSERVABLES.values(), ids=OBSERVABLES)
@pytest.mark.parametrize("local", [False, True], ids=["frames", "molecules"])
def test_equal_to_tensor_operations(observable, cell, local, dtype, monkeypatch):
    if cell is None and getattr(observable, "normalization", "") == "ideal_gas":
        pytest.skip("g(r) needs a cell")
    system, trajectory = waters(40, cell, 5, dtype)
    trajectory.positions[2, 0, 0, 0] = torch.inf
    function = observable.per_molecule if local else observable
    looped = function(system, trajectory)
    monkeypatch.setattr(histogram, "HAS_NUMBA", False)
    plain = function(system, trajectory)
    assert looped.dtype == plain.dtype == dtype
    assert torch.equal(looped.isnan(), plain.isnan()) and looped.isnan().any()
    one = plain[plain > 0].min()  # what a value counts for, or less
    moved = ((looped - plain).nan_to_num().abs() / one > 0.5).double().mean()
    assert moved < 1e-3 if dtype == torch.float32 else moved == 0
    torch.testing.assert_close(looped.nansum(), plain.nansum(), rtol=1e-3, atol=0)


def test_more_values_than_are_held_at_a_time_and_less(monkeypatch):
    system, trajectory = waters(40, CELLS["orthorhombic"], 5, torch.float64)
    counts = RDF(5.0, 5.0)(system, trajectory)
    assert len(RDF(5.0, 5.0).pairs.all_of(system)) % 512 != 0
    monkeypatch.setattr(histogram, "HAS_NUMBA", False)
    torch.testing.assert_close(counts, RDF(5.0, 5.0)(system, trajectory), equal_nan=True)


def test_a_triclinic_cell_takes_tensor_operations():
    cell, positions = torch.tensor([[12.0, 0, 0], [3.0, 12.0, 0], [0, 0, 12.0]]), torch.zeros(1, 2, 3)
    assert not histogram.counts_are_compiled(pair_distances, positions, cell)
    assert histogram.counts_are_compiled(pair_distances, positions, CELLS["orthorhombic"])


def test_a_measure_of_ones_own_takes_tensor_operations():
    def along_x(positions, pairs, cell):
        return positions[..., pairs[:, 1], 0] - positions[..., pairs[:, 0], 0]

    positions = torch.tensor([[[0.0, 0.0, 0.0], [1.5, 2.0, 0.0]]])
    counts = histogram.plain_counts(
        along_x, positions, torch.tensor([[0, 1]]), None, Bins.spanning(0.0, 4.0, 1.0), torch.tensor([[0]]), 1
    )
    assert counts.tolist() == [[[0, 1, 0, 0]]]
