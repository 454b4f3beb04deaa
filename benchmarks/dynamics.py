"""Benchmark of molecular dynamics, replica-steps per second: plain path, fast path, and other programs.

    python -m benchmarks.dynamics                                          # 2-4 minutes
    python -m benchmarks.dynamics --models schnet --systems water_2x2x2 --replicas 1 4
    PYTHONPATH=folder-with-torch-sim python -m benchmarks.dynamics         # torch-sim, where it is found

Nosé-Hoover chains, 0.5 fs (published style: one thermostat, in eager operations; ASE and torch-sim: Langevin).
All programs use the same weights. "Published style" is described in `benchmarks.peers`. The lines under each table give
the minimum work and the fraction of the machine's peak that the fastest path reaches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count

import torch

from benchmarks.cases import Case, load_case
from benchmarks.common import Machine, announce, arguments, median_seconds, print_table, ratio_rows
from benchmarks.peers import ase_stepper, published_style_potential, torch_sim_stepper
from benchmarks.work import evaluation_work
from mdsim.integrators.nose_hoover import NoseHooverChain
from mdsim.interfaces import Potential
from mdsim.models import SchNet
from mdsim.typing import Tensor

TIMESTEP_FS = 0.5
PUBLISHED, TORCH_SIM, ASE, PLAIN, FAST = "published style", "torch-sim", "ASE", "plain", "fast"
DEFAULTS = {  # model and system to numbers of replicas
    ("schnet", "aspirin"): (1, 16, 128),
    ("schnet", "tetrapeptide"): (1, 16, 128),
    ("schnet", "water"): (1, 16),
    ("schnet", "water_2x2x2"): (1,),
    ("nequip", "tetrapeptide"): (1, 16),
    ("gemnet", "water"): (1,),
}
RESTART_AFTER = 20  # steps, so that all paths compute the same pairs even if the molecule falls apart later
MEASURED_S = 0.5  # per repetition, which has at least one step


def stepper(case: Case, potential: Potential, n_replicas: int, eager: bool = False) -> Callable[[], None]:
    """A function that makes one step of all replicas. ``eager``: a single thermostat, as separate tensor operations."""
    chain = {"chain_length": 1, "suzuki_yoshida_order": 1} if eager else {}
    integrator = NoseHooverChain(TIMESTEP_FS, case.temperature_K, 20 * TIMESTEP_FS, **chain)
    start = integrator.init(case.system, potential, *case.start(n_replicas))
    state, steps = [start], count(1)

    def step() -> None:
        with torch.set_grad_enabled(eager):  # nothing requires gradients: no graph grows
            state[0] = integrator.step(case.system, potential, state[0])
        if next(steps) % RESTART_AFTER == 0:
            state[0] = start

    return step


def contenders(case: Case, n_replicas: int, peers: bool) -> dict[str, Callable[[], None]]:
    """Functions that make one step, by program."""
    steps: dict[str, Callable[[], None]] = {}
    positions = case.start(n_replicas)[0]
    if peers and isinstance(case.force_field, SchNet):
        if case.system.cell is None:
            eager = published_style_potential(case.force_field, case.system)
            steps[PUBLISHED] = stepper(case, eager, n_replicas, eager=True)
        if (torch_sim := torch_sim_stepper(case, positions, TIMESTEP_FS)) is not None:
            steps[TORCH_SIM] = torch_sim
    if peers and n_replicas == 1:
        steps[ASE] = ase_stepper(case, positions[0], TIMESTEP_FS)
    steps[PLAIN] = stepper(case, case.force_field.bind(case.system), n_replicas)
    if (fast := case.force_field.fast_potential(case.system)) is not None:
        steps[FAST] = stepper(case, fast, n_replicas)
    return steps


def time_steps(steps: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Median seconds per step. A first step determines how many are measured together."""
    counts = {}
    for name, step in steps.items():
        step()  # compiles
        start = time.perf_counter()
        step()
        counts[name] = max(1, int(MEASURED_S / (time.perf_counter() - start)))

    def repeated(name: str) -> Callable[[], None]:
        def run() -> None:
            for _ in range(counts[name]):
                steps[name]()

        return run

    taken = median_seconds({name: repeated(name) for name in steps}, repetitions=3, warm_up=0)
    return {name: seconds / counts[name] for name, seconds in taken.items()}


def measure(case: Case, title: str, replicas: tuple[int, ...], peers: bool, machine: Machine) -> None:
    """Print the table of one force field and system, with one roofline line per number of replicas."""
    rows, lines = [], []
    for n_replicas in replicas:
        seconds = time_steps(contenders(case, n_replicas, peers))
        baseline = PUBLISHED if PUBLISHED in seconds else PLAIN
        rows += ratio_rows([str(n_replicas)], seconds, n_replicas, baseline)
        work = evaluation_work(case, _positions(case, n_replicas))
        best = min(seconds, key=seconds.__getitem__)
        lines.append(f"replicas {n_replicas}, {best}: " + machine.roofline(seconds[best], work.flops, work.n_bytes))
    print_table(title, ["replicas", "path", "ms/step", "replica-steps/s", "speed-up"], rows)
    print("\n" + "\n".join(lines), flush=True)


def _positions(case: Case, n_replicas: int) -> Tensor:
    return case.start(n_replicas)[0]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", choices=("schnet", "nequip", "gemnet"))
    parser.add_argument("--systems", nargs="+", choices=("aspirin", "tetrapeptide", "water", "water_2x2x2"))
    parser.add_argument("--replicas", nargs="+", type=int, help="numbers of replicas (default: chosen for each system)")
    parser.add_argument("--no-peers", action="store_true", help="run only the paths of this package")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    torch.set_flush_denormal(True)  # as the scripts do; this also speeds up the other programs
    machine = announce()
    if known.models and known.systems:
        wanted = {(m, s): DEFAULTS.get((m, s), (1, 16)) for m in known.models for s in known.systems}
    else:
        wanted = {
            (m, s): replicas
            for (m, s), replicas in DEFAULTS.items()
            if m in (known.models or [m]) and s in (known.systems or [s])
        }
    for (model, system), replicas in wanted.items():
        case = load_case(model, system)
        title = f"{model}, {system} ({case.system.n_atoms} atoms)"
        measure(case, title, tuple(known.replicas or replicas), not known.no_peers, machine)


if __name__ == "__main__":
    main()
