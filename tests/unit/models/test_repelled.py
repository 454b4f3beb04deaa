"""A repulsion added to force fields of any kind."""

import copy

import pytest
import torch
from force_fields import build
from tiny import GEOMETRY, Springs, frames, schnet, water
from torch import nn
from torch.optim.swa_utils import AveragedModel

from mdsim.checkpoints import force_field_payload, save_atomically
from mdsim.errors import CheckpointError
from mdsim.force_field import ForceField, NoFastPath
from mdsim.models import SchNet, load_force_field, model_config
from mdsim.models.repelled import Repelled, add_repulsion
from mdsim.neighbors import neighbors
from mdsim.repulsion.zbl import ZBL, Window

ZBL_OF_WATER = ZBL.of("all", {(1, 1): Window(1.2, 2.0), (1, 8): Window(0.8, 1.3)})


class Shortcuts(ForceField):
    """A model whose energies and forces do not pass through its atomic energies, as those of faster paths may not."""

    def __init__(self) -> None:
        super().__init__(cutoff=3.0, species=(1, 8))
        self.stiffness = nn.Parameter(torch.ones(1, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        return 0.5 * self.stiffness * positions.square().sum(-1)

    def energy(self, system, positions, neighbors_of_all=None):
        return 0.5 * self.stiffness * positions.square().sum((-2, -1))

    def forward(self, system, positions, neighbors_of_all=None, create_graph=False):
        return self.energy(system, positions).detach(), -self.stiffness.detach() * positions

    def bind(self, system, **settings):
        return lambda positions: self(system, positions)


def repelled(model: ForceField, zbl: ZBL = ZBL_OF_WATER) -> ForceField:
    add_repulsion(model, zbl)
    return model


def squeezed() -> torch.Tensor:
    """Positions at which the repulsion amounts to electronvolts."""
    return frames(5).positions.double() * 0.8


def of_repulsion(positions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    leaf = positions.clone().requires_grad_()
    energy = ZBL_OF_WATER.atomic_energies(water(), leaf, neighbors(water(), leaf, 3.0)).sum(-1)
    return energy.detach(), -torch.autograd.grad(energy.sum(), leaf)[0]


@pytest.mark.parametrize("kind", [Springs, Shortcuts, lambda: schnet().double()])
@pytest.mark.parametrize("way", ["call", "graph", "bind", "fast", "differentiable"])
def test_every_way_to_energies_and_forces_includes_it(kind, way):
    positions, learned = squeezed(), kind()
    energy, forces = ForceField.forward(learned, water(), positions)
    repulsive, push = of_repulsion(positions)
    model = repelled(kind())
    found = {
        "call": lambda: model(water(), positions),
        "graph": lambda: model(water(), positions, create_graph=True),
        "bind": lambda: model.bind(water())(positions),
        "fast": lambda: model.bind(water(), fast=True)(positions),
        "differentiable": lambda: model.bind(water(), differentiable=True)(positions),
    }[way]()
    assert repulsive.min() > 0.5
    torch.testing.assert_close(found[0].detach(), energy + repulsive)
    torch.testing.assert_close(found[1].detach(), forces + push)


def test_weights_and_names_stay_as_they_are():
    plain, model = schnet(), repelled(schnet())
    assert isinstance(model, SchNet) and isinstance(model, Repelled)
    assert type(model) is type(repelled(schnet())) and type(model).__name__ == "SchNet"
    assert plain.state_dict().keys() == model.state_dict().keys()
    assert dict(plain.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert model_config(model) == {**model_config(plain), "repulsion": ZBL_OF_WATER.settings}


def test_copies_and_averages_have_it_too():
    model = repelled(schnet())
    for other in (copy.deepcopy(model), AveragedModel(model).module):
        assert other.repulsion == ZBL_OF_WATER
        assert torch.equal(
            other(water(torch.float32), squeezed().float())[0], model(water(torch.float32), squeezed().float())[0]
        )


def test_labels_are_normalized_without_it():
    labeled, repulsive = frames(5), of_repulsion(squeezed())
    model, expected = repelled(schnet()).double(), schnet().double()
    energy, forces = labeled.energy.double(), labeled.labels.double()
    expected.normalize_to(water(), squeezed(), energy - repulsive[0], forces - repulsive[1])
    model.normalize_to(water(), squeezed(), energy, forces)
    torch.testing.assert_close(model.zero_energy_eV(water()), expected.zero_energy_eV(water()))
    torch.testing.assert_close(model.energy_scale, expected.energy_scale)


def test_no_fast_path_remains_none():
    with pytest.raises(NoFastPath, match="not available for this model"):
        repelled(Springs()).fast_potential(water())


def test_the_fast_path_says_so():
    pytest.importorskip("numba")
    assert repelled(schnet()).fast_potential(water(torch.float32)).description.endswith("and a repulsion of nuclei")


def test_a_second_one_and_one_beyond_the_cutoff_are_refused():
    with pytest.raises(ValueError, match="has a repulsion already"):
        repelled(repelled(schnet()))
    wide = ZBL.of("all", {(1, 1): Window(1.0, 2.6)})
    with pytest.raises(ValueError, match=r"up to 2\.6 Å needs a larger cutoff than 2\.5 Å"):
        repelled(schnet(), wide)


def test_a_file_holds_the_weights_of_the_model_and_the_windows(tmp_path):
    model = repelled(schnet())
    save_atomically(tmp_path / "model.pt", force_field_payload(model, model_config(model), {}))
    loaded = load_force_field(tmp_path / "model.pt")
    assert loaded.repulsion == ZBL_OF_WATER and type(loaded) is type(model)
    assert torch.equal(
        loaded(water(torch.float32), GEOMETRY.float()[None])[0], model(water(torch.float32), GEOMETRY.float()[None])[0]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "zbl"}, "is not known to this release"),
        ({"name": "morse", "pairs": "all", "windows_A": {}}, "is not known to this release"),
        ({**ZBL_OF_WATER.settings, "pairs": 3}, "pairs"),
        ({**ZBL_OF_WATER.settings, "windows_A": {"H-H": [1.0]}}, "do not fit"),
        ({**ZBL_OF_WATER.settings, "windows_A": {"H-H": [1.0, float("nan")]}}, "the window of H-H"),
        ({**ZBL_OF_WATER.settings, "windows_A": {"H-H": [1.0, 40.0]}}, "needs a larger cutoff"),
        (None, "do not fit"),
    ],
)
def test_a_file_that_describes_none_is_refused_in_one_line(tmp_path, settings, message):
    config = {**model_config(schnet()), "repulsion": settings}
    save_atomically(tmp_path / "model.pt", force_field_payload(schnet(), config, {}))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_force_field(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["gemnet_t_repelled", "nequip_repelled", "schnet_repelled"])
def test_gradients_of_parameters_are_those_without_it(name):
    """It has no parameters: derivatives of energies with respect to those of the model do not change."""
    model, plain = build(name), build(name.removesuffix("_repelled") if "nequip" not in name else "nequip_l1")
    system, positions = water(), squeezed()
    for one, other in zip(
        *(torch.autograd.grad(m.energy(system, positions).sum(), list(m.parameters())) for m in (model, plain)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert (model.energy(system, positions) - plain.energy(system, positions)).min() > 0.5
