"""Runs with a force field whose zero of energy belongs to another composition."""

import logging
from pathlib import Path

import pytest
import torch
from tiny import SHIFT_EV, schnet, simulate_config, train_config, water, write_data

from mdsim import assembly
from mdsim.assembly import runs
from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.models import SchNet, model_config
from mdsim.state import System

HYDROXIDE = System.from_geometry(torch.tensor([8, 1]), torch.eye(3)[:2])


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    write_data(tmp_path / "data")
    model = schnet()
    model.fit_energy_zero([HYDROXIDE], torch.tensor([-900.0]))
    return _save(model, tmp_path / "model.pt")


def _save(model: SchNet, path: Path) -> Path:
    save_atomically(path, force_field_payload(model, model_config(model), {}))
    return path


def test_training_takes_the_zero_of_its_system_from_the_labels(checkpoint, tmp_path):
    trainer = runs.build_stable_training(train_config(tmp_path), checkpoint)
    force_field, qm = trainer.force_field, trainer.learner.steps.terms[-1].term.frames
    predicted, _ = force_field(water(torch.float32), qm.positions)
    assert (predicted - qm.energy).mean().abs() < 1e-3
    assert force_field.zero_energy_eV(water()).item() == pytest.approx(SHIFT_EV, abs=5.0)
    assert force_field.zero_energy_eV(HYDROXIDE).item() == pytest.approx(-900.0, abs=1e-6)
    force_field.check_energy_zero(water())


@pytest.mark.parametrize("recorded", [True, False])
def test_training_keeps_a_zero_that_is_known(recorded, tmp_path):
    write_data(tmp_path / "data")
    model = schnet()
    if recorded:
        model.record_composition(water().atomic_numbers)
    trainer = runs.build_stable_training(train_config(tmp_path), _save(model, tmp_path / "model.pt"))
    assert trainer.force_field.zero_energy_eV(water()).item() == pytest.approx(SHIFT_EV, abs=1e-9)


def test_an_evaluation_says_that_energy_errors_mean_nothing(checkpoint, tmp_path, caplog):
    config = simulate_config(tmp_path)
    with caplog.at_level(logging.WARNING):
        runs.build_evaluation(config, assembly.dataset(config.data), checkpoint, tmp_path / "out")
    assert any("the total energy of H2O is not determined" in record.message for record in caplog.records)
