"""Make a reference data set: GFN2-xTB molecular dynamics of any molecule, written in the data set format.

Several independent Langevin trajectories run in parallel processes (one thread each). Equilibration is discarded, and
frames are kept every ``--every`` steps. If the file of the molecule has several structures, the trajectories start from
them in turn (`build_molecule.py` makes such a file from a SMILES string). A further, weakly thermostatted trajectory is
stored with velocities, for dynamical observables. With ``--contiguous-start mean-energy`` it starts from the sampled
frame whose total energy is closest to the mean. The labels are GFN2-xTB (Bannwarth, Ehlert, Grimme, J. Chem. Theory
Comput. 15, 1652 (2019)), *not* density-functional theory.

Sampling proceeds in blocks (`xtb_dynamics.py`). Each finished block is one file with its frames and the state after
them (positions, velocities, random-number state). Each block starts with a fresh self-consistent field, so a stopped
run continues bit for bit if the same command is repeated.

The test set is the end of each trajectory, after a gap. Training and validation frames are drawn from the frames before
the gap. Every smaller size is part of every larger one.

Examples (the bundled data sets, about 40 minutes on two cores and 25 minutes on one):
    python data/generate.py --molecule aspirin --name aspirin_gfn2 --temperature-K 500 --trajectories 5 \\
        --sizes 40 100 1k 5k --db-path data/bundled
    python data/generate.py --molecule ac_Ala3_NHMe --name ac_ala3_nhme_gfn2 --temperature-K 500 --timestep-fs 1 \\
        --trajectories 4 --equilibration-ps 1.5 --frames 480 --every 10 --contiguous-frames 1000 --contiguous-every 2 \\
        --contiguous-start mean-energy --test-frames 400 --gap-frames 20 --sizes 5percent 25percent 100percent \\
        --db-path data/bundled
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import asdict, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from xtb_dynamics import Plan, block_files, collect, read_geometries, sample, write_mean_energy_start

from mdsim.datasets.folder import Metadata, read_metadata, write_dataset
from mdsim.datasets.npz import UNITS, Frames, write_atomically
from mdsim.datasets.splits import block_holdout, format_indices, nested_splits
from mdsim.reporting.live import Bar

STRUCTURAL_FRICTION_PER_PS = 1.0
CONTIGUOUS_FRICTION_PER_PS = 0.1  # weak, so that time correlations are those of the molecule
NOT_SETTINGS = ("db_path", "work_path", "workers")  # they do not affect the data


def run_all(plans: list, folders: list[Path], workers: int, sample: Callable = sample, label: str = "GFN2-xTB") -> None:
    """Run all trajectories in parallel single-threaded processes, with one progress bar for all frames."""

    def frames_on_disk() -> int:
        blocks = [(plan, path) for plan, folder in zip(plans, folders, strict=True) for path in block_files(folder)]
        return sum(plan.frames_in(int(path.stem[-5:])) for plan, path in blocks)

    os.environ["OMP_NUM_THREADS"] = "1"  # read by the spawned processes; one thread per trajectory is fastest
    total, done = sum(plan.frames for plan in plans), frames_on_disk()
    if done == total:
        return
    with (
        ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as pool,
        Bar(total=total, initial=done, unit="frames", desc=label) as bar,
    ):
        pending = {pool.submit(sample, plan, folder) for plan, folder in zip(plans, folders, strict=True)}
        try:
            while pending:
                finished, pending = wait(pending, timeout=1.0, return_when=FIRST_COMPLETED)
                bar.update(frames_on_disk() - bar.n)
                for future in finished:
                    future.result()
        except BaseException:  # including Ctrl-C; otherwise the other trajectories would run to the end first
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def make_plans(arguments: argparse.Namespace) -> list[Plan]:
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
    structural = {"frames": arguments.frames, "every": arguments.every, "friction_per_ps": STRUCTURAL_FRICTION_PER_PS}
    contiguous = {
        "frames": arguments.contiguous_frames,
        "every": arguments.contiguous_every,
        "friction_per_ps": CONTIGUOUS_FRICTION_PER_PS,
        "start": arguments.contiguous_start,
    }
    kept = [structural] * arguments.trajectories + [contiguous]
    return [Plan(index=index, **own, **common) for index, own in enumerate(kept)]


def work_folders(plans: list, work: Path) -> list[Path]:
    """The folder of each trajectory, with its plan. Folders with other settings are refused."""
    folders = [work / f"trajectory{plan.index:03d}" for plan in plans]
    for plan, folder in zip(plans, folders, strict=True):
        file = folder / "plan.json"
        if file.exists() and _read_plan(file) != asdict(plan):
            raise SystemExit(f"{file}: holds a trajectory with other settings; choose another --work-path or delete it")
    for plan, folder in zip(plans, folders, strict=True):
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(plan))
        write_atomically(folder / "plan.json", lambda file, text=text: file.write(text.encode()))
    return folders


def _read_plan(file: Path) -> dict:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SystemExit(
            f"{file}: is damaged, so that it is not known what was sampled here; choose another --work-path or delete "
            f"the folder ({error})"
        ) from error


def check_target(target: Path, settings: dict, defaults: dict) -> None:
    """Refuse to mix data sets: existing files must have been made with the same settings.

    Options that did not exist at that time count as defaults.
    """
    for path in sorted(target.glob("*/metadata.json")):
        there = defaults | read_metadata(path).settings
        other = sorted(key for key in settings | there if settings.get(key) != there.get(key))
        if other:
            raise SystemExit(
                f"{path}: was made with other settings ({', '.join(other)}); choose another --name or delete it"
            )


def describe(arguments: argparse.Namespace, settings: dict, atomic_numbers: np.ndarray) -> Metadata:
    """Metadata common to all sizes. The indices of the split are added for each size."""
    options = [
        f"--{key.replace('_', '-')} {' '.join(map(str, np.atleast_1d(value)))}" for key, value in settings.items()
    ]
    programs = {name: version(name) for name in ("tblite", "ase", "numpy")} | {"python": platform.python_version()}
    return Metadata(
        source=(
            "Langevin molecular dynamics with ASE and tblite: structural frames from independent trajectories with a "
            f"friction of {STRUCTURAL_FRICTION_PER_PS}/ps, contiguous frames with {CONTIGUOUS_FRICTION_PER_PS}/ps"
        ),
        level_of_theory="GFN2-xTB (semi-empirical tight binding; not density-functional theory)",
        license="MIT",
        atomic_numbers=atomic_numbers.tolist(),
        temperature_K=arguments.temperature_K,
        timestep_fs=arguments.timestep_fs,
        structural_frame_interval_fs=arguments.timestep_fs * arguments.every,
        contiguous_frame_interval_fs=arguments.timestep_fs * arguments.contiguous_every,
        split={},
        program_versions=programs,
        command=f"python data/generate.py {' '.join(options)}",
        settings=settings,
        units=UNITS,
        n_frames={},
        sha256={},
    )


def write_sizes(target: Path, folders: list[Path], arguments: argparse.Namespace, metadata: Metadata) -> None:
    """Divide the frames of finished trajectories and write every size into ``target``."""
    structural = torch_arrays(collect(folders[:-1], ("R", "E", "F")))
    contiguous = torch_arrays(collect(folders[-1:], ("R", "V", "E")))
    numbers = torch.tensor(metadata.atomic_numbers)
    labeled = Frames(numbers, structural["R"], structural["E"], forces=structural["F"])
    pool, test, splits = divide(arguments)
    shared = {
        "test": labeled[torch.from_numpy(test)],
        "contiguous": Frames(numbers, contiguous["R"], contiguous["E"], velocities=contiguous["V"]),
    }
    for size, split in splits.items():
        indices = {"train": pool[split.train], "val": pool[split.val], "test": test}
        own = {name: labeled[torch.from_numpy(indices[name])] for name in ("train", "val")}
        text = {name: format_indices(chosen) for name, chosen in indices.items()}
        described = {
            "method": "test: end of each trajectory, behind a gap; train and val: nested random sizes of the rest",
            "seed": arguments.seed,
            "indices": text,  # in the concatenation of the structural trajectories
        }
        write_dataset(target / size, own, shared, replace(metadata, split=described))


def torch_arrays(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(array) for key, array in arrays.items()}


def divide(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, dict]:
    """Indices of the pool and the test set, and the nested splits of the pool."""
    lengths = [arguments.frames] * arguments.trajectories
    pool, test = block_holdout(lengths, arguments.test_frames, arguments.gap_frames)
    return pool, test, nested_splits(len(pool), arguments.sizes, arguments.seed)


def positive(text: str) -> int:
    """An argument that counts something."""
    if int(text) < 1:
        raise ValueError
    return int(text)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--molecule", required=True, help="initial structures: a built-in molecule, or a file that ASE reads"
    )
    parser.add_argument("--name", required=True, help="name of the data set, e.g. aspirin_gfn2")
    parser.add_argument("--temperature-K", type=float, default=500.0)
    parser.add_argument("--timestep-fs", type=float, default=0.5)
    parser.add_argument("--trajectories", type=positive, default=8, help="independent trajectories")
    parser.add_argument("--equilibration-ps", type=float, default=3.0, help="discarded at the start of each trajectory")
    parser.add_argument("--frames", type=positive, default=1400, help="frames kept per trajectory")
    parser.add_argument("--every", type=positive, default=30, help="steps between kept frames")
    parser.add_argument("--contiguous-frames", type=positive, default=3000, help="frames in the time-ordered stretch")
    parser.add_argument("--contiguous-every", type=positive, default=4, help="steps between its frames")
    parser.add_argument("--contiguous-start", choices=["equilibrated", "mean-energy"], default="equilibrated")
    parser.add_argument(
        "--test-frames", type=positive, default=1000, help="test frames, at the ends of the trajectories"
    )
    parser.add_argument(
        "--gap-frames", type=int, default=25, help="unused frames before the test frames of each trajectory"
    )
    parser.add_argument(
        "--sizes", nargs="+", default=["40", "100", "1k", "10k"], help="data set sizes: frames (1k) or 25percent"
    )
    parser.add_argument("--charge", type=float, default=0.0, help="total charge of the molecule")
    parser.add_argument("--unpaired-electrons", type=int, default=0)
    parser.add_argument("--seed", type=int, default=2024, help="seed of the dynamics and of the split")
    parser.add_argument("--workers", type=positive, default=os.cpu_count())
    parser.add_argument("--db-path", type=Path, required=True, help="folder of all data sets")
    parser.add_argument("--work-path", type=Path, help="folder for unfinished trajectories [work/NAME/MOLECULE]")
    return parser


def sample_all(arguments: argparse.Namespace, plans: list[Plan], folders: list[Path], masses: np.ndarray) -> None:
    """Run all trajectories. The contiguous one is last if it starts from a frame of the others."""
    if arguments.contiguous_start == "mean-energy":
        run_all(plans[:-1], folders[:-1], arguments.workers)
        write_mean_energy_start(folders[:-1], masses, folders[-1])
        run_all(plans[-1:], folders[-1:], arguments.workers)
    else:
        run_all(plans, folders, arguments.workers)


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    molecule = Path(arguments.molecule).stem
    target = arguments.db_path / arguments.name / molecule
    settings = {key: value for key, value in vars(arguments).items() if key not in NOT_SETTINGS}
    atoms = read_geometries(arguments.molecule)[0]
    if find_spec("tblite") is None:
        raise SystemExit("GFN2-xTB needs the package tblite: pip install 'mdsim[data]'")
    # Find all errors now, not after hours of sampling.
    check_target(target, settings, {key: parser.get_default(key) for key in settings})
    try:
        divide(arguments)
    except ValueError as error:
        raise SystemExit(f"--frames, --test-frames, --gap-frames and --sizes do not fit: {error}") from error
    plans = make_plans(arguments)
    folders = work_folders(plans, arguments.work_path or Path("work", arguments.name, molecule))
    sample_all(arguments, plans, folders, atoms.get_masses())
    write_sizes(target, folders, arguments, describe(arguments, settings, atoms.numbers))
    print(f"{target}: wrote the sizes {', '.join(arguments.sizes)}")


if __name__ == "__main__":
    main()
