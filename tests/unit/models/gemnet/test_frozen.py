"""GemNet-T without a graph: the hand-written backward pass equals autograd, and dynamics conserves energy."""

import itertools

import pytest
import torch

from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.integrators.nve import VelocityVerlet
from mdsim.models.gemnet.fast import frozen
from mdsim.models.gemnet.model import GemNetT
from mdsim.models.gemnet.scaling import scale_factors
from mdsim.neighbors import neighbors
from mdsim.state import System, kinetic_energy_eV

SIZES = {"num_spherical": 3, "num_radial": 4, "num_blocks": 2, "emb_size_atom": 10, "emb_size_edge": 12}
SIZES |= {"emb_size_trip": 6, "emb_size_rbf": 5, "emb_size_cbf": 4, "emb_size_bil_trip": 7, "cutoff": 3.0}


def _water(molecules_per_side: int = 3) -> tuple[System, torch.Tensor]:
    """Water molecules on a cubic lattice at 1 g/cm³, turned at random."""
    generator = torch.Generator().manual_seed(5)
    one = torch.tensor([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]], dtype=torch.float64)
    turns = torch.linalg.qr(torch.randn(molecules_per_side**3, 3, 3, generator=generator, dtype=torch.float64))[0]
    sites = list(itertools.product(range(molecules_per_side), repeat=3))
    positions = (one @ turns + 3.104 * torch.tensor(sites, dtype=torch.float64)[:, None]).flatten(0, 1)
    cell = 3.104 * molecules_per_side * torch.eye(3, dtype=torch.float64)
    return System.from_geometry(torch.tensor([8, 1, 1] * len(sites)), positions, cell, torch.float64), positions


@pytest.fixture(scope="module")
def water() -> tuple[System, torch.Tensor]:
    """81 atoms, three replicas."""
    system, positions = _water()
    generator = torch.Generator().manual_seed(6)
    return system, positions + 0.03 * torch.randn(3, *positions.shape, generator=generator, dtype=torch.float64)


def _model(system: System, positions: torch.Tensor, **changes) -> GemNetT:
    torch.manual_seed(4)
    model = GemNetT((1, 8), **(SIZES | changes)).double()
    model.fit_scale_factors(system, positions)
    assert all(factor.scale_factor != 1.0 for factor in scale_factors(model).values())
    return model


def _equals_autograd(model: GemNetT, system: System, positions: torch.Tensor) -> None:
    pairs = neighbors(system, positions, model.cutoff + 0.5)
    energy, forces = (value.detach() for value in model(system, positions, pairs, create_graph=True))
    found_energy, found_forces = model(system, positions, pairs)
    assert forces.abs().max() > 0.1 and not found_forces.requires_grad
    torch.testing.assert_close(found_energy, energy, rtol=1e-12, atol=1e-10)
    torch.testing.assert_close(found_forces, forces, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"num_spherical": 1},  # a constant harmonic: nothing of the directions is left to differentiate
        {"num_spherical": 7},
        {"num_blocks": 1, "num_atom": 1},
        {"num_blocks": 3, "num_before_skip": 2, "num_after_skip": 3, "num_concat": 2, "num_atom": 3},
        {"num_before_skip": 0, "num_after_skip": 0, "num_concat": 0, "num_atom": 0},
        {"rbf": "spherical_bessel", "envelope": "exponential"},
    ],
    ids=str,
)
def test_forces_equal_those_of_autograd(water, changes):
    _equals_autograd(_model(*water, **changes), *water)


def test_in_pieces(water, monkeypatch):
    """Many chunks of edges, and replicas one by one."""
    monkeypatch.setattr(frozen, "CHUNK_NUMBERS", 1)
    monkeypatch.setattr(frozen, "GROUP_PAIRS_CPU", 1)
    _equals_autograd(_model(*water), *water)


def test_a_potential_keeps_its_weights_and_its_memory(water):
    system, positions = water
    model = _model(system, positions)
    potential = model.fast_potential(system)
    expected = potential(positions)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)
    potential(positions[:1] + 0.1)  # other sizes take other places in the memory that calls share
    for found, value in zip(potential(positions), expected, strict=True):
        assert torch.equal(found, value)


def test_float32_rounds_as_the_graph_does(water):
    system, positions = water
    exact = _model(system, positions)
    pairs = neighbors(system, positions, exact.cutoff)
    energy, forces = exact(system, positions, pairs)
    model, here = exact.float(), system.to(dtype=torch.float32)
    pairs = neighbors(here, positions.float(), exact.cutoff)
    plain = model(here, positions.float(), pairs, create_graph=True)[1].double().detach()
    found_energy, found_forces = model(here, positions.float(), pairs)
    assert (found_forces - forces).abs().max() < 5 * (plain - forces).abs().max() < 1e-3 * forces.abs().max()
    torch.testing.assert_close(found_energy.double(), energy, rtol=1e-5, atol=0)


def _fluctuation(model: GemNetT, timestep_fs: float, length_fs: float) -> tuple[float, float]:
    """Standard deviation of the total energy (eV) along 30 K dynamics, and largest change of the potential energy."""
    system, positions = _water(2)
    positions, generator = positions[None], torch.Generator().manual_seed(7)
    velocities = maxwell_boltzmann(system, 1, 30.0, generator, positions=positions)
    integrator, potential = VelocityVerlet(timestep_fs), model.fast_potential(system)
    state = integrator.init(system, potential, positions, velocities)
    _, trajectory = simulate(system, potential, integrator, state, round(length_fs / timestep_fs), 1, generator)
    total = trajectory.energy + kinetic_energy_eV(trajectory.velocities, system.masses)
    return float(total.std()), float((trajectory.energy - trajectory.energy[0]).abs().max())


def test_dynamics_conserves_energy_to_second_order():
    """With the exact gradient of a smooth energy, half the time step leaves a quarter of the fluctuation."""
    system, positions = _water(2)
    model = _model(system, positions[None])
    model.energy_scale.fill_(0.1)
    (coarse, moved), (fine, _) = (_fluctuation(model, timestep_fs, 20.0) for timestep_fs in (0.5, 0.25))
    assert moved > 0.05
    assert coarse < 0.02 * moved
    assert coarse / fine == pytest.approx(4.0, rel=0.15)
