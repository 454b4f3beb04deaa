"""Gradients through a simulation at constant pressure, against central differences in double precision."""

from dataclasses import replace

import pytest
import torch
from smooth_lennard_jones import SmoothLennardJones, argon
from torch import nn

from mdsim.dynamics.differentiable import differentiable_simulate, differentiable_trajectory
from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.geometry import volume
from mdsim.integrators import LangevinBAOAB, MartynaTobiasKlein, NoseHooverChain, StochasticCellRescaling
from mdsim.moving_cells import bind_in_cells
from mdsim.state import MDState

N_STEPS = 7
BAROSTATS = {
    "rescaling": StochasticCellRescaling(LangevinBAOAB(4.0, 120.0, 5.0), 500.0, 100.0, 1e-4, "anisotropic"),
    "mtk": MartynaTobiasKlein(NoseHooverChain(4.0, 120.0, 100.0), 500.0, 200.0, "full"),
}


class Scaled(SmoothLennardJones):
    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        return self.scale * super().atomic_energies(system, positions, neighbors)


SYSTEM, CRYSTAL = argon("sc", 2, 3.6, torch.float64)


def start(barostat, field, stretch=0.0) -> MDState:
    """Two replicas, whose cells are scaled by 1 + ``stretch`` along x, with the positions as they are."""
    generator = torch.Generator().manual_seed(1)
    shape = (2, *CRYSTAL.shape)
    positions = CRYSTAL + 0.1 * torch.randn(shape, generator=generator, dtype=torch.float64)
    velocities = maxwell_boltzmann(SYSTEM, 2, 120.0, generator, positions=positions)
    scale = torch.eye(3, dtype=torch.float64)
    scale[0, 0] += stretch
    cells = (SYSTEM.cell @ scale).expand(2, 3, 3)
    potential = bind_in_cells(field, SYSTEM, differentiable=True)
    return barostat.init(SYSTEM, potential, positions, velocities, cells).detach()


def end(barostat, field, state, segment=None) -> MDState:
    potential = bind_in_cells(field, SYSTEM, differentiable=True)
    generator = torch.Generator().manual_seed(2)
    return differentiable_simulate(SYSTEM, potential, barostat, state, N_STEPS, generator, segment)


def quantity(state: MDState) -> torch.Tensor:
    return volume(state.cell).sum() / 100 + state.energy.sum() + state.positions.square().mean()


@pytest.mark.parametrize("segment", [None, N_STEPS])
@pytest.mark.parametrize("name", BAROSTATS)
def test_gradients_are_central_differences(name, segment):
    """By the parameter of the force field, by a cell, a position and a velocity of the initial state."""
    barostat, field, step = BAROSTATS[name], Scaled(), 1e-5
    state = start(barostat, field)
    leaves = {key: getattr(state, key).clone().requires_grad_() for key in ("positions", "velocities", "cell")}
    found = torch.autograd.grad(
        quantity(end(barostat, field, replace(state, **leaves), segment)), [field.scale, *leaves.values()]
    )

    def difference(change):
        with torch.no_grad():
            plus, minus = (float(quantity(end(barostat, *change(sign * step)))) for sign in (1, -1))
        return (plus - minus) / (2 * step)

    by_scale = difference(lambda shift: (Scaled(1.0 + shift), state))
    assert abs(by_scale) > 1e-3, "nothing was tested"
    assert float(found[0]) == pytest.approx(by_scale, rel=1e-5, abs=1e-8)
    for gradient, key, place in zip(found[1:], leaves, ((1, 3, 2), (0, 5, 1), (1, 0, 0)), strict=True):
        shifted = torch.zeros_like(leaves[key])
        shifted[place] = 1.0
        expected = difference(lambda s, k=key, d=shifted: (field, replace(state, **{k: getattr(state, k) + s * d})))
        assert abs(expected) > 1e-4, (key, "nothing was tested")
        assert float(gradient[place]) == pytest.approx(expected, rel=1e-5, abs=1e-8), key


@pytest.mark.parametrize("name", BAROSTATS)
def test_frames_and_cells_are_those_of_simulate(name):
    barostat, field = BAROSTATS[name], Scaled()
    state = start(barostat, field)
    given = (SYSTEM, bind_in_cells(field, SYSTEM, differentiable=True), barostat, state, 6, 2)
    last, frames = differentiable_trajectory(*given, torch.Generator().manual_seed(2))
    expected_last, expected = simulate(*given, torch.Generator().manual_seed(2))
    torch.testing.assert_close(frames.cell, expected.cell, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(frames.positions, expected.positions, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(last.stress, expected_last.stress, rtol=1e-9, atol=1e-12)
