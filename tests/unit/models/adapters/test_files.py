"""Files of other packages: read as these packages read them, and written back. float64 where they have it."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.build
import foreign
import numpy as np
import pytest
import torch
from ase import Atoms

from mdsim.calculator import ForceFieldCalculator
from mdsim.errors import CheckpointError, ConfigError
from mdsim.force_field import ForceField
from mdsim.models import MODELS, load_force_field
from mdsim.models.saving import save_force_field, save_native
from mdsim.state import System

SPECIES = (1, 6, 8)


@dataclass(frozen=True)
class Package:
    """How a package writes a small model, and its own calculator."""

    model: str
    suffix: str
    write: Callable[[Path], None]
    calculator: Callable[[Path], Any]
    dtype: torch.dtype
    tolerance: float  # eV/Å; that of energies is larger by the digits of the calculator
    kind: str = ""  # of several that one package reads

    @property
    def name(self) -> str:
        return self.kind or {"nequip": "nequip_package"}.get(self.model, self.model)


def _write_mace(path: Path) -> None:
    torch.save(foreign.mace_network(SPECIES), path)


def _mace_calculator(path: Path) -> Any:
    from mace.calculators import MACECalculator

    return MACECalculator(model_paths=str(path), device="cpu", default_dtype="float64")


def _write_sevennet(path: Path) -> None:
    torch.manual_seed(2)
    foreign.write_sevennet(path, foreign.sevennet_configuration(SPECIES))


def _sevennet_calculator(path: Path) -> Any:
    from sevenn.calculator import SevenNetCalculator

    return SevenNetCalculator(str(path), device="cpu")


def _write_nequip(path: Path) -> None:
    foreign.write_nequip(path, foreign.nequip_configuration(SPECIES))


def _nequip_calculator(path: Path) -> Any:
    from nequip.ase import NequIPCalculator

    with foreign.nequip_state():
        return NequIPCalculator._from_saved_model(str(path), device="cpu")


def _write_allegro(path: Path) -> None:
    foreign.write_nequip(path, foreign.allegro_configuration(SPECIES))


def _write_metatomic(path: Path) -> None:
    torch.manual_seed(1)
    sizes = {"hidden_channels": 8, "num_filters": 8, "num_interactions": 2, "num_gaussians": 8}
    foreign.write_metatomic(path, MODELS["schnet"].build(SPECIES, cutoff=4.0, **sizes).double())


def _metatomic_calculator(path: Path) -> Any:
    from metatomic_ase import MetatomicCalculator

    return MetatomicCalculator(path, device="cpu", check_consistency=True)


PACKAGES = [
    package
    for package in (
        Package("mace", ".model", _write_mace, _mace_calculator, torch.float64, 1e-12),
        Package("metatomic", ".pt", _write_metatomic, _metatomic_calculator, torch.float64, 1e-12),
        Package("nequip", ".ckpt", _write_nequip, _nequip_calculator, torch.float64, 1e-10),
        Package("nequip", ".ckpt", _write_allegro, _nequip_calculator, torch.float64, 1e-10, "allegro"),
        Package("sevenn", ".pth", _write_sevennet, _sevennet_calculator, torch.float32, 5e-4),
    )
    if package.name in foreign.INSTALLED
]


@pytest.fixture(scope="module", params=PACKAGES, ids=[package.name for package in PACKAGES])
def package(request) -> Package:
    return request.param


@pytest.fixture(scope="module")
def file(package, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp(package.name) / f"mine{package.suffix}"
    package.write(path)
    return path


@pytest.fixture(scope="module")
def force_field(package, file) -> ForceField:
    return load_force_field(file, model=package.model, allow_unpickling=True)


@pytest.fixture(params=["molecule", "crystal"])
def atoms(request) -> Atoms:
    made = ase.build.molecule("CH3CH2OH") if request.param == "molecule" else ase.build.bulk("C", cubic=True)
    made.rattle(0.1, seed=3)
    return made


def results(atoms: Atoms, calculator: Any) -> dict[str, np.ndarray]:
    atoms = atoms.copy()
    atoms.calc = calculator
    with foreign.double_precision():  # which nequip sets for the whole process
        wanted = {"energy": atoms.get_potential_energy(), "forces": atoms.get_forces()}
        return wanted | ({"stress": atoms.get_stress()} if atoms.pbc.all() else {})


def assert_the_same(found: dict[str, Any], expected: dict[str, Any], tolerance: float) -> None:
    assert abs(expected["forces"]).max() > 100 * tolerance, "nothing was tested"
    for name, value in expected.items():
        digits = 1e-7 if name == "energy" and tolerance > 1e-6 else 1e-12
        np.testing.assert_allclose(found[name], value, rtol=digits, atol=10 * tolerance, err_msg=name)


def test_energies_forces_and_stresses_are_those_of_the_package(package, file, force_field, atoms):
    mine = results(atoms, ForceFieldCalculator(force_field, dtype=package.dtype))
    assert_the_same(mine, results(atoms, package.calculator(file)), package.tolerance)


def test_a_checkpoint_needs_the_file_no_more(package, force_field, atoms, tmp_path):
    save_force_field(force_field, tmp_path / "copy.pt")
    again = load_force_field(tmp_path / "copy.pt")
    assert again.hyperparameters["origin"]["file"] == f"mine{package.suffix}"
    assert len(again.hyperparameters["origin"]["sha256"]) == 64
    with torch.jit.optimized_execution(False):  # the last bit of optimized code depends on how often it has run
        found, expected = (results(atoms, ForceFieldCalculator(m, dtype=package.dtype)) for m in (again, force_field))
    assert all(np.array_equal(found[name], expected[name]) for name in expected)


def test_the_package_runs_what_is_written_back(package, force_field, atoms, tmp_path):
    changed = with_changed_weights(force_field, seed=5)
    system = System.from_geometry(atoms.numbers, atoms.positions, atoms.cell.array if atoms.pbc.all() else None)
    changed.shift_energy_zero(system, 3.25)  # as training does
    path = tmp_path / f"trained{package.suffix}"
    save_native(changed, path)
    expected = results(atoms, ForceFieldCalculator(changed, dtype=package.dtype))
    assert_the_same(results(atoms, package.calculator(path)), expected, package.tolerance)
    assert abs(expected["forces"] - results(atoms, ForceFieldCalculator(force_field))["forces"]).max() > 1e-2
    assert [found.name for found in tmp_path.iterdir()] == [path.name]


def with_changed_weights(force_field: ForceField, seed: int) -> ForceField:
    """A copy with slightly different weights."""
    changed = force_field.frozen_copy()
    generator = torch.Generator().manual_seed(seed)
    for parameter in changed.parameters():
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        parameter.data = parameter * (1 + 0.05 * noise)
    return changed


def test_a_file_is_unpickled_only_if_that_is_allowed(package, file):
    with pytest.raises(CheckpointError, match=r"mine.*reads such files by unpickling.*allow_unpickling: true"):
        load_force_field(file, model=package.model)


def test_without_its_model_the_error_says_what_is_missing(file):
    with pytest.raises(CheckpointError, match=r"mine.*; if it is a file of another package, name its model, such as"):
        load_force_field(file)


def test_a_file_of_another_kind_is_one_clear_error(package, tmp_path):
    path = tmp_path / f"text{package.suffix}"
    path.write_text("no model")
    with pytest.raises(CheckpointError, match=r"text.*cannot read it"):
        load_force_field(path, model=package.model, allow_unpickling=True)
    with pytest.raises(CheckpointError, match=r"there is no file .*absent"):
        load_force_field(tmp_path / "absent", model=package.model, allow_unpickling=True)


def test_isolated_energies_are_left_to_the_zero_of_energy(force_field):
    """A model's energies are small, so that float32 has digits for them, and total energies are determined."""
    atoms = ase.build.molecule("CH3CH2OH")
    system = System.from_geometry(atoms.numbers, atoms.positions)
    energy = copy.deepcopy(force_field).float().energy(system, torch.tensor(atoms.positions, dtype=torch.float32)[None])
    assert abs(float(energy)) < 300 < abs(float(force_field.zero_energy_eV(system)))
    assert force_field.why_undetermined(system) is None


def test_nothing_global_changes(package, file):
    kept = torch.get_default_dtype(), torch.get_rng_state(), os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD")
    load_force_field(file, model=package.model, allow_unpickling=True)
    assert torch.get_default_dtype() == kept[0]
    assert os.environ.get("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD") == kept[2]
    if package.model == "nequip":
        assert torch.equal(torch.get_rng_state(), kept[1])


def test_a_frozen_copy_is_independent_and_has_no_gradients(force_field, atoms):
    system = System.from_geometry(atoms.numbers, atoms.positions, atoms.cell.array if atoms.pbc.all() else None)
    positions = torch.tensor(atoms.positions, dtype=torch.float32)[None]
    model = copy.deepcopy(force_field).float()
    frozen = model.frozen_copy()
    before = frozen(system, positions)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    assert any(parameter.requires_grad for parameter in model.parameters())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert torch.equal(frozen(system, positions)[1], before[1])
    assert not torch.equal(model(system, positions)[1], before[1])


def test_models_of_this_package_are_not_written_as_files_of_another(tmp_path):
    model = MODELS["schnet"].build((1, 8), hidden_channels=4, num_filters=4, num_interactions=1)
    with pytest.raises(ConfigError, match="SchNet is not a model of another package"):
        save_native(model, tmp_path / "x")
