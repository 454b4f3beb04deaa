"""Flexible SPC water (SPC/Fw) with OpenMM: the force field, and trajectories in blocks that resume bit for bit.

This is the sampling stage of `generate_water.py`. Units are eV, Å, eV/Å and ASE units for velocities, except in
functions that call OpenMM, which uses kJ/mol, nm and ps.

Force field: Wu, Tepper, Voth, J. Chem. Phys. 124, 024503 (2006), with harmonic bonds and angles, Lennard-Jones
interactions between oxygens, and point charges, but no non-bonded interactions within a molecule. Lennard-Jones
interactions are switched off smoothly from 5 to 6 Å, within half the box of 64 molecules, without tail correction.
Electrostatics are particle-mesh Ewald.
"""

from __future__ import annotations

import math
import multiprocessing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase import units
from ase.data import atomic_masses
from scipy.spatial.transform import Rotation

from mdsim.datasets.npz import write_npz

if TYPE_CHECKING:
    import openmm

BOND_KCAL_PER_MOL_A2 = 1059.162  # ½ k (r - r₀)²
BOND_LENGTH_A = 1.012
ANGLE_KCAL_PER_MOL_RAD2 = 75.90  # ½ k (θ - θ₀)²
ANGLE_DEG = 113.24
SIGMA_OXYGEN_A = 3.165492
EPSILON_OXYGEN_KCAL_PER_MOL = 0.1554253
CHARGES_E = (-0.82, 0.41, 0.41)
NUMBERS = (8, 1, 1)

CUTOFF_A = 6.0
SWITCH_FROM_A = 5.0
EWALD_TOLERANCE = 1e-5
EQUILIBRATION_FRICTION_PER_PS = 10.0
MINIMIZER_STEPS = 200  # enough to start the dynamics, far from a minimum
BLOCK_FRAMES = 500
START_FILE = "start.npz"

KJ_PER_KCAL = 4.184
A_PER_NM = 10.0
EV_PER_KJ_PER_MOL = units.kJ / units.mol
ASE_VELOCITY_PER_NM_PER_PS = A_PER_NM / (1000 * units.fs)


@dataclass(frozen=True)
class Plan:
    """The settings of one trajectory: system, dynamics and output."""

    index: int
    seed: int
    molecules: int
    density_g_per_cm3: float
    temperature_K: float
    timestep_fs: float
    friction_per_ps: float
    equilibration_steps: int
    frames: int
    every: int

    @property
    def blocks(self) -> int:
        return -(-self.frames // BLOCK_FRAMES)

    def frames_in(self, block: int) -> int:
        return min(BLOCK_FRAMES, self.frames - block * BLOCK_FRAMES)

    @property
    def box_length_A(self) -> float:
        return box_length_A(self.molecules, self.density_g_per_cm3)

    @property
    def masses(self) -> np.ndarray:
        return np.tile(atomic_masses[list(NUMBERS)], self.molecules)


def box_length_A(molecules: int, density_g_per_cm3: float) -> float:
    """Edge of the cube that holds the water molecules at this density, Å."""
    mass_g = molecules * atomic_masses[list(NUMBERS)].sum() / units.mol
    return (mass_g / density_g_per_cm3) ** (1 / 3) * 1e8


def force_field(molecules: int, box_A: float) -> openmm.System:
    """SPC/Fw water in a cubic box, with atoms in the order O, H, H per molecule.

    Raises:
        ValueError: the box is not wider than twice the cutoff.
    """
    import openmm

    if not box_A > 2 * CUTOFF_A:
        raise ValueError(f"a box of {box_A:.3f} Å is not wider than twice the cutoff of {CUTOFF_A} Å: more molecules")
    bonds, angles, nonbonded = openmm.HarmonicBondForce(), openmm.HarmonicAngleForce(), openmm.NonbondedForce()
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.PME)
    nonbonded.setEwaldErrorTolerance(EWALD_TOLERANCE)
    nonbonded.setCutoffDistance(CUTOFF_A / A_PER_NM)
    nonbonded.setUseSwitchingFunction(True)
    nonbonded.setSwitchingDistance(SWITCH_FROM_A / A_PER_NM)
    nonbonded.setUseDispersionCorrection(False)
    stiffness = BOND_KCAL_PER_MOL_A2 * KJ_PER_KCAL * A_PER_NM**2
    system = openmm.System()
    system.setDefaultPeriodicBoxVectors(*(box_A / A_PER_NM * np.eye(3)))
    for oxygen in range(0, 3 * molecules, 3):
        for offset, (number, charge) in enumerate(zip(NUMBERS, CHARGES_E, strict=True)):
            system.addParticle(atomic_masses[number])
            depth = EPSILON_OXYGEN_KCAL_PER_MOL * KJ_PER_KCAL if offset == 0 else 0.0
            nonbonded.addParticle(charge, SIGMA_OXYGEN_A / A_PER_NM, depth)
        for first, second in ((0, 1), (0, 2), (1, 2)):
            nonbonded.addException(oxygen + first, oxygen + second, 0.0, 1.0, 0.0)
        for hydrogen in (oxygen + 1, oxygen + 2):
            bonds.addBond(oxygen, hydrogen, BOND_LENGTH_A / A_PER_NM, stiffness)
        bending = ANGLE_KCAL_PER_MOL_RAD2 * KJ_PER_KCAL
        angles.addAngle(oxygen + 1, oxygen, oxygen + 2, math.radians(ANGLE_DEG), bending)
    for force in (bonds, angles, nonbonded, openmm.CMMotionRemover(1)):
        system.addForce(force)
    return system


def simulation(plan: Plan, friction_per_ps: float, seed: int) -> openmm.Context:
    """A context with Langevin dynamics on one thread. Results depend only on state and seed."""
    import openmm

    integrator = openmm.LangevinMiddleIntegrator(plan.temperature_K, friction_per_ps, plan.timestep_fs / 1000)
    integrator.setRandomNumberSeed(seed)
    platform = openmm.Platform.getPlatformByName("CPU")
    settings = {"Threads": "1", "DeterministicForces": "true"}
    return openmm.Context(force_field(plan.molecules, plan.box_length_A), integrator, platform, settings)


def energy_and_forces(
    positions_A: np.ndarray, molecules: int, box_A: float, platform: str = "Reference"
) -> tuple[float, np.ndarray]:
    """Potential energy (eV) and forces (eV/Å) of one structure, in double precision on the reference platform."""
    import openmm

    integrator = openmm.VerletIntegrator(0.001)
    context = openmm.Context(force_field(molecules, box_A), integrator, openmm.Platform.getPlatformByName(platform))
    context.setPositions(np.asarray(positions_A, dtype=np.float64) / A_PER_NM)
    state = context.getState(energy=True, forces=True)
    return _energy_eV(state), _forces_eV_per_A(state)


def lattice(molecules: int, box_A: float, rng: np.random.Generator) -> np.ndarray:
    """Molecules with random orientations on the first points of a simple cubic lattice, Å."""
    angle = math.radians(ANGLE_DEG)
    shape = BOND_LENGTH_A * np.array([[0, 0, 0], [1, 0, 0], [math.cos(angle), math.sin(angle), 0]])
    points = math.ceil(molecules ** (1 / 3) - 1e-9)
    grid = np.stack(np.meshgrid(*[np.arange(points)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)[:molecules]
    turned = [Rotation.random(rng=rng).apply(shape) for _ in range(molecules)]
    return (box_A / points * grid[:, None] + np.stack(turned)).reshape(-1, 3)


def equilibrated(plan: Plan) -> dict[str, np.ndarray]:
    """The state after ``equilibration_steps`` of strongly coupled dynamics from a lattice."""
    import openmm

    positions_seed, velocities_seed, noise_seed = _seeds(plan, block=-1, count=3)
    context = simulation(plan, EQUILIBRATION_FRICTION_PER_PS, noise_seed)
    rng = np.random.default_rng(positions_seed)
    context.setPositions(lattice(plan.molecules, plan.box_length_A, rng) / A_PER_NM)
    openmm.LocalEnergyMinimizer.minimize(context, 10.0, MINIMIZER_STEPS)
    context.setVelocitiesToTemperature(plan.temperature_K, velocities_seed)
    context.getIntegrator().step(plan.equilibration_steps)
    return _raw_state(context)


def sample_block(plan: Plan, start: dict[str, np.ndarray], block: int) -> dict[str, np.ndarray]:
    """Run one block from a state. Returns its frames and the state after it.

    The integrator's velocities are half a step behind the positions, so a half kick is added to those of the frames.
    Momentum is removed in every step, and again from the frames.
    """
    context = simulation(plan, plan.friction_per_ps, _seeds(plan, block, count=1)[0])
    context.setPositions(start["positions_nm"])
    context.setVelocities(start["velocities_nm_per_ps"])
    masses = plan.masses[:, None]
    frames: dict[str, list] = {"R": [], "V": [], "E": [], "F": []}
    for _ in range(plan.frames_in(block)):
        context.getIntegrator().step(plan.every)
        state = context.getState(positions=True, velocities=True, forces=True, energy=True)
        forces = _forces_eV_per_A(state)
        velocities = state.getVelocities(asNumpy=True)._value * ASE_VELOCITY_PER_NM_PER_PS
        velocities = velocities + 0.5 * plan.timestep_fs * units.fs * forces / masses
        frames["R"].append(state.getPositions(asNumpy=True)._value * A_PER_NM)
        frames["V"].append(velocities - np.average(velocities, axis=0, weights=plan.masses))
        frames["E"].append(_energy_eV(state))
        frames["F"].append(forces)
    single = {key: np.array(value, dtype=np.float64 if key == "E" else np.float32) for key, value in frames.items()}
    return single | _raw_state(context)


def sample(plan: Plan, folder: Path) -> None:
    """Run (or finish) one trajectory; each block of frames becomes one file in ``folder``."""
    parent = multiprocessing.parent_process()
    if not (folder / START_FILE).exists():
        write_npz(folder / START_FILE, equilibrated(plan))
    for block in range(plan.blocks):
        path = folder / f"block{block:05d}.npz"
        if path.exists():
            continue
        if parent is not None and not parent.is_alive():
            return  # the main process has stopped; a later run continues from here
        before = folder / (f"block{block - 1:05d}.npz" if block else START_FILE)
        write_npz(path, sample_block(plan, read_arrays(before, ("positions_nm", "velocities_nm_per_ps")), block))


def write_mean_energy_start(plan: Plan, files: list[Path], folder: Path) -> None:
    """Write the start of another trajectory: the end of the block whose total energy is closest to the mean.

    Weakly coupled dynamics keep their initial total energy for longer than a short stretch.
    """
    if (folder / START_FILE).exists():
        return
    ends = [read_arrays(path, ("V", "E")) for path in files]
    total = np.array(
        [end["E"][-1] + 0.5 * (plan.masses[:, None] * end["V"][-1].astype(np.float64) ** 2).sum() for end in ends]
    )
    chosen = files[np.abs(total - total.mean()).argmin()]
    write_npz(folder / START_FILE, read_arrays(chosen, ("positions_nm", "velocities_nm_per_ps")))


def read_arrays(path: Path, keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Selected arrays of a block."""
    with np.load(path, allow_pickle=False) as saved:
        return {key: saved[key] for key in keys}


def _seeds(plan: Plan, block: int, count: int) -> list[int]:
    """Seeds of one block, positive 31-bit integers as OpenMM requires (zero would mean a random seed)."""
    rng = np.random.default_rng([plan.seed, plan.index, block + 1])
    return rng.integers(1, 2**31, size=count).tolist()


def _raw_state(context: openmm.Context) -> dict[str, np.ndarray]:
    """The complete state of the dynamics, in OpenMM's units and bit for bit."""
    state = context.getState(positions=True, velocities=True)
    return {
        "positions_nm": np.array(state.getPositions(asNumpy=True)._value),
        "velocities_nm_per_ps": np.array(state.getVelocities(asNumpy=True)._value),
    }


def _energy_eV(state: openmm.State) -> float:
    return state.getPotentialEnergy()._value * EV_PER_KJ_PER_MOL


def _forces_eV_per_A(state: openmm.State) -> np.ndarray:
    return np.array(state.getForces(asNumpy=True)._value) * EV_PER_KJ_PER_MOL / A_PER_NM
