"""The force fields that the contract suite runs on: name and a small model with random weights.

A model is added here and nowhere else. Weights are scaled up so that energies vary by eV, not meV: tolerances then
mean something.
"""

import atexit
import copy
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path

import foreign
import pytest
import torch

from mdsim.force_field import ForceField
from mdsim.models import GemNetT, NequIP, SchNet
from mdsim.models.repelled import add_repulsion
from mdsim.repulsion.zbl import ZBL, Window

SPECIES = (1, 6, 7, 8)


def _nequip(l_max: int, parity: bool, num_layers: int, num_features: int) -> ForceField:
    model = NequIP(SPECIES, l_max, parity, num_layers, num_features, radial_mlp_width=8, cutoff=4.0)
    model.avg_num_neighbors.fill_(8.0)
    model.energy_scale.copy_(30.0 * torch.tensor([0.5, 2.0, 1.5, 1.0]))
    return model


def _schnet() -> ForceField:
    model = SchNet(
        hidden_channels=16, num_filters=16, num_interactions=3, num_gaussians=12, cutoff=4.0, species=SPECIES
    )
    torch.nn.init.normal_(model.lin2.weight, std=4.0)
    return model


def _gemnet_t(rbf: str, envelope: str) -> ForceField:
    return GemNetT(
        num_spherical=4,
        num_radial=5,
        num_blocks=2,
        emb_size_atom=10,
        emb_size_edge=12,
        emb_size_trip=8,
        emb_size_rbf=5,
        emb_size_cbf=6,
        emb_size_bil_trip=7,
        num_atom=1,
        cutoff=4.0,
        rbf=rbf,
        envelope=envelope,
        species=SPECIES,
    )


def _repelled(model: ForceField) -> ForceField:
    """With windows wide enough that bonds, contacts and periodic images are within them."""
    pairs = combinations_with_replacement(SPECIES, 2)
    windows = {pair: Window(1.0 + 0.03 * number, 2.2 + 0.15 * number) for number, pair in enumerate(pairs)}
    add_repulsion(model, ZBL.of("all", windows))
    return model


def _mace() -> ForceField:
    from mdsim.models.adapters.mace import MACE, architecture_of

    return MACE(SPECIES, 4.0, architecture_of(foreign.mace_network(SPECIES)))


def _nequip_package() -> ForceField:
    from mdsim.models.adapters.nequip_package import NequIPPackage

    return NequIPPackage(SPECIES, 4.0, foreign.nequip_configuration(SPECIES))


def _allegro() -> ForceField:
    from mdsim.models.adapters.nequip_package import NequIPPackage

    return NequIPPackage(SPECIES, 4.0, foreign.allegro_configuration(SPECIES))


def _metatomic() -> ForceField:
    from mdsim.models.adapters.common import origin_of
    from mdsim.models.adapters.metatomic import PACKAGE, Metatomic

    folder = Path(tempfile.mkdtemp())  # as long as the tests: checkpoints of the model name the file
    atexit.register(shutil.rmtree, folder)
    path = folder / "schnet.pt"
    foreign.write_metatomic(path, _schnet())
    return Metatomic(SPECIES, 4.0, str(path), origin_of(path, PACKAGE))


def _sevennet() -> ForceField:
    from mdsim.models.adapters.sevennet import SevenNet, configuration_of

    with foreign.double_precision():
        return SevenNet(SPECIES, 4.0, configuration_of(foreign.sevennet_configuration(SPECIES)))


FORCE_FIELDS: dict[str, Callable[[], ForceField]] = {
    "gemnet_t": lambda: _gemnet_t("gaussian", "polynomial"),
    "gemnet_t_repelled": lambda: _repelled(_gemnet_t("gaussian", "polynomial")),
    "gemnet_t_bessel": lambda: _gemnet_t("spherical_bessel", "exponential"),
    "nequip_l1": lambda: _nequip(l_max=1, parity=False, num_layers=2, num_features=6),
    "nequip_l2_parity": lambda: _nequip(l_max=2, parity=True, num_layers=4, num_features=4),
    "nequip_repelled": lambda: _repelled(_nequip(l_max=1, parity=False, num_layers=2, num_features=6)),
    "allegro": _allegro,
    "mace": _mace,
    "metatomic": _metatomic,
    "nequip_package": _nequip_package,
    "schnet": _schnet,
    "sevenn": _sevennet,
    "schnet_repelled": lambda: _repelled(_schnet()),
}

SLOW = ("allegro", "gemnet_t_repelled", "nequip_l1", "nequip_repelled", "sevenn")
#: The names for parametrized tests. One force field with repulsion and one NequIP are enough for a quick run.
PARAMETERS = [
    pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else [])
    for name in sorted(FORCE_FIELDS)
    if name not in foreign.PACKAGES or name in foreign.INSTALLED
]


def build(name: str, seed: int = 3) -> ForceField:
    """The registered force field in float64; the same weights for the same seed."""
    return copy.deepcopy(_built(name, seed)) if name in foreign.PACKAGES else _built.__wrapped__(name, seed)


@cache
def _built(name: str, seed: int) -> ForceField:
    """Cached for models that compile code, which takes seconds."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return FORCE_FIELDS[name]().double().eval()
