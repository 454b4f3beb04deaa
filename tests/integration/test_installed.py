"""The installed package, from a wheel and in an empty folder, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import tiny
from paths import ROOT

import mdsim

pytest.importorskip("setuptools", minversion="77")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, as building writes into the folder of the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    shutil.copytree(ROOT / "mdsim", sources / "mdsim", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(sources)], check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    return file


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The wheel in a separate folder, in front of all other packages."""
    target = tmp_path_factory.mktemp("site")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*install, "--target", str(target), str(wheel)], check=True, capture_output=True)
    return target


@pytest.fixture(scope="module")
def no_extras(tmp_path_factory) -> Path:
    """A folder that hides the optional packages from whoever has it on its path."""
    folder = tmp_path_factory.mktemp("hidden")
    names = ["numba", "cuequivariance_torch", "openmm", "tblite", "rdkit", "wandb", "shtab"]
    (folder / "sitecustomize.py").write_text(f"import sys\nsys.modules.update(dict.fromkeys({names}))\n")
    return folder


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["no extras", "extras"])
def mdsim_in(installed, no_extras, tmp_path, request):
    """Runs the console script in an empty folder. With extras, all loops are compiled first, which takes a minute."""
    folders = [installed] if request.param else [no_extras, installed]

    def run(*arguments: str) -> str:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, folders))}
        command = [sys.executable, str(installed / "bin" / "mdsim"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_the_wheel_has_every_file_of_the_package(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path for path in (ROOT / "mdsim").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    others = {name.split("/")[0] for name in names} - {"mdsim"}
    assert len(others) == 1 and others.pop().endswith(".dist-info")  # no tests, data or benchmarks


def test_commands_run_in_an_empty_folder(mdsim_in, installed, tmp_path):
    assert mdsim_in("--version") == f"mdsim {mdsim.__version__}\n"
    tiny.write_data(tmp_path / "DATAPATH")
    assert "mdsim pretrain --config-yml" in mdsim_in(
        "init", "--data", "DATAPATH/toy/water/20", "--model", "schnet", "--cpu"
    )
    small = ("--model.hidden_channels=8", "--model.num_filters=8", "--model.num_interactions=1")
    mdsim_in("pretrain", "--config-yml", "configs/toy/water_20_schnet/pretrain.yml", "--debug", *small)
    (checkpoint,) = tmp_path.rglob("best_checkpoint.pt")
    assert mdsim.load_force_field(checkpoint).species.tolist() == [1, 8]
    assert {path.name for path in tmp_path.iterdir()} == {"DATAPATH", "configs", "qm_pretrained_checkpoints"}


def test_the_installed_package_is_the_one_that_runs(installed, tmp_path):
    found = subprocess.run(
        [sys.executable, "-c", "import mdsim; print(mdsim.__file__)"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == installed / "mdsim" / "__init__.py"
