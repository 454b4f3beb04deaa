"""NequIP compared with the `nequip` package: same parameters, same energies and forces.

The package embeds species with the self-connection's second input too, and normalizes activations otherwise; both are
absorbed in the weights that are copied.
"""

import math

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.neighborlist import neighbor_list
from e3nn import o3

pytest.importorskip("nequip")

from mdsim.models.nequip.layers import normalized
from mdsim.models.nequip.model import NequIP
from mdsim.models.nequip.published import layer_weights
from mdsim.state import System

SYMBOLS, SPECIES, C, LAYERS, CUTOFF = ("H", "C", "O"), (1, 6, 8), 4, 4, 4.0
CLOSE = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(scope="module", autouse=True)
def global_state():
    """The package computes in float64 and says so to all of torch."""
    from nequip.utils.global_state import set_global_state

    before = torch.get_default_dtype()
    set_global_state()
    yield
    torch.set_default_dtype(before)


def _hidden(l_max: int) -> str:
    return "+".join(f"{C}x{degree}{p}" for degree in range(l_max + 1) for p in "eo")


def _package_model(l_max: int) -> torch.nn.Module:
    from nequip.model import FullNequIPGNNModel

    return FullNequIPGNNModel(
        seed=4,
        model_dtype="float64",
        r_max=CUTOFF,
        type_names=list(SYMBOLS),
        radial_mlp_depth=LAYERS * [2],
        radial_mlp_width=LAYERS * [6],
        feature_irreps_hidden=(LAYERS - 1) * [_hidden(l_max)] + [f"{C}x0e"],
        irreps_edge_sh=l_max,
        type_embed_num_features=C,
        readout_mlp_hidden_layers_depth=1,
        readout_mlp_hidden_layers_width=C // 2,
        readout_mlp_nonlinearity=None,
        bessel_trainable=True,
        polynomial_cutoff_p=5,
        avg_num_neighbors=7.0,
        per_type_energy_scales={"H": 20.0, "C": 40.0, "O": 30.0},
        per_type_energy_shifts={"H": -1.5, "C": -20.0, "O": -30.0},
        learnable_shift=True,  # a self-connection in the first layer as well
    )


def _same_parameters(l_max: int, theirs: torch.nn.Module) -> NequIP:
    settings = {"num_features": C, "num_layers": LAYERS, "radial_mlp_width": 6, "polynomial_cutoff_p": 5}
    ours = NequIP(SPECIES, l_max=l_max, cutoff=CUTOFF, **settings).double()
    state = {name.removeprefix("model.func."): value for name, value in theirs.state_dict().items()}
    embedding = state["type_embed.embed_module.weight"]
    weights = {
        "bessel.frequencies": math.pi * state["bessel_encode.bessel_weights"][0],
        "embedding.weights.0e": embedding * math.sqrt(len(SPECIES)),
        "readout_1.weights.0e": state["per_atom_energy_readout.mlp_module.mlp.weights.0"],
        "readout_2.weights.0e": state["per_atom_energy_readout.mlp_module.mlp.weights.1"],
        "energy_scale": state["per_type_energy_scale_shift.scales"][:, 0],
        "atomic_shifts_eV": state["per_type_energy_scale_shift.shifts"][:, 0],
        "avg_num_neighbors": torch.tensor(7.0),
        "species": torch.tensor(SPECIES),
        "energy_shift_eV": torch.tensor(0.0),
    }
    irreps_in = o3.Irreps(f"{C}x0e")
    for number, layer in enumerate(ours.layers):
        conv = theirs.get_submodule(f"model.func.layer{number}_convnet.conv")
        prefix = f"layer{number}_convnet.conv."
        own = {name: state[prefix + name] for name in ("linear_1.weight", "linear_2.weight")}
        own["sc.weight"] = _by_species(conv.sc, embedding)
        network = [value for name, value in state.items() if name.startswith(prefix + "edge_mlp")]
        gain = math.sqrt(2) / normalized(torch.nn.functional.silu).cst
        own |= {f"fc.layer{place}.weight": w * (gain if place else 1.0) for place, w in enumerate(network)}
        hidden = o3.Irreps(_hidden(l_max) if number < LAYERS - 1 else f"{C}x0e")
        found, irreps_in = layer_weights(own, layer, irreps_in, hidden, len(SPECIES))
        weights |= {f"layers.{number}.{name}": value for name, value in found.items()}
    ours.load_state_dict(weights)
    return ours


def _by_species(connection: o3.FullyConnectedTensorProduct, embedding: torch.Tensor) -> torch.Tensor:
    """Weights of a self-connection for one-hot species, from one for embedded species."""
    factor = math.sqrt(len(embedding) / embedding.shape[1])
    views = connection.weight_views()
    return torch.cat([factor * torch.einsum("za,uav->uzv", embedding, view).flatten() for view in views])


def _package_energy_and_forces(theirs, system: System, positions: torch.Tensor):
    cell = None if system.cell is None else system.cell.numpy()
    atoms = Atoms(system.atomic_numbers.numpy(), positions.numpy(), cell=cell, pbc=cell is not None)
    receivers, senders, images = neighbor_list("ijS", atoms, CUTOFF)
    data = {
        "pos": positions.clone(),
        "edge_index": torch.from_numpy(np.stack([receivers, senders])),
        "atom_types": torch.tensor([SPECIES.index(z) for z in system.atomic_numbers.tolist()]),
    }
    if cell is not None:
        data |= {"cell": system.cell[None], "edge_cell_shift": torch.from_numpy(images).double()}
    result = theirs(data)
    return result["total_energy"].detach()[0], result["forces"].detach()


@pytest.mark.parametrize("l_max", [1, 2])
def test_same_energies_and_forces(l_max, aspirin, aspirin_geometry, generator):
    theirs = _package_model(l_max)
    ours = _same_parameters(l_max, theirs)
    cell = torch.tensor([[4.1, 0, 0], [1.5, 3.9, 0], [-0.8, 1.2, 5.2]], dtype=torch.float64)
    loose = torch.rand(5, 3, generator=generator, dtype=torch.float64) @ cell
    narrow = System.from_geometry(torch.tensor([6, 1, 8, 8, 1]), loose, cell, dtype=torch.float64)
    for system, geometry in ((aspirin, torch.tensor(aspirin_geometry[1])), (narrow, loose)):
        positions = geometry + 0.1 * torch.randn(2, *geometry.shape, generator=generator, dtype=torch.float64)
        _, forces = ours(system, positions)
        total = ours.total_energy(system, positions)
        assert forces.abs().mean() > 0.01
        for replica in range(2):
            expected_energy, expected_forces = _package_energy_and_forces(theirs, system, positions[replica])
            torch.testing.assert_close(total[replica : replica + 1], expected_energy, **CLOSE)
            torch.testing.assert_close(forces[replica], expected_forces, **CLOSE)
