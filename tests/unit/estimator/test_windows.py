import pytest
import torch
from tiny import STIFFNESS, Springs, frames, schnet, water

from mdsim.dynamics.simulate import simulate
from mdsim.estimator.force_gradient import force_gradient
from mdsim.estimator.parameter_gradient import flat
from mdsim.estimator.windows import WindowSettings, window_gradient
from mdsim.integrators import LangevinBAOAB, VelocityVerlet
from mdsim.observables import MSD, VACF

MOVES = LangevinBAOAB(1.0, 300.0, 10.0)


def starts(n_windows=6):
    made = frames(n_windows, seed=5)
    return made.positions.double(), made.velocities.double()


def found(settings, seed=0, positions=None, moves=MOVES, **changed):
    given = {
        "observables": [MSD(6.0), VACF(4.0)],
        "loss": lambda mean: (mean * torch.arange(len(mean))).sum(),
    } | changed
    x, v = starts()
    return window_gradient(
        Springs(STIFFNESS * 1.1),
        water(),
        moves,
        x if positions is None else positions,
        v,
        given["observables"],
        given["loss"],
        settings,
        torch.Generator().manual_seed(seed),
        minibatch_size=50,
    )


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 2e-3)])
def test_gradient_of_weighted_forces_is_that_of_a_second_backward_pass(dtype, tolerance, generator):
    model, system = schnet().to(dtype), water(dtype)
    positions = frames(5).positions.to(dtype)
    vectors = torch.randn(positions.shape, generator=generator, dtype=torch.float64).to(dtype)
    vectors[2] = 0
    _, forces = model(system, positions, create_graph=True)
    parameters = model.trainable_parameters
    expected = torch.autograd.grad(forces, parameters, vectors, allow_unused=True, materialize_grads=True)
    gradients = force_gradient(model, system, positions, vectors, minibatch_size=4)
    assert (flat(gradients) - flat(expected)).norm() < tolerance * flat(expected).norm()


@pytest.mark.parametrize("every", [3, 4, 100])
def test_random_points_leave_the_mean_gradient_as_it_is(every):
    """Over many draws, within four standard errors; every draw differs from the sum over all points."""
    moves = VelocityVerlet(1.0)  # without noise, the generator makes the points alone
    whole = found(WindowSettings(12, points_every=1, max_ratio=None), moves=moves).gradients[0]
    settings = WindowSettings(12, points_every=every, max_ratio=None)
    draws = torch.stack([found(settings, seed, moves=moves).gradients[0] for seed in range(30)])
    error = draws.std(0) / len(draws) ** 0.5
    assert ((draws.mean(0) - whole).abs() < 4 * error).all()
    assert (draws.std(0) > 0.01 * whole.abs()).all()


def test_a_window_that_breaks_is_left_out():
    x, _ = starts()
    broken = x.clone()
    broken[2, 0, 0] = torch.nan
    result = found(WindowSettings(12), positions=broken)
    assert result.n_finite == 5
    assert result.mean.isfinite().all() and all(gradient.isfinite().all() for gradient in result.gradients)
    assert found(WindowSettings(12), positions=torch.full_like(x, torch.nan)) is None


def test_the_norm_of_a_window_is_bounded():
    """One window with a hundred times the sensitivity of the others: bounded to twice the median."""

    class Loud:
        name = "loud"

        def __call__(self, system, trajectory):
            factor = torch.tensor([1.0, 1, 1, 1, 1, 100], dtype=torch.float64)
            return (factor * (trajectory.positions[-1] - trajectory.positions[0]).square().sum((1, 2)))[:, None]

    def gradient(max_ratio):
        settings = WindowSettings(12, points_every=1, max_ratio=max_ratio)
        return found(settings, observables=[Loud()], loss=lambda mean: mean.sum())

    free, bounded = gradient(None), gradient(2.0)
    assert free.largest_ratio == bounded.largest_ratio > 20
    assert bounded.gradients[0].norm() < 0.2 * free.gradients[0].norm()
    torch.testing.assert_close(gradient(1e9).gradients, free.gradients)


def test_counts_the_structures_that_it_evaluates():
    """12 steps, three evaluations each, and two for each of 2 · 7/4 points, of six windows."""
    assert found(WindowSettings(12, points_every=4)).n_evaluated == 6 * (12 * 3 + 4 * 2)


def test_a_window_is_one_trajectory_through_its_center():
    """Of Newton's equations: frames of a run from the first state of the window agree with those of the window."""
    seen = []

    class Watching:
        name = "watching"

        def __call__(self, system, trajectory):
            seen.append(trajectory.map(torch.Tensor.detach))
            return trajectory.positions[-1, :, 0]

    moves, (x, v) = VelocityVerlet(1.0), starts()
    found(WindowSettings(12, dump_every=2), moves=moves, observables=[Watching()], loss=lambda mean: mean.sum())
    window, potential = seen[0], Springs(STIFFNESS * 1.1).bind(water())
    assert window.n_frames == WindowSettings(12, dump_every=2).n_frames == 7
    assert window.frame_interval_fs == 2.0
    torch.testing.assert_close(window.positions[3], x, rtol=0, atol=0)
    torch.testing.assert_close(window.velocities[3], v, rtol=0, atol=0)
    first = moves.init(water(), potential, window.positions[0], window.velocities[0])
    _, rerun = simulate(water(), potential, moves, first, 12, 2)
    torch.testing.assert_close(rerun.positions, window.positions[1:], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(rerun.velocities, window.velocities[1:], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("settings", [(0, 1, 1), (12, 4, 1), (12, 3, 0), (11, 1, 1)])
def test_refuses_frames_that_do_not_fill_a_window(settings):
    with pytest.raises(ValueError, match="dump_every must divide half of n_steps"):
        WindowSettings(*settings)
