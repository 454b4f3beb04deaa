"""Make a reference data set: GFN2-xTB molecular dynamics of any molecule, written in the data set format.

Several independent Langevin trajectories are run in parallel processes (one thread each), equilibration is
discarded, and frames are kept every ``--every`` steps. A further, weakly thermostatted trajectory is kept
frame by frame with velocities, for dynamical observables. The labels are GFN2-xTB
(Bannwarth, Ehlert, Grimme, J. Chem. Theory Comput. 15, 1652 (2019)), *not* density-functional theory.

Sampling advances in blocks of ``BLOCK_FRAMES`` frames. Each finished block is one file that holds its frames and
the state after them (positions, velocities, random-number state), and each block starts with a fresh
self-consistent field, so a killed run continues bit for bit where it stopped: rerun the same command.

Example:
    python data/generate.py --molecule aspirin --name aspirin_gfn2 --temperature-K 500 --db-path data/bundled
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

MOLECULES = Path(__file__).parent / "molecules"
BLOCK_FRAMES = 50
EQUILIBRATION_FRICTION_PER_PS = 10.0


@dataclass(frozen=True)
class Plan:
    """One trajectory: how it starts, how it moves and what is kept."""

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

    @property
    def blocks(self) -> int:
        return -(-self.frames // BLOCK_FRAMES)

    def frames_in(self, block: int) -> int:
        return min(BLOCK_FRAMES, self.frames - block * BLOCK_FRAMES)


def write_atomically(path: Path, **arrays: np.ndarray) -> None:
    """Write an npz file under a temporary name, then rename it."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, **arrays)
    os.replace(temporary, path)


def langevin(atoms, plan: Plan, friction_per_ps: float, rng: np.random.Generator):
    """ASE Langevin dynamics with a fresh GFN2-xTB calculator, so that it depends on the state alone."""
    from ase import units
    from ase.md.langevin import Langevin
    from tblite.ase import TBLite

    atoms.calc = TBLite(method="GFN2-xTB", verbosity=0)
    # fixcm=True would not sample the canonical distribution exactly; the centre of mass is removed from the frames.
    return Langevin(
        atoms,
        plan.timestep_fs * units.fs,
        temperature_K=plan.temperature_K,
        friction=friction_per_ps * 1e-3 / units.fs,
        fixcm=False,
        rng=rng,
    )


def equilibrated(plan: Plan, rng: np.random.Generator):
    """Atoms with Maxwell-Boltzmann velocities after ``equilibration_steps`` of strongly coupled dynamics."""
    from ase.md.velocitydistribution import MaxwellBoltzmannDistribution, Stationary, ZeroRotation

    atoms = read_geometry(plan.geometry)
    atoms.set_initial_charges([plan.charge / len(atoms)] * len(atoms))
    atoms.set_initial_magnetic_moments([plan.spin / len(atoms)] * len(atoms))
    MaxwellBoltzmannDistribution(atoms, temperature_K=plan.temperature_K, rng=rng)
    langevin(atoms, plan, EQUILIBRATION_FRICTION_PER_PS, rng).run(plan.equilibration_steps)
    Stationary(atoms)
    ZeroRotation(atoms)
    return atoms


def centred(atoms) -> tuple[np.ndarray, np.ndarray]:
    """Positions (Å) and velocities (ASE units) relative to the centre of mass."""
    velocities = atoms.get_velocities()
    drift = np.average(velocities, axis=0, weights=atoms.get_masses())
    return atoms.get_positions() - atoms.get_center_of_mass(), velocities - drift


def sample_block(atoms, plan: Plan, rng: np.random.Generator, n_frames: int) -> dict[str, np.ndarray]:
    """Run ``n_frames * every`` steps and collect a frame after each ``every`` of them."""
    dynamics = langevin(atoms, plan, plan.friction_per_ps, rng)
    frames: dict[str, list] = {"R": [], "V": [], "E": [], "F": []}
    for _ in range(n_frames):
        dynamics.run(plan.every)
        positions, velocities = centred(atoms)
        frames["R"].append(positions)
        frames["V"].append(velocities)
        frames["E"].append(atoms.get_potential_energy())
        frames["F"].append(atoms.get_forces())
    return {key: np.array(value) for key, value in frames.items()}


def sample(plan: Plan, folder: Path, progress=None) -> Path:
    """Run (or finish) one trajectory; each block of frames becomes one file in ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    plan_file = folder / "plan.json"
    if plan_file.exists() and json.loads(plan_file.read_text()) != asdict(plan):
        raise SystemExit(f"{plan_file}: holds a trajectory with other settings; choose another --work-path or delete it")
    plan_file.write_text(json.dumps(asdict(plan)))

    rng = np.random.default_rng([plan.seed, plan.index])
    atoms = None
    for block in range(plan.blocks):
        path = folder / f"block{block:05d}.npz"
        if path.exists():
            continue
        if block == 0:
            atoms = equilibrated(plan, rng)
        elif atoms is None:
            atoms = restore(plan, folder / f"block{block - 1:05d}.npz", rng)
        frames = sample_block(atoms, plan, rng, plan.frames_in(block))
        write_atomically(
            path,
            **frames,
            positions=atoms.get_positions(),
            velocities=atoms.get_velocities(),
            rng=np.array(json.dumps(rng.bit_generator.state)),
        )
        if progress is not None:
            progress.put(len(frames["E"]))
    return folder


def restore(plan: Plan, path: Path, rng: np.random.Generator):
    """The atoms and random numbers as they were after the block in ``path``."""
    atoms = read_geometry(plan.geometry)
    atoms.set_initial_charges([plan.charge / len(atoms)] * len(atoms))
    atoms.set_initial_magnetic_moments([plan.spin / len(atoms)] * len(atoms))
    with np.load(path, allow_pickle=False) as saved:
        atoms.set_positions(saved["positions"])
        atoms.set_velocities(saved["velocities"])
        rng.bit_generator.state = json.loads(str(saved["rng"]))
    return atoms


def collect(folder: Path) -> dict[str, np.ndarray]:
    """All frames of a finished trajectory in time order."""
    blocks = []
    for path in sorted(folder.glob("block*[0-9].npz")):
        with np.load(path, allow_pickle=False) as saved:
            blocks.append({key: saved[key] for key in ("R", "V", "E", "F")})
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def read_geometry(source: str):
    """Atoms of a built-in molecule, or of any file that ASE reads."""
    from ase.io import read

    builtin = MOLECULES / f"{source}.xyz"
    path = builtin if builtin.exists() else Path(source)
    if not path.exists():
        known = ", ".join(sorted(file.stem for file in MOLECULES.glob("*.xyz")))
        raise SystemExit(f"--molecule {source}: neither a file nor one of the built-in molecules ({known})")
    return read(path)


def plans(arguments: argparse.Namespace) -> list[Plan]:
    """The structural trajectories, then the contiguous one."""
    common = {
        "geometry": arguments.molecule,
        "seed": arguments.seed,
        "temperature_K": arguments.temperature_K,
        "timestep_fs": arguments.timestep_fs,
        "equilibration_steps": round(arguments.equilibration_ps * 1000 / arguments.timestep_fs),
        "charge": arguments.charge,
        "spin": arguments.unpaired_electrons,
    }
    structural = [
        Plan(index=index, frames=arguments.frames, every=arguments.every, friction_per_ps=1.0, **common)
        for index in range(arguments.trajectories)
    ]
    contiguous = Plan(
        index=arguments.trajectories,
        frames=arguments.contiguous_frames,
        every=arguments.contiguous_every,
        friction_per_ps=0.1,
        **common,
    )
    return [contiguous, *structural] if arguments.contiguous_frames else structural


def run_all(all_plans: list[Plan], work: Path, workers: int) -> list[Path]:
    """Run every trajectory in parallel single-threaded processes, with one progress bar over all frames."""
    os.environ["OMP_NUM_THREADS"] = "1"  # read by the spawned processes: one thread a trajectory is fastest
    context = multiprocessing.get_context("spawn")
    folders = [work / f"trajectory{plan.index:03d}" for plan in all_plans]
    done = sum(
        plan.frames_in(int(path.stem[-5:]))
        for plan, folder in zip(all_plans, folders, strict=True)
        for path in folder.glob("block*[0-9].npz")
    )
    total = sum(plan.frames for plan in all_plans)
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(workers, mp_context=context) as pool,
        tqdm(total=total, initial=done, unit="frame", desc="GFN2-xTB", mininterval=2.0) as bar,
    ):
        progress = manager.Queue()
        futures = {pool.submit(sample, plan, folder, progress) for plan, folder in zip(all_plans, folders, strict=True)}
        while futures:
            finished = {future for future in futures if future.done()}
            for future in finished:
                future.result()
            futures -= finished
            while not progress.empty():
                bar.update(progress.get())
            if futures:
                next(iter(as_completed(futures, timeout=None))) if len(futures) < 0 else _pause()
    return folders


def _pause() -> None:
    import time

    time.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--molecule", required=True, help="a built-in molecule or a file that ASE reads")
    parser.add_argument("--temperature-K", type=float, default=500.0, dest="temperature_K")
    parser.add_argument("--timestep-fs", type=float, default=0.5)
    parser.add_argument("--trajectories", type=int, default=8, help="independent trajectories")
    parser.add_argument("--equilibration-ps", type=float, default=3.0, help="discarded at the start of each")
    parser.add_argument("--frames", type=int, default=1400, help="frames kept of each trajectory")
    parser.add_argument("--every", type=int, default=30, help="steps between kept frames")
    parser.add_argument("--contiguous-frames", type=int, default=3000, help="length of the time-ordered stretch")
    parser.add_argument("--contiguous-every", type=int, default=4, help="steps between its frames")
    parser.add_argument("--charge", type=float, default=0.0, help="total charge of the molecule")
    parser.add_argument("--unpaired-electrons", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--work-path", type=Path, required=True, help="unfinished trajectories are kept here")
    arguments = parser.parse_args()
    folders = run_all(plans(arguments), arguments.work_path, arguments.workers)
    print("\n".join(map(str, folders)))


if __name__ == "__main__":
    sys.exit(main())
