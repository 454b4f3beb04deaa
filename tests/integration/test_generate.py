"""`data/generate.py` as a user runs it: end to end, killed and continued, and given wrong input."""

import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from mdsim.datasets import Frames, load_dataset
from mdsim.datasets.npz import read_frames
from mdsim.datasets.splits import parse_indices
from mdsim.units import FS

pytest.importorskip("tblite")

SCRIPT = Path(__file__).parents[2] / "data" / "generate.py"
TINY = [
    *("--molecule", "water", "--name", "toy", "--equilibration-ps", "0.02", "--workers", "1"),
    *("--trajectories", "2", "--frames", "120", "--every", "2", "--contiguous-frames", "60", "--contiguous-every", "1"),
    *("--test-frames", "20", "--gap-frames", "5", "--sizes", "40", "100"),
]


def start(db_path: Path, *options: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *options, "--db-path", str(db_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=db_path,
        start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def finish(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output


@pytest.fixture
def refusal(monkeypatch):
    """The message with which the script ends, called in this process to save the time of a start."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    generate = importlib.import_module("generate")

    def run(db_path: Path, *options: str) -> str:
        monkeypatch.chdir(db_path)
        monkeypatch.setattr(sys, "argv", [SCRIPT.name, *options, "--db-path", str(db_path)])
        with pytest.raises(SystemExit) as caught:
            generate.main()
        return str(caught.value)

    return run


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> Path:
    db_path = tmp_path_factory.mktemp("whole")
    assert "wrote the sizes 40, 100" in finish(start(db_path, *TINY))
    return db_path


def test_a_killed_run_continues_bit_for_bit(uninterrupted, tmp_path):
    process = start(tmp_path, *TINY)
    first_block = tmp_path / "work" / "toy" / "water" / "trajectory000" / "block00000.npz"
    deadline = time.monotonic() + 60
    while not first_block.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    blocks_then = len(list(tmp_path.rglob("block*.npz")))
    assert 1 <= blocks_then < len(list(uninterrupted.rglob("block*.npz")))
    assert not (tmp_path / "toy" / "water").exists()

    finish(start(tmp_path, *TINY))
    for size in ("40", "100"):
        whole = (uninterrupted / "toy" / "water" / size / "metadata.json").read_text()  # holds every sha256
        assert (tmp_path / "toy" / "water" / size / "metadata.json").read_text() == whole


def test_the_data_set_is_what_its_metadata_say(uninterrupted):
    small, large = (load_dataset(uninterrupted, "toy", "water", size) for size in ("40", "100"))
    assert [len(f) for f in (large.train, large.val, large.test, large.contiguous)] == [95, 5, 20, 60]
    assert parse_indices(large.metadata.split["indices"]["test"]).tolist() == [*range(110, 120), *range(230, 240)]
    indices = [parse_indices(dataset.metadata.split["indices"]["train"]) for dataset in (small, large)]
    where = np.searchsorted(indices[1], indices[0])
    assert torch.equal(small.train.positions, large.train.positions[torch.from_numpy(where)])
    assert large.system().bonds.tolist() == [[0, 1], [0, 2]]
    assert large.metadata.contiguous_frame_interval_fs == 0.5
    assert "not density-functional theory" in large.metadata.level_of_theory


def test_labels_are_those_of_gfn2(uninterrupted):
    from ase import Atoms
    from tblite.ase import TBLite

    test: Frames = load_dataset(uninterrupted, "toy", "water", "40").test
    atoms = Atoms(test.atomic_numbers.numpy(), test.positions[7].double().numpy())
    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert atoms.get_potential_energy() == pytest.approx(test.energy[7].item(), abs=1e-5)
    torch.testing.assert_close(torch.from_numpy(atoms.get_forces()).float(), test.forces[7], rtol=0, atol=1e-4)


def test_contiguous_velocities_are_the_derivative_of_the_positions(uninterrupted):
    frames = read_frames(uninterrupted / "toy" / "water" / "contiguous.npz")
    central = (frames.positions[2:] - frames.positions[:-2]) / (2 * 0.5 * FS)
    difference = (central - frames.velocities[1:-1]).norm() / frames.velocities.norm()
    # Central differences of a stretch vibration at 3,700 cm⁻¹ (ω = 0.7/fs) are off by (ωΔt)²/6 ≈ 2 %.
    assert difference < 0.03


def test_existing_data_of_other_settings_are_not_overwritten(uninterrupted, refusal):
    other = [*TINY, "--seed", "1"]
    assert "was made with other settings (seed)" in refusal(uninterrupted, *other)


def test_existing_trajectories_of_other_settings_are_not_continued(uninterrupted, tmp_path, refusal):
    work = str(uninterrupted / "work" / "toy" / "water")
    message = refusal(tmp_path, *TINY, "--temperature-K", "300", "--work-path", work)
    assert "holds a trajectory with other settings" in message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--molecule", "waater"], "neither a file nor one of the built-in molecules (aspirin, "),
        (["--test-frames", "300"], "too few for 150 test frames"),
        (["--sizes", "1k"], "only 210 are there to choose from"),
    ],
    ids=["molecule", "test frames", "size"],
)
def test_wrong_input_is_one_clear_error_before_sampling(tmp_path, refusal, options, message):
    assert message in refusal(tmp_path, *TINY, *options)
    assert not any(tmp_path.iterdir())  # nothing was sampled or written


def test_a_periodic_structure_is_refused(tmp_path, refusal):
    from ase.build import bulk

    structure = tmp_path / "salt.extxyz"
    bulk("NaCl", "rocksalt", a=5.6).write(structure)
    assert "is periodic" in refusal(tmp_path, *TINY, "--molecule", str(structure))
