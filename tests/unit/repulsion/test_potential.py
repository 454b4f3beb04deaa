"""The repulsion as a potential for dynamics: compiled, and by automatic differentiation."""

import pytest
import torch
from scattered_waters import waters

from mdsim.dynamics.simulate import simulate
from mdsim.integrators.nve import VelocityVerlet
from mdsim.neighbors import neighbors
from mdsim.repulsion import potential as module
from mdsim.repulsion.potential import RepulsionPotential
from mdsim.repulsion.zbl import ZBL, Window
from mdsim.state import kinetic_energy_eV

WINDOWS = {(1, 1): Window(1.1, 1.7), (1, 8): Window(1.0, 1.9), (8, 8): Window(1.5, 2.8)}


@pytest.fixture(params=[False, True], ids=["torch", "compiled"])
def path(request, monkeypatch) -> None:
    if request.param:
        pytest.importorskip("numba")
    monkeypatch.setattr(module, "HAS_NUMBA", request.param)


@pytest.mark.usefixtures("path")
@pytest.mark.parametrize("selection", ["all", "nonbonded", "between_molecules"])
@pytest.mark.parametrize("cell", [None, 7.0 * torch.eye(3), torch.tensor([[6.0, 0, 0], [2, 6.5, 0], [-1, 1, 6.2]])])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float64, 1e-11), (torch.float32, 2e-4)])
def test_equal_to_the_gradient_of_the_energies(selection, cell, dtype, close):
    system, trajectory = waters(9, cell, 3, torch.float64)
    positions = trajectory.positions.flatten(0, 1)[:3] / (3 if cell is None else 1)
    zbl = ZBL.of(selection, WINDOWS)
    leaf = positions.clone().requires_grad_()
    expected = zbl.atomic_energies(system, leaf, neighbors(system, leaf, 3.0)).sum(-1)
    gradient = torch.autograd.grad(expected.sum(), leaf)[0]
    energy, forces = RepulsionPotential(zbl, system.to(dtype=dtype))(positions.to(dtype))
    assert energy.dtype == forces.dtype == dtype
    assert expected.max() > 1
    torch.testing.assert_close(energy.double(), expected.detach(), rtol=close, atol=close)
    torch.testing.assert_close(forces.double(), -gradient, rtol=close, atol=10 * close)


@pytest.mark.usefixtures("path")
def test_a_broken_replica_leaves_the_others_alone():
    system, trajectory = waters(9, 7.0 * torch.eye(3), 2, torch.float64)
    positions = trajectory.positions.flatten(0, 1)  # the last replica is broken
    energy, forces = RepulsionPotential(ZBL.of("all", WINDOWS), system)(positions)
    alone = RepulsionPotential(ZBL.of("all", WINDOWS), system)(positions[:3])
    torch.testing.assert_close((energy[:3], forces[:3]), alone)
    assert alone[0].isfinite().all() and alone[1].isfinite().all()


@pytest.mark.usefixtures("path")
def test_dynamics_with_new_lists_of_pairs_conserves_energy(generator):
    """A gas of waters that only repel each other, over many rebuilds of the list."""
    system, _ = waters(20, 9.0 * torch.eye(3), 2, torch.float64)
    potential = RepulsionPotential(ZBL.of("all", WINDOWS), system)
    spread = 9.0 * torch.cartesian_prod(*3 * [torch.arange(4) / 4])[:60].double()  # 2.25 Å apart
    positions = spread.expand(2, -1, -1)
    velocities = 0.05 * torch.randn(positions.shape, generator=generator, dtype=torch.float64)
    moves = VelocityVerlet(0.25)
    state = moves.init(system, potential, positions, velocities)
    end, _ = simulate(system, potential, moves, state, 2000, 2000, generator)
    totals = [s.energy + kinetic_energy_eV(s.velocities, system.masses) for s in (state, end)]
    assert potential.neighbor_list.builds > 3
    assert (end.energy - state.energy).abs().min() > 0.05
    torch.testing.assert_close(totals[1], totals[0], rtol=0, atol=2e-3)
