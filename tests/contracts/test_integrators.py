"""Contract of all integrators."""

import dataclasses

import pytest
import torch
from analytic_potentials import lennard_jones, system_of, wells
from step_paths import step_path  # noqa: F401

from mdsim.integrators import LangevinBAOAB, NoseHooverChain, PaperEuler, VelocityVerlet
from mdsim.integrators.noise import noise_of_steps
from mdsim.interfaces import Integrator
from mdsim.state import MDState
from mdsim.units import kT_eV

DETERMINISTIC = {
    "nve": VelocityVerlet(1.0),
    "nose_hoover": NoseHooverChain(1.0, 300.0, 20.0, chain_length=1),
    "nose_hoover_chain": NoseHooverChain(1.0, 300.0, 20.0),
}
STOCHASTIC = {
    "langevin": LangevinBAOAB(1.0, 300.0, 10.0),
    "paper_euler": PaperEuler(1.0, 300.0, 10.0),
}
INTEGRATORS = DETERMINISTIC | STOCHASTIC
TETRAHEDRON = [[0.0, 0, 0], [1.1, 0, 0], [0, 1.2, 0], [0, 0.1, 1.3]]


@pytest.fixture(params=INTEGRATORS)
def integrator(request):
    return INTEGRATORS[request.param]


@pytest.fixture
def system():
    return system_of([6, 1, 8, 1], [12.0, 1.0, 16.0, 1.0])


def start(system, integrator, potential, n_replicas=3, dtype=torch.float64, seed=0) -> MDState:
    noise = torch.Generator().manual_seed(seed)
    positions = torch.tensor(TETRAHEDRON, dtype=dtype) + 0.05 * torch.randn(
        n_replicas, 4, 3, dtype=dtype, generator=noise
    )
    velocities = 0.05 * torch.randn(n_replicas, 4, 3, dtype=dtype, generator=noise)
    return integrator.init(system, potential, positions, velocities)


def run(system, integrator, potential, state, n_steps=5, seed=1) -> MDState:
    for noise in noise_of_steps(integrator, system, state, n_steps, torch.Generator().manual_seed(seed)):
        state = integrator.step(system, potential, state, noise)
    return state


def assert_same_bits(first: MDState, second: MDState) -> None:
    assert first.tensors().keys() == second.tensors().keys()
    for name, value in first.tensors().items():
        assert torch.equal(value, second.tensors()[name]), name


def test_implements_the_protocol(integrator):
    assert isinstance(integrator, Integrator)
    assert dataclasses.is_dataclass(integrator)
    with pytest.raises(dataclasses.FrozenInstanceError):
        integrator.timestep_fs = 2.0


def test_step_is_pure(integrator, system):
    potential = wells(2.0)
    state = start(system, integrator, potential)
    before = {name: value.clone() for name, value in state.tensors().items()}
    first, again = run(system, integrator, potential, state), run(system, integrator, potential, state)
    assert_same_bits(first, again)
    assert_same_bits(state, MDState(**before))
    assert not torch.equal(first.positions, state.positions)


def test_state_holds_the_energy_and_forces_of_its_positions(integrator, system):
    potential = lennard_jones(0.1, 1.0)
    state = run(system, integrator, potential, start(system, integrator, potential))
    energy, forces = potential(state.positions)
    assert torch.equal(state.energy, energy)
    assert torch.equal(state.forces, forces)


def test_one_force_evaluation_a_step(integrator, system):
    calls = []

    def counted(positions):
        calls.append(1)
        return wells(2.0)(positions)

    state = start(system, integrator, counted)
    assert len(calls) == 1
    run(system, integrator, counted, state, n_steps=3)
    assert len(calls) == 4


def test_a_broken_replica_leaves_the_others_alone(integrator, system):
    potential = lennard_jones(0.1, 1.0)
    state = start(system, integrator, potential, n_replicas=4)
    velocities = state.velocities.clone()
    velocities[1, 2] = torch.nan
    velocities[3, 0, 0] = torch.inf
    broken = integrator.init(system, potential, state.positions, velocities)
    healthy, mixed = run(system, integrator, potential, state), run(system, integrator, potential, broken)
    whole = torch.tensor([0, 2])
    assert_same_bits(healthy[whole], mixed[whole])
    assert torch.isfinite(mixed[whole].positions).all()
    assert not torch.isfinite(mixed.positions[1]).all()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_a_batch_of_one_follows_the_path_it_has_among_many(name, system):
    integrator, potential = DETERMINISTIC[name], wells(2.0)
    state = start(system, integrator, potential)
    alone = run(system, integrator, potential, state[torch.tensor([2])])
    torch.testing.assert_close(alone.positions[0], run(system, integrator, potential, state).positions[2])


def test_a_batch_of_one_runs(integrator, system):
    potential = wells(2.0)
    state = run(system, integrator, potential, start(system, integrator, potential, n_replicas=1))
    assert state.positions.shape == (1, 4, 3)
    assert torch.isfinite(integrator.conserved(system, state)).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_keeps_the_type_of_the_positions(integrator, system, dtype):
    potential = wells(2.0)
    state = run(system, integrator, potential, start(system, integrator, potential, dtype=dtype))
    assert {value.dtype for value in state.tensors().values()} == {dtype}
    assert integrator.conserved(system, state).dtype == dtype


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_single_precision_agrees_with_double(name, system):
    integrator, potential = DETERMINISTIC[name], wells(2.0)
    double = start(system, integrator, potential)
    single = run(system, integrator, potential, double.to(dtype=torch.float32), 50)
    double = run(system, integrator, potential, double, 50)
    torch.testing.assert_close(single.positions.double(), double.positions, atol=2e-5, rtol=0)


def test_the_seed_decides_the_bits(integrator, system):
    potential = wells(2.0)
    state = start(system, integrator, potential)
    first = run(system, integrator, potential, state, seed=5)
    assert_same_bits(first, run(system, integrator, potential, state, seed=5))
    differs = not torch.equal(first.positions, run(system, integrator, potential, state, seed=6).positions)
    assert differs == (integrator in STOCHASTIC.values())


@pytest.mark.parametrize("name", STOCHASTIC)
def test_noise_is_required(name, system):
    integrator = STOCHASTIC[name]
    state = start(system, integrator, wells(2.0))
    with pytest.raises(ValueError, match="none was given"):
        integrator.step(system, wells(2.0), state)
    with pytest.raises(ValueError, match=r"have the shape \(3, 5, 3\)"):
        integrator.step(system, wells(2.0), state, torch.zeros(3, 5, 3))
    with pytest.raises(ValueError, match=r"needs a torch\.Generator"):
        noise_of_steps(integrator, system, state, 1, None)


def test_degrees_of_freedom(integrator):
    thermal = integrator in STOCHASTIC.values()
    box = [[10.0, 0, 0], [0, 10, 0], [0, 0, 10]]
    expected = {(4, False): 6, (4, True): 9, (2, False): 1, (2, True): 3}
    for (n_atoms, periodic), internal in expected.items():
        system = system_of([1] * n_atoms, [1.0] * n_atoms, box if periodic else None)
        assert integrator.degrees_of_freedom(system) == (3 * n_atoms if thermal else internal)


def test_gradcheck_of_two_steps(integrator, system):
    state = start(system, integrator, wells(2.0), n_replicas=1)

    def two_steps(positions, velocities, epsilon, sigma):
        potential = lennard_jones(epsilon, sigma)
        final = run(system, integrator, potential, integrator.init(system, potential, positions, velocities), n_steps=2)
        return tuple(final.tensors().values())

    inputs = (state.positions, state.velocities, torch.tensor(0.1).double(), torch.tensor(0.9).double())
    with torch.enable_grad():
        assert torch.autograd.gradcheck(two_steps, [value.requires_grad_() for value in inputs])


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_settings_that_are_not_positive(integrator, wrong):
    settings = [field.name for field in dataclasses.fields(integrator) if field.type == "float"]
    assert "timestep_fs" in settings
    for name in settings:
        with pytest.raises(ValueError, match=name):
            dataclasses.replace(integrator, **{name: wrong})


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_compiled_loops_and_tensors_make_the_same_steps(integrator, system, path, dtype, tolerance):
    if path == "tensors":
        pytest.skip("both paths are compared once")
    potential = lennard_jones(0.1, 1.0)
    state = start(system, integrator, potential, dtype=dtype)
    looped = run(system, integrator, potential, state, n_steps=20)
    with torch.enable_grad():
        plain = run(system, integrator, potential, state, n_steps=20)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(looped.tensors()[name], value, atol=tolerance, rtol=tolerance, msg=name)


def test_the_order_of_axes_in_memory_does_not_matter(integrator, system):
    potential = lennard_jones(0.1, 1.0)
    state = start(system, integrator, potential)
    turned = {n: v.transpose(0, -1).contiguous().transpose(0, -1) for n, v in state.tensors().items() if v.ndim == 3}
    assert not turned["positions"].is_contiguous()
    found = run(system, integrator, potential, dataclasses.replace(state, **turned))
    for name, value in run(system, integrator, potential, state).tensors().items():
        torch.testing.assert_close(found.tensors()[name], value, msg=name)


BATHS_K = torch.tensor([200.0, 300.0, 500.0], dtype=torch.float64)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_each_replica_moves_as_with_the_integrator_of_its_temperature(integrator, system, dtype, tolerance):
    potential = lennard_jones(0.1, 1.0)
    state = start(system, integrator, potential, dtype=dtype)
    mixed = run(system, integrator, potential, dataclasses.replace(state, kT=kT_eV(BATHS_K).to(dtype)), n_steps=20)
    assert torch.equal(mixed.kT, kT_eV(BATHS_K).to(dtype))
    for replica, temperature_K in enumerate(BATHS_K.tolist()):
        has_bath = hasattr(integrator, "temperature_K")
        single = dataclasses.replace(integrator, temperature_K=temperature_K) if has_bath else integrator
        expected, chosen = run(system, single, potential, state, n_steps=20), slice(replica, replica + 1)
        for name, value in expected.tensors().items():
            torch.testing.assert_close(mixed.tensors()[name][chosen], value[chosen], atol=tolerance, rtol=tolerance)
        conserved = integrator.conserved(system, mixed)[chosen], single.conserved(system, expected)[chosen]
        torch.testing.assert_close(*conserved, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-13)])
def test_compiled_loops_and_tensors_agree_at_the_temperatures_of_replicas(integrator, system, path, dtype, tolerance):
    if path == "tensors":
        pytest.skip("both paths are compared once")
    potential = lennard_jones(0.1, 1.0)
    state = dataclasses.replace(start(system, integrator, potential, dtype=dtype), kT=kT_eV(BATHS_K).to(dtype))
    looped = run(system, integrator, potential, state, n_steps=20)
    with torch.enable_grad():
        plain = run(system, integrator, potential, state, n_steps=20)
    for name, value in plain.tensors().items():
        torch.testing.assert_close(looped.tensors()[name], value, atol=tolerance, rtol=tolerance, msg=name)
