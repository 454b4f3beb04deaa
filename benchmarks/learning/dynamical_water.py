"""Gradients of dynamical averages of liquid water by several estimators, against the length of the window.

    python benchmarks/learning/dynamical_water.py --replicas 16 --lags 25 50 100 200 400 800

Replicas of the bundled water start from test frames with Maxwell-Boltzmann velocities and run with the shipped SchNet.
The averages are those of the oxygens: <v(0) v(t)> and <|x(t) - x(0)|²>. The starts do not depend on the parameters, so
that the gradient is that of the trajectories alone. Two parameters: a factor on the energy, and a step along the adjoint
gradient of the second average at the longest lag, measured with other windows.

First tables: growth of a perturbation, error of a simulation that is stepped backwards, cost per structure. Last: mean over
replicas and its standard error, by the adjoint (backpropagation gives the same numbers), by the score of the path, and by
the score of the molecule that moves alone, which has less noise and a bias.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass

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
    """Points of all replicas, with the noise of every step."""

    system: System
    integrator: LangevinBAOAB
    x: Change
    v: Change
    noise: Float[Tensor, "step replica atom 3"]

    @property
    def oxygen(self) -> Tensor:
        return self.system.atomic_numbers == 8

    def until(self, lag: int) -> Windows:
        return Windows(self.system, self.integrator, self.x[: lag + 1], self.v[: lag + 1], self.noise[:lag])

    def average(self, kind: str) -> tuple[Float[Tensor, "replica atom"], Change, Change]:
        """Contribution of each atom to A at the last point, ∂A/∂x and ∂A/∂v. A is the sum over atoms."""
        by_x, by_v, chosen = torch.zeros_like(self.x), torch.zeros_like(self.v), self.oxygen / self.oxygen.sum()
        if kind == "vacf":
            by_v[-1] = self.v[0] * chosen[:, None]
            by_v[0] = self.v[-1] * chosen[:, None]
            return (self.v[0] * self.v[-1]).sum(-1) * chosen, by_x, by_v
        moved = self.x[-1] - self.x[0]
        by_x[-1] = 2 * moved * chosen[:, None]
        return moved.square().sum(-1) * chosen, by_x, by_v


def windows_of(system, potential, integrator, frames, n_replicas, n_steps, seed) -> tuple[Windows, MDState]:
    generator = torch.Generator().manual_seed(seed)
    x, v = initial_conditions(system, frames, n_replicas, integrator.temperature_K, generator)
    state, key = integrator.init(system, potential, x, v), generator.get_state()
    last, path = simulate(system, potential, integrator, state, n_steps, 1, generator)
    generator.set_state(key)
    noise = noise_for(integrator, system, generator)(torch.arange(n_replicas), 0, n_steps, (system.n_atoms, 3), v)
    x, v = torch.cat([x[None], path.positions]), torch.cat([v[None], path.velocities])
    return Windows(system, integrator, x, v, noise), last


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


def vectors_of(windows: Windows, potential: Potential, kind: str) -> dict[str, Change]:
    """w of each estimator, with d<A>/dθ = <Σ w · ∂F/∂θ>."""
    of_atom, by_x, by_v = windows.average(kind)
    system, integrator, n_steps = windows.system, windows.integrator, len(windows.noise)
    found = {"adjoint": force_sensitivities(system, potential, integrator, windows.x, by_x, by_v)}
    value = of_atom.sum(1)
    reward = (value - value.mean())[:, None].expand(-1, system.n_atoms)
    found["score"] = score_vectors(system, integrator, windows.noise, reward.expand(n_steps, -1, -1), by_v)
    of_molecule = of_atom.new_zeros(len(value), system.n_molecules).index_add(1, system.molecules, of_atom)
    reward = (of_molecule - of_molecule.mean())[:, system.molecules]
    found["score, own molecule"] = score_vectors(
        system, integrator, windows.noise, reward.expand(n_steps, -1, -1), by_v
    )
    return found


def whole_gradient(
    force_field: ForceField, windows: Windows, vectors: Change, every: int, generator: torch.Generator
) -> Tensor:
    """The gradient of all parameters per replica, from a random choice of one in ``every`` points."""
    n_points = len(windows.x)
    rows = []
    for replica in range(windows.x.shape[1]):
        chosen = torch.randperm(n_points, generator=generator)[: max(1, n_points // every)]
        x, w = windows.x[chosen, replica], vectors[chosen, replica] * (n_points / len(chosen))
        rows.append(flat(force_gradient(force_field, windows.system, x, w, 8)))
    return torch.stack(rows)


def signal(rows: Float[Tensor, "replica parameter"]) -> tuple[float, float]:
    """Norm of the mean without that of its noise, and the norm of its standard error."""
    error = float((rows.var(0) / len(rows)).sum().sqrt())
    return math.sqrt(max(0.0, float(rows.mean(0).square().sum()) - error**2)), error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicas", type=int, default=16)
    parser.add_argument("--lags", type=int, nargs="+", default=[25, 50, 100, 200, 400, 800], help="fs")
    parser.add_argument("--friction", type=float, default=1.0, help="1/ps")
    parser.add_argument("--checkpoint", default=CHECKPOINT)
    parser.add_argument("--every", type=int, default=16, help="points per point whose energies are differentiated")
    arguments = parser.parse_args()
    data = load_dataset("data/bundled", "water_spcfw", "water", "100")
    system, force_field = data.system(), load_force_field(arguments.checkpoint)
    potential, integrator = force_field.bind(system, fast=True), LangevinBAOAB(1.0, 300.0, arguments.friction)
    frames, longest = data.test.positions, max(arguments.lags)
    made = [windows_of(system, potential, integrator, frames, arguments.replicas, longest, seed) for seed in (1, 2)]
    (windows, last), (other, _) = made
    print(format_table(["time (fs)", "distance (Å)", "rate since the row above (1/ps)"], growth(windows, potential)))
    print(format_table(["steps back", "error (Å)"], reversal(windows, last, potential)))
    print(format_table(["per structure", "ms"], costs(force_field, system, potential, windows.x[0, :4])))

    generator = torch.Generator().manual_seed(3)
    rows = []
    for lag in arguments.lags:
        some = other.until(lag)
        adjoint = vectors_of(some, potential, "msd")["adjoint"]
        gradient = whole_gradient(force_field, some, adjoint, arguments.every, generator)
        norm, error = signal(gradient)
        rows.append([str(lag), f"{norm:.3g}", f"{error:.3g}", f"{norm / error:.2f}"])
        print(format_table(["lag (fs)", "norm", "its error", "signal/noise"], rows), flush=True)
    direction = gradient.mean(0) / gradient.mean(0).norm()
    with torch.no_grad():
        changes = {"energy factor": torch.stack([potential(x)[1] for x in windows.x])}
    changes["gradient"] = along_parameters(force_field, system, windows, direction.float())
    rows = []
    for kind in ("vacf", "msd"):
        for lag in arguments.lags:
            some = windows.until(lag)
            for name, vectors in vectors_of(some, potential, kind).items():
                for parameter, change in changes.items():
                    each = (vectors.double() * change[: lag + 1]).sum((0, 2, 3))
                    mean, error = float(each.mean()), float(each.std() / math.sqrt(len(each)))
                    rows.append(
                        [kind, str(lag), parameter, name, f"{mean:.3e}", f"{error:.1e}", f"{abs(mean) / error:.2f}"]
                    )
    print(format_table(["average", "lag (fs)", "parameter", "estimator", "mean", "its error", "signal/noise"], rows))


if __name__ == "__main__":
    main()
