"""Density and compressibility of SPC/Fw water at constant pressure, by the barostats of mdsim and by that of OpenMM.

    python -m benchmarks.pressure.water_density                            # an hour on one core
    python -m benchmarks.pressure.water_density --methods mtk --picoseconds 50

OpenMM evaluates the same system for both: 128 molecules, particle-mesh Ewald, Lennard-Jones interactions switched off
from 5 to 7 Å, without tail correction. Its own barostat makes Monte Carlo moves of the volume. The barostats of mdsim
take the stress from central differences of the energy with respect to the volume.

All atoms weigh a third of a molecule. Masses change neither the density nor its fluctuations, and equal ones slow down
the stretching of the bonds, whose time step error would appear in the pressure. Errors are those of block averages.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.common import arguments, print_table
from mdsim.dynamics.velocities import maxwell_boltzmann
from mdsim.geometry import volume
from mdsim.integrators import LangevinBAOAB, MartynaTobiasKlein, NoseHooverChain, StochasticCellRescaling
from mdsim.integrators.barostat import Barostat, cell_of
from mdsim.integrators.noise import noise_of_steps
from mdsim.state import System
from mdsim.typing import Float, Tensor
from mdsim.units import BAR, kT_eV

if TYPE_CHECKING:
    import openmm

sys.path.insert(0, str(Path(__file__).parents[2] / "data"))
import openmm_water as water

MOLECULES, TEMPERATURE_K, PRESSURE_BAR = 128, 300.0, 1.0
TIMESTEP_FS, FRICTION_PER_PS, RELAXATION_FS = 0.75, 2.0, 500.0
CUTOFF_A, EWALD_TOLERANCE = 7.0, 1e-4
MOVE_EVERY, SAMPLE_EVERY, N_BLOCKS = 25, 20, 10  # steps, steps
EQUILIBRATION_PS = 10.0
MOLECULE_AMU = float(np.sum(water.atomic_masses[list(water.NUMBERS)]))
G_PER_CM3 = 1.66053907  # amu/Å³
STRAIN = (
    3e-3  # of the volume: small for bonds, and large compared with steps of the energy where pairs cross the cutoff
)


def openmm_system() -> openmm.System:
    """The force field of both programs."""
    import openmm

    system = water.force_field(MOLECULES, start_box_A())
    (nonbonded,) = (force for force in system.getForces() if isinstance(force, openmm.NonbondedForce))
    nonbonded.setEwaldErrorTolerance(EWALD_TOLERANCE)
    nonbonded.setCutoffDistance(CUTOFF_A / water.A_PER_NM)
    for atom in range(system.getNumParticles()):
        system.setParticleMass(atom, MOLECULE_AMU / 3)
    return system


def start_box_A() -> float:
    return water.box_length_A(MOLECULES, 1.0)


def openmm_context(system: openmm.System, seed: int = 1) -> openmm.Context:
    """Langevin dynamics on one thread."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(TEMPERATURE_K, FRICTION_PER_PS, TIMESTEP_FS / 1000)
    integrator.setRandomNumberSeed(seed)
    return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("CPU"), {"Threads": "1"})


def with_barostat(seed: int) -> openmm.Context:
    import openmm

    system = openmm_system()
    barostat = openmm.MonteCarloBarostat(PRESSURE_BAR, TEMPERATURE_K, MOVE_EVERY)
    barostat.setRandomNumberSeed(seed)
    system.addForce(barostat)
    return openmm_context(system, seed)


def equilibrated() -> tuple[np.ndarray, np.ndarray]:
    """Positions and cell (nm) after OpenMM's dynamics at constant pressure from a lattice."""
    import openmm

    context = with_barostat(seed=1)
    context.setPositions(water.lattice(MOLECULES, start_box_A(), np.random.default_rng(1)) / water.A_PER_NM)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, water.MINIMIZER_STEPS)
    context.setVelocitiesToTemperature(TEMPERATURE_K, 1)
    context.getIntegrator().step(steps_in(2 * EQUILIBRATION_PS))
    state = context.getState(positions=True)
    return state.getPositions(asNumpy=True)._value, state.getPeriodicBoxVectors(asNumpy=True)._value


def steps_in(picoseconds: float) -> int:
    return round(1000 * picoseconds / TIMESTEP_FS / SAMPLE_EVERY) * SAMPLE_EVERY


class OpenMMPotential:
    """A `CellPotential` of one replica by OpenMM, for isotropic barostats: the stress is its trace times a third."""

    def __init__(self) -> None:
        self.context = openmm_context(openmm_system())

    def __call__(self, positions: Tensor, cells: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Energies (eV), forces (eV/Å) and stresses (eV/Å³)."""
        x, cell = positions[0].numpy() / water.A_PER_NM, cells[0].numpy() / water.A_PER_NM
        larger, smaller = (self._energy_eV(x, cell, scale) for scale in np.exp([STRAIN / 6, -STRAIN / 6]))
        self._place(x, cell)
        state = self.context.getState(energy=True, forces=True)
        forces = torch.from_numpy(water._forces_eV_per_A(state))[None]
        stress = (larger - smaller) / STRAIN / volume(cells)[:, None, None] * torch.eye(3, dtype=cells.dtype)
        return positions.new_tensor([water._energy_eV(state)]), forces, stress

    def _place(self, x: np.ndarray, cell: np.ndarray) -> None:
        self.context.setPeriodicBoxVectors(*cell)
        self.context.setPositions(x)

    def _energy_eV(self, x: np.ndarray, cell: np.ndarray, scale: float) -> float:
        self._place(scale * x, scale * cell)
        return water._energy_eV(self.context.getState(energy=True))


def mdsim_volumes(barostat: Barostat, start: tuple[np.ndarray, np.ndarray], n_steps: int) -> np.ndarray:
    """Volumes (Å³) along a trajectory."""
    positions, cell = (water.A_PER_NM * torch.from_numpy(np.array(array))[None] for array in start)
    numbers = np.tile(water.NUMBERS, MOLECULES)
    masses = np.full(3 * MOLECULES, MOLECULE_AMU / 3)
    no_bonds = torch.zeros(0, 2, dtype=torch.long)
    system = System.from_bonds(numbers, no_bonds, cell[0].numpy(), masses, torch.float64)
    generator = torch.Generator().manual_seed(2)
    moving = barostat.conserves_momentum
    velocities = maxwell_boltzmann(system, 1, TEMPERATURE_K, generator, moving, False, positions)
    potential, volumes = OpenMMPotential(), []
    state = barostat.init(system, potential, positions, velocities, cell)
    for number, noise in enumerate(noise_of_steps(barostat, system, state, n_steps, generator), start=1):
        state = barostat.step(system, potential, state, noise)
        if number % SAMPLE_EVERY == 0:
            volumes.append(float(volume(cell_of(state))[0]))
    return np.array(volumes)


def openmm_volumes(start: tuple[np.ndarray, np.ndarray], n_steps: int) -> np.ndarray:
    """Volumes (Å³) along a trajectory with OpenMM's barostat."""
    context = with_barostat(seed=2)
    context.setPeriodicBoxVectors(*start[1])
    context.setPositions(start[0])
    context.setVelocitiesToTemperature(TEMPERATURE_K, 2)
    volumes = []
    for _ in range(n_steps // SAMPLE_EVERY):
        context.getIntegrator().step(SAMPLE_EVERY)
        volumes.append(context.getState().getPeriodicBoxVolume()._value * water.A_PER_NM**3)
    return np.array(volumes)


def methods() -> dict[str, Callable[[tuple[np.ndarray, np.ndarray], int], np.ndarray]]:
    langevin = LangevinBAOAB(TIMESTEP_FS, TEMPERATURE_K, FRICTION_PER_PS)
    chain = NoseHooverChain(TIMESTEP_FS, TEMPERATURE_K, 50.0)
    barostats = {
        "rescaling, Langevin": StochasticCellRescaling(langevin, PRESSURE_BAR, RELAXATION_FS),
        "rescaling, chain": StochasticCellRescaling(chain, PRESSURE_BAR, RELAXATION_FS),
        "mtk": MartynaTobiasKlein(chain, PRESSURE_BAR, RELAXATION_FS),
    }

    def of(barostat: Barostat) -> Callable[[tuple[np.ndarray, np.ndarray], int], np.ndarray]:
        return lambda start, n_steps: mdsim_volumes(barostat, start, n_steps)

    return {"OpenMM": openmm_volumes} | {name: of(barostat) for name, barostat in barostats.items()}


def with_error(values: Float[np.ndarray, "block"]) -> str:
    return f"{values.mean():.4g} ± {values.std(ddof=1) / np.sqrt(len(values)):.2g}"


def row(name: str, volumes: np.ndarray, seconds: float) -> list[str]:
    """Density and compressibility, with standard errors over blocks."""
    kept = volumes[steps_in(EQUILIBRATION_PS) // SAMPLE_EVERY :]
    blocks = kept[: len(kept) // N_BLOCKS * N_BLOCKS].reshape(N_BLOCKS, -1)
    density = G_PER_CM3 * MOLECULES * MOLECULE_AMU / blocks
    spread = (blocks - kept.mean()) ** 2 * N_BLOCKS / (N_BLOCKS - 1)
    compressibility = BAR * spread.mean(1) / (kT_eV(TEMPERATURE_K) * kept.mean())
    picoseconds = len(kept) * SAMPLE_EVERY * TIMESTEP_FS / 1000
    return [
        name,
        f"{picoseconds:.0f}",
        with_error(density.mean(1)),
        with_error(1e5 * compressibility),
        f"{seconds:.0f}",
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--picoseconds", type=float, default=150.0, help="of each method, after 10 of equilibration")
    parser.add_argument("--methods", nargs="+", default=list(methods()), choices=list(methods()))
    known = parser.parse_args()
    torch.set_num_threads(1)
    start, rows = equilibrated(), []
    for name in known.methods:
        began = time.process_time()
        volumes = methods()[name](start, steps_in(EQUILIBRATION_PS + known.picoseconds))
        rows.append(row(name, volumes, time.process_time() - began))
    print_table(
        f"{MOLECULES} molecules of SPC/Fw water, {TEMPERATURE_K:.0f} K, {PRESSURE_BAR:.0f} bar",
        ["barostat", "ps", "density, g/cm³", "compressibility, 1e-5/bar", "CPU s"],
        rows,
    )


if __name__ == "__main__":
    main()
