"""The memory budget: the size of batches, their division, and results independent of it up to rounding."""

import logging
from functools import partial

import pytest
import torch
from reruns import samples_of, toy_trajectory
from resident import resident_MB
from tiny import SHIFT_EV, Springs, frames, schnet, water

from mdsim import memory
from mdsim.force_field import ForceField
from mdsim.losses import energy_force_loss
from mdsim.memory import PEAK_OVER_SAVED, PiecesAtOnce, budget_bytes, bytes_for, pieces_at_once, set_budget_GB
from mdsim.models import SchNet
from mdsim.state import System
from mdsim.training.terms import EnergyForceTerm, LabeledFrames

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def no_budget():
    """Other tests see the default."""
    yield
    set_budget_GB(None)


@pytest.fixture
def calls(monkeypatch) -> list[int]:
    """Number of structures in every energy evaluation."""
    counted, energy = [], ForceField.energy

    def counting(self, system, positions, *arguments):
        counted.append(len(positions))
        return energy(self, system, positions, *arguments)

    monkeypatch.setattr(ForceField, "energy", counting)
    return counted


def liquid(n_atoms: int = 100) -> tuple[System, torch.Tensor]:
    edge = (n_atoms / 0.1) ** (1 / 3)
    generator = torch.Generator().manual_seed(0)
    positions = edge * torch.rand(7, n_atoms, 3, generator=generator, dtype=torch.float64)
    numbers = torch.tensor([1, 8]).repeat(n_atoms // 2)
    return System.from_geometry(numbers, positions[0], edge * torch.eye(3), torch.float64), positions


def test_the_default_is_half_of_the_machine():
    total = budget_bytes(CPU) / memory.SHARE
    assert 2**28 < total < 2**44
    set_budget_GB(1.5)
    assert budget_bytes(CPU) == 1.5e9


def test_bytes_are_those_that_autograd_keeps():
    x = torch.randn(1000, dtype=torch.float64, requires_grad=True)
    assert bytes_for(lambda: x.exp()) == PEAK_OVER_SAVED * 8000  # its result
    assert bytes_for(lambda: x.exp().sin()) == PEAK_OVER_SAVED * 8000  # which sin keeps as well, as its argument
    assert bytes_for(lambda: x.exp().sin().tan()) == PEAK_OVER_SAVED * 16000  # tan keeps its result
    assert bytes_for(lambda: x[:500] * x[500:]) == PEAK_OVER_SAVED * 8000, "views of one tensor are counted once"
    assert bytes_for(lambda: x.detach().exp()) == 0


def test_bytes_grow_with_the_pairs():
    system, positions = liquid()
    model = SchNet(16, 16, 3, 12, cutoff=4.0, species=(1, 8)).double()
    few, many = (bytes_for(lambda n=n: model.energy(system, positions[:n])) for n in (1, 4))
    assert 3.2 < many / few < 4.8
    assert many > PEAK_OVER_SAVED * 8 * 3 * 16 * 4 * 100 * 10, "three filters of 16 channels for each of many pairs"


def test_pieces_that_fit(caplog):
    set_budget_GB(1.0)
    with caplog.at_level(logging.INFO, "mdsim"):
        assert pieces_at_once(0.4e9, 9, CPU, "frames") == 2
        assert pieces_at_once(0.4e9, 9, CPU, "frames") == 2
        assert pieces_at_once(3e9, 9, CPU, "large frames") == 1
        assert pieces_at_once(1e6, 9, CPU, "small frames") == 9
    assert [record.message for record in caplog.records] == [
        "9 frames would take 3.6 GB: divided into 5 groups",
        "9 large frames would take 27 GB: divided into 9 groups",
    ]


@pytest.mark.parametrize("broken", [False, True])
def test_forces_in_groups_are_those_of_all_at_once(broken, calls, caplog):
    system, positions = liquid()
    if broken:
        positions[[0, 4]] = torch.nan
    model = SchNet(16, 16, 3, 12, cutoff=4.0, species=(1, 8)).double()
    energy, forces = model.bind(system)(positions)
    assert max(calls) == 7
    one = bytes_for(lambda: model(system, positions[1:2]))
    set_budget_GB(3.2 * one / 1e9)
    calls.clear()
    with caplog.at_level(logging.INFO, "mdsim"):
        potential = model.bind(system)
        divided = potential(positions)
        again = potential(positions)
    assert 1 < max(calls) <= 3 and sum(calls) == 7 + 1 + 7, "once for the measurement"
    torch.testing.assert_close(divided, (energy, forces), equal_nan=True)
    assert torch.equal(divided[1][1:4], again[1][1:4])
    assert [record.message.split(" would")[0] for record in caplog.records] == ["7 structures"]


def test_minibatches_shrink_to_the_budget():
    model = schnet().double()
    samples = samples_of(toy_trajectory(), at_once=40)
    one = bytes_for(lambda: model.energy(samples.system, samples.positions[:1]))
    set_budget_GB(5.5 * one / 1e9)
    with torch.no_grad():
        assert samples.minibatch_size(model) == 5
        assert samples_of(toy_trajectory(), at_once=3).minibatch_size(model) == 3
        assert samples_of(toy_trajectory(), at_once=40, limited=False).minibatch_size(model) == 40


def test_one_piece_is_measured_once():
    measured, at_once = [], PiecesAtOnce(9, "frames")
    assert [at_once(lambda: measured.append(1), CPU) for _ in range(3)] == [9, 9, 9]
    assert len(measured) == 1


def test_a_measurement_holds_nothing():
    """A result that its own grad_fn saves, 16 MB each time: kept ones would be 640 MB."""
    x = torch.ones(2_000_000, dtype=torch.float64, requires_grad=True)
    bytes_for(lambda: x.exp())
    before = resident_MB()
    for _ in range(40):
        bytes_for(lambda: x.exp())
    assert resident_MB() - before < 100


def test_the_gradient_of_labels_does_not_depend_on_the_budget(calls):
    labeled, model = frames(11), Springs()
    labels = LabeledFrames(labeled.positions.double(), labeled.energy - SHIFT_EV, labeled.forces.double())
    loss = partial(energy_force_loss, energy_weight=0.5, force_weight=0.5)

    def gradient():
        term = EnergyForceTerm(water(), labels, loss, frames_at_once=PiecesAtOnce(11, "labeled frames"))
        return term.gradient_of(model, torch.arange(11)).gradients

    whole = gradient()
    assert max(calls) == 11
    set_budget_GB(3.5e-9 * bytes_for(lambda: model(water(), labels.positions[:1], create_graph=True)))
    calls.clear()
    divided = gradient()
    assert max(calls) == 3 and sum(calls) == 12
    torch.testing.assert_close(divided, whole)
