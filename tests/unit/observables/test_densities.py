"""References from elsewhere: their normalization, and what samples visit of them."""

import pytest
import torch

from mdsim.observables import ADF, RDF
from mdsim.observables.bonds import BondLengthDistribution
from mdsim.observables.coordination import CoordinationNumber
from mdsim.observables.densities import check_normalization, is_density, unvisited
from mdsim.observables.density import Density
from mdsim.observables.reference import reference_from_file
from mdsim.observables.structure_factor import FourierStructureFactor

G = RDF(6.0, 0.1, ("O", "O"), normalization="ideal_gas")


def test_densities():
    assert is_density(G) and is_density(ADF(2.0))
    assert not is_density(Density()) and not is_density(FourierStructureFactor(10.0, 0.5, max_distance_A=6.0))


@pytest.mark.parametrize("name", ["water_exp_298K_redd.csv", "H2O_288K_wu.csv", "H2O_338K_wu.csv", "H2O_388K_wu.csv"])
def test_measured_and_simulated_water_passes(reference_path, name):
    table = reference_from_file(reference_path / "water_rdf" / name, G.bin_centers)
    check_normalization(G, table)
    for factor in (0.5, 2.0):
        with pytest.raises(ValueError, match="rdf_OO is g\\(r\\), which approaches 1, and beyond 3 Å"):
            check_normalization(G, factor * table)


def test_negative_values_are_no_density():
    reference = torch.ones(60)
    reference[3] = -0.01
    with pytest.raises(ValueError, match=r"the reference has the value -0\.01"):
        check_normalization(G, reference)


@pytest.mark.parametrize(
    ("observable", "lowest"),
    [(ADF(2.0), 0.5), (BondLengthDistribution(3.0, 0.1), 0.5), (RDF(6.0, 0.1), 0.0)],
)
def test_areas_of_densities(observable, lowest):
    """Distances may lie beyond the range. Angles and bonds may not, for the most part."""
    width = float(observable.bin_centers[1] - observable.bin_centers[0])
    flat = torch.full((len(observable.bin_centers),), 1.0 / (width * len(observable.bin_centers)))
    check_normalization(observable, flat)
    with pytest.raises(ValueError, match="has the area 100"):
        check_normalization(observable, 100 * flat)
    if lowest:
        with pytest.raises(ValueError, match=r"has the area 0\.1"):
            check_normalization(observable, 0.1 * flat)
    else:
        check_normalization(observable, 0.1 * flat)


def test_a_probability_of_counts_is_a_density_of_unit_bins():
    numbers = CoordinationNumber(pair=("O", "O"), cutoff_A=3.3)
    reference = torch.zeros(len(numbers.bin_centers))
    width = float(numbers.bin_centers[1] - numbers.bin_centers[0])
    reference[4] = 1.0 / width
    check_normalization(numbers, reference)
    with pytest.raises(ValueError, match="has the area 100"):
        check_normalization(numbers, 100 * reference)


def test_the_unvisited_share():
    reference = torch.tensor([0.1, 0.2, 0.3, 0.4])
    assert float(unvisited(reference, torch.tensor([0.0, 1.0, 0.0, 1e-9]))) == pytest.approx(0.4)
    assert float(unvisited(reference, torch.ones(4))) == 0.0
