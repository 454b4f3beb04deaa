"""Cost of a step at constant pressure relative to one at constant volume.

    python -m benchmarks.pressure.step_cost            # some minutes

The same force field and structures, by the fastest path: Nosé-Hoover chains, the same with stochastic cell rescaling,
and Martyna-Tobias-Klein with a full cell. All take turns in one process, and times are those of the processor, so that
other load on the machine matters little. The evaluation alone is shown beside the whole step.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from ase.build import bulk

from benchmarks.cases import Case, load_case
from benchmarks.common import announce, arguments, print_table
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.force_field import ForceField
from mdsim.integrators import MartynaTobiasKlein, NoseHooverChain, StochasticCellRescaling
from mdsim.integrators.noise import noise_of_steps
from mdsim.moving_cells import bind_in_cells
from mdsim.neighbors import Neighbors
from mdsim.state import MDState, System
from mdsim.typing import Float, Tensor

CASES = (
    ("schnet", "water", 4),
    ("schnet", "water", 16),
    ("gemnet", "water", 1),
    ("lj", "crystal", 4),
    ("lj", "crystal", 16),
)
ROUNDS, MEASURED_S = 7, 0.2  # of each path
RESTART_AFTER = 40  # steps, so that all paths compute the same pairs
NVT, RESCALING, MTK = "NVT", "rescaling", "mtk, full"


class LennardJones(ForceField):
    """Truncated and shifted Lennard-Jones interactions of argon."""

    epsilon_eV, sigma_A = 0.0104, 3.4

    def __init__(self) -> None:
        super().__init__(cutoff=6.8)

    def atomic_energies(
        self, system: System, positions: Float[Tensor, "replica atom 3"], neighbors: Neighbors
    ) -> Float[Tensor, "replica atom"]:
        """Half the energy of each pair, for both of its atoms."""
        sixth = (self.sigma_A**2 / neighbors.displacements(positions).square().sum(-1)) ** 3
        last = (self.sigma_A / self.cutoff) ** 6
        half = 2 * self.epsilon_eV * torch.where(sixth > last, sixth.square() - sixth - last**2 + last, 0.0)
        atoms = half.new_zeros(len(positions) * system.n_atoms)
        atoms = atoms.index_add(0, neighbors.first, half).index_add(0, neighbors.second, half)
        return atoms.reshape(len(positions), -1)


def case_of(model: str, name: str) -> Case:
    """A bundled case, or 32 atoms of argon."""
    if model != "lj":
        return load_case(model, name)
    atoms = bulk("Ar", "fcc", a=5.4, cubic=True) * (2, 2, 2)
    system = System.from_geometry(atoms.numbers, atoms.positions, atoms.cell.array)
    return Case(system, LennardJones(), torch.tensor(atoms.positions, dtype=torch.float32)[None], 30.0)


def restarting(start: MDState, advance: Callable[[MDState], MDState]) -> Callable[[], None]:
    """A function that makes one step, and returns to the start now and then."""
    state, n_steps = start, 0

    def step() -> None:
        nonlocal state, n_steps
        with torch.no_grad():
            state = advance(state if n_steps % RESTART_AFTER else start)
        n_steps += 1

    return step


def paths(case: Case, n_replicas: int) -> dict[str, Callable[[], None]]:
    """Steps and evaluations by name."""
    system, timestep_fs = case.system, 0.5
    positions = case.frames[:n_replicas].repeat(-(-n_replicas // len(case.frames)), 1, 1)[:n_replicas]
    generator = torch.Generator().manual_seed(0)
    velocities = maxwell_boltzmann(system, n_replicas, case.temperature_K, generator, positions=positions)
    chain = NoseHooverChain(timestep_fs, case.temperature_K, 20 * timestep_fs)
    fixed, moving = case.force_field.bind(system, fast=True), bind_in_cells(case.force_field, system, fast=True)
    start = chain.init(system, fixed, positions, velocities)
    assert system.cell is not None
    cells = system.cell.expand(n_replicas, 3, 3).clone()
    actions = {
        NVT: restarting(start, lambda state: chain.step(system, fixed, state)),
        f"{NVT}, evaluation": lambda: fixed(positions),
        "NPT, evaluation": lambda: moving(positions, cells),
    }
    for name, barostat in {
        RESCALING: StochasticCellRescaling(chain, 1.0),
        MTK: MartynaTobiasKlein(chain, 1.0, scaling="full"),
    }.items():
        start = barostat.init(system, moving, positions, velocities)
        noise = noise_of_steps(barostat, system, start, 10**6, generator)

        def advance(state: MDState, barostat=barostat, noise=noise) -> MDState:
            return barostat.step(system, moving, state, next(noise))

        actions[name] = restarting(start, advance)
    return actions


def processor_seconds(actions: Mapping[str, Callable[[], None]]) -> dict[str, list[float]]:
    """Seconds of the processor per call of each action in each round. The actions take turns."""
    counts = {}
    for name, action in actions.items():
        action()  # compiles
        start = time.process_time()
        action()
        counts[name] = max(1, round(MEASURED_S / max(time.process_time() - start, 1e-4)))
    found: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(ROUNDS):
        for name, action in actions.items():
            start = time.process_time()
            for _ in range(counts[name]):
                action()
            found[name].append((time.process_time() - start) / counts[name])
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.set_defaults(threads=1)
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    torch.set_flush_denormal(True)
    announce()
    rows = []
    for model, name, n_replicas in CASES:
        case = case_of(model, name)
        taken = processor_seconds(paths(case, n_replicas))
        base = taken[NVT]
        for path, seconds in taken.items():
            ratio = statistics.median(one / other for one, other in zip(seconds, base, strict=True))
            label = f"{model}, {name}, {case.system.n_atoms} atoms"
            rows.append([label, str(n_replicas), path, f"{1e3 * statistics.median(seconds):.3g}", f"{ratio:.2f}"])
    print_table("Steps", ["case", "replicas", "path", "ms", "relative to NVT"], rows)


if __name__ == "__main__":
    main()
