"""Benchmark of models of other packages: milliseconds per step here and with the package's own ASE calculator.

    python -m benchmarks.adapters sevenn [--checkpoint 7net-0] [--threads 2]
    python -m benchmarks.adapters mace --checkpoint my.model

    package      velocity Verlet of ASE with the package's calculator, one molecule
    here         the same molecule with the force field of this package, and a batch of replicas in one graph

The system is aspirin, or the first frame of ``--structure``. The column per replica compares the throughput.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import torch
from ase import Atoms, units
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution
from ase.md.verlet import VelocityVerlet

from benchmarks.common import announce, arguments, median_seconds, print_table
from mdsim.dynamics.simulate import simulate
from mdsim.integrators import VelocityVerlet as BatchedVerlet
from mdsim.models import MODELS, load_force_field
from mdsim.state import System

TIMESTEP_FS = 0.5
TEMPERATURE_K = 300.0
REPLICAS = (1, 8)
N_STEPS = 5
ROOT = Path(__file__).resolve().parents[1]


def calculator_of(model: str, path: Path) -> Any:
    """The package's own calculator."""
    if model == "mace":
        from mace.calculators import MACECalculator

        return MACECalculator(model_paths=str(path), device="cpu", default_dtype="float32")
    if model == "sevenn":
        from sevenn.calculator import SevenNetCalculator

        return SevenNetCalculator(str(path), device="cpu")
    from nequip.ase import NequIPCalculator

    return NequIPCalculator._from_saved_model(str(path), device="cpu")


def package_steps(atoms: Atoms, calculator: Any) -> Callable[[], object]:
    """A few steps of ASE."""
    atoms = atoms.copy()
    atoms.calc = calculator
    MaxwellBoltzmannDistribution(atoms, temperature_K=TEMPERATURE_K)
    dynamics = VelocityVerlet(atoms, TIMESTEP_FS * units.fs)
    return lambda: dynamics.run(N_STEPS)


def steps_here(atoms: Atoms, force_field: Any, n_replicas: int) -> Callable[[], object]:
    """The same number of steps of a batch of replicas."""
    system = System.from_geometry(atoms.numbers, atoms.positions, atoms.cell.array if atoms.pbc.all() else None)
    potential = force_field.bind(system)
    positions = torch.tensor(atoms.positions, dtype=torch.float32).repeat(n_replicas, 1, 1)
    integrator = BatchedVerlet(TIMESTEP_FS)
    thermal = torch.randn_like(positions) * (TEMPERATURE_K * units.kB / system.masses[:, None]).sqrt()
    state = integrator.init(system, potential, positions, thermal)
    return lambda: simulate(system, potential, integrator, state, N_STEPS, N_STEPS)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("model", choices=[name for name, record in MODELS.items() if record.is_foreign])
    parser.add_argument("--checkpoint", default="7net-0")
    parser.add_argument("--structure", type=Path, default=ROOT / "data" / "molecules" / "aspirin.xyz")
    known = parser.parse_args()
    torch.set_num_threads(known.threads)
    announce()
    path = MODELS[known.model].located(known.checkpoint)
    atoms = ase.io.read(known.structure)
    calculator = calculator_of(known.model, path)
    torch.set_default_dtype(torch.float32)  # which nequip changes
    force_field = load_force_field(path, model=known.model, allow_unpickling=True).float()
    actions = {"package": package_steps(atoms, calculator)}
    actions |= {f"here, {n} replicas": steps_here(atoms, force_field, n) for n in REPLICAS}
    seconds = median_seconds(actions, repetitions=5, warm_up=2)
    sizes = dict(zip(actions, (1, *REPLICAS), strict=True))
    rows = [
        [name, f"{1000 * s / N_STEPS:.1f}", f"{1000 * s / N_STEPS / sizes[name]:.1f}"] for name, s in seconds.items()
    ]
    title = f"{known.model}, {known.checkpoint}, {known.structure.name}, steps of {TIMESTEP_FS:g} fs"
    print_table(title, ["", "ms per step", "ms per step and replica"], rows)


if __name__ == "__main__":
    main()
