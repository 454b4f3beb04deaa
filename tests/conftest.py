"""Run-time shape checks for the whole package, one thread a worker, and the fixtures that many tests share."""

import os
import sys
from contextlib import suppress
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder
from pathlib import Path

from jaxtyping import install_import_hook
from paths import ROOT

SCRIPTED = ("mdsim.export.metatomic", "mdsim.models.adapters.metatomic_zero")  # TorchScript reads their source


class WithoutHook(MetaPathFinder):
    """Imports modules as they are."""

    def find_spec(self, name, path=None, target=None):
        return PathFinder.find_spec(name, path, target) if name in SCRIPTED else None


with suppress(ImportError):  # its programs cannot be compiled once torch_geometric has replaced torch.index_select
    import metatomic.torch  # noqa: F401

_hook = install_import_hook("mdsim", "beartype.beartype")
sys.meta_path.insert(0, WithoutHook())

import pytest
import torch

from mdsim.state import System

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def keep_denormals():
    """Scripts run in this process flush denormal numbers; other libraries, in other tests, count on having them."""
    yield
    torch.set_flush_denormal(False)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@pytest.fixture(scope="session")
def reference_path() -> Path:
    """The folder of reference data; tests that need it skip where it is absent."""
    folder = os.environ.get("MDSIM_REFERENCE", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("MDSIM_REFERENCE does not name the folder of reference data")
    return Path(folder)


@pytest.fixture(scope="session")
def aspirin_geometry() -> tuple:
    """Atomic numbers and positions (Å) of the built-in aspirin molecule."""
    from ase.io import read

    atoms = read(ROOT / "data" / "molecules" / "aspirin.xyz")
    return atoms.numbers, atoms.positions


@pytest.fixture
def aspirin(aspirin_geometry) -> System:
    return System.from_geometry(*aspirin_geometry, dtype=torch.float64)
