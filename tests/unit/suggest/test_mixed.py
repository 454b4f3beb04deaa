"""Suggestions for data of several compositions and cells: fits use all frames, runs simulate one composition."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import ase.io
import pytest
import yaml
from mixed_frames import CUTOFF_A, geometries, labeled, write_mixed_data
from sprung_molecules import many_molecules

from mdsim.cli import main as cli
from mdsim.config.loading import load_config
from mdsim.config.schema import PretrainConfig, SimulateConfig, TrainConfig
from mdsim.datasets.folder import read_metadata, write_metadata
from mdsim.errors import ConfigError, DatasetError
from mdsim.models.registry import MODELS
from mdsim.neighbors import pairs_within
from mdsim.suggest import files
from mdsim.suggest.choices import Machine
from mdsim.suggest.findings import inspect
from mdsim.suggest.mixed import holds_several

CPU = Machine(gpu=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("mixed")
    write_mixed_data(root)
    path = root / "toy" / "mixed" / "all" / "metadata.json"
    write_metadata(path, replace(read_metadata(path), temperature_K=300.0))
    return path.parent


def test_fits_use_all_frames_and_runs_one_composition(folder, tmp_path):
    found = inspect(folder, composition="HOCH3")
    assert (found.composition, found.n_train, len(found.dataset.train)) == ("CH4O", 24, 6)
    files.write(found, MODELS["schnet"], CPU, tmp_path / "out")
    pretrain = load_config(tmp_path / "out" / "pretrain.yml", PretrainConfig)
    train = load_config(tmp_path / "out" / "train.yml", {"train": TrainConfig})
    simulate = load_config(tmp_path / "out" / "simulate.yml", {"simulate": SimulateConfig})
    assert pretrain.data.composition is None and train.data.composition == simulate.data.composition == "CH4O"
    assert train.run_path == simulate.run_path and "CH4O" in train.run_path.name
    assert "CH4O, --composition chooses another one of" in files.summary(found, [tmp_path / "out" / "x"])
    assert files.default_folder(found, MODELS["schnet"]) == Path("configs/toy/mixed_all_CH4O_schnet")


def test_the_most_frequent_composition_is_simulated_unless_one_is_named(folder):
    assert inspect(folder).composition == next(iter(inspect(folder).mixed.train.compositions))
    with pytest.raises(DatasetError, match=r"no frames of C6H6; name one of CH4O"):
        inspect(folder, composition="C6H6")
    with pytest.raises(ConfigError, match=r"--composition: .*; write it as C2H6O"):
        inspect(folder, composition="C2H6O-")
    with pytest.raises(DatasetError, match=r"has 1 training frame of H4O2 in the most frequent cell, and at least 5"):
        inspect(folder, composition="H4O2")


def test_pairs_are_those_of_all_compositions(folder):
    found = inspect(folder, composition="CH4")
    frames = found.mixed.train
    positions = frames.positions.split(frames.n_atoms.tolist())
    counts = [pairs_within(frames.cell_of(i), one[None], CUTOFF_A).n_pairs for i, one in enumerate(positions)]
    assert found.labeled_pairs_within(CUTOFF_A) == round(sum(counts) / 24) != found.pairs_within(CUTOFF_A)


@pytest.mark.parametrize(("first", "step", "several"), [(0, 1, True), (0, 4, False), (3, 4, True)])
def test_files_of_several_compositions_or_cells_are_recognized(tmp_path, first, step, several):
    ase.io.write(tmp_path / "frames.extxyz", labeled(geometries(4))[first::step])
    assert holds_several(tmp_path / "frames.extxyz") == several


def test_a_file_of_several_compositions_becomes_a_mixed_set(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ase.io.write("frames.extxyz", many_molecules(30))
    arguments = ["--data", "frames.extxyz", "--model", "schnet", "--temperature-K", "300", "--cpu"]
    assert cli.main(["init", *arguments, "--composition", "CH4"]) == 0, capsys.readouterr().err
    configs = Path("configs/frames/frames_100percent_CH4_schnet")
    assert yaml.safe_load((configs / "common.yml").read_text())["data"]["composition"] == "CH4"
    assert read_metadata(Path("DATAPATH/frames/frames/100percent/metadata.json")).is_mixed
