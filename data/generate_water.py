"""Make a reference data set of liquid water: flexible SPC (SPC/Fw) molecular dynamics with OpenMM.

The system is that of "Forces are Not Enough" (arXiv 2210.07237): 64 molecules at 300 K and 1 g/cm³ in a cube of
12.417 Å, with steps of 1 fs and a frame every 10 fs. The labels are those of a classical force field, *not* quantum
mechanics. They are fast and exact, and stable simulation is as difficult for a machine-learned force field as for any
liquid.

Sampling (`openmm_water.py`): each trajectory starts from a lattice and is equilibrated with strong coupling
(discarded). It then runs with weak friction (0.1/ps), which samples the canonical ensemble over hundreds of ps and
slows diffusion by only 0.1 %. Structure and dynamics thus come from one run. Energies decorrelate in about 20 ps. With
0.5/ps this would be 5 ps, at the cost of 0.6 % of the diffusivity. Every frame is stored with positions, velocities,
energy and forces, in blocks of 5 ps. A stopped run continues bit for bit if the same command is repeated.

The output consists of (1) test frames, evenly spaced over the end of each trajectory, after a gap; (2) nested training
and validation sets, drawn at random from the frames before the gap; (3) `reference.npz`, the RDFs and mean squared
displacements of all frames, by blocks; and (4) `contiguous.npz`, a short stretch with more frequent frames.
Positions are unwrapped, as required by the data set format. `mdsim.geometry.wrap` wraps them.

Examples (the bundled set, 20 to 25 minutes on one core; and the full one of 1 ns, 100,000 frames):
    python data/generate_water.py --frames 80000 --sizes 20 100 1k --test-frames 250 --test-every 40 \
        --db-path data/bundled
    python data/generate_water.py --frames 100000 --sizes 1k 10k 50k --test-frames 10000 --db-path DATAPATH
"""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from generate import check_target, positive, run_all, work_folders
from openmm_water import (
    BLOCK_FRAMES,
    CUTOFF_A,
    EWALD_TOLERANCE,
    NUMBERS,
    SWITCH_FROM_A,
    Plan,
    box_length_A,
    read_arrays,
    sample,
    write_mean_energy_start,
)
from xtb_dynamics import block_files, collect

from mdsim.datasets.folder import Metadata, write_dataset
from mdsim.datasets.npz import UNITS, Frames
from mdsim.datasets.reference_run import ReferenceRun, tabulate
from mdsim.datasets.splits import block_holdout, format_indices, nested_splits
from mdsim.datasets.systems import system_of
from mdsim.state import Trajectory

MOLECULE = "water"
RDF_BIN_WIDTH_A = 0.002
MSD_LAG_FS = 20.0
NOT_SETTINGS = ("db_path", "work_path", "workers")  # they do not affect the data


def make_plans(arguments: argparse.Namespace) -> list[Plan]:
    """The long trajectories, then the contiguous one."""
    common = {
        "seed": arguments.seed,
        "molecules": arguments.molecules,
        "density_g_per_cm3": arguments.density_g_per_cm3,
        "temperature_K": arguments.temperature_K,
        "timestep_fs": arguments.timestep_fs,
        "friction_per_ps": arguments.friction_per_ps,
        "equilibration_steps": round(arguments.equilibration_ps * 1000 / arguments.timestep_fs),
    }
    kept = [{"frames": arguments.frames, "every": arguments.every}] * arguments.trajectories
    kept.append({"frames": arguments.contiguous_frames, "every": arguments.contiguous_every})
    return [Plan(index=index, **own, **common) for index, own in enumerate(kept)]


def sample_all(plans: list[Plan], folders: list[Path], workers: int) -> None:
    """Run the long trajectories, then the contiguous one from a state with their mean energy."""
    run_all(plans[:-1], folders[:-1], workers, sample, "SPC/Fw")
    ends = [path for folder in folders[:-1] for path in block_files(folder)]
    write_mean_energy_start(plans[-1], ends, folders[-1])
    run_all(plans[-1:], folders[-1:], workers, sample, "contiguous")


def divide(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray, dict]:
    """Indices of the pool and of the test set, and the nested splits of the pool."""
    lengths = [arguments.frames] * arguments.trajectories
    held_out = arguments.test_frames * arguments.test_every
    pool, test = block_holdout(lengths, held_out, arguments.gap_frames)
    return pool, test[:: arguments.test_every], nested_splits(len(pool), arguments.sizes, arguments.seed)


def frames_at(folders: list[Path], indices: np.ndarray, plan: Plan, cell: torch.Tensor) -> Frames:
    """Selected frames of the concatenated trajectories with their labels. One block is in memory at a time."""
    files = [path for folder in folders for path in block_files(folder)]
    lengths = [plan.frames_in(int(path.stem[-5:])) for path in files]
    chosen: dict[str, list[np.ndarray]] = {"R": [], "E": [], "F": []}
    start = 0
    for path, length in zip(files, lengths, strict=True):
        here = indices[(indices >= start) & (indices < start + length)] - start
        if len(here):
            for key, array in read_arrays(path, tuple(chosen)).items():
                chosen[key].append(array[here])
        start += length
    arrays = {key: torch.from_numpy(np.concatenate(pieces)) for key, pieces in chosen.items()}
    return Frames(atomic_numbers(plan), arrays["R"], arrays["E"], forces=arrays["F"], cell=cell)


def stretches(folders: list[Path], plan: Plan, frames_each: int) -> Iterator[Trajectory]:
    """Stretches of equal length from every trajectory. The remainder at its end is not used."""
    interval_fs = plan.every * plan.timestep_fs
    for folder in folders:
        files = block_files(folder)
        for first in range(0, plan.frames - frames_each + 1, frames_each):
            blocks = files[first // BLOCK_FRAMES : -(-(first + frames_each) // BLOCK_FRAMES)]
            positions = np.concatenate([read_arrays(path, ("R",))["R"] for path in blocks])
            offset = first % BLOCK_FRAMES
            own = torch.from_numpy(positions[offset : offset + frames_each])
            yield Trajectory(own[:, None], None, None, interval_fs)


def reference_run(folders: list[Path], plan: Plan, labeled: Frames, arguments: argparse.Namespace) -> ReferenceRun:
    """RDFs of all element pairs, and mean squared displacements of the oxygens."""
    frames_each = arguments.frames * arguments.trajectories // arguments.reference_blocks
    return tabulate(
        system_of(labeled),
        stretches(folders, plan, min(frames_each, arguments.frames)),
        pairs=(("O", "O"), ("O", "H"), ("H", "H")),
        elements=("O",),
        rdf_bin_width_A=RDF_BIN_WIDTH_A,
        max_lag_fs=arguments.msd_max_lag_ps * 1000,
        lag_fs=MSD_LAG_FS,
    )


def atomic_numbers(plan: Plan) -> torch.Tensor:
    return torch.tensor(NUMBERS).repeat(plan.molecules)


def describe(arguments: argparse.Namespace, settings: dict) -> Metadata:
    """Metadata common to all sizes. The indices of the split are added for each size."""
    options = [
        f"--{key.replace('_', '-')} {' '.join(map(str, np.atleast_1d(value)))}" for key, value in settings.items()
    ]
    box_A = box_length_A(arguments.molecules, arguments.density_g_per_cm3)
    programs = {name: version(name) for name in ("openmm", "ase", "numpy")} | {"python": platform.python_version()}
    return Metadata(
        source=(
            f"Langevin molecular dynamics with OpenMM, friction {arguments.friction_per_ps:g}/ps: "
            f"{arguments.molecules} molecules in a cube of {box_A:.4f} Å"
        ),
        level_of_theory=(
            "SPC/Fw, a classical flexible point-charge model of water (not quantum mechanics): Wu, Tepper, Voth, "
            f"J. Chem. Phys. 124, 024503 (2006); Lennard-Jones switched off from {SWITCH_FROM_A} to {CUTOFF_A} Å "
            f"without tail correction, particle-mesh Ewald with tolerance {EWALD_TOLERANCE:g}"
        ),
        license="MIT",
        atomic_numbers=list(NUMBERS) * arguments.molecules,
        temperature_K=arguments.temperature_K,
        timestep_fs=arguments.timestep_fs,
        structural_frame_interval_fs=arguments.timestep_fs * arguments.every,
        contiguous_frame_interval_fs=arguments.timestep_fs * arguments.contiguous_every,
        split={},
        program_versions=programs,
        command=f"python data/generate_water.py {' '.join(options)}",
        settings=settings,
        units=UNITS,
        n_frames={},
        sha256={},
    )


def write_sizes(
    target: Path, plans: list[Plan], folders: list[Path], arguments: argparse.Namespace, metadata: Metadata
) -> None:
    """Divide the frames of finished trajectories and write every size into ``target``."""
    plan, cell = plans[0], plans[0].box_length_A * torch.eye(3, dtype=torch.float64)
    pool, test, splits = divide(arguments)
    stretch = {key: torch.from_numpy(array) for key, array in collect(folders[-1:], ("R", "V", "E")).items()}
    shared = {
        "test": frames_at(folders[:-1], test, plan, cell),
        "contiguous": Frames(atomic_numbers(plan), stretch["R"], stretch["E"], velocities=stretch["V"], cell=cell),
    }
    run = reference_run(folders[:-1], plan, shared["test"], arguments)
    for size, split in splits.items():
        indices = {"train": pool[split.train], "val": pool[split.val], "test": test}
        own = {name: frames_at(folders[:-1], indices[name], plan, cell) for name in ("train", "val")}
        described = {
            "method": "test: evenly spaced over the end of each trajectory, behind a gap; train and val: nested random "
            "sizes of the rest",
            "seed": arguments.seed,
            "indices": {name: format_indices(chosen) for name, chosen in indices.items()},
        }
        write_dataset(target / size, own, shared, replace(metadata, split=described), run)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="water_spcfw", help="name of the data set")
    parser.add_argument("--molecules", type=positive, default=64)
    parser.add_argument("--density-g-per-cm3", type=float, default=1.0)
    parser.add_argument("--temperature-K", type=float, default=300.0)
    parser.add_argument("--timestep-fs", type=float, default=1.0)
    parser.add_argument(
        "--friction-per-ps", type=float, default=0.1, help="friction, weak because it slows diffusion (see above)"
    )
    parser.add_argument("--trajectories", type=positive, default=1, help="independent trajectories")
    parser.add_argument(
        "--equilibration-ps", type=float, default=30.0, help="discarded at the start of each trajectory"
    )
    parser.add_argument("--frames", type=positive, default=100000, help="frames kept per trajectory")
    parser.add_argument("--every", type=positive, default=10, help="steps between kept frames")
    parser.add_argument(
        "--contiguous-frames", type=positive, default=400, help="frames in the stretch of frequent frames"
    )
    parser.add_argument("--contiguous-every", type=positive, default=4, help="steps between its frames")
    parser.add_argument(
        "--test-frames", type=positive, default=10000, help="test frames, at the ends of the trajectories"
    )
    parser.add_argument("--test-every", type=positive, default=1, help="frames between test frames")
    parser.add_argument(
        "--gap-frames", type=int, default=1000, help="unused frames before the test frames of each trajectory"
    )
    parser.add_argument(
        "--reference-blocks", type=positive, default=10, help="blocks for the errors of reference observables"
    )
    parser.add_argument("--msd-max-lag-ps", type=float, default=20.0, help="longest lag of the reference displacements")
    parser.add_argument(
        "--sizes", nargs="+", default=["1k", "10k", "50k"], help="data set sizes: frames (1k) or 25percent"
    )
    parser.add_argument("--seed", type=int, default=2024, help="seed of the dynamics and of the split")
    parser.add_argument("--workers", type=positive, default=os.cpu_count())
    parser.add_argument("--db-path", type=Path, required=True, help="folder of all data sets")
    parser.add_argument("--work-path", type=Path, help="folder for unfinished trajectories [work/NAME/water]")
    return parser


def check(arguments: argparse.Namespace) -> None:
    """Check now for errors that would otherwise appear after hours of sampling."""
    if find_spec("openmm") is None:
        raise SystemExit("SPC/Fw water needs the package openmm: pip install 'mdsim[water]'")
    try:
        divide(arguments)
    except ValueError as error:
        raise SystemExit(f"--frames, --test-frames, --gap-frames and --sizes do not fit: {error}") from error
    box_A = box_length_A(arguments.molecules, arguments.density_g_per_cm3)
    if not box_A > 2 * CUTOFF_A:
        raise SystemExit(f"--molecules, --density-g-per-cm3: the box of {box_A:.2f} Å must exceed {2 * CUTOFF_A:g} Å")
    interval_fs = arguments.timestep_fs * arguments.every
    if arguments.reference_blocks < 2 or arguments.reference_blocks % arguments.trajectories:
        raise SystemExit("--reference-blocks: two or more, and a multiple of --trajectories")
    if abs(MSD_LAG_FS / interval_fs - round(MSD_LAG_FS / interval_fs)) > 1e-6:
        raise SystemExit(f"--timestep-fs, --every: frames {interval_fs:g} fs apart do not divide {MSD_LAG_FS:g} fs")
    block_ps = arguments.frames * arguments.trajectories // arguments.reference_blocks * interval_fs / 1000
    if not arguments.msd_max_lag_ps < block_ps:
        raise SystemExit(f"--msd-max-lag-ps {arguments.msd_max_lag_ps:g}: blocks are only {block_ps:g} ps long")


def main() -> None:
    parser = make_parser()
    arguments = parser.parse_args()
    check(arguments)
    target = arguments.db_path / arguments.name / MOLECULE
    settings = {key: value for key, value in vars(arguments).items() if key not in NOT_SETTINGS}
    check_target(target, settings, {key: parser.get_default(key) for key in settings})
    plans = make_plans(arguments)
    folders = work_folders(plans, arguments.work_path or Path("work", arguments.name, MOLECULE))
    sample_all(plans, folders, arguments.workers)
    write_sizes(target, plans, folders, arguments, describe(arguments, settings))
    print(f"{target}: wrote the sizes {', '.join(arguments.sizes)}")


if __name__ == "__main__":
    main()
