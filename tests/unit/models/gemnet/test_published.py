"""Published GemNet-T weights: energies, atomic energies and forces of the published code."""

import json

import pytest
import torch

from mdsim.errors import CheckpointError
from mdsim.models.gemnet.model import GemNetT
from mdsim.models.gemnet.published import read_published_gemnet
from mdsim.models.gemnet.scaling import read_scale_factors
from mdsim.models.loading import load_force_field
from mdsim.neighbors import Neighbors, neighbors
from mdsim.state import System


@pytest.fixture(scope="module")
def golden(reference_path) -> dict:
    """Two boxes of 64 water molecules, with the weights and what the published code gives in float32."""
    return torch.load(
        reference_path / "upstream_weights" / "gemnet_t_tiny" / "golden_gemnet_tiny.pt", weights_only=True
    )


def _checkpoint(golden: dict, variant: str, tmp_path) -> str:
    path = tmp_path / "published.pt"
    torch.save({"config": {"model": golden["config"]}, "state_dict": golden[variant]["state_dict"]}, path)
    return str(path)


def _water(golden: dict, dtype: torch.dtype) -> tuple[System, torch.Tensor, Neighbors]:
    """The published edges, each pair once."""
    positions, cell = golden["pos"].to(dtype).reshape(2, 192, 3), golden["cell"][0].to(dtype)
    system = System.from_geometry(golden["atomic_numbers"][:192], positions[0], cell, dtype)
    first, second = golden["edge_index_sorted"]
    once = first < second
    first, second = first[once], second[once]
    apart = positions.reshape(-1, 3)[second] - positions.reshape(-1, 3)[first]
    return system, positions, Neighbors(first, second, -torch.round(apart / cell[0, 0]) @ cell)


def _check(model: GemNetT, golden: dict, expected: dict) -> None:
    """Published values are in single precision, and forces reach several eV/Å."""
    system, positions, pairs = _water(golden, model.energy_scale.dtype)
    atomic = model.atomic_energies(system, positions, pairs).detach().float()
    energy, forces = (value.float() for value in model(system, positions, pairs))
    torch.testing.assert_close(atomic.flatten(), expected["atom_energies"][:, 0], rtol=0, atol=2e-5)
    torch.testing.assert_close(energy, expected["energy"][:, 0], rtol=0, atol=3e-4)
    torch.testing.assert_close(forces.reshape(-1, 3), expected["forces"], rtol=0, atol=4e-5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("variant", ["noscale", "scale"])
def test_published_values(golden, variant, dtype, tmp_path):
    _check(read_published_gemnet(_checkpoint(golden, variant, tmp_path)).to(dtype), golden, golden[variant])


def test_published_scaling_factors(golden, tmp_path, caplog):
    """The published file is of four blocks, the model has two."""
    model = read_published_gemnet(_checkpoint(golden, "noscale", tmp_path))
    (tmp_path / "factors.json").write_text(json.dumps(golden["scale"]["scale_factors"]))
    read_scale_factors(model, tmp_path / "factors.json")
    assert "not used" in caplog.text and "OutBlock_4_sum" in caplog.text
    _check(model, golden, golden["scale"])


def test_the_published_cap_on_neighbors_is_the_only_difference(golden, tmp_path):
    """The published edges are the nearest 50 of each atom; ours are all within the cutoff, those among them."""
    model = load_force_field(_checkpoint(golden, "scale", tmp_path)).double()
    system, positions, published = _water(golden, torch.float64)
    ours = neighbors(system, positions, model.cutoff)
    pairs = [{frozenset(pair) for pair in torch.stack([n.first, n.second], 1).tolist()} for n in (published, ours)]
    assert pairs[0] < pairs[1]
    change = (model.energy(system, positions) - model.energy(system, positions, published)).abs() / system.n_atoms
    assert 0 < float(change.detach().max()) < 1e-3


def _change(payload: dict, change: str) -> None:
    state = payload["state_dict"]
    if change == "missing setting":
        del payload["config"]["model"]["emb_size_trip"]
    elif change == "direct forces":
        payload["config"]["model"]["direct_forces"] = True
    elif change == "missing weight":
        del state["mlp_cbf3.weight"]
    else:
        name = next(name for name in state if name.startswith("out_blocks.") and ".layers." in name)
        state[name] = state[name] + 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing setting", "does not state the model's emb_size_trip"),
        ("direct forces", "direct_forces is True"),
        ("missing weight", "do not fit the GemNet-T"),
        ("repeated layer", "is not the same"),
    ],
)
def test_what_does_not_fit_is_refused(change, message, tmp_path):
    sizes = {"num_spherical": 2, "num_radial": 3, "num_blocks": 1, "emb_size_atom": 4, "emb_size_edge": 4}
    sizes |= {"emb_size_trip": 4, "emb_size_rbf": 3, "emb_size_cbf": 3, "emb_size_bil_trip": 4}
    sizes |= {"num_before_skip": 1, "num_after_skip": 1, "num_concat": 1, "num_atom": 1, "cutoff": 4.0}
    model = GemNetT(**sizes)
    own = {"species", "energy_shift_eV", "reference_energies_eV", "reference_compositions", "energy_scale"}
    state = {name: value for name, value in model.state_dict().items() if name not in own}
    state |= {k.replace("seq_energy", "layers"): v for k, v in state.items() if "seq_energy" in k}
    payload = {"config": {"model": dict(sizes)}, "state_dict": state}
    path = tmp_path / "published.pt"
    torch.save(payload, path)
    restored = read_published_gemnet(path).state_dict()
    assert all(torch.equal(restored[name], value) for name, value in model.state_dict().items() if name not in own)
    _change(payload, change)
    torch.save(payload, path)
    with pytest.raises(CheckpointError, match=message):
        read_published_gemnet(path)
