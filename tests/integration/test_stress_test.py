"""The stress test of force fields of known behavior, from the command line to the verdict."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import stress_calculators
from ase import Atoms
from ase.build import bulk
from paths import ROOT
from stress_calculators import ASPIRIN

from mdsim.cli.main import main
from mdsim.cli.stress_test import FAILED
from mdsim.datasets import load_dataset

SMALL = ["--temperatures-K", "300", "--replicas", "2", "--length-ps", "0.1", "--budget-minutes", "0.01"]


@pytest.fixture(scope="module")
def structures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    stress_calculators.ethanol().write(folder / "ethanol.xyz")
    stress_calculators.copper().write(folder / "copper.xyz")
    frames = load_dataset(ROOT / "data" / "bundled", "aspirin_gfn2", "aspirin", "40").train
    best = int(frames.energy.argmin())
    Atoms(frames.atomic_numbers.numpy(), frames.positions[best].numpy()).write(folder / "aspirin.xyz")
    return folder


@pytest.fixture
def run(structures, tmp_path, capsys):
    """Runs the command; the exit status and the content of the result file."""

    def run(model, structure, *flags):
        output = tmp_path / "results"
        status = main(
            ["stress-test", model, "--structure", str(structures / structure), *flags, "--output", str(output)]
        )
        file = output / "stress_test.json"
        assert (output / "report.html").exists() == file.exists()
        return status, json.loads(file.read_text(encoding="utf-8")) if file.exists() else capsys.readouterr().err

    return run


def levels(result):
    return {finding["check"]: finding["level"] for finding in result["findings"]}


@pytest.mark.parametrize(
    ("model", "structure", "flags"),
    [
        ("stress_calculators:sound", "ethanol.xyz", ["--processes", "1"]),
        pytest.param("ase:emt", "copper.xyz", ["--processes", "1", "--timesteps-fs", "2"], marks=pytest.mark.slow),
    ],
)
def test_stable(run, model, structure, flags):
    status, result = run(model, structure, *SMALL, *flags, "--length-ps", "1")
    assert (status, result["verdict"]["label"], result["verdict"]["passed"]) == (0, "stable", True)
    assert set(levels(result).values()) <= {"pass", "skipped"}
    (dynamics,) = result["dynamics"]
    assert dynamics["n_broken"] == 0 and dynamics["mlipaudit_score"] == 1.0
    drift = next(finding for finding in result["findings"] if finding["check"] == "energy_drift")
    assert 1.8 < drift["order"] < 2.2
    assert "--length-ps" in result["verdict"]["command"]


@pytest.mark.parametrize(
    ("factory", "label", "check", "words"),
    [
        ("in_kcal", "wrong_units", "units", "look like kcal/mol/angstrom"),
        ("energies_in_hartree", "wrong_units", "forces", "energies in Hartree, forces in eV"),
        ("truncated", "discontinuous", "smoothness", "the energy jumps"),
        ("swirling", "non_conservative", "forces", "not the gradient of any energy"),
        ("halved", "inconsistent_forces", "forces", "no unit explains: slopes of the energy are 0.5 times"),
        ("inverted", "inconsistent_forces", "forces", "wrong sign"),
    ],
)
def test_faults_have_their_own_verdicts(run, factory, label, check, words):
    status, result = run(f"stress_calculators:{factory}", "ethanol.xyz", *SMALL, "--processes", "1")
    assert (status, result["verdict"]["label"]) == (FAILED, label)
    assert levels(result)[check] == "fail"
    assert words in result["verdict"]["sentence"]


@pytest.mark.slow
def test_force_field_with_holes(run):
    flags = ["--temperatures-K", "500", "--replicas", "8", "--length-ps", "1", "--budget-minutes", "0.01"]
    status, result = run(str(ROOT / ASPIRIN), "aspirin.xyz", *flags)
    assert (status, result["verdict"]["label"]) == (FAILED, "unstable")
    (dynamics,) = result["dynamics"]
    low, high = dynamics["mean_stable_ps_95"]
    assert dynamics["n_broken"] >= 2 and 0 < low < dynamics["mean_stable_ps"] < high <= 1.0
    assert dynamics["left_range_first"][0]["coordinate"] == "angle C10-O9-H13"  # the known hole of 40 labels
    assert result["verdict"]["command"].startswith("mdsim init --data DATA --model schnet --checkpoint ")


def test_required_stable_time(run):
    flags = ["--temperatures-K", "300", "--replicas", "2", "--budget-minutes", "0.01", "--processes", "1"]
    status, result = run("stress_calculators:sound", "ethanol.xyz", *flags, "--min-stable-ps", "0.05")
    assert status == 0 and result["settings"]["length_ps"] == 0.05
    assert result["verdict"]["label"] == "stable_with_warnings" and "too short" in result["verdict"]["sentence"]
    assert "required: 0.05 ps, reached" in result["verdict"]["sentence"]


@pytest.mark.slow
def test_processes_agree_with_one(run):
    flags = ["--temperatures-K", "300", "--replicas", "2", "--length-ps", "0.02", "--budget-minutes", "0.001"]
    one, several = (
        run("stress_calculators:sound", "ethanol.xyz", *flags, "--processes", n)[1]["dynamics"] for n in ("1", "2")
    )
    assert one == several


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        ("missing.pt", [], "there is no file missing.pt"),
        ("7net-0", [], "need --model"),
        ("ase:emtt", [], "did you mean ase:emt?"),
        ("no_such_module:factory", [], "cannot be imported"),
        ("stress_calculators:soundd", [], "did you mean 'sound'?"),
        ("stress_calculators:not_a_calculator", [], "returned a int"),
        ("ase:lj", ["--ensemble", "ramp"], "heats between two"),
        ("ase:lj", ["--compress-percent", "5"], "the structure has no cell"),
        ("ase:lj", ["--min-stable-ps", "2", "--length-ps", "1"], "cannot be reached"),
        ("ase:emt", ["--processes", "1"], "fails for"),  # carbon is known, calcium is not
    ],
)
def test_errors_are_one_line(run, structures, model, flags, words):
    structure = "ethanol.xyz"
    if words == "fails for":
        structure = "calcium.xyz"
        bulk("Ca", cubic=True).repeat(1).write(structures / structure)
    status, message = run(model, structure, "--temperatures-K", "300", *flags)
    assert status == 1 and words in message
    assert sum(line.startswith("error: ") for line in message.splitlines()) == 1


@pytest.mark.parametrize(
    ("atoms", "words"),
    [
        (Atoms("H"), "a single atom"),
        (Atoms("H2", [[0, 0, 0], [0, 0, 0.1]]), "positions must be in Å"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, 2.5]], cell=[5, 5, 5], pbc=[True, True, False]), "the boundaries are mixed"),
        (Atoms("Cu2", [[0, 0, 0], [0, 0, np.nan]]), "not finite"),
    ],
)
def test_wrong_structures(tmp_path, capsys, atoms, words):
    atoms.write(tmp_path / "wrong.extxyz")
    assert main(["stress-test", "ase:emt", "--structure", str(tmp_path / "wrong.extxyz")]) == 1
    assert words in capsys.readouterr().err


def test_unknown_elements(structures, capsys):
    assert main(["stress-test", str(ROOT / ASPIRIN), "--structure", str(structures / "copper.xyz")]) == 1
    assert "the force field knows the atomic numbers" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="lists processes as Linux does")
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupts_leave_no_process(structures, number):
    command = [sys.executable, "-m", "mdsim.cli", "stress-test", "stress_calculators:sound", "--replicas", "2"]
    flags = ["--structure", str(structures / "ethanol.xyz"), "--processes", "2", "--length-ps", "500"]
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, *flags], env=environment, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    try:
        workers = _children(process, at_least=2)
        process.send_signal(number)
        assert process.wait(20) == (130 if number == signal.SIGINT else -number)
        deadline = time.monotonic() + 20
        while any(_is_alive(worker) for worker in workers):
            assert time.monotonic() < deadline, "a process of the calculator outlives the command"
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()


def _children(process, at_least):
    """Spawned processes that evaluate."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text(encoding="utf-8").split()
        found = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
        if len(found) >= at_least:
            return found
        assert process.poll() is None, "the command ended early"
        time.sleep(0.1)
    raise AssertionError("no process started")


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_torch_sim_models(run):
    pytest.importorskip("torch_sim")
    status, result = run("stress_calculators:torch_sim_aspirin", "aspirin.xyz", *SMALL)
    assert result["model"]["kind"] == "torch-sim model"
    assert status == 0 and levels(result)["forces"] == levels(result)["energy_drift"] == "pass"
