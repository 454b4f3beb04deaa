"""`mdsim data check` on mixed sets, and on stresses."""

from dataclasses import replace

import pytest
import torch
from mixed_frames import write_mixed_data

from mdsim.cli.main import main
from mdsim.datasets import load_mixed_dataset
from mdsim.datasets.inspection.mixed import CheckedMixed, report_mixed


@pytest.fixture
def world(tmp_path):
    write_mixed_data(tmp_path, n_each=12)
    return tmp_path


def test_counts_cells_and_ranges(world, capsys):
    assert main(["data", "check", str(world)]) == 0
    text = capsys.readouterr().out
    assert "toy/mixed/all\n4 compositions of H, C, O; 3 to 6 atoms; 17 cells of" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    train = load_mixed_dataset(world, "toy", "mixed", "all").train
    assert rows["train"][:3] == ["48", "240", "12"] and rows["train"][-2] == "12"
    assert float(rows["train"][6]) == pytest.approx(float(train.forces.square().mean().sqrt()), abs=1e-3)
    assert rows["H4O2"][:2] == ["17", "17"] and rows["H4O2"][-1] == "17"
    assert rows["CH4"][:2] == ["17", "-"] and rows["CH4"][-1] == "0"


def test_one_file(world, capsys):
    assert main(["data", "check", str(world / "toy/mixed/all/val.npz")]) == 0
    assert capsys.readouterr().out.startswith("val\n4 compositions")


def test_outliers_and_compositions_without_training_frames(world):
    dataset = load_mixed_dataset(world, "toy", "mixed", "all")
    energy, forces = dataset.train.energy.clone(), dataset.train.labels.clone()
    energy[4] += 50.0  # the second methanol
    forces[9] *= 1000.0  # of the second frame
    train = replace(dataset.train, energy=energy, forces=forces)
    few = train[torch.tensor([formula != "H2O" for formula in train.formulas])]
    text = report_mixed(CheckedMixed("x", {"train": train, "val": dataset.val}, None))
    assert "train, frame 4: CH4O, energy +5" in text and "train, frame 2: force of" in text
    text = report_mixed(CheckedMixed("x", {"train": few, "val": dataset.val}, None))
    assert "val: 1 compositions have no training frames: H2O" in text
