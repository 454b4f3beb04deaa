"""The bonded restraint: zero within the data, forces minus the gradient, the right width of the ensemble outside."""

import pytest
import torch
from tiny import frames, water

from mdsim.dynamics.restraint import BondedRestraint
from mdsim.units import kT_eV

KT = kT_eV(300.0)


@pytest.fixture
def restraint() -> BondedRestraint:
    return BondedRestraint.from_frames(water(), frames(50).positions, KT, margin_A=0.05)


def test_bonds_and_angles_are_held_with_the_stiffness_of_the_data(restraint):
    assert restraint.pairs.tolist() == [[0, 1], [0, 2], [1, 2]]
    positions = frames(50).positions.double()
    lengths = (positions[:, 0] - positions[:, 1]).norm(dim=-1)
    assert float(restraint.stiffness[0]) == pytest.approx(KT / float(lengths.var()), rel=1e-6)
    assert float(restraint.lower_A[0]) == pytest.approx(float(lengths.min()) - 0.05, abs=1e-6)


def test_nothing_acts_on_the_data_themselves(restraint):
    energy, forces = restraint(frames(50).positions.double())
    assert not energy.any()
    assert not forces.any()


def test_forces_are_minus_the_gradient_and_pull_back(restraint):
    positions = 1.5 * frames(4).positions.double()
    positions.requires_grad_()
    energy, forces = restraint(positions)
    (gradient,) = torch.autograd.grad(energy.sum(), positions)
    torch.testing.assert_close(forces, -gradient, rtol=1e-10, atol=1e-12)
    assert (energy > 0).all()
    assert torch.allclose(forces.sum(1), torch.zeros(4, 3).double(), atol=1e-10)
    assert (restraint(positions.detach() + 1e-3 * forces.detach())[0] < energy).all()
    assert (restraint(0.5 * frames(4).positions.double())[0] > 0).all()


def test_no_bonds_or_frames_are_refused():
    with pytest.raises(ValueError, match="3 bonded pairs in 1 frames"):
        BondedRestraint.from_frames(water(), frames(1).positions, KT, 0.1)
