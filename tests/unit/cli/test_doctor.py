"""`mdsim doctor`: what is there, what is not, and the command that gets it."""

import json
from importlib import metadata

import pytest
import torch

from mdsim.cli import doctor
from mdsim.cli import main as cli
from mdsim.cli.doctor import CPU_INDEX, Package, advice, packages


def _without(name: str):
    def version(asked: str) -> str:
        if asked == name:
            raise metadata.PackageNotFoundError(asked)
        return "9999.0"

    return version


def test_it_names_this_environment_and_the_paths_of_forces(capsys):
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["environment"]["torch"].startswith(torch.__version__)
    assert set(found["kernels"]) == {"SchNet", "NequIP", "GemNet-T"}
    by_name = {row["name"]: row for row in found["packages"]}
    assert by_name["torch"] == {"extra": None, "name": "torch", "version": metadata.version("torch"), "problem": None}
    assert by_name["numba"]["extra"] == "fast"
    assert by_name.keys().isdisjoint({"mdsim", "pytest", "sphinx"})


def test_every_extra_of_users_has_a_purpose():
    extras = set(metadata.metadata("mdsim").get_all("Provides-Extra") or ())
    assert extras - set(doctor.PURPOSE) == {"bench", "test", "docs", "dev"}


@pytest.mark.parametrize(("name", "extra", "status"), [("numba", "fast", 0), ("scipy", None, 1)])
def test_what_is_missing_is_said(monkeypatch, capsys, name, extra, status):
    monkeypatch.setattr(doctor.metadata, "version", _without(name))
    monkeypatch.setattr(doctor, "kernels", dict)
    assert cli.main(["doctor"]) == status
    shown = capsys.readouterr().out
    assert f"{name}" in shown and "missing" in shown
    assert ("pip install 'mdsim[fast]'" if extra else "pip install scipy") in shown


def test_an_old_release_is_a_problem(monkeypatch):
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "0.1")
    assert {package.name: package.problem for package in packages()}["ase"] == "needs >=3.23"


@pytest.mark.parametrize(
    ("torch_build", "gpu", "said"),
    [
        ("2.9 (CPU build)", True, "--force-reinstall torch"),
        ("2.9 (CUDA 13.0 build)", False, CPU_INDEX),
        ("2.9 (CPU build)", False, None),
        ("2.9 (CUDA 13.0 build)", True, None),
    ],
)
def test_the_build_of_torch_suits_the_machine(monkeypatch, torch_build, gpu, said):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/nvidia-smi" if gpu else None)
    lines = advice({"torch": torch_build}, [])
    assert lines == [] if said is None else said in lines[0]


def test_kernels_of_a_gpu_are_advised_only_with_one(monkeypatch):
    missing = [Package("gpu", "cuequivariance-torch", None, "missing")]
    for there in (True, False):
        monkeypatch.setattr(doctor.shutil, "which", lambda name, there=there: "there" if there else None)
        assert bool([line for line in advice({"torch": "2.9 (CPU build)"}, missing) if "mdsim[gpu]" in line]) == there
