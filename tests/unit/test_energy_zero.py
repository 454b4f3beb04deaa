"""The zero of energy of a force field: fits, records, states of earlier releases."""

import copy
import logging
from collections import OrderedDict

import pytest
import torch
from ase.build import molecule
from torch.optim.swa_utils import AveragedModel

from mdsim import energy_zero
from mdsim.errors import EnergyZeroError
from mdsim.models import NequIP, SchNet
from mdsim.state import System

SHIFT_EV = -1077.157312345678


def _system(name: str, copies: int = 1) -> System:
    atoms = molecule(name)
    positions = torch.cat([torch.tensor(atoms.positions) + 50.0 * i for i in range(copies)])
    return System.from_geometry(torch.tensor(atoms.numbers).repeat(copies), positions, dtype=torch.float64)


ETHANOL, WATER, METHANE, HYDROGEN = _system("CH3CH2OH"), _system("H2O"), _system("CH4"), _system("H")


def _frames(name: str, n: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    positions = torch.tensor(molecule(name).positions)
    return positions + 0.05 * torch.randn(n, *positions.shape, generator=generator, dtype=torch.float64)


@pytest.fixture
def model() -> SchNet:
    torch.manual_seed(1)
    return SchNet(8, 8, 1, 6, cutoff=4.0, species=(1, 6, 8)).double()


def _energies(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_a_model_without_constants_refuses_nothing(model):
    for system in (ETHANOL, HYDROGEN):
        model.check_energy_zero(system)
        assert model.zero_energy_eV(system) == 0


def test_one_composition(model):
    model.fit_energy_zero([ETHANOL], _energies(-300.0))
    assert model.zero_energy_eV(ETHANOL).item() == pytest.approx(-300.0, abs=1e-10)
    assert model.zero_energy_eV(_system("CH3CH2OH", 4)).item() == pytest.approx(-1200.0, abs=1e-10)
    model.check_energy_zero(_system("CH3CH2OH", 4))
    with pytest.raises(EnergyZeroError, match=r"total energy of H2O is not determined: .* was fitted to C2H6O; "):
        model.check_energy_zero(WATER)
    with pytest.raises(EnergyZeroError, match="H2O"):
        model.total_energy(WATER, _frames("H2O"))
    assert model.zero_energy_eV(WATER).item() == pytest.approx(-100.0, abs=1e-10)
    torch.testing.assert_close(model.zero_energies_eV(WATER), _energies(-100.0, -100.0, -100.0) / 3)


def test_several_compositions_and_isolated_atoms(model):
    model.fit_energy_zero([ETHANOL, WATER, METHANE], _energies(-300.0, -140.0, -110.0))
    for system in (HYDROGEN, _system("CO2")):
        model.check_energy_zero(system)
    model.fit_energy_zero([METHANE, HYDROGEN], _energies(-110.0, -13.0), atoms={6: -50.0})
    binding = (-110.0 + 4 * 13.0 + 50.0) / 5
    torch.testing.assert_close(model.reference_energies_eV[[1, 6]], _energies(-13.0 + binding, -50.0 + binding))
    model.check_energy_zero(_system("C2H6"))
    with pytest.raises(EnergyZeroError, match="CO2"):
        model.check_energy_zero(_system("CO2"))


def test_given_atoms_survive_a_normalization(model):
    model.fit_energy_zero([], torch.zeros(0), atoms={1: -13.0, 6: -50.0, 8: -100.0})
    positions = _frames("CH3CH2OH")
    for _ in range(2):
        model.normalize_to(ETHANOL, positions, torch.full((5,), -350.0).double(), torch.ones_like(positions))
        assert model.zero_energy_eV(ETHANOL).item() == pytest.approx(-350.0, abs=1e-9)
        torch.testing.assert_close(model.reference_energies_eV[[1, 6]].diff(), _energies(-37.0))
        model.check_energy_zero(WATER)


def test_a_normalization_forgets_the_last_one(model):
    positions = _frames("H2O")
    model.fit_energy_zero([ETHANOL], _energies(-300.0))
    model.normalize_to(WATER, positions, torch.full((5,), -140.0).double(), torch.ones_like(positions))
    assert model.reference_compositions.tolist() == [torch.bincount(WATER.atomic_numbers, minlength=119).tolist()]
    assert model.reference_energies_eV[6] == 0


# ------------------------------------------------------------------------------------------------------- recentering


def _labels(model: SchNet, system: System, positions: torch.Tensor, zero: float) -> torch.Tensor:
    energy = model.energy(system, positions).detach()
    return energy + zero + torch.linspace(-1.0, 1.0, len(energy), dtype=torch.float64)


def test_recentering_makes_total_energies_right_on_average(model):
    positions = _frames("CH3CH2OH")
    model.fit_energy_zero([ETHANOL], _energies(-300.0))
    labels, before = _labels(model, ETHANOL, positions, -302.5), copy.deepcopy(model)
    assert model.recenter(ETHANOL, positions, labels, batch_size=2) == pytest.approx(-2.5, abs=1e-9)
    assert (model.total_energy(ETHANOL, positions) - labels).mean().item() == pytest.approx(0.0, abs=1e-9)
    for new, old in zip(model(ETHANOL, positions), before(ETHANOL, positions), strict=True):
        assert torch.equal(new, old)
    assert model.recenter(ETHANOL, positions, labels) == pytest.approx(0.0, abs=1e-9)
    two = _system("CH3CH2OH", 2)
    assert model.zero_energy_eV(two).item() == pytest.approx(-605.0, abs=1e-9)


@pytest.mark.parametrize("start", ["fresh", "earlier release", "another composition"])
def test_recentering_settles_the_composition_of_its_frames(model, start):
    positions = _frames("CH3CH2OH")
    if start == "earlier release":
        model.energy_shift_eV.fill_(-310.0)
    if start == "another composition":
        model.fit_energy_zero([WATER, METHANE], _energies(-140.0, -110.0))
    labels = _labels(model, ETHANOL, positions, -302.5)
    model.recenter(ETHANOL, positions, labels)
    model.check_energy_zero(_system("CH3CH2OH", 2))
    assert model.zero_energy_eV(ETHANOL).item() == pytest.approx(-302.5, abs=1e-9)
    assert model.zero_energy_eV(_system("CH3CH2OH", 2)).item() == pytest.approx(-605.0, abs=1e-9)
    if start == "another composition":
        assert model.zero_energy_eV(WATER).item() == pytest.approx(-140.0, abs=1e-9)
        assert model.zero_energy_eV(METHANE).item() == pytest.approx(-110.0, abs=1e-9)
    else:
        with pytest.raises(EnergyZeroError):
            model.check_energy_zero(WATER)


def test_recentering_in_single_precision(model):
    positions = _frames("CH3CH2OH")
    model.fit_energy_zero([ETHANOL], _energies(-17637.827343506295))
    labels = _labels(model, ETHANOL, positions, -17637.827343506295 - 2.5)
    moved = model.float().recenter(ETHANOL.to(dtype=torch.float32), positions.float(), labels)
    assert moved == pytest.approx(-2.5, abs=1e-5)
    assert model.zero_energy_eV(ETHANOL).item() == pytest.approx(-17637.827343506295 - 2.5, abs=1e-5)


# -------------------------------------------------------------------------------------------------- earlier releases


def _earlier_state(model: SchNet) -> OrderedDict:
    state = model.state_dict()
    for name in ("reference_energies_eV", "reference_compositions"):
        del state[name]
    state["energy_shift_eV"] = torch.tensor(SHIFT_EV, dtype=torch.float64)
    return state


def test_states_of_earlier_releases(model, caplog):
    state = _earlier_state(model)
    model.fit_energy_zero([WATER], _energies(-140.0))  # what was there does not mix with what comes
    model.load_state_dict(state)
    assert model.zero_energy_eV(ETHANOL).item() == SHIFT_EV
    energy_zero._warn.cache_clear()
    with caplog.at_level(logging.WARNING):
        model.check_energy_zero(ETHANOL)
        model.check_energy_zero(ETHANOL)
    assert [record.message for record in caplog.records] == [
        "the checkpoint does not record the composition that its zero of energy belongs to: total energies are right "
        "for the training system only"
    ]
    with pytest.raises(EnergyZeroError, match=r"total energy of H .* that of a system with .* \[1, 6, 8\]"):
        model.check_energy_zero(HYDROGEN)
    assert "reference_energies_eV" not in state, "the state that was given is not changed"


def test_a_composition_is_recorded_afterwards(model):
    model.load_state_dict(_earlier_state(model))
    model.record_composition(ETHANOL.atomic_numbers)
    assert model.zero_energy_eV(ETHANOL).item() == pytest.approx(SHIFT_EV, abs=1e-10)
    assert model.zero_energy_eV(_system("CH3CH2OH", 2)).item() == pytest.approx(2 * SHIFT_EV, abs=1e-10)
    with pytest.raises(EnergyZeroError, match="fitted to C2H6O"):
        model.check_energy_zero(HYDROGEN)
    with pytest.raises(ValueError, match="recorded already: C2H6O"):
        model.record_composition(WATER.atomic_numbers)


def test_averages_take_states_of_any_number_of_compositions(model):
    model.fit_energy_zero([ETHANOL, WATER], _energies(-300.0, -140.0))
    saved = AveragedModel(model)
    fresh = AveragedModel(SchNet(8, 8, 1, 6, cutoff=4.0, species=(1, 6, 8)).double())
    fresh.load_state_dict(saved.state_dict())
    assert fresh.module.zero_energy_eV(WATER) == model.zero_energy_eV(WATER)
    assert torch.equal(fresh.module.reference_compositions, model.reference_compositions)
    earlier = {f"module.{name}": value for name, value in _earlier_state(model).items()}
    fresh.load_state_dict({"n_averaged": torch.tensor(3), **earlier})
    assert fresh.module.zero_energy_eV(ETHANOL).item() == SHIFT_EV


def test_shifts_of_species_in_earlier_states_of_nequip():
    model = NequIP((1, 6, 8), num_layers=1, num_features=2, radial_mlp_width=4).double()
    state = model.state_dict()
    del state["reference_energies_eV"], state["reference_compositions"]
    state["atomic_shifts_eV"] = _energies(-13.6, -1028.0, -2041.0)
    state["energy_shift_eV"] = _energies(-5.0)[0]
    model.load_state_dict(state)
    expected = -5.0 - 6 * 13.6 - 2 * 1028.0 - 2041.0
    assert model.zero_energy_eV(ETHANOL).item() == pytest.approx(expected, abs=1e-9)
    assert model.zero_energies_eV(ETHANOL).sum().item() == pytest.approx(expected, abs=1e-9)


def _of_counts(n: int, m: int, k: int) -> System:
    """C_n H_m O_k, without bonds."""
    return System.from_bonds(torch.tensor([6] * n + [1] * m + [8] * k), torch.zeros(0, 2, dtype=torch.long))


def test_of_many_compositions_independent_ones_are_recorded(model):
    atoms = {6: -1029.0, 1: -13.6, 8: -2043.0}
    counts = [(n, m, k) for n in range(1, 7) for m in range(1, 6) for k in range(4)]
    energies = torch.tensor([n * atoms[6] + m * atoms[1] + k * atoms[8] for n, m, k in counts], dtype=torch.float64)
    model.fit_energy_zero([_of_counts(*one) for one in counts], energies)
    assert len(model.reference_compositions) == 3 < energy_zero.MOST_RECORDED < len(counts)
    assert not any(model.why_undetermined(_of_counts(*one)) for one in [*counts, (0, 2, 1), (0, 0, 2)])
    assert model.why_undetermined(_system("NH3")) is not None
    for number, energy in atoms.items():
        assert model.reference_energies_eV[number].item() == pytest.approx(energy, abs=1e-6)
    model.fit_energy_zero(
        [HYDROGEN, *(_of_counts(*one) for one in counts)], torch.cat([energies[:1] * 0 - 13.6, energies])
    )
    rows = model.reference_compositions
    assert (rows.sum(1) == 1).sum() == 1 and len(rows) == 3, "isolated atoms stay"


def test_a_correction_is_the_smallest_that_removes_the_errors(model):
    model.fit_energy_zero([], torch.zeros(0).double(), {1: -13.0, 6: -1030.0, 8: -2040.0})
    model.correct_energy_zero([WATER, METHANE], torch.tensor([-6.0, 5.0], dtype=torch.float64))
    assert model.zero_energy_eV(WATER).item() == pytest.approx(-2066.0 - 6.0)
    assert model.zero_energy_eV(METHANE).item() == pytest.approx(-1082.0 + 5.0)
    model.correct_energy_zero([WATER], torch.tensor([3.0], dtype=torch.float64))
    assert model.zero_energy_eV(WATER).item() == pytest.approx(-2066.0 - 3.0)
    assert len(model.reference_compositions) == 5
