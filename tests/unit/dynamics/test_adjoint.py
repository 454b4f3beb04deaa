import pytest
import torch
from analytic_potentials import free, lennard_jones, system_of, wells

from mdsim.dynamics.adjoint import force_sensitivities, hessian_product
from mdsim.dynamics.simulate import simulate
from mdsim.integrators import LangevinBAOAB, NoseHooverChain, VelocityVerlet
from mdsim.integrators.noise import noise_of_steps
from mdsim.state import MDState
from mdsim.units import FS

INTEGRATORS = [VelocityVerlet(0.5), LangevinBAOAB(0.5, 300.0, 20.0)]
N_STEPS = 25


@pytest.fixture
def system():
    return system_of([8, 1, 1], [16.0, 1.0, 1.0])


@pytest.fixture
def start(generator):
    triangle = torch.tensor([[0.0, 0, 0], [1.1, 0, 0], [0.2, 1.2, 0]], dtype=torch.float64)
    noise = 0.05 * torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    return triangle + noise[0], noise[1]


def points(system, potential, integrator, state, n_steps=N_STEPS):
    """The start and the states after every step, as positions and velocities."""
    _, frames = simulate(system, potential, integrator, state, n_steps, 1, torch.Generator().manual_seed(4))
    return torch.cat([state.positions[None], frames.positions]), torch.cat([state.velocities[None], frames.velocities])


def some_function(positions, velocities):
    """Of several frames, in both positions and velocities; it differs between replicas."""
    of_replica = torch.arange(1.0, positions.shape[1] + 1).double()
    displaced = (positions[5:] - positions[:-5]).square().sum((0, 2, 3))
    return ((displaced + (velocities[3] * velocities[20]).sum((1, 2)) + velocities[-1, :, 0, 0]) * of_replica).sum()


@pytest.mark.parametrize("integrator", INTEGRATORS, ids=lambda integrator: type(integrator).__name__)
def test_sensitivities_are_those_of_added_forces(system, start, integrator):
    """Backpropagation through a loop in which a variable is added to the forces of every step."""
    potential = lennard_jones(0.1, 1.0)
    state = integrator.init(system, potential, *start)
    positions, velocities = points(system, potential, integrator, state)
    added = torch.zeros_like(positions, requires_grad=True)
    states = [MDState(state.positions, state.velocities, state.forces + added[0], state.energy)]
    noise = noise_of_steps(integrator, system, state, N_STEPS, torch.Generator().manual_seed(4))
    for step, of_step in enumerate(noise, start=1):

        def pushed(x, step=step):
            energy, forces = potential(x)
            return energy, forces + added[step]

        states.append(integrator.step(system, pushed, states[-1], of_step))
    value = some_function(torch.stack([s.positions for s in states]), torch.stack([s.velocities for s in states]))
    (expected,) = torch.autograd.grad(value, added)

    frames = [tensor.requires_grad_() for tensor in (positions, velocities)]
    by_frames = torch.autograd.grad(some_function(*frames), frames)
    found = force_sensitivities(system, potential, integrator, positions.detach(), *by_frames)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    assert not found.requires_grad


def test_a_broken_replica_stays_alone(system, start):
    potential, integrator = lennard_jones(0.1, 1.0), INTEGRATORS[1]
    positions, velocities = points(system, potential, integrator, integrator.init(system, potential, *start))
    by_velocities = torch.zeros_like(velocities)
    by_velocities[-1] = velocities[0]
    zero = torch.zeros_like(positions)
    whole = force_sensitivities(system, potential, integrator, positions, zero, by_velocities)
    broken = positions.clone()
    broken[10:, 1] = torch.nan
    found = force_sensitivities(system, potential, integrator, broken, zero, by_velocities)
    torch.testing.assert_close(found[:, 0], whole[:, 0], rtol=0, atol=0)
    assert not found[0, 1].isfinite().all()


def test_without_forces_a_push_moves_an_atom_at_constant_velocity(system, start):
    """Velocity Verlet of free atoms: dx_N/dF_n = Δt²/m (N - n), half of it at the start."""
    integrator = VelocityVerlet(2.0)
    positions, _ = points(system, free, integrator, integrator.init(system, free, *start))
    by_positions = torch.zeros_like(positions)
    by_positions[-1, :, :, 0] = 1
    found = force_sensitivities(system, free, integrator, positions, by_positions, torch.zeros_like(positions))
    left = torch.arange(N_STEPS, -1, -1).double()
    left[0] /= 2
    expected = (2.0 * FS) ** 2 * left[:, None, None] / system.masses
    torch.testing.assert_close(found[..., 0], expected.expand(-1, 2, -1), rtol=1e-12, atol=0)
    assert not found[..., 1:].any()


def test_hessian_product_of_a_harmonic_well_in_single_precision(start):
    positions, vectors = start[0].float(), 1e-6 * start[1].float()
    torch.testing.assert_close(hessian_product(wells(7.0), positions, vectors), -7.0 * vectors, rtol=1e-3, atol=1e-9)
    assert not hessian_product(wells(7.0), positions, 0 * vectors).any()


def test_refuses_other_integrators(system, start):
    integrator = NoseHooverChain(0.5, 300.0, 10.0)
    with pytest.raises(ValueError, match="adjoint of NoseHooverChain is not implemented: use velocity Verlet"):
        force_sensitivities(system, free, integrator, *[start[0][None]] * 3)
