"""GFN2-xTB Langevin trajectories in blocks that resume bit for bit, the sampling stage of `generate.py`."""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms, units
from ase.io import read
from ase.md.langevin import Langevin
from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation

from mdsim.datasets.npz import write_npz

MOLECULES = Path(__file__).parent / "molecules"
BLOCK_FRAMES = 50
EQUILIBRATION_FRICTION_PER_PS = 10.0
START_FILE = "start.npz"


@dataclass(frozen=True)
class Plan:
    """The settings of one trajectory: start, dynamics and output."""

    geometry: str
    index: int
    seed: int
    temperature_K: float
    timestep_fs: float
    friction_per_ps: float
    equilibration_steps: int
    frames: int
    every: int
    charge: float
    spin: int
    start: str = "equilibrated"  # or "mean-energy": from the state chosen by `write_mean_energy_start`

    @property
    def blocks(self) -> int:
        return -(-self.frames // BLOCK_FRAMES)

    def frames_in(self, block: int) -> int:
        return min(BLOCK_FRAMES, self.frames - block * BLOCK_FRAMES)


def langevin(atoms: Atoms, plan: Plan, friction_per_ps: float, rng: np.random.Generator) -> Langevin:
    """ASE Langevin dynamics with a new GFN2-xTB calculator, so that results depend only on the state."""
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    # fixcm=True would not sample the canonical distribution exactly. Center-of-mass motion is removed from the frames.
    return Langevin(
        atoms,
        plan.timestep_fs * units.fs,
        temperature_K=plan.temperature_K,
        friction=friction_per_ps * 1e-3 / units.fs,
        fixcm=False,
        rng=rng,
    )


def equilibrated(plan: Plan, rng: np.random.Generator) -> Atoms:
    """Atoms with Maxwell-Boltzmann velocities after ``equilibration_steps`` of strongly coupled dynamics."""
    atoms = charged_atoms(plan)
    MaxwellBoltzmannDistribution(atoms, temperature_K=plan.temperature_K, rng=rng)
    langevin(atoms, plan, EQUILIBRATION_FRICTION_PER_PS, rng).run(plan.equilibration_steps)
    Stationary(atoms)
    ZeroRotation(atoms)
    return atoms


def restored(plan: Plan, path: Path, rng: np.random.Generator) -> Atoms:
    """The atoms after the block in ``path``. The state of the random numbers is restored as well, if it was saved."""
    atoms = charged_atoms(plan)
    with np.load(path, allow_pickle=False) as saved:
        atoms.set_positions(saved["positions"])
        atoms.set_momenta(saved["momenta"])
        if "rng" in saved:
            rng.bit_generator.state = json.loads(str(saved["rng"]))
    return atoms


def charged_atoms(plan: Plan) -> Atoms:
    """The starting geometry. The calculator takes total charge and spin from sums over the atoms.

    Trajectories use the structures of the file in turn, and so start from different conformers.
    """
    structures = read_geometries(plan.geometry)
    atoms = structures[plan.index % len(structures)]
    atoms.set_initial_charges([plan.charge / len(atoms)] * len(atoms))
    atoms.set_initial_magnetic_moments([plan.spin / len(atoms)] * len(atoms))
    return atoms


def centered(atoms: Atoms) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Å) and velocities (ASE units) relative to the center of mass."""
    velocities = atoms.get_velocities()
    drift = np.average(velocities, axis=0, weights=atoms.get_masses())
    return atoms.get_positions() - atoms.get_center_of_mass(), velocities - drift


def sample_block(atoms: Atoms, plan: Plan, rng: np.random.Generator, n_frames: int) -> dict[str, np.ndarray]:
    """Run ``n_frames * every`` steps and collect a frame every ``every`` steps."""
    dynamics = langevin(atoms, plan, plan.friction_per_ps, rng)
    frames: dict[str, list] = {"R": [], "V": [], "E": [], "F": []}
    for _ in range(n_frames):
        dynamics.run(plan.every)
        positions, velocities = centered(atoms)
        frames["R"].append(positions)
        frames["V"].append(velocities)
        frames["E"].append(atoms.get_potential_energy())
        frames["F"].append(atoms.get_forces())
    return {key: np.array(value) for key, value in frames.items()}


def sample(plan: Plan, folder: Path) -> None:
    """Run (or finish) one trajectory; each block of frames becomes one file in ``folder``."""
    parent = multiprocessing.parent_process()
    rng = np.random.default_rng([plan.seed, plan.index])
    atoms = None
    for block in range(plan.blocks):
        path = folder / f"block{block:05d}.npz"
        if path.exists():
            continue
        if parent is not None and not parent.is_alive():
            return  # the main process has stopped; a later run continues from here
        if block == 0 and plan.start == "mean-energy":
            atoms = restored(plan, folder / START_FILE, rng)
        elif block == 0:
            atoms = equilibrated(plan, rng)
        elif atoms is None:
            atoms = restored(plan, folder / f"block{block - 1:05d}.npz", rng)
        frames = sample_block(atoms, plan, rng, plan.frames_in(block))
        # Save momenta, because velocities times masses would differ in the last bit.
        state = {"positions": atoms.get_positions(), "momenta": atoms.get_momenta()}
        write_npz(path, frames | state | {"rng": np.array(json.dumps(rng.bit_generator.state))})


def write_mean_energy_start(folders: list[Path], masses: np.ndarray, folder: Path) -> None:
    """Save into ``folder`` the frame of the finished trajectories whose total energy is closest to their mean.

    Weakly coupled dynamics keep their initial total energy for longer than a short stretch. The energy of a random
    equilibrated state has a broad distribution, with a spread of T/sqrt(3N-6) in temperature. From this frame the
    stretch has the temperature of the ensemble.
    """
    arrays = collect(folders, ("R", "V", "E"))
    total = arrays["E"] + 0.5 * (masses[:, None] * arrays["V"] ** 2).sum((1, 2))
    chosen = np.abs(total - total.mean()).argmin()
    state = {"positions": arrays["R"][chosen], "momenta": masses[:, None] * arrays["V"][chosen]}
    write_npz(folder / START_FILE, state)


def block_files(folder: Path) -> list[Path]:
    """The finished blocks of a trajectory in time order."""
    return sorted(folder.glob("block?????.npz"))


def collect(folders: list[Path], keys: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Arrays of all frames of finished trajectories, one after another."""
    blocks = []
    for path in [path for folder in folders for path in block_files(folder)]:
        with np.load(path, allow_pickle=False) as saved:
            blocks.append({key: saved[key] for key in keys})
    return {key: np.concatenate([block[key] for block in blocks]) for key in keys}


def read_geometries(source: str) -> list[Atoms]:
    """All structures in the file of a built-in molecule, or in any file that ASE reads."""
    builtin = MOLECULES / f"{source}.xyz"
    path = builtin if builtin.exists() else Path(source)
    if not path.is_file():
        known = ", ".join(sorted(file.stem for file in MOLECULES.glob("*.xyz")))
        raise SystemExit(f"--molecule {source}: neither a file nor one of the built-in molecules ({known})")
    try:
        structures = read(path, index=":")
    except Exception as error:  # ASE's readers raise arbitrary errors
        raise SystemExit(f"--molecule {path}: ASE cannot read a structure from it ({error})") from error
    if any(atoms.pbc.any() for atoms in structures):
        raise SystemExit(f"--molecule {path}: is periodic; this script makes data of molecules with open boundaries")
    if any(atoms.numbers.tolist() != structures[0].numbers.tolist() for atoms in structures):
        raise SystemExit(f"--molecule {path}: its {len(structures)} structures are not of one molecule, atom by atom")
    return structures
