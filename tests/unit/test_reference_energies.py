"""Reference energies of atoms against closed forms."""

import pytest
import torch

from mdsim.reference_energies import N_ELEMENTS, composition, fitted, formula, undetermined_part

UNKNOWN = torch.full((N_ELEMENTS,), torch.nan, dtype=torch.float64)
TRUE = torch.zeros(N_ELEMENTS, dtype=torch.float64)
TRUE[[1, 6, 8]] = torch.tensor([-13.6, -1028.0, -2041.0], dtype=torch.float64)


def _rows(*counts: dict[int, int]) -> torch.Tensor:
    rows = torch.zeros(len(counts), N_ELEMENTS, dtype=torch.long)
    for row, elements in zip(rows, counts, strict=True):
        for number, count in elements.items():
            row[number] = count
    return rows


ASPIRIN, ETHANOL, METHANE, WATER = {6: 9, 1: 8, 8: 4}, {6: 2, 1: 6, 8: 1}, {6: 1, 1: 4}, {8: 1, 1: 2}
HEXANE, BUTANE, ETHANE = {6: 6, 1: 14}, {6: 4, 1: 10}, {6: 2, 1: 6}


def _with(**atoms: float) -> torch.Tensor:
    table = UNKNOWN.clone()
    for symbol, energy in atoms.items():
        table[{"H": 1, "C": 6, "O": 8}[symbol]] = energy
    return table


def test_compositions_and_formulas():
    counts = composition(torch.tensor([8, 1, 1, 6]))
    assert counts.shape == (N_ELEMENTS,)
    assert torch.equal(counts, _rows({8: 1, 1: 2, 6: 1})[0])
    assert formula(counts) == "CH2O"
    assert formula(_rows(ASPIRIN)[0]) == "C9H8O4"


def test_enough_compositions_tell_every_element():
    rows = _rows(ASPIRIN, ETHANOL, METHANE, WATER)
    torch.testing.assert_close(fitted(rows, rows.double() @ TRUE, UNKNOWN), TRUE, rtol=0, atol=1e-8)


def test_too_many_compositions_are_fitted_by_least_squares():
    rows = _rows(ASPIRIN, ETHANOL, METHANE, WATER, HEXANE)
    noise = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    expected = torch.linalg.lstsq(rows.double()[:, [1, 6, 8]], rows.double() @ TRUE + noise).solution
    torch.testing.assert_close(fitted(rows, rows.double() @ TRUE + noise, UNKNOWN)[[1, 6, 8]], expected)


def test_one_composition_is_shared_equally():
    result = fitted(_rows(ASPIRIN), torch.tensor([-1077.0]), UNKNOWN)
    torch.testing.assert_close(result[[1, 6, 8]], torch.full((3,), -1077.0 / 21, dtype=torch.float64))
    assert result.count_nonzero() == 3


def test_few_compositions_are_met_exactly_and_shares_are_as_equal_as_they_can_be():
    rows = _rows(ASPIRIN, ETHANOL)
    energies = rows.double() @ TRUE
    result = fitted(rows, energies, UNKNOWN)
    torch.testing.assert_close(rows.double() @ result, energies)
    free = torch.linalg.svd(rows.double()[:, [1, 6, 8]]).Vh[2]  # what the two compositions leave open
    spread = [(result[[1, 6, 8]] + step * free).var() for step in (-0.1, 0.0, 0.1)]
    assert spread[1] < spread[0]
    assert spread[1] < spread[2]


def test_isolated_atoms_leave_the_binding_energy_to_share():
    bound = _rows(ASPIRIN).double() @ TRUE - 21 * 4.5
    result = fitted(_rows(ASPIRIN), bound, _with(H=-13.6, C=-1028.0, O=-2041.0))
    torch.testing.assert_close(result[[1, 6, 8]], TRUE[[1, 6, 8]] - 4.5)


def test_some_isolated_atoms():
    rows = _rows(METHANE, ETHANE, BUTANE)
    shares = TRUE + torch.where(TRUE != 0, -3.0, 0.0)
    shares[6] -= 7.0  # of carbon itself: its energy is not known
    result = fitted(rows, rows.double() @ shares, _with(H=-13.6))
    torch.testing.assert_close(result[[1, 6]], shares[[1, 6]])


def test_isolated_atoms_alone():
    atoms = _with(H=-13.6, O=-2041.0)
    assert torch.equal(fitted(_rows(), torch.zeros(0), atoms), atoms.nan_to_num(0.0))


@pytest.mark.parametrize(
    ("asked", "known", "determined"),
    [
        (ASPIRIN, [ASPIRIN], True),
        ({6: 18, 1: 16, 8: 8}, [ASPIRIN], True),
        (WATER, [{8: 64, 1: 128}], True),
        (ETHANOL, [ASPIRIN], False),
        ({1: 1}, [ASPIRIN], False),
        ({6: 11, 1: 14, 8: 5}, [ASPIRIN, ETHANOL], True),
        (HEXANE, [ETHANE, BUTANE], True),
        (METHANE, [ETHANE], False),
        (ASPIRIN, [{1: 1}, {6: 1}, {8: 1}], True),
        ({8: 64, 1: 129}, [{8: 64, 1: 128}], False),
        ({8: 10**5, 1: 2 * 10**5 + 1}, [{8: 64, 1: 128}], False),
    ],
)
def test_linear_combinations_are_determined(asked, known, determined):
    rest = undetermined_part(_rows(asked)[0], _rows(*known))
    assert bool(rest.any()) is not determined
    if not determined:
        torch.testing.assert_close(_rows(*known).double() @ rest, torch.zeros(len(known)).double(), atol=1e-7, rtol=0)
