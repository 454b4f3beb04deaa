import math

import numpy as np
import pytest
import torch
from analytic_potentials import lennard_jones, system_of, wells
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.md.nose_hoover_chain import NoseHooverChainNVT

from mdsim.integrators import NoseHooverChain, VelocityVerlet
from mdsim.integrators.nose_hoover import SUZUKI_YOSHIDA_WEIGHTS, _half_step_of_chain, chain_constants
from mdsim.state import System
from mdsim.units import FS, kT_eV


@pytest.mark.parametrize("order", [1, 3, 5, 7])
def test_weights_meet_the_order_conditions(order):
    weights = np.array(SUZUKI_YOSHIDA_WEIGHTS[order])
    assert len(weights) == order
    np.testing.assert_allclose(weights.sum(), 1, atol=1e-14)
    np.testing.assert_array_equal(weights, weights[::-1])
    if order > 1:
        np.testing.assert_allclose((weights**3).sum(), 0, atol=1e-13)
    if order == 7:
        np.testing.assert_allclose((weights**5).sum(), 0, atol=1e-13)


@pytest.mark.parametrize(("order", "expected"), [(1, 2), (3, 4), (5, 4), (7, 6)])
def test_chain_propagator_converges_at_its_order(order, expected):
    """A free atom pair sees only the chain: halving the substep divides its error by 2^order."""
    system = system_of([18, 18], [40.0, 40.0])
    velocities = torch.tensor([[[0.02, 0, 0], [-0.02, 0, 0]]], dtype=torch.float64)
    thermostat = torch.tensor([[[0.0, 0.0, 0.0], [0.10, -0.2, 0.3]]], dtype=torch.float64)

    def after(n_substeps, suzuki_yoshida_order):
        chain = NoseHooverChain(16.0, 300.0, 12.0, 3, suzuki_yoshida_order, n_substeps)
        return _half_step_of_chain(chain.constants(system), system.masses, velocities, thermostat)[1]

    exact = after(128, 7)
    coarse, fine = ((after(n, order) - exact).abs().max().item() for n in (2, 4))
    assert fine > 1e-13
    assert abs(math.log2(coarse / fine) - expected) < 0.35


@pytest.mark.parametrize("chain_length", [1, 3, 4])
@pytest.mark.parametrize("n_substeps", [1, 2])
def test_agrees_with_ase_step_by_step(monkeypatch, chain_length, n_substeps):
    """ASE's chain always counts 3N degrees of freedom; otherwise it is the same splitting."""
    monkeypatch.setattr(System, "internal_degrees_of_freedom", property(lambda system: 3 * system.n_atoms))
    rng = np.random.default_rng(3)
    positions = np.argwhere(np.ones((2, 2, 1))) * 3.8 + rng.normal(scale=0.1, size=(4, 3))
    atoms = Atoms("Ar2Ne2", positions)
    atoms.set_velocities(rng.normal(scale=0.01, size=(4, 3)))
    atoms.calc = LennardJones(sigma=3.4, epsilon=0.0104, rc=1e3)

    system = system_of(atoms.numbers.tolist(), atoms.get_masses().tolist())
    integrator = NoseHooverChain(5.0, 80.0, 100.0, chain_length, n_substeps=n_substeps)
    potential = lennard_jones(0.0104, 3.4)
    state = integrator.init(
        system, potential, torch.tensor(atoms.positions)[None], torch.tensor(atoms.get_velocities())[None]
    )
    reference = NoseHooverChainNVT(atoms, 5.0 * FS, 80.0, 100.0 * FS, tchain=chain_length, tloop=n_substeps)
    offset = reference.get_conserved_energy() - integrator.conserved(system, state).item()  # ASE shifts U at its cutoff
    for _ in range(40):
        reference.run(1)
        state = integrator.step(system, potential, state)
        np.testing.assert_allclose(state.positions[0], atoms.positions, rtol=0, atol=1e-10)
        np.testing.assert_allclose(state.velocities[0], atoms.get_velocities(), rtol=0, atol=1e-11)
    conserved = integrator.conserved(system, state).item() + offset
    np.testing.assert_allclose(conserved, reference.get_conserved_energy(), rtol=0, atol=1e-11)


def test_is_time_reversible():
    system, potential = system_of([6, 1, 1], [12.0, 1.0, 1.0]), lennard_jones(0.1, 1.0)
    integrator = NoseHooverChain(0.5, 300.0, 10.0)
    positions = torch.tensor([[[0.0, 0, 0], [1.1, 0, 0], [0, 1.2, 0]]], dtype=torch.float64)
    begin = integrator.init(system, potential, positions, 0.05 * positions.flip(1))
    state = begin
    for _ in range(100):
        state = integrator.step(system, potential, state)
    flip = torch.tensor([1.0, -1.0], dtype=torch.float64)[:, None]
    state = type(state)(state.positions, -state.velocities, state.forces, state.energy, flip * state.thermostat)
    for _ in range(100):
        state = integrator.step(system, potential, state)
    torch.testing.assert_close(state.positions, begin.positions, rtol=0, atol=1e-10)
    torch.testing.assert_close(state.velocities, -begin.velocities, rtol=0, atol=1e-10)


def test_chain_masses():
    system = system_of([6, 1, 1], [12.0, 1.0, 1.0])
    single = kT_eV(300.0) * (20.0 * FS) ** 2
    masses = NoseHooverChain(1.0, 300.0, 20.0).constants(system).masses
    assert masses == pytest.approx((3 * single, single, single))


def test_the_constants_of_a_chain_are_made_once_for_each_number_of_degrees_of_freedom():
    small, large = system_of([6, 1], [12.0, 1.0]), system_of([6, 1, 1], [12.0, 1.0, 1.0])
    chain_constants.cache_clear()
    for system in (small, large):
        integrator, potential = NoseHooverChain(1.0, 300.0, 20.0), wells(1.0)
        positions = torch.ones(2, system.n_atoms, 3)
        state = integrator.init(system, potential, positions, 0.1 * positions)
        for _ in range(3):
            state = integrator.step(system, potential, state)
    assert chain_constants.cache_info().misses == 2
    assert NoseHooverChain(1.0, 300.0, 20.0).constants(large).masses[0] == pytest.approx(
        3 * NoseHooverChain(1.0, 300.0, 20.0).constants(small).masses[0]
    )


def test_refuses_a_single_atom():
    with pytest.raises(ValueError, match="single atom"):
        NoseHooverChain(1.0, 300.0, 20.0).init(
            system_of([6], [12.0]), wells(1.0), torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)
        )


@pytest.mark.parametrize("other", [VelocityVerlet(1.0), NoseHooverChain(1.0, 300.0, 20.0, chain_length=2)])
def test_refuses_a_state_of_another_integrator(other):
    system = system_of([6, 1], [12.0, 1.0])
    state = other.init(system, wells(1.0), torch.ones(1, 2, 3), torch.zeros(1, 2, 3))
    with pytest.raises(ValueError, match=r"shape \(replica, 2, 3\)"):
        NoseHooverChain(1.0, 300.0, 20.0).step(system, wells(1.0), state)


def test_refuses_an_unknown_factorization():
    with pytest.raises(ValueError, match=r"one of \[1, 3, 5, 7\], but it is 4"):
        NoseHooverChain(1.0, 300.0, 20.0, suzuki_yoshida_order=4)
