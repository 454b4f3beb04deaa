"""`data/convert.py` and `mdsim data check` as a user runs them, on toys and on the reference data."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from paths import ROOT
from sprung_molecules import isolated_atoms, many_molecules
from toy_sources import archive, ethanol

from mdsim.cli.main import main
from mdsim.datasets import load_dataset, load_mixed_dataset
from mdsim.datasets.splits import parse_indices
from mdsim.units import KCAL_PER_MOL

SCRIPT = ROOT / "data" / "convert.py"


@pytest.fixture
def convert(monkeypatch, tmp_path):
    """Runs the script in this process, to save the time of a start; returns the exit status."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    module = importlib.import_module("convert")

    def run(*options: object, size: str = "100percent") -> int:
        words = [str(word) for word in options]
        words += ["--name", "mine", "--molecule", "x", "--size", size, "--db_path", str(tmp_path / "db")]
        return module.convert(words)

    return run


def converted(tmp_path: Path, size: str = "100percent"):
    return load_dataset(tmp_path / "db", "mine", "x", size)


@pytest.fixture
def trajectory(tmp_path) -> Path:
    (tmp_path / "run.npz").write_bytes(archive(ethanol(300)))
    return tmp_path / "run.npz"


def test_from_a_terminal(trajectory, tmp_path):
    command = [sys.executable, SCRIPT, trajectory, "--name", "mine", "--molecule", "x", "--size", "40", "100"]
    result = subprocess.run(
        [*command, "--temperature-K", "500", "--db_path", tmp_path / "db"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "kcal/mol, kcal/mol/angstrom, angstrom: detected" in result.stdout
    assert "x/100: wrote train 95, val 5, test 30" in result.stdout
    assert converted(tmp_path, "40").metadata.temperature_K == 500.0


def test_blocks_and_a_contiguous_stretch(convert, trajectory, tmp_path):
    blocks = ["--split", "blocks", "--gap-frames", "10", "--frame-interval-fs", "0.5", "--contiguous", "20:220"]
    assert convert(trajectory, *blocks, "--level-of-theory", "springs", size="150") == 0
    dataset = converted(tmp_path, "150")
    indices = {name: parse_indices(text) for name, text in dataset.metadata.split["indices"].items()}
    assert indices["test"].tolist() == list(range(270, 300))
    assert indices["train"].max() + 10 < indices["val"].min() and indices["val"].max() + 10 < indices["test"].min()
    path = ethanol(300)["R"][23:223]
    np.testing.assert_allclose(dataset.contiguous_trajectory().positions[:, 0].numpy(), path, rtol=0, atol=1e-6)
    assert dataset.metadata.settings["velocities"].startswith("sixth-order")


def test_running_it_again_changes_nothing(convert, trajectory, tmp_path, capsys):
    assert convert(trajectory) == 0
    before = (tmp_path / "db" / "mine" / "x" / "100percent" / "metadata.json").read_text()
    assert convert(trajectory) == 0
    assert "is there already" in capsys.readouterr().out
    assert (tmp_path / "db" / "mine" / "x" / "100percent" / "metadata.json").read_text() == before
    assert convert(trajectory, "--seed", "7", size="40") == 1
    assert "was made with other settings (seed: 123, now 7)" in capsys.readouterr().err


def test_a_temperature_may_be_said_later(convert, trajectory, tmp_path, capsys):
    assert convert(trajectory) == 0
    before = converted(tmp_path).metadata
    assert before.temperature_K is None
    assert convert(trajectory, "--temperature-K", "500") == 0
    assert "is there already; took in its temperature_K" in capsys.readouterr().out
    after = converted(tmp_path).metadata
    assert after == replace(before, temperature_K=500.0)
    assert convert(trajectory) == 0 and converted(tmp_path).metadata.temperature_K == 500.0


def test_temperatures_are_positive(convert, trajectory, capsys):
    with pytest.raises(SystemExit):
        convert(trajectory, "--temperature-K", "-3")
    assert "must be positive" in capsys.readouterr().err


def test_a_dry_run_writes_nothing(convert, trajectory, tmp_path, capsys):
    assert convert(trajectory, "--dry-run", size="100") == 0
    assert "would hold train 95, val 5, test 30" in capsys.readouterr().out
    assert not (tmp_path / "db").exists()


def test_several_compositions(convert, tmp_path, capsys):
    path = tmp_path / "many.extxyz"
    ase.io.write(path, [*isolated_atoms(), *many_molecules()])
    assert convert(path) == 1
    assert "--mixed makes a data set of several compositions" in capsys.readouterr().err
    assert convert(path, "--mixed") == 0
    out = capsys.readouterr().out
    assert "C2H6O 12, CH4 12, H3N 12" in out and "wrote train 30, val 2, test 4" in out
    dataset = load_mixed_dataset(tmp_path / "db", "mine", "x", "100percent")
    assert sum(dataset.metadata.compositions.values()) == 36
    assert dataset.metadata.atomic_numbers == [1, 6, 7, 8] and dataset.metadata.units["stress"] == "eV/angstrom^3"
    assert dataset.metadata.atomic_energies_eV == {"H": -13.0, "C": -1030.0, "N": -1480.0, "O": -2040.0}
    indices = {name: parse_indices(text) for name, text in dataset.metadata.split["indices"].items()}
    assert sorted(np.concatenate(list(indices.values()))) == list(range(4, 40))
    assert len(dataset.of_composition("CH4").train) == dataset.train.compositions["CH4"]
    assert convert(path, "--mixed") == 0
    assert "is there already" in capsys.readouterr().out
    assert convert(path, "--mixed", "--seed", "7", size="20") == 1
    assert "was made with other settings (seed: 123, now 7)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["absent.xyz"], "absent.xyz: no such file"),
        (["RUN", "--contiguous", "0:100"], "--contiguous needs --frame-interval-fs"),
        (["RUN", "--validation-fraction", "1.5"], "--validation-fraction must be between 0 and 1"),
        (["RUN", "--cell", "1", "2"], "--cell takes 3 or 9 numbers, found 2"),
        (["RUN", "--mixed", "--contiguous", "0:9", "--frame-interval-fs", "1"], "no frames in time order"),
        (["RUN", "--negate-forces"], "these are gradients of the energy"),
        (["RUN", "--contiguous", "0:300", "--frame-interval-fs", "0.5"], "need 306 frames, but there are 300"),
        (["RUN", "RUN", "--contiguous", "0:50", "--frame-interval-fs", "0.5"], "300 frames repeat earlier ones"),
    ],
)
def test_wrong_input_is_one_line(convert, trajectory, capsys, options, message):
    assert convert(*[trajectory if word == "RUN" else word for word in options]) == 1
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_unknown_units_are_refused_by_name(convert, trajectory, capsys):
    with pytest.raises(SystemExit):
        convert(trajectory, "--energy-unit", "parsec")
    assert "'parsec' is none of eV, meV, kcal/mol" in capsys.readouterr().err


def test_real_aspirin(convert, reference_path, tmp_path):
    source = reference_path / "rmd17_aspirin" / "rmd17_aspirin_train.xyz"
    assert convert(source, size="1k") == 0
    from ase.io import read

    dataset = converted(tmp_path, "1k")
    index = int(parse_indices(dataset.metadata.split["indices"]["train"])[17])
    frame = read(source, index)
    assert dataset.train.energy[17].item() == frame.get_potential_energy()
    np.testing.assert_allclose(dataset.train.labels[17].numpy(), frame.get_forces(), rtol=0, atol=1e-6)
    assert len(dataset.system().bonds) == 21


def test_real_tetrapeptide_in_kcal(convert, reference_path, tmp_path):
    source = reference_path / "md22" / "md22_Ac-Ala3-NHMe_5frames.xyz"
    assert convert(source) == 0
    dataset = converted(tmp_path)
    written = [float(line.split()[0][7:]) for line in source.read_text().splitlines() if line.startswith("Energy=")]
    energies = torch.cat([dataset.train.energy, dataset.val.energy, dataset.test.energy])
    np.testing.assert_allclose(np.sort(energies), np.sort(written) * KCAL_PER_MOL, rtol=1e-14)
    assert dataset.metadata.settings["found"][0] == ["labels", "Energy and forces"]


def test_positions_alone_are_refused(convert, reference_path, capsys):
    assert convert(reference_path / "md22" / "md22_Ac-Ala3-NHMe_disp_100frames.extxyz") == 1
    assert "have no energy; they have displacements, timestep" in capsys.readouterr().err


@pytest.mark.slow
def test_real_water(convert, reference_path, tmp_path, capsys):
    assert convert(reference_path / "water_dft", size="40") == 0
    out = capsys.readouterr().out
    assert "400 in 4 files or systems" in out and "steps of 0.002 eV" in out
    dataset = converted(tmp_path, "40")
    assert dataset.system().n_molecules == 64 and dataset.train.cell is not None
    assert main(["data", "check", str(tmp_path / "db"), "--output", str(tmp_path)]) == 0
    assert "64 × H2O; 128 bonds; periodic, 12.44 × 12.44 × 12.44 Å, 0.993 g/cm³" in capsys.readouterr().out
    assert (tmp_path / "mine_x_40_check.png").stat().st_size > 50_000


def test_the_check_prints_and_draws(convert, trajectory, tmp_path, capsys):
    convert(trajectory, "--frame-interval-fs", "0.5", "--contiguous", "0:290", "--temperature-K", "500")
    assert main(["data", "check", str(tmp_path / "db" / "mine" / "x")]) == 0
    out = capsys.readouterr().out
    slope = float(out.split("energy differences are")[1].split()[0])
    assert slope == pytest.approx(1.0, abs=0.02) and "9 atoms: C2H6O; 8 bonds" in out
    assert (tmp_path / "db" / "mine" / "x" / "100percent" / "data_check.png").is_file()
    assert main(["data", "check", str(tmp_path / "absent")]) == 1
    assert main(["data"]) == 2
