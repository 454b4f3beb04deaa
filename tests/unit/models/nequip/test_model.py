"""NequIP: radial functions, evaluation, normalization, names."""

import math

import pytest
import torch
from e3nn.o3 import Irrep

from mdsim.errors import UnknownSpeciesError
from mdsim.models.nequip.layers import paths_between
from mdsim.models.nequip.model import Bessel, NequIP, polynomial_cutoff
from mdsim.neighbors import neighbors
from mdsim.state import System

SMALL = {"num_features": 4, "radial_mlp_width": 6, "cutoff": 4.0}
SPECIES = (1, 6, 8)


@pytest.fixture
def model() -> NequIP:
    torch.manual_seed(2)
    return NequIP(SPECIES, l_max=1, num_layers=2, **SMALL).double()


@pytest.fixture
def positions(aspirin_geometry, generator) -> torch.Tensor:
    geometry = torch.tensor(aspirin_geometry[1])
    return geometry + 0.1 * torch.randn(4, *geometry.shape, generator=generator, dtype=torch.float64)


def _names(irreps) -> list[str]:
    return [str(ir) for ir in irreps]


@pytest.mark.parametrize("p", [2, 6])
def test_the_cutoff_function_is_smooth_at_its_end(p):
    x = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64, requires_grad=True)
    value = polynomial_cutoff(x, p)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    value = value.detach()
    assert value[0] == 1.0
    assert value[1] == pytest.approx(1 - ((p + 1) * (p + 2) / 2 - p * (p + 2) / 2 + p * (p + 1) / 8) / 2**p)
    assert torch.stack([value[2], slope[2].detach(), curvature[2]]).abs().max() < 1e-11


def test_bessel_functions_are_orthonormal_on_the_sphere():
    """The integral of r² B_m B_n over [0, r_c] is 2 / r_c times the identity, with the published prefactor 2 / r_c."""
    cutoff, n = 4.5, 4000
    r = (torch.arange(n, dtype=torch.float64) + 0.5) * cutoff / n
    basis = Bessel(6, cutoff).double()(r).detach()
    overlap = torch.einsum("r,rm,rn->mn", r**2, basis, basis) * cutoff / n
    torch.testing.assert_close(overlap, 2 / cutoff * torch.eye(6, dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(basis[:, 2], 2 / cutoff * torch.sin(3 * math.pi * r / cutoff) / r, rtol=1e-6, atol=1e-7)


def test_selection_rules():
    paths = paths_between([Irrep("1o")], [Irrep("0e"), Irrep("1o")], [Irrep("0e"), Irrep("1o"), Irrep("1e")])
    assert [_names((p.ir_in, p.ir_harmonic, p.ir_out)) for p in paths] == [
        ["1o", "0e", "1o"],
        ["1o", "1o", "0e"],
        ["1o", "1o", "1e"],
    ]


def test_only_what_reaches_the_energy_is_computed():
    four_layers = NequIP(SPECIES, l_max=1, parity=True, num_layers=4, **SMALL)
    assert [_names(layer.irreps_out) for layer in four_layers.layers] == [
        ["0e", "1o"],
        ["0e", "1e", "1o"],
        ["0e", "1o"],
        ["0e"],
    ]
    no_parity = NequIP(SPECIES, l_max=2, parity=False, num_layers=3, **SMALL)
    assert [_names(layer.irreps_out) for layer in no_parity.layers] == [["0e", "1o", "2e"]] * 2 + [["0e"]]
    invariant = NequIP(SPECIES, l_max=0, num_layers=2, **SMALL)
    assert [_names(layer.irreps_out) for layer in invariant.layers] == [["0e"], ["0e"]]


def test_more_than_32_neighbors_are_all_counted(model, generator):
    """Each of 60 atoms around one adds its part to that atom's energy: with one layer these are sums over pairs."""
    single = NequIP((6,), num_layers=1, **SMALL).double()
    directions = torch.randn(60, 3, generator=generator, dtype=torch.float64)
    shell = 2.0 * directions / directions.norm(dim=1, keepdim=True)
    positions = torch.cat([torch.zeros(1, 3, dtype=torch.float64), shell])[None]
    system = System.from_geometry(torch.full((61,), 6), positions[0], dtype=torch.float64)
    layer = single.layers[0]
    edges = single.edges(positions, neighbors(system, positions, single.cutoff))
    assert int((edges.receivers == 0).sum()) == 60
    ones = {Irrep("0e"): torch.ones(61, 1, 4, dtype=torch.float64)}
    received = layer.convolution(ones, edges)[Irrep("0e")][0, 0]
    basis = single.radial_basis(torch.tensor([2.0], dtype=torch.float64))
    torch.testing.assert_close(received, 60 * layer.convolution.radial_network(basis)[0])


def test_normalization_is_that_of_the_training_set(model, aspirin, positions):
    energy = torch.tensor([-10.0, -11.0, -12.0, -13.0], dtype=torch.float64)
    forces = torch.full_like(positions, 3.0)
    forces[:, ::2] = -1.0
    model.normalize_to(aspirin, positions, energy, forces)
    assert model.zero_energy_eV(aspirin).item() == pytest.approx(-11.5, abs=1e-12)
    torch.testing.assert_close(model.energy_scale, forces.square().mean().sqrt().expand(3))
    distances = torch.cdist(positions, positions)
    expected = ((distances < 4.0).sum() - 4 * 21) / (4 * 21)
    torch.testing.assert_close(model.avg_num_neighbors, expected.double())


def test_the_scale_multiplies_energies_and_forces(model, aspirin, positions):
    energy, forces = model(aspirin, positions)
    model.energy_scale *= 2.5
    for new, old in zip(model(aspirin, positions), (energy, forces), strict=True):
        torch.testing.assert_close(new, 2.5 * old)


def test_scale_and_shift_may_differ_by_species(model, aspirin, positions):
    neighbors_of_all = neighbors(aspirin, positions, model.cutoff)
    plain = model.atomic_energies(aspirin, positions, neighbors_of_all)
    model.energy_scale.copy_(torch.tensor([1.0, 2.0, 3.0]))
    factors = torch.tensor([{1: 1.0, 6: 2.0, 8: 3.0}[z] for z in aspirin.atomic_numbers.tolist()]).double()
    torch.testing.assert_close(model.atomic_energies(aspirin, positions, neighbors_of_all), factors * plain)
    model.energy_shift_eV.fill_(-5.0)
    model.reference_energies_eV[[1, 6, 8]] = torch.tensor([-13.6, -1028.0, -2041.0], dtype=torch.float64)
    expected = -5.0 - 8 * 13.6 - 9 * 1028.0 - 4 * 2041.0  # C9 H8 O4
    assert model.zero_energy_eV(aspirin).item() == pytest.approx(expected, abs=1e-9)


def test_reference_energies_stay_in_float64(model):
    model.reference_energies_eV.fill_(-1041.123456789012)
    for moved in (model.float(), model.half(), model.to("cpu", torch.float32), model.double()):
        assert moved.reference_energies_eV.dtype == torch.float64
        assert moved.reference_energies_eV[1].item() == -1041.123456789012


def test_unknown_species_are_refused(model):
    system = System.from_geometry(torch.tensor([6, 7]), torch.tensor([[0.0, 0, 0], [1.3, 0, 0]]), dtype=torch.float64)
    with pytest.raises(UnknownSpeciesError, match=r"knows the atomic numbers \[1, 6, 8\], but the system has \[7\]"):
        model(system, torch.zeros(1, 2, 3, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"needs to know its species"):
        NequIP(())


def test_hyperparameters_rebuild_the_model(model, aspirin, positions):
    again = NequIP(SPECIES, **model.hyperparameters).double()
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.energy(aspirin, positions), model.energy(aspirin, positions))


def test_states_hold_weights_and_normalization_only(model):
    buffers = {
        "species",
        "energy_shift_eV",
        "reference_energies_eV",
        "reference_compositions",
        "energy_scale",
        "avg_num_neighbors",
    }
    assert model.state_dict().keys() == buffers | {name for name, _ in model.named_parameters()}
