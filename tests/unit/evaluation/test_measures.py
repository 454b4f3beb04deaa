"""How observables are averaged and compared: stated in results, or guessed from the axis of older ones."""

import numpy as np
import pytest

from mdsim.evaluation import tables
from mdsim.evaluation.measures import KEY, Measure, error_units
from mdsim.evaluation.observable_metrics import observable_errors
from mdsim.observables import (
    RDF,
    VACF,
    CoordinationNumber,
    Diffusivity,
    DirectStructureFactor,
    HydrogenBonds,
    RadiusOfGyration,
    VibrationalDOS,
)

BINS, INTEGERS = np.array([0.5, 1.5, 2.5]), np.arange(9.0)


@pytest.mark.parametrize(
    ("observable", "axis", "structural", "expected"),
    [
        (RDF(6.0, 0.1), BINS, True, Measure(True, True, "1")),
        (RDF(6.0, 0.1, normalization="ideal_gas"), BINS, True, Measure(True, True, "Å")),
        (HydrogenBonds(), INTEGERS, True, Measure(True, True, "1", "1")),
        (CoordinationNumber(("O", "O"), 3.0), INTEGERS, True, Measure(True, True, "1", "1")),
        (RadiusOfGyration(3.0, 0.1), BINS, True, Measure(True, True, "1", "Å")),
        (DirectStructureFactor(6.0, 0.5), BINS, True, Measure(True, False, "1")),
        (VACF(10.0), INTEGERS, False, Measure(False, False, "1")),
        (VibrationalDOS(10.0, 3000.0, 10.0), BINS, False, Measure(False, True, "modes per atom")),
        (Diffusivity(1.0, 2.0), np.zeros(1), False, Measure(False, False, "1e-9 m²/s")),
    ],
)
def test_the_measure_is_that_of_the_observable(observable, axis, structural, expected):
    found = Measure.of(observable, structural)
    assert found == expected
    assert Measure.read({KEY: {"own": found.stated()}}, "own", axis) == found


def test_older_results_have_the_measure_of_their_axis():
    for summary in ({}, {KEY: None}, {KEY: {"other": {}}}, {KEY: {"own": 3}}):
        assert Measure.read(summary, "own", BINS) == Measure(True, True)
        assert Measure.read(summary, "own", INTEGERS) == Measure(False, False)
        assert Measure.read(summary, "own", np.zeros(1)) == Measure(False, False)


def test_integers_from_zero_are_compared_as_a_density():
    """Half the molecules have one bond more than in the reference: the distributions differ by ½ + ½."""
    reference = np.array([0.0, 0, 0, 0, 1, 0, 0, 0, 0])
    values = np.stack([reference, np.roll(reference, 1)])
    measure = Measure.of(HydrogenBonds(), True)
    found = observable_errors("hydrogen_bonds", INTEGERS, reference, values, np.array([5.0, 5.0]), measure)
    assert found["hydrogen_bonds_mae"] == pytest.approx(1.0)
    assert found["hydrogen_bonds_mean"] == pytest.approx(4.5)
    assert found["hydrogen_bonds_mean_reference"] == 4.0
    assert found["hydrogen_bonds_mean_low"] < 4.5 < found["hydrogen_bonds_mean_high"]


def test_means_have_units():
    measure = Measure.of(RadiusOfGyration(3.0, 1.0), True)
    rows = np.array([[0.0, 0.5, 0.5], [0.0, 0.5, 0.5]])
    found = observable_errors("radius_of_gyration", BINS, rows[0], rows, np.ones(2), measure)
    assert found["radius_of_gyration_mean_A"] == found["radius_of_gyration_mean_reference_A"] == 2.0
    assert tables.label("radius_of_gyration_mean_A") == "mean radius of gyration (Å)"
    assert tables.label("radius_of_gyration_mean_reference_A") == "mean radius of gyration of the reference (Å)"
    assert all(tables.is_shown(f"radius_of_gyration_mean{end}", found) for end in ("_A", "_reference_A"))
    assert not tables.is_shown("radius_of_gyration_mean_A_low", found)


def test_a_structure_factor_has_the_mean_difference_as_error():
    values = np.array([[1.2, 1.0, 0.9]])
    measure = Measure.of(DirectStructureFactor(6.0, 0.5), True)
    found = observable_errors("structure_factor_OO", BINS, np.ones(3), values, np.ones(1), measure)
    assert found["structure_factor_OO_mae"] == pytest.approx(0.1)
    assert "structure_factor_OO_mean" not in found


def test_labels_have_the_unit_of_the_error():
    summary = {KEY: {"rdf_OO": {"error_unit": "Å"}, "rdf": {"error_unit": "1"}, "adf": {"error_unit": None}}}
    units = error_units(summary)
    assert units == {"rdf_OO": "Å"}
    assert tables.label("rdf_OO_mae", units) == "RDF OO MAE (Å)"
    assert tables.label("rdf_mae", units) == "RDF MAE"
    assert error_units({}) == {}
