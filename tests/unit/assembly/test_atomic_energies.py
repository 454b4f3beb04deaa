"""Fits that begin with the energies of isolated atoms."""

import logging
from dataclasses import replace

import pytest
import torch
from tiny import SHIFT_EV, pretrain_values, water, write_data

from mdsim import assembly
from mdsim.assembly.runs.pretraining import build_pretraining
from mdsim.config.loading import validate
from mdsim.config.schema import PretrainConfig
from mdsim.datasets.folder import read_metadata, write_metadata
from mdsim.errors import ConfigError
from mdsim.state import System

ATOMS_EV = {"H": -13.6, "O": -1960.0}  # water is bound by some 4 eV per atom
HYDROXIDE = System.from_geometry(torch.tensor([8, 1]), torch.eye(3)[:2])


def fitted(root, of_data=None, given=None):
    """The force field at the start of a fit."""
    write_data(root / "data")
    path = root / "data" / "toy" / "water" / "20" / "metadata.json"
    write_metadata(path, replace(read_metadata(path), atomic_energies_eV=of_data or {}))
    values = pretrain_values(root)
    config = PretrainConfig.model_validate(values | {"data": values["data"] | {"atomic_energies_eV": given}})
    return build_pretraining(config, assembly.dataset(config.data), root / "fit").model


@pytest.mark.parametrize("where", ["of_data", "given"])
def test_atoms_keep_their_differences_and_the_frames_their_mean(tmp_path, where):
    model = fitted(tmp_path, **{where: ATOMS_EV})
    zero, energies = model.zero_energy_eV(water()).item(), model.reference_energies_eV
    mean = assembly.dataset(PretrainConfig.model_validate(pretrain_values(tmp_path)).data).train.energy.mean().item()
    assert zero == pytest.approx(mean, abs=1e-9) and zero == pytest.approx(SHIFT_EV, abs=5.0)
    assert (energies[8] - energies[1]).item() == pytest.approx(ATOMS_EV["O"] - ATOMS_EV["H"], abs=1e-9)
    binding = (mean - 2 * ATOMS_EV["H"] - ATOMS_EV["O"]) / 3
    assert model.zero_energy_eV(HYDROXIDE).item() == pytest.approx(sum(ATOMS_EV.values()) + 2 * binding, abs=1e-9)
    model.check_energy_zero(HYDROXIDE)


def test_without_them_every_atom_has_the_same_share(tmp_path):
    for model in (fitted(tmp_path), fitted(tmp_path, of_data=ATOMS_EV, given={})):
        assert model.reference_energies_eV[8] == model.reference_energies_eV[1]
        assert model.why_undetermined(HYDROXIDE)


def test_the_configuration_takes_precedence_and_absent_elements_are_left_out(tmp_path):
    model = fitted(tmp_path, of_data=ATOMS_EV, given={"H": -10.0, "O": -1960.0, "Au": -5.0})
    assert (model.reference_energies_eV[8] - model.reference_energies_eV[1]).item() == pytest.approx(-1950.0)
    assert model.reference_energies_eV[79] == 0
    assert model.why_undetermined(System.from_geometry(torch.tensor([79]), torch.zeros(1, 3)))


def test_energies_of_another_method_are_doubted(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "mdsim"):
        fitted(tmp_path, given={"H": -0.5, "O": -75.0})
    assert any("of the same method, in eV" in record.message for record in caplog.records)


@pytest.mark.parametrize("table", [{"Hh": 1.0}, {"H": 1e200}, {"H": "x"}, [1.0]])
def test_what_is_no_table_is_one_clear_error(tmp_path, table):
    values = pretrain_values(tmp_path)
    values["data"]["atomic_energies_eV"] = table
    with pytest.raises(ConfigError, match=r"data\.atomic_energies_eV"):
        validate(values, PretrainConfig, "pretrain.yml")
