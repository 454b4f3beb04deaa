"""`data/generate_water.py`: end to end as a user runs it, stopped and continued, and given wrong input."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import spcfw
import torch
from paths import ROOT

from mdsim.datasets import Dataset, load_dataset
from mdsim.datasets.splits import parse_indices
from mdsim.observables import MSD, RDF
from mdsim.state import Trajectory
from mdsim.units import FS

pytest.importorskip("openmm")

SCRIPT = ROOT / "data" / "generate_water.py"
TINY = [
    *("--name", "toy", "--equilibration-ps", "0.05", "--workers", "1", "--frames", "120", "--every", "2"),
    *("--contiguous-frames", "10", "--contiguous-every", "1", "--test-frames", "5", "--test-every", "4"),
    *("--gap-frames", "10", "--sizes", "20", "40", "--reference-blocks", "2", "--msd-max-lag-ps", "0.1"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Folder of one run of the script, in this process because new processes cost more than the sampling."""
    folder = tmp_path_factory.mktemp("water")
    with pytest.MonkeyPatch.context() as patched:
        patched.syspath_prepend(SCRIPT.parent)
        script = importlib.import_module("generate_water")
        patched.chdir(folder)
        patched.setattr(sys, "argv", [SCRIPT.name, *TINY, "--db-path", str(folder)])
        patched.setattr(script, "run_all", _one_after_another)
        script.main()
    return folder


def _one_after_another(plans, folders, workers, sample, label) -> None:
    for plan, folder in zip(plans, folders, strict=True):
        sample(plan, folder)


@pytest.fixture(scope="module")
def dataset(folder) -> Dataset:
    return load_dataset(folder, "toy", "water", "40")


@pytest.fixture
def scripts(monkeypatch):
    """Imports a script of the folder `data` into this process."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module


@pytest.fixture
def refusal(monkeypatch, scripts):
    """The message with which the script ends."""
    script = scripts("generate_water")

    def run(db_path: Path, *options: str) -> str:
        monkeypatch.chdir(db_path)
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *options, "--db-path", str(db_path)])
        with pytest.raises(SystemExit) as caught:
            script.main()
        return str(caught.value)

    return run


@pytest.fixture
def plan(scripts, monkeypatch):
    water = scripts("openmm_water")
    monkeypatch.setattr(water, "BLOCK_FRAMES", 4)
    return water.Plan(0, 5, 64, 1.0, 300.0, 1.0, 0.1, equilibration_steps=20, frames=10, every=2)


def test_the_data_set_is_what_its_metadata_say(dataset):
    assert [len(f) for f in (dataset.train, dataset.val, dataset.test, dataset.contiguous)] == [38, 2, 5, 10]
    indices = {name: parse_indices(text) for name, text in dataset.metadata.split["indices"].items()}
    assert indices["test"].tolist() == [100, 104, 108, 112, 116]
    assert max(indices["train"].max(), indices["val"].max()) < 90
    assert dataset.metadata.contiguous_frame_interval_fs == 1.0
    assert dataset.metadata.structural_frame_interval_fs == 2.0
    assert "not quantum mechanics" in dataset.metadata.level_of_theory
    assert "openmm" in dataset.metadata.program_versions


def test_labels_are_those_of_a_plain_ewald_sum(dataset):
    energy, forces = spcfw.energy_and_forces(dataset.train.positions[7], float(dataset.train.cell[0, 0]))
    assert dataset.train.energy[7].item() == pytest.approx(energy.item(), abs=3e-4)
    torch.testing.assert_close(dataset.train.labels[7].double(), forces, rtol=0, atol=3e-4)


def test_frames_are_those_of_the_indices(folder, dataset):
    with np.load(next(folder.rglob("trajectory000/block00000.npz"))) as block:
        indices = parse_indices(dataset.metadata.split["indices"]["train"])
        assert np.array_equal(dataset.train.positions.numpy(), block["R"][indices])
        assert np.array_equal(dataset.train.energy.numpy(), block["E"][indices])


def test_velocities_are_those_at_the_time_of_the_positions(dataset):
    """Central differences of a stretch vibration at 3,700 cm⁻¹ (ω = 0.7/fs) are off by (ωΔt)²/6 ≈ 8 %; half a step
    later by ωΔt/2 = 35 %."""
    frames = dataset.contiguous
    central = (frames.positions[2:] - frames.positions[:-2]).double() / (2 * dataset.metadata.timestep_fs)
    difference = central / FS - frames.velocities[1:-1]
    assert difference.norm() / frames.velocities.norm() < 0.1
    momentum = (dataset.system().masses[:, None] * frames.velocities).sum(1)
    assert momentum.abs().max() < 1e-3


def test_the_reference_run_is_that_of_all_frames(folder, dataset):
    with np.load(next(folder.rglob("trajectory000/block00000.npz"))) as block:
        positions = torch.from_numpy(block["R"])[:, None]
    trajectory = Trajectory(positions, None, None, 2.0)
    for pair in (("O", "O"), ("O", "H"), ("H", "H")):
        rdf = RDF(6.0, 0.1, pair, "ideal_gas")
        expected = rdf(dataset.system(), trajectory).mean((0, 1)).double()
        found = dataset.reference_run.mean_and_error(rdf)[0]
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4)  # a pair at the edge of a bin may change sides
        torch.testing.assert_close(found.mean(), expected.mean(), rtol=1e-4, atol=0)
    blocks = torch.stack([MSD(100.0, "O")(dataset.system(), trajectory[s : s + 60])[0, ::10] for s in (0, 60)])
    torch.testing.assert_close(dataset.reference_run.msd["O"].float(), blocks)


def test_a_stopped_trajectory_continues_bit_for_bit(tmp_path, scripts, plan, monkeypatch):
    water = scripts("openmm_water")
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    water.sample(plan, whole)
    sample_block = water.sample_block
    with monkeypatch.context() as patched:
        patched.setattr(water, "sample_block", lambda p, s, block: sample_block(p, s, block) if block < 1 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            water.sample(plan, stopped)
    assert len(list(stopped.glob("block*"))) == 1
    water.sample(plan, stopped)
    names = sorted(path.name for path in whole.iterdir())
    assert names == ["block00000.npz", "block00001.npz", "block00002.npz", "start.npz"]
    for name in names:
        assert (stopped / name).read_bytes() == (whole / name).read_bytes(), name
    lengths = [len(water.read_arrays(whole / name, ("E",))["E"]) for name in names[:3]]
    assert lengths == [4, 4, 2]


def test_the_contiguous_trajectory_starts_at_the_mean_energy(folder, scripts):
    """There is one block here, so it is its end."""
    water = scripts("openmm_water")
    keys = ("positions_nm", "velocities_nm_per_ps")
    end = water.read_arrays(next(folder.rglob("trajectory000/block00000.npz")), keys)
    start = water.read_arrays(next(folder.rglob("trajectory001/start.npz")), keys)
    assert all(np.array_equal(end[key], start[key]) for key in keys)


def test_the_box_of_64_molecules(scripts):
    assert scripts("openmm_water").box_length_A(64, 1.0) == pytest.approx(12.417, abs=5e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--molecules", "50"], "the box of 11.44 Å must exceed 12 Å"),
        (["--test-frames", "30"], "trajectory 0 has 120 frames: too few for 120 test frames"),
        (["--sizes", "1k"], "only 90 are there to choose from"),
        (["--reference-blocks", "1"], "--reference-blocks: two or more"),
        (["--every", "3"], "frames 3 fs apart do not divide 20 fs"),
        (["--msd-max-lag-ps", "0.12"], "blocks are only 0.12 ps long"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_wrong_input_is_one_clear_error_before_sampling(tmp_path, refusal, options, message):
    assert message in refusal(tmp_path, *TINY, *options)
    assert not any(tmp_path.iterdir())


def test_existing_data_of_other_settings_are_not_overwritten(folder, refusal):
    assert "was made with other settings (seed)" in refusal(folder, *TINY, "--seed", "1")
