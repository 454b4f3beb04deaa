import weakref
from itertools import islice

import pytest
import torch
from analytic_potentials import lennard_jones, system_of, wells

from mdsim.dynamics.differentiable import differentiable_simulate, differentiable_trajectory
from mdsim.dynamics.simulate import simulate
from mdsim.force_field import ForceField
from mdsim.integrators import LangevinBAOAB, NoseHooverChain, VelocityVerlet
from mdsim.integrators.noise import noise_of_steps

TRIANGLE = [[0.0, 0, 0], [1.1, 0, 0], [0.2, 1.2, 0]]
DETERMINISTIC = [VelocityVerlet(0.5), NoseHooverChain(0.5, 300.0, 10.0)]
INTEGRATORS = [*DETERMINISTIC, LangevinBAOAB(0.5, 300.0, 20.0)]


class Morse(ForceField):
    """A small differentiable force field over neighbor pairs, with smooth cutoff."""

    def __init__(self, depth=1.0, cutoff=6.0):
        super().__init__(cutoff=cutoff)
        self.depth = torch.nn.Parameter(torch.tensor(depth, dtype=torch.float64))
        self.width = torch.nn.Parameter(torch.tensor(1.5, dtype=torch.float64))

    def atomic_energies(self, system, positions, neighbors):
        distance = neighbors.displacements(positions).norm(dim=-1)
        switch = (1 - distance / self.cutoff).clamp(min=0) ** 3
        half = 0.5 * self.depth * (1 - torch.exp(-self.width * (distance - 1.2))) ** 2 * switch
        flat = positions.new_zeros(positions.shape[0] * positions.shape[1])
        return flat.index_add(0, neighbors.first, half).index_add(0, neighbors.second, half).view(positions.shape[:2])


@pytest.fixture
def system():
    return system_of([8, 1, 1], [16.0, 1.0, 1.0])


@pytest.fixture
def start(generator):
    """Positions and velocities of two replicas."""
    noise = 0.05 * torch.randn(2, 2, 3, 3, dtype=torch.float64, generator=generator)
    return torch.tensor(TRIANGLE, dtype=torch.float64) + noise[0], noise[1]


def seeded():
    return torch.Generator().manual_seed(3)


def plain_loop(system, potential, integrator, state, n_steps, generator):
    for noise in noise_of_steps(integrator, system, state, n_steps, generator):
        state = integrator.step(system, potential, state, noise)
    return state


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_frames_are_the_states_after_each_interval(system, start, integrator):
    potential = wells(5.0)
    state = integrator.init(system, potential, *start)
    last, trajectory = simulate(system, potential, integrator, state, 12, 4, seeded())
    assert trajectory.n_frames == 3
    assert trajectory.frame_interval_fs == 2.0
    noise = noise_of_steps(integrator, system, state, 12, seeded())
    for frame in range(3):
        with torch.no_grad():
            for of_step in islice(noise, 4):
                state = integrator.step(system, potential, state, of_step)
        assert torch.equal(trajectory.positions[frame], state.positions)
        assert torch.equal(trajectory.velocities[frame], state.velocities)
        assert torch.equal(trajectory.energy[frame], state.energy)
    for name, value in state.tensors().items():
        assert torch.equal(last.tensors()[name], value)


@pytest.mark.parametrize("integrator", DETERMINISTIC)
def test_two_stretches_give_the_bits_of_one(system, start, integrator):
    """Without noise, which has a seed for each stretch."""
    potential = Morse().bind(system)
    state = integrator.init(system, potential, *start)
    whole, trajectory = simulate(system, potential, integrator, state, 20, 5)
    middle, first = simulate(system, potential, integrator, state, 10, 5)
    end, second = simulate(system, potential, integrator, middle, 10, 5)
    assert torch.equal(end.positions, whole.positions)
    assert torch.equal(torch.cat([first.positions, second.positions]), trajectory.positions)


def test_no_graph_grows_even_with_a_differentiable_potential(system, start):
    graphs = weakref.WeakSet()
    bound = Morse().bind(system, differentiable=True)

    def watched(positions):
        assert not positions.requires_grad
        energy, forces = bound(positions)
        assert energy.requires_grad
        graphs.add(energy)
        assert len(graphs) <= 3  # this one, that of the step before, and that of the first state, held below
        return energy, forces

    state = VelocityVerlet(0.5).init(system, watched, *start)
    last, trajectory = simulate(system, watched, VelocityVerlet(0.5), state, 20, 2)
    for value in [*last.tensors().values(), trajectory.positions, trajectory.velocities, trajectory.energy]:
        assert not value.requires_grad


@pytest.mark.parametrize("integrator", INTEGRATORS)
def test_a_replica_that_breaks_does_not_matter_to_the_other(system, start, integrator):
    potential = lennard_jones(0.1, 1.0)
    positions, velocities = start
    _, whole = simulate(
        system, potential, integrator, integrator.init(system, potential, positions, velocities), 20, 1, seeded()
    )
    collided = positions.clone()
    collided[1, 1] = collided[1, 0] + 1e-90  # the repulsion overflows
    _, mixed = simulate(
        system, potential, integrator, integrator.init(system, potential, collided, velocities), 20, 1, seeded()
    )
    assert torch.equal(mixed.positions[:, 0], whole.positions[:, 0])
    assert not mixed.positions[-1, 1].isfinite().all()


@pytest.mark.parametrize(("n_steps", "dump_every"), [(10, 3), (10, 0), (-2, 2)])
def test_refuses_steps_that_do_not_fill_frames(system, start, n_steps, dump_every):
    integrator = VelocityVerlet(0.5)
    state = integrator.init(system, wells(1.0), *start)
    with pytest.raises(ValueError, match=f"multiple of dump_every, but they are {n_steps} and {dump_every}"):
        simulate(system, wells(1.0), integrator, state, n_steps, dump_every)


def gradients(system, integrator, start, run):
    """Last state, and the gradient of a function of it in positions, velocities and both parameters."""
    model = Morse()
    potential = model.bind(system, differentiable=True)
    inputs = [value.clone().requires_grad_() for value in start]
    state = run(system, potential, integrator, integrator.init(system, potential, *inputs))
    loss = state.positions.square().sum() + (state.velocities * state.positions).sum() + state.energy.sum()
    return state, torch.autograd.grad(loss, [*inputs, model.depth, model.width])


@pytest.mark.parametrize(
    ("integrator", "segment"),
    [*((integrator, 7) for integrator in INTEGRATORS), *((INTEGRATORS[0], s) for s in (None, 1, 99))],
)
def test_segments_give_the_gradient_of_the_plain_loop(system, start, integrator, segment):
    def plain(*arguments):
        return plain_loop(*arguments, 30, seeded())

    def segmented(*arguments):
        return differentiable_simulate(*arguments, 30, seeded(), segment)

    expected_state, expected = gradients(system, integrator, start, plain)
    state, found = gradients(system, integrator, start, segmented)
    for name, value in expected_state.tensors().items():
        torch.testing.assert_close(state.tensors()[name], value, rtol=1e-12, atol=1e-12)
    for first, second in zip(found, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_gradient_through_two_hundred_steps_agrees_with_finite_differences(system, start):
    integrator = LangevinBAOAB(0.2, 300.0, 20.0)

    def loss(depth, shift):
        model = Morse(depth)
        potential = model.bind(system, differentiable=True)
        state = integrator.init(system, potential, start[0] + shift, start[1])
        state = differentiable_simulate(system, potential, integrator, state, 200, seeded())
        return state.positions.square().sum() + state.energy.sum(), model

    shift = torch.zeros(3, 3, dtype=torch.float64, requires_grad=True)
    value, model = loss(1.0, shift)
    by_depth, by_shift = torch.autograd.grad(value, [model.depth, shift])
    h = 1e-5
    difference = (loss(1.0 + h, 0.0)[0] - loss(1.0 - h, 0.0)[0]) / (2 * h)
    torch.testing.assert_close(by_depth, difference.detach(), rtol=1e-6, atol=0)
    step = torch.zeros(3, 3, dtype=torch.float64)
    step[1, 0] = h
    difference = (loss(1.0, step)[0] - loss(1.0, -step)[0]) / (2 * h)
    torch.testing.assert_close(by_shift[1, 0], difference.detach(), rtol=1e-6, atol=0)


def test_the_generator_advances_once(system, start):
    potential, integrator = Morse().bind(system, differentiable=True), LangevinBAOAB(0.5, 300.0, 20.0)
    state = integrator.init(system, potential, *start)
    simulated, differentiated = seeded(), seeded()
    simulate(system, potential, integrator, state, 10, 10, simulated)
    last = differentiable_simulate(system, potential, integrator, state, 10, differentiated)
    assert torch.equal(simulated.get_state(), differentiated.get_state())
    last.positions.sum().backward()
    assert torch.equal(simulated.get_state(), differentiated.get_state())


def test_parameters_may_be_computed_from_others(system, start):
    """Three segments share the graph from log k to k."""
    log_k = torch.tensor(1.2, dtype=torch.float64, requires_grad=True)
    integrator = VelocityVerlet(0.5)

    def gradient(run):
        potential = wells(log_k.exp())
        state = run(system, potential, integrator, integrator.init(system, potential, *start))
        return torch.autograd.grad(state.positions.square().sum(), log_k)[0]

    segmented = gradient(lambda *arguments: differentiable_simulate(*arguments, 30, segment=10))
    plain = gradient(lambda *arguments: plain_loop(*arguments, 30, None))
    torch.testing.assert_close(segmented, plain)


def test_neighbor_lists_may_be_rebuilt_on_the_way(generator):
    """The list of a box changes length along the way: the repeated segments find other lists, and the same gradient."""
    n_atoms, edge = 27, 6.0
    system = system_of([18] * n_atoms, [1.0] * n_atoms, (edge * torch.eye(3)).tolist())
    grid = 2.0 * torch.cartesian_prod(*[torch.arange(3.0)] * 3).double()
    velocities = 0.5 * torch.randn(1, n_atoms, 3, dtype=torch.float64, generator=generator)
    integrator, lengths = VelocityVerlet(1.0), set()

    class Watched(Morse):
        def atomic_energies(self, system, positions, neighbors):
            lengths.add(neighbors.n_pairs)
            return super().atomic_energies(system, positions, neighbors)

    def gradient(run):
        model = Watched(0.5, cutoff=2.5)
        potential = model.bind(system, differentiable=True)
        state = run(system, potential, integrator, integrator.init(system, potential, grid[None], velocities))
        return torch.autograd.grad(state.positions.square().sum(), [model.depth, model.width])

    segmented = gradient(lambda *arguments: differentiable_simulate(*arguments, 40))
    assert len(lengths) > 2
    plain = gradient(lambda *arguments: plain_loop(*arguments, 40, None))
    for first, second in zip(segmented, plain, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-9, atol=1e-9)


def peak_saved_elements(system, start, n_steps, segment=None):
    """Most tensor elements that autograd held at once, forward and backward."""
    held = peak = 0

    class Kept:
        def __init__(self, tensor):
            self.tensor = tensor.detach()  # a saved result would otherwise keep its own graph alive

    def release(elements):
        nonlocal held
        held -= elements

    def pack(tensor):
        nonlocal held, peak
        kept = Kept(tensor)
        weakref.finalize(kept, release, tensor.numel())
        held += tensor.numel()
        peak = max(peak, held)
        return kept

    model = Morse()
    potential, integrator = model.bind(system, differentiable=True), VelocityVerlet(0.5)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept.tensor):
        state = integrator.init(system, potential, *start)
        differentiable_simulate(system, potential, integrator, state, n_steps, None, segment).positions.sum().backward()
    assert model.depth.grad is not None
    return peak


def test_memory_grows_like_the_square_root(system, start):
    """Sixteen times the steps: about four times the memory with segments, sixteen times without."""
    short, long = (peak_saved_elements(system, start, n) for n in (16, 256))
    assert 2.5 < long / short < 5.5
    short_whole, long_whole = (peak_saved_elements(system, start, n, segment=n) for n in (16, 256))
    assert long_whole / short_whole > 12
    assert long < long_whole / 8


def test_forces_without_a_graph_are_refused(system, start):
    potential = Morse().bind(system)
    state = VelocityVerlet(0.5).init(system, potential, *start)
    with pytest.raises(ValueError, match="differentiable=True"):
        differentiable_simulate(system, potential, VelocityVerlet(0.5), state, 4)


def loss_of_frames(positions, velocities, energy):
    """Depends on every frame, and on pairs of them."""
    correlation = (velocities[1:] * velocities[:-1]).sum() + (velocities[0] * velocities).sum()
    return correlation + (positions - positions[0]).square().mean(0).sum() + energy[::2].sum()


@pytest.mark.parametrize("integrator", INTEGRATORS)
@pytest.mark.parametrize(("dump_every", "segment"), [(5, None), (3, 7), (10, 4), (1, 30), (30, 7)])
def test_a_loss_of_frames_has_the_gradient_of_the_plain_loop(system, start, integrator, dump_every, segment):
    def gradient(frames_of):
        model = Morse()
        potential = model.bind(system, differentiable=True)
        inputs = [value.clone().requires_grad_() for value in start]
        frames = frames_of(potential, integrator.init(system, potential, *inputs))
        return torch.autograd.grad(loss_of_frames(*frames), [*inputs, model.depth, model.width])

    def plain(potential, state):
        states = []
        for noise in noise_of_steps(integrator, system, state, 30, seeded()):
            states.append(state := integrator.step(system, potential, state, noise))
        kept = states[dump_every - 1 :: dump_every]
        return [torch.stack([getattr(state, name) for state in kept]) for name in ("positions", "velocities", "energy")]

    def segmented(potential, state):
        last, frames = differentiable_trajectory(
            system, potential, integrator, state, 30, dump_every, seeded(), segment
        )
        _, expected = simulate(system, potential, integrator, state.detach(), 30, dump_every, seeded())
        torch.testing.assert_close(frames.positions, expected.positions, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(last.positions, frames.positions[-1], rtol=0, atol=0)
        assert frames.frame_interval_fs == expected.frame_interval_fs
        return frames.positions, frames.velocities, frames.energy

    for found, expected in zip(gradient(segmented), gradient(plain), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_refuses_steps_that_do_not_fill_differentiable_frames(system, start):
    potential = Morse().bind(system, differentiable=True)
    state = VelocityVerlet(0.5).init(system, potential, *start)
    with pytest.raises(ValueError, match="positive multiple of dump_every, but they are 10 and 4"):
        differentiable_trajectory(system, potential, VelocityVerlet(0.5), state, 10, 4)


@pytest.mark.parametrize(("n_steps", "segment", "culprit"), [(-1, None, "n_steps"), (4, 0, "segment")])
def test_refuses_steps_and_segments_out_of_range(system, start, n_steps, segment, culprit):
    potential = Morse().bind(system, differentiable=True)
    state = VelocityVerlet(0.5).init(system, potential, *start)
    with pytest.raises(ValueError, match=culprit):
        differentiable_simulate(system, potential, VelocityVerlet(0.5), state, n_steps, segment=segment)
