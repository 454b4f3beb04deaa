"""What is particular to MACE: heads, and kinds of networks."""

from pathlib import Path
from types import SimpleNamespace

import ase.build
import foreign
import pytest
import torch

from mdsim.calculator import ForceFieldCalculator
from mdsim.errors import CheckpointError, ConfigError
from mdsim.models import load_force_field

pytestmark = pytest.mark.skipif("mace" not in foreign.INSTALLED, reason="mace-torch is not installed")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("mace") / "heads.model"
    torch.save(foreign.mace_network((1, 8), heads=("old", "new")), path)
    return path


@pytest.mark.parametrize(("head", "asked"), [("old", "old"), ("new", "new"), ("new", "")])
def test_the_head_of_the_energies(file, head, asked):
    from mace.calculators import MACECalculator

    model = load_force_field(file, model="mace", options={"head": asked}, allow_unpickling=True)
    mine, theirs = ase.build.molecule("H2O"), ase.build.molecule("H2O")
    mine.calc = ForceFieldCalculator(model, dtype=torch.float64)
    theirs.calc = MACECalculator(model_paths=str(file), device="cpu", default_dtype="float64", head=head)
    assert mine.get_potential_energy() == pytest.approx(theirs.get_potential_energy(), abs=1e-9)


def test_an_unknown_head_is_refused(file):
    with pytest.raises(ConfigError, match=r"model\.head: found 'pbe', but .*heads\.model has old, new"):
        load_force_field(file, model="mace", options={"head": "pbe"}, allow_unpickling=True)


def test_weights_in_the_layout_of_kernels_are_refused(tmp_path):
    network = foreign.mace_network((1, 8))
    network.cueq_config = SimpleNamespace(enabled=True)
    torch.save(network, tmp_path / "cueq.model")
    with pytest.raises(CheckpointError, match=r"cueq\.model: .*layout of cuEquivariance.*`mace_cueq_to_e3nn`"):
        load_force_field(tmp_path / "cueq.model", model="mace", allow_unpickling=True)


def test_another_kind_of_network_is_refused(tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "linear.model")
    with pytest.raises(CheckpointError, match=r"linear\.model: holds a Linear; a ScaleShiftMACE is needed"):
        load_force_field(tmp_path / "linear.model", model="mace", allow_unpickling=True)
