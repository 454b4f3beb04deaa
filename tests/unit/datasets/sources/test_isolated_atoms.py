"""Isolated atoms among frames: recognized, stored with the data set, and used by fits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write
from ase_ethanols import images

from mdsim.cli.main import main
from mdsim.datasets.folder import Metadata, read_metadata
from mdsim.datasets.sources.ase_files import Reading, read_ase
from mdsim.datasets.sources.isolated_atoms import is_isolated

ENERGIES_EV = {"C": -2.0, "H": -1.0, "O": -3.0}  # ethanol C2H6O: -13 of the -100 eV of the frames


def atom(symbol: str, energy_eV: float, key: str = "energy", **info) -> Atoms:
    alone = Atoms(symbol, [[0.0, 0.0, 0.0]])
    alone.info |= info
    if key == "energy":
        alone.calc = SinglePointCalculator(alone, energy=energy_eV, forces=np.zeros((1, 3)))
    else:
        alone.info[key] = energy_eV
        alone.arrays["REF_forces"] = np.zeros((1, 3))
    return alone


def atoms() -> list[Atoms]:
    return [atom(symbol, energy, config_type="IsolatedAtom") for symbol, energy in ENERGIES_EV.items()]


def converted(path: Path, root: Path, *further: str) -> Metadata:
    names = ["--name", "mine", "--molecule", "ethanol", "--size", "9", "--test_frames", "2", "--db_path", str(root)]
    assert main(["data", "convert", str(path), *names, *further]) == 0
    return read_metadata(root / "mine" / "ethanol" / "9" / "metadata.json")


def test_what_is_isolated():
    boxed = Atoms("H", cell=[20, 20, 20], pbc=True)
    assert is_isolated(boxed) and is_isolated(Atoms("H"))
    crystal = Atoms("Cu", cell=[[0, 1.8, 1.8], [1.8, 0, 1.8], [1.8, 1.8, 0]], pbc=True)
    assert not is_isolated(crystal)
    crystal.info["config_type"] = "isolated_atom"
    assert is_isolated(crystal), "it is called so"
    assert not is_isolated(Atoms("H2", [[0, 0, 0], [0, 0, 0.74]]))


@pytest.mark.parametrize("where", ["first", "last"])
def test_isolated_atoms_are_stored_with_the_data_set(tmp_path, where, capsys):
    mixed = [*atoms(), *images()] if where == "first" else [*images(), *atoms()]
    write(tmp_path / "mixed.extxyz", mixed)
    assert converted(tmp_path / "mixed.extxyz", tmp_path / "data").atomic_energies_eV == ENERGIES_EV
    assert "H -1, C -2, O -3 eV" in capsys.readouterr().out


def test_they_are_read_with_the_label_and_unit_of_the_frames(tmp_path):
    mixed = images()
    for image in mixed:
        image.info["REF_energy"] = 23.06 * image.get_potential_energy()
        image.arrays["REF_forces"] = 23.06 * image.get_forces()
        image.calc = None
    mixed += [atom(symbol, 23.06 * energy, "REF_energy") for symbol, energy in ENERGIES_EV.items()]
    write(tmp_path / "mixed.xyz", mixed, format="extxyz")
    units = ["--energy-unit", "kcal/mol", "--force-unit", "kcal/mol/angstrom", "--length-unit", "angstrom"]
    found = converted(tmp_path / "mixed.xyz", tmp_path / "data", *units).atomic_energies_eV
    assert found == pytest.approx(ENERGIES_EV, rel=1e-3)


def test_those_called_isolated_count_and_contradictions_do_not(tmp_path):
    mixed = [*images(), *atoms(), atom("H", -0.5)]
    write(tmp_path / "called.extxyz", mixed)
    assert read_ase(tmp_path / "called.extxyz", Reading()).atomic_energies[1] == -1.0
    write(tmp_path / "twice.extxyz", [*images(), atom("H", -0.5), atom("H", -1.0), atom("O", -3.0), atom("Au", -9.0)])
    raw = read_ase(tmp_path / "twice.extxyz", Reading())
    assert raw.atomic_energies == {8: -3.0}, "there is no gold in ethanol"
    assert any("isolated atoms of H have energies from -1 to -0.5" in text for _, text in raw.found)


def test_given_energies_take_precedence_and_may_be_given_later(tmp_path, capsys):
    write(tmp_path / "mixed.extxyz", [*images(), *atoms()])
    table = json.dumps({"H": -1.5})
    assert converted(tmp_path / "mixed.extxyz", tmp_path / "a", "--atomic-energies", table).atomic_energies_eV == {
        "H": -1.5
    }
    assert converted(tmp_path / "mixed.extxyz", tmp_path / "b", "--atomic-energies", "{}").atomic_energies_eV == {}
    assert "atomic_energies_eV" not in json.loads((tmp_path / "b/mine/ethanol/9/metadata.json").read_text())
    assert converted(tmp_path / "mixed.extxyz", tmp_path / "b", "--atomic-energies", table).atomic_energies_eV == {
        "H": -1.5
    }
    assert "took in its atomic_energies_eV" in capsys.readouterr().out


def test_energies_of_another_method_are_doubted(tmp_path, capsys):
    write(tmp_path / "frames.extxyz", images())
    unbound = json.dumps({"H": -13.6, "C": -1029.0, "O": -2043.0})
    converted(tmp_path / "frames.extxyz", tmp_path / "data", "--atomic-energies", unbound)
    assert "are the atomic energies of the same method" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["H=-13.6", '{"Xx": 1}', '{"H": "a"}', '{"H": NaN}', "[1]", '{"H": true}'])
def test_what_is_no_table_is_refused(tmp_path, text, capsys):
    with pytest.raises(SystemExit):
        main(["data", "convert", "x.xyz", "--name", "a", "--molecule", "b", "--atomic-energies", text])
    assert "--atomic-energies" in capsys.readouterr().err


@pytest.mark.parametrize("value", [{"H": None}, [], {"X": 1.0}, {"H": 1e300}, "H"])
def test_metadata_with_something_else_are_refused(tmp_path, value, capsys):
    write(tmp_path / "frames.extxyz", images())
    converted(tmp_path / "frames.extxyz", tmp_path / "data")
    path = tmp_path / "data/mine/ethanol/9/metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"atomic_energies_eV": value}))
    assert main(["data", "check", str(path.parent)]) == 1
    error = capsys.readouterr().err
    assert "atomic_energies_eV must be an object" in error and len(error.splitlines()) == 1
