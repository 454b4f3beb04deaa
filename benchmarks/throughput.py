"""Replica-steps per second of molecular dynamics, and seconds per estimator gradient, side by side in one process.

    python benchmarks/throughput.py [--threads 2]

Uses the bundled SchNet and aspirin structures. Each figure is the median of several repetitions; ratios are to the
plain path of the same run.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch

from mdsim.boltzmann import boltzmann_gradient
from mdsim.datasets.folder import load_dataset
from mdsim.integrators.langevin import LangevinBAOAB
from mdsim.losses import sum_squared_error
from mdsim.models.loading import load_force_field
from mdsim.observables.rdf import RDF
from mdsim.reporting.console import format_table
from mdsim.sample_energies import structure_energies
from mdsim.simulation import simulate
from mdsim.state import Trajectory
from mdsim.training.stretch import initial_conditions
from mdsim.units import kT_eV

CHECKPOINT = "qm_pretrained_checkpoints/schnet/aspirin_gfn2-aspirin_1k_schnet/checkpoints/best_checkpoint.pt"
TEMPERATURE_K = 500.0
REPLICAS = (1, 16, 128)
GRADIENT_STRUCTURES = 2560


def seconds(action: Callable[[], object], repetitions: int = 5) -> float:
    """Median wall-clock time after one unmeasured call."""
    action()
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def dynamics(force_field, system, frames) -> list[list[str]]:
    rows = []
    for n_replicas in REPLICAS:
        n_steps = max(10, 640 // n_replicas)
        taken = {
            name: time_per_step(force_field, system, frames, n_replicas, n_steps, fast)
            for name, fast in (("plain", False), ("tabulated", True))
        }
        rows += [
            [str(n_replicas), name, f"{1e3 * t:.2f}", f"{n_replicas / t:.0f}", f"{taken['plain'] / t:.1f}"]
            for name, t in taken.items()
        ]
    return rows


def time_per_step(force_field, system, frames, n_replicas: int, n_steps: int, fast: bool) -> float:
    generator = torch.Generator().manual_seed(0)
    positions, velocities = initial_conditions(system, frames, n_replicas, TEMPERATURE_K, generator)
    integrator, potential = LangevinBAOAB(0.5, TEMPERATURE_K, 1.0), force_field.bind(system, fast=fast)
    state = integrator.init(system, potential, positions, velocities)
    return seconds(lambda: simulate(system, potential, integrator, state, n_steps, n_steps, generator)) / n_steps


def estimator(force_field, system, frames) -> str:
    positions = frames.repeat(-(-GRADIENT_STRUCTURES // len(frames)), 1, 1)[:GRADIENT_STRUCTURES]
    rdf = RDF(10.0, 0.02)
    values = rdf(system, Trajectory(positions[:, None], None, None, 1.0))[:, 0]
    reference = values.mean(0) * 0.9

    def gradient() -> object:
        return boltzmann_gradient(
            structure_energies(force_field, system, positions),
            force_field.parameters(),
            values,
            lambda mean: sum_squared_error(mean, reference),
            kT_eV(TEMPERATURE_K),
            minibatch_size=40,
        )

    taken = seconds(gradient, repetitions=3)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return f"{GRADIENT_STRUCTURES} structures, 500 bins: {taken:.2f} s; peak memory of the process {memory:.2f} GiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    torch.set_num_threads(parser.parse_args().threads)
    data = load_dataset("data/bundled", "aspirin_gfn2", "aspirin", "1k")
    system, force_field = data.system(), load_force_field(CHECKPOINT)
    print(f"SchNet 64/64/6, aspirin, BAOAB, {torch.get_num_threads()} threads\n")
    header = ["replicas", "path", "ms/step", "replica-steps/s", "speed-up"]
    print(format_table(header, dynamics(force_field, system, data.test.positions)))
    print("\nBoltzmann estimator: " + estimator(force_field, system, data.test.positions))


if __name__ == "__main__":
    main()
