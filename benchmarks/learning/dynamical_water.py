"""Gradients of dynamical averages of liquid water by several estimators, against the length of the window.

    python benchmarks/learning/dynamical_water.py --replicas 16 --lags 24 48 100 200 400 800

Replicas of the bundled water start from test frames with Maxwell-Boltzmann velocities and run with the shipped SchNet.
The averages are those of the oxygens: <v(0) v(t)> and <|x(t) - x(0)|²>. A window begins at a test frame, or is centered
at it: two branches of half its length, with opposite velocities. Neither depends on the parameters, so that the
gradient is that of the trajectories alone. Two parameters: a factor on the energy, and a step along the adjoint
gradient of the second average at the longest lag, measured with other windows.

First tables: growth of a perturbation, error of a simulation that is stepped backwards, cost per structure. Then the
norm of the whole gradient by the adjoint, and the mean over replicas and its standard error for the two parameters, by
the adjoint (backpropagation gives the same numbers), by the score of the path, and by the score of the molecule that
moves alone, which has less noise and a bias.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass, replace

import torch
from path_score import score_vectors

from mdsim import load_dataset, load_force_field
from mdsim.dynamics.adjoint import force_sensitivities, velocity_kept
from mdsim.dynamics.simulate import simulate
from mdsim.dynamics.stretch import initial_conditions
from mdsim.estimator.force_gradient import force_gradient
from mdsim.estimator.parameter_gradient import flat
from mdsim.force_field import ForceField
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.integrators.noise import noise_for
from mdsim.interfaces import Potential
from mdsim.reporting.console import format_table
from mdsim.state import MDState, System
from mdsim.typing import Float, Tensor
from mdsim.units import FS, kT_eV

CHECKPOINT = "stable_checkpoints/water_spcfw/schnet_water_default/last.pt"
Change = Float[Tensor, "point replica atom 3"]


@dataclass(frozen=True)
class Windows:
    """Points of all branches, with the noise of every step. Centered windows have two branches each."""

    system: System
    integrator: LangevinBAOAB
    x: Change
    v: Change
    noise: Float[Tensor, "step replica atom 3"]
    centered: bool

    def until(self, lag: int) -> Windows:
        n_steps = lag // 2 if self.centered else lag
        return replace(self, x=self.x[: n_steps + 1], v=self.v[: n_steps + 1], noise=self.noise[:n_steps])

    def average(self, kind: str) -> tuple[Float[Tensor, "window atom"], Change, Change]:
        """Contribution of each atom to A, ∂A/∂x and ∂A/∂v. A is the sum over atoms."""
        by_x, by_v, oxygen = torch.zeros_like(self.x), torch.zeros_like(self.v), self.system.atomic_numbers == 8
        share = (oxygen / oxygen.sum())[:, None]
        if kind == "vacf":
            ends = self.v[-1].chunk(2) if self.centered else (self.v[-1], -self.v[0])
            value = -(ends[0] * ends[1] * share).sum(-1)
            by_v[-1] = -share * (torch.cat([ends[1], ends[0]]) if self.centered else ends[1])
            return value, by_x, by_v
        ends = self.x[-1].chunk(2) if self.centered else (self.x[-1], self.x[0])
        moved = ends[0] - ends[1]
        by_x[-1] = 2 * share * (torch.cat([moved, -moved]) if self.centered else moved)
        return (moved.square() * share).sum(-1), by_x, by_v

    def of_windows(self, of_branches: Float[Tensor, "branch *axes"]) -> Float[Tensor, "window *axes"]:
        return sum(of_branches.chunk(2)) if self.centered else of_branches

    def of_branches(self, of_windows: Float[Tensor, "window *axes"]) -> Float[Tensor, "branch *axes"]:
        return torch.cat([of_windows] * 2) if self.centered else of_windows


def windows_of(system, potential, integrator, frames, n_replicas, lag, seed, centered) -> tuple[Windows, MDState]:
    generator, n_steps = torch.Generator().manual_seed(seed), lag // 2 if centered else lag
    x, v = initial_conditions(system, frames, n_replicas, integrator.temperature_K, generator)
    x, v = (torch.cat([x, x]), torch.cat([v, -v])) if centered else (x, v)
    state, key = integrator.init(system, potential, x, v), generator.get_state()
    last, path = simulate(system, potential, integrator, state, n_steps, 1, generator)
    generator.set_state(key)
    noise = noise_for(integrator, system, generator)(torch.arange(len(x)), 0, n_steps, (system.n_atoms, 3), v)
    x, v = torch.cat([x[None], path.positions]), torch.cat([v[None], path.velocities])
    return Windows(system, integrator, x, v, noise, centered), last


def growth(windows: Windows, potential: Potential, size_A: float = 1e-4) -> list[list[str]]:
    """Distance of a second trajectory with the same noise, which starts ``size_A`` per atom away."""
    kick = torch.randn(windows.x[0].shape, generator=torch.Generator().manual_seed(5))
    start = windows.x[0] + size_A / math.sqrt(3) * kick
    state, rows = windows.integrator.init(windows.system, potential, start, windows.v[0]), []
    distances = []
    with torch.no_grad():
        for step, of_step in enumerate(windows.noise, start=1):
            state = windows.integrator.step(windows.system, potential, state, of_step)
            moved = (state.positions - windows.x[step]).square().sum(-1).mean(-1).sqrt()
            distances.append(moved.log().mean())
    marks = [m for m in (25, 50, 100, 200, 300, 400, 600, 800, 1200, 1600) if m <= len(distances)]
    for first, second in zip([*marks[:1], *marks], marks, strict=False):
        rate = (distances[second - 1] - distances[first - 1]) / max(1, second - first) * 1000
        rows.append([str(second), f"{float(distances[second - 1].exp()):.2e}", f"{float(rate):.1f}"])
    return rows


def reversal(windows: Windows, last: MDState, potential: Potential) -> list[list[str]]:
    """Error of positions when the trajectory is stepped back from its end with the known noise."""
    integrator, half = windows.integrator, 0.5 * windows.integrator.timestep_fs * FS
    kept, masses = velocity_kept(integrator), windows.system.masses[:, None]
    amplitude = torch.sqrt((1 - kept**2) * kT_eV(integrator.temperature_K) / masses)
    x, v, f, rows, n_steps = last.positions, last.velocities, last.forces, [], len(windows.noise)
    with torch.no_grad():
        for step in range(n_steps - 1, -1, -1):
            v = v - half * f / masses
            x = x - half * v
            v = (v - amplitude * windows.noise[step]) / kept
            x = x - half * v
            f = potential(x)[1]
            v = v - half * f / masses
            if (back := n_steps - step) in (1, 25, 50, 100, 200, 400, 800, 1600):
                error = (x - windows.x[step]).square().sum(-1).mean(-1).sqrt().log().mean().exp()
                rows.append([str(back), f"{float(error):.1e}"])
    return rows


def costs(force_field: ForceField, system: System, potential: Potential, x: Tensor) -> list[list[str]]:
    """Milliseconds per structure."""
    differentiable = force_field.bind(system, differentiable=True)

    def through_the_step() -> None:
        y = x.clone().requires_grad_()
        _, forces = differentiable(y)
        torch.autograd.grad(forces, [y, *force_field.trainable_parameters], torch.ones_like(y), allow_unused=True)

    kinds = {
        "forces, compiled path": lambda: potential(x),
        "forces with a graph and their backward pass (backpropagation)": through_the_step,
        "λ·∂F/∂θ as a difference of energy gradients": lambda: force_gradient(force_field, system, x, x, 4),
    }
    rows = []
    for name, work in kinds.items():
        work()
        started = time.perf_counter()
        for _ in range(3):
            work()
        rows.append([name, f"{(time.perf_counter() - started) / 3 / len(x) * 1e3:.1f}"])
    return rows


def along_parameters(force_field: ForceField, system: System, windows: Windows, direction: Tensor) -> Change:
    """∂F/∂(step along a direction of the parameters) at every point, by central differences."""
    step, sides = 1e-3, []
    for sign in (1, -1):
        moved, done = force_field.frozen_copy(), 0
        with torch.no_grad():
            for parameter in [
                p for p, q in zip(moved.parameters(), force_field.parameters(), strict=True) if q.requires_grad
            ]:
                part = direction[done : done + parameter.numel()].view_as(parameter)
                parameter += sign * step * part
                done += parameter.numel()
        potential = moved.bind(system, fast=True)
        with torch.no_grad():
            sides.append(torch.stack([potential(x)[1] for x in windows.x]))
    return (sides[0] - sides[1]) / (2 * step)


def vectors_of(windows: Windows, potential: Potential, kind: str, scores: bool = True) -> dict[str, Change]:
    """w of each estimator, with d<A>/dθ = <Σ w · ∂F/∂θ>."""
    of_atom, by_x, by_v = windows.average(kind)
    system, integrator, n_steps = windows.system, windows.integrator, len(windows.noise)
    found = {"adjoint": force_sensitivities(system, potential, integrator, windows.x, by_x, by_v)}
    if not scores:
        return found
    value = of_atom.sum(1)
    reward = (value - value.mean())[:, None].expand(-1, system.n_atoms)
    of_molecule = of_atom.new_zeros(len(value), system.n_molecules).index_add(1, system.molecules, of_atom)
    own = (of_molecule - of_molecule.mean())[:, system.molecules]
    for name, rewards in (("score", reward), ("score, own molecule", own)):
        every_step = windows.of_branches(rewards).expand(n_steps, -1, -1)
        found[name] = score_vectors(system, integrator, windows.noise, every_step, by_v)
    return found


def whole_gradient(
    force_field: ForceField, windows: Windows, vectors: Change, every: int, generator: torch.Generator
) -> Float[Tensor, "window parameter"]:
    """The gradient of all parameters per window, from a random choice of one in ``every`` points of each branch."""
    rows = []
    for branch in range(windows.x.shape[1]):
        chosen = torch.randperm(len(windows.x), generator=generator)[: max(1, len(windows.x) // every)]
        x, w = windows.x[chosen, branch], vectors[chosen, branch] * (len(windows.x) / len(chosen))
        rows.append(flat(force_gradient(force_field, windows.system, x, w, 8)))
    return windows.of_windows(torch.stack(rows))


def signal(rows: Float[Tensor, "replica parameter"]) -> tuple[float, float]:
    """Norm of the mean without that of its noise, and the norm of its standard error."""
    error = float((rows.var(0) / len(rows)).sum().sqrt())
    return math.sqrt(max(0.0, float(rows.mean(0).square().sum()) - error**2)), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--lags", type=int, nargs="+", default=[24, 48, 100, 200, 400, 800], help="fs")
    parser.add_argument("--friction", type=float, default=1.0, help="1/ps")
    parser.add_argument("--checkpoint", default=CHECKPOINT)
    parser.add_argument("--every", type=int, default=8, help="points per point whose energies are differentiated")
    arguments = parser.parse_args()
    data = load_dataset("data/bundled", "water_spcfw", "water", "100")
    system, force_field = data.system(), load_force_field(arguments.checkpoint)
    potential, integrator = force_field.bind(system, fast=True), LangevinBAOAB(1.0, 300.0, arguments.friction)
    frames, longest = data.test.positions, max(arguments.lags)
    arrangements = {"begins": False, "centered": True}
    made = {
        (name, seed): windows_of(system, potential, integrator, frames, arguments.replicas, longest, seed, centered)
        for name, centered in arrangements.items()
        for seed in (1, 2)
    }
    windows, last = made["begins", 1]
    print(format_table(["time (fs)", "distance (Å)", "rate since the row above (1/ps)"], growth(windows, potential)))
    print(format_table(["steps back", "error (Å)"], reversal(windows, last, potential)))
    print(format_table(["per structure", "ms"], costs(force_field, system, potential, windows.x[0, :4])), flush=True)

    generator, rows = torch.Generator().manual_seed(3), []
    for name in arrangements:
        for lag in arguments.lags:
            some = made[name, 2][0].until(lag)
            adjoint = vectors_of(some, potential, "msd", scores=False)["adjoint"]
            gradient = whole_gradient(force_field, some, adjoint, arguments.every, generator)
            norm, error = signal(gradient)
            rows.append([name, str(lag), f"{norm:.3g}", f"{error:.3g}", f"{norm / error:.2f}"])
            print("whole gradient", rows[-1], flush=True)
    print(format_table(["window", "lag (fs)", "norm", "its error", "signal/noise"], rows), flush=True)
    direction = gradient.mean(0) / gradient.mean(0).norm()
    rows = []
    for name in arrangements:
        windows = made[name, 1][0]
        with torch.no_grad():
            changes = {"energy factor": torch.stack([potential(x)[1] for x in windows.x])}
        changes["gradient"] = along_parameters(force_field, system, windows, direction.float())
        for kind in ("vacf", "msd"):
            for lag in arguments.lags:
                some = windows.until(lag)
                for estimator, vectors in vectors_of(some, potential, kind).items():
                    for parameter, change in changes.items():
                        each = some.of_windows((vectors.double() * change[: len(vectors)]).sum((0, 2, 3)))
                        mean, error = float(each.mean()), float(each.std() / math.sqrt(len(each)))
                        numbers = [f"{mean:.3e}", f"{error:.1e}", f"{abs(mean) / error:.2f}"]
                        rows.append([kind, name, str(lag), parameter, estimator, *numbers])
                        print(rows[-1], flush=True)
    print(format_table(["average", "window", "lag (fs)", "parameter", "estimator", "mean", "error", "ratio"], rows))


if __name__ == "__main__":
    main()
