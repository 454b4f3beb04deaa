"""Predictions for the frames of a file: what the file keeps, and errors against labels."""

import logging

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixBondLength
from tiny import frames, schnet, water

from mdsim import ForceFieldCalculator
from mdsim.assembly.runs import predict
from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.errors import ConfigError, DatasetError
from mdsim.models import model_config

LABELED = frames(4)


@pytest.fixture
def checkpoint(tmp_path):
    model = schnet()
    model.record_composition(water().atomic_numbers)
    save_atomically(tmp_path / "model.pt", force_field_payload(model, model_config(model), {}))
    return tmp_path / "model.pt"


def labeled(number: int = 0, **names: str) -> Atoms:
    """A frame with labels as results of a calculator, or under given names."""
    atoms = Atoms([8, 1, 1], LABELED.positions[number].double().numpy())
    labels = {"energy": LABELED.energy[number].item(), "forces": LABELED.forces[number].double().numpy()}
    if not names:
        atoms.calc = SinglePointCalculator(atoms, **labels)
        return atoms
    atoms.info[names["energy"]] = labels["energy"]
    atoms.arrays[names["forces"]] = labels["forces"]
    return atoms


def predicted(tmp_path, checkpoint, images: list[Atoms], **options) -> list[Atoms]:
    ase.io.write(tmp_path / "frames.extxyz", images)
    return predicted_of(tmp_path, checkpoint, **options)


def predicted_of(tmp_path, checkpoint, name: str = "frames.extxyz", **options) -> list[Atoms]:
    predict(checkpoint, tmp_path / name, tmp_path / "out.extxyz", cpu=True, **options)
    return ase.io.read(tmp_path / "out.extxyz", index=":")


def test_everything_in_a_frame_is_kept(checkpoint, tmp_path):
    atoms = labeled()
    atoms.calc.results |= {"stress": np.arange(6) / 7, "charges": np.array([-0.8, 0.4, 0.4]), "dipole": np.ones(3)}
    atoms.cell, atoms.pbc = np.diag([20.0, 21.0, 22.0]), True
    atoms.set_tags([3, 1, 4])
    atoms.set_momenta(np.arange(9).reshape(3, 3) / 10)
    atoms.set_masses([16.0, 2.014, 1.008])
    atoms.arrays["hirshfeld"] = np.array([0.1, 0.2, 0.3])
    atoms.info |= {"config_type": "md 300 K", "step": 17, "smiles": "O", "virial": np.eye(3)}
    atoms.set_constraint(FixAtoms([1]))
    (found,) = predicted(tmp_path, checkpoint, [atoms])
    for name in ("tags", "momenta", "masses", "hirshfeld"):
        np.testing.assert_allclose(found.arrays[name], atoms.arrays[name], atol=1e-8)
    for name in ("config_type", "step", "smiles"):
        assert found.info[name] == atoms.info[name]
    np.testing.assert_allclose(found.info["virial"], np.eye(3))
    np.testing.assert_allclose(found.cell.array, atoms.cell.array)
    assert found.pbc.all() and found.constraints[0].index.tolist() == [1]
    assert found.info["REF_energy"] == pytest.approx(atoms.calc.results["energy"], abs=1e-9)
    np.testing.assert_allclose(found.arrays["REF_forces"], atoms.calc.results["forces"], atol=1e-7)
    np.testing.assert_allclose(found.arrays["REF_charges"], [-0.8, 0.4, 0.4])
    np.testing.assert_allclose(found.info["REF_dipole"], 1.0)
    expected = np.array([[0, 5, 4], [5, 1, 3], [4, 3, 2]]) / 7
    np.testing.assert_allclose(found.info["REF_stress"], expected)
    atoms.calc = ForceFieldCalculator(checkpoint)
    assert found.calc.results["energy"] == pytest.approx(atoms.get_potential_energy(), abs=1e-6)
    np.testing.assert_allclose(found.calc.results["forces"], atoms.calc.results["forces"], atol=1e-6)


@pytest.mark.parametrize(
    "names", [{}, {"energy": "REF_energy", "forces": "REF_forces"}, {"energy": "e", "forces": "f"}]
)
def test_errors_against_labels(checkpoint, tmp_path, names, caplog):
    images = [labeled(number, **names) for number in range(4)]
    with caplog.at_level(logging.INFO):
        found = predicted(tmp_path, checkpoint, images)
    kept = names or {"energy": "REF_energy", "forces": "REF_forces"}
    energy = np.array([atoms.calc.results["energy"] - atoms.info[kept["energy"]] for atoms in found])
    forces = np.array([atoms.calc.results["forces"] - atoms.arrays[kept["forces"]] for atoms in found])
    np.testing.assert_allclose([atoms.info["energy_error_eV"] for atoms in found], energy, atol=1e-6)
    mae, rmse = np.abs(forces).mean((1, 2)), np.sqrt((forces**2).mean((1, 2)))
    np.testing.assert_allclose([atoms.info["forces_mae_eV_per_A"] for atoms in found], mae, atol=1e-6)
    np.testing.assert_allclose([atoms.info["forces_rmse_eV_per_A"] for atoms in found], rmse, atol=1e-6)
    table = next(record.message for record in caplog.records if "errors against" in record.message)
    rows = {line.rsplit(None, 3)[0]: line.split()[-3:] for line in table.splitlines()[3:]}
    for name, errors in {"energy, eV": energy, "energy, meV/atom": 1000 * energy / 3, "forces, eV/Å": forces}.items():
        assert rows[name][0] == "4"
        expected = [np.abs(errors).mean(), np.sqrt((errors**2).mean())]
        np.testing.assert_allclose([float(number) for number in rows[name][1:]], expected, rtol=1e-3)


def test_frames_without_labels_among_labeled_ones(checkpoint, tmp_path, caplog):
    plain = Atoms([8, 1, 1], LABELED.positions[0].numpy())
    two = labeled() + plain.copy()
    two.positions[3:] += 60.0
    failed = labeled(1)
    failed.calc.results["energy"] = np.nan
    with caplog.at_level(logging.INFO):
        found = predicted(tmp_path, checkpoint, [plain, two, labeled(2), failed])
    assert ["energy_error_eV" in atoms.info for atoms in found] == [False, False, True, False]
    assert ["forces_mae_eV_per_A" in atoms.info for atoms in found] == [False, False, True, True]


def test_energies_are_compared_only_where_their_zero_is_determined(checkpoint, tmp_path, caplog):
    hydroxide = labeled()[:2]
    hydroxide.calc = SinglePointCalculator(hydroxide, energy=-1.0, forces=np.zeros((2, 3)))
    with caplog.at_level(logging.WARNING):
        found = predicted(tmp_path, checkpoint, [labeled(), hydroxide], energy_zero="estimated")
    assert ["energy_error_eV" in atoms.info for atoms in found] == [True, False]
    assert "forces_mae_eV_per_A" in found[1].info
    assert any("energies of 1 labeled frames are not compared" in record.message for record in caplog.records)
    (found,) = predicted(tmp_path, checkpoint, [labeled()], energy_zero="relative")
    assert "energy_error_eV" not in found.info and "forces_mae_eV_per_A" in found.info


def test_predicting_again_replaces_the_prediction_and_keeps_the_labels(checkpoint, tmp_path):
    (first,) = predicted(tmp_path, checkpoint, [labeled()])
    (tmp_path / "out.extxyz").rename(tmp_path / "again.extxyz")
    other = schnet(seed=1)
    other.record_composition(water().atomic_numbers)
    save_atomically(tmp_path / "other.pt", force_field_payload(other, model_config(other), {}))
    (second,) = predicted_of(tmp_path, tmp_path / "other.pt", "again.extxyz")
    assert second.info["REF_energy"] == first.info["REF_energy"]
    assert second.calc.results["energy"] != first.calc.results["energy"]
    assert second.info["energy_error_eV"] == pytest.approx(
        second.calc.results["energy"] - first.info["REF_energy"], abs=1e-6
    )
    (tmp_path / "out.extxyz").rename(tmp_path / "again.extxyz")
    (third,) = predicted_of(tmp_path, checkpoint, "again.extxyz", energy_zero="relative")
    assert "energy_error_eV" not in third.info, "that of the earlier prediction"


def test_ambiguous_labels_are_not_used_unless_named(checkpoint, tmp_path, caplog):
    atoms = labeled(energy="dft_energy", forces="dft_forces")
    atoms.info["mp2_energy"] = 1.0
    with caplog.at_level(logging.WARNING):
        (found,) = predicted(tmp_path, checkpoint, [atoms])
    assert any("choose with --energy-key" in record.message for record in caplog.records)
    assert "energy_error_eV" not in found.info and "forces_mae_eV_per_A" in found.info
    (found,) = predicted(tmp_path, checkpoint, [atoms], energy_key="mp2_energy")
    assert found.info["energy_error_eV"] == pytest.approx(found.calc.results["energy"] - 1.0)
    with pytest.raises(DatasetError, match="no energy named 'gap_energy'"):
        predicted(tmp_path, checkpoint, [atoms], energy_key="gap_energy")


def test_two_columns_that_need_one_name_are_refused(checkpoint, tmp_path):
    atoms = labeled()
    atoms.info["REF_energy"] = 5.0
    with pytest.raises(ConfigError, match="frame 0: has both energy and REF_energy"):
        predicted(tmp_path, checkpoint, [atoms])
    assert not (tmp_path / "out.extxyz").exists()


def test_constraints_that_the_format_cannot_hold_are_named(checkpoint, tmp_path, caplog):
    atoms = labeled()
    atoms.set_constraint(FixBondLength(0, 1))
    ase.io.write(tmp_path / "frames.traj", [atoms])
    with caplog.at_level(logging.WARNING):
        predicted_of(tmp_path, checkpoint, "frames.traj")
    assert any("FixBondLength" in record.message for record in caplog.records)


def test_content_that_the_format_cannot_hold_is_one_clear_error(checkpoint, tmp_path):
    with ase.db.connect(tmp_path / "frames.db") as database:
        database.write(labeled(), data={"phases": np.full((3, 2), 1j)})
    with pytest.raises(ConfigError, match=r"out\.extxyz: frame 0 holds something that extended xyz cannot"):
        predicted_of(tmp_path, checkpoint, "frames.db")
    assert not list(tmp_path.glob("*out*"))


def test_content_of_databases_is_kept_on_one_line(checkpoint, tmp_path):
    with ase.db.connect(tmp_path / "frames.db") as database:
        database.write(labeled(), comment="two\nlines", data={"spectrum": [1.0, 2.0], "modes": np.ones((3, 2))})
    (found,) = predicted_of(tmp_path, checkpoint, "frames.db")
    assert found.info["comment"] == "two lines"
    np.testing.assert_allclose(found.info["spectrum"], [1.0, 2.0])
    np.testing.assert_allclose(found.arrays["modes"], 1.0)
    assert "energy_error_eV" in found.info


CELL = np.diag([6.0, 6.5, 7.0])


def test_stresses_of_periodic_frames(checkpoint, tmp_path, caplog):
    images = [labeled(number) for number in range(3)]
    calculator, expected = ForceFieldCalculator(checkpoint), []
    for atoms in images[:2]:
        atoms.cell, atoms.pbc = CELL, True
        own = atoms.copy()
        own.calc = calculator
        expected.append(own.get_stress(voigt=False))
    images[0].calc.results["stress"] = expected[0] + 0.002
    with caplog.at_level(logging.INFO, "mdsim"):
        found = predicted(tmp_path, checkpoint, images, stress=True)
    for atoms, stress in zip(found[:2], expected, strict=True):
        np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, atol=1e-7)
    np.testing.assert_allclose(found[0].info["REF_stress"], expected[0] + 0.002, atol=1e-7)
    assert found[0].info["stress_mae_eV_per_A3"] == pytest.approx(0.002, abs=1e-7)
    assert "stress" not in found[2].calc.results and "stress_mae_eV_per_A3" not in found[1].info
    assert "stress, eV/Å³" in caplog.text and "energy, forces and stress" in caplog.text
    (tmp_path / "out.extxyz").rename(tmp_path / "again.extxyz")
    again = predicted_of(tmp_path, checkpoint, "again.extxyz", stress=True)
    assert again[0].info["stress_mae_eV_per_A3"] == found[0].info["stress_mae_eV_per_A3"]
    plain = predicted_of(tmp_path, checkpoint, "again.extxyz")
    assert "stress" not in plain[0].calc.results and "REF_stress" in plain[0].info


def test_virials_are_labels_of_stresses(checkpoint, tmp_path):
    atoms = labeled()
    atoms.cell, atoms.pbc = CELL, True
    own = atoms.copy()
    own.calc = ForceFieldCalculator(checkpoint)
    atoms.info["REF_virial"] = -atoms.get_volume() * own.get_stress(voigt=False)
    atoms.info["other_stress"] = np.eye(3)
    (found,) = predicted(tmp_path, checkpoint, [atoms], stress=True)
    assert "stress_mae_eV_per_A3" not in found.info, "ambiguous"
    (found,) = predicted_of(tmp_path, checkpoint, stress=True, stress_key="REF_virial")
    assert found.info["stress_mae_eV_per_A3"] < 1e-7
    with pytest.raises(DatasetError, match="no periodic frame has a stress named 'nothing'"):
        predicted_of(tmp_path, checkpoint, stress=True, stress_key="nothing")
