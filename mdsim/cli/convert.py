"""`mdsim data convert`: conversion of custom frames to a data set."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mdsim.atomic_energies import fault_of_table
from mdsim.cli.shared import key_value, positive, run
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.datasets.sources import mixed, own
from mdsim.datasets.sources.ase_files import Reading
from mdsim.datasets.sources.convert import NOT_STATED, Description, Excerpt, describe_again, is_there
from mdsim.datasets.sources.raw import ENERGY_UNITS_EV, FORCE_UNITS_EV_PER_A, LENGTH_UNITS_A, Units
from mdsim.errors import DatasetError
from mdsim.reporting.console import format_table

DESCRIPTION = """Convert custom frames to a data set.

Supported are all formats of ASE (extended xyz, also with custom label names, .traj, ASE databases, VASP, Quantum
ESPRESSO, ...), position and force files of CP2K, npz files of the sGDML collection, and DeePMD folders.

Examples:
    python data/convert.py frames.extxyz --name mine --molecule ethanol --size 1k --db_path DATAPATH
    python data/convert.py mace.xyz --energy-key REF_energy --forces-key REF_forces --name mine --molecule x
    python data/convert.py run1.traj run2.traj --split blocks --gap-frames 50 --size 1k --name mine --molecule x \\
        --frame-interval-fs 0.5 --contiguous 0:5000 --temperature-K 300
    python data/convert.py many_molecules.extxyz --mixed --name mine --molecule all
    python data/convert.py water_system/ --name water_dft --molecule water --size 200

Sizes count training and validation frames together; all sizes share their test frames.
"""


def named_unit(table: dict[str, float]):
    """Argument type: the name of a unit in any capitalization."""
    names = {name.lower(): name for name in table}

    def parse(text: str) -> str:
        if text.lower() not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(table)}")
        return names[text.lower()]

    return parse


def stretch(text: str) -> Excerpt:
    """Argument type: START:STOP."""
    start, _, stop = text.partition(":")
    first, end = int(start or 0), int(stop)
    if not 0 <= first < end:
        raise ValueError
    return Excerpt(end - first, first)


def atomic_energies(text: str) -> dict[str, float]:
    """Argument type: a JSON object of energies (eV) by chemical symbol."""
    try:
        table = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError(f'{text[:60]!r} is not JSON such as {{"H": -13.6}}') from error
    if (fault := fault_of_table(table)) is not None:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} must be {fault}")
    return table


def make_parser(prog: str | None = None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog, description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("files", type=Path, nargs="+", help="files of frames of one system, or DeePMD folders")
    add("--name", required=True, help="name of the data set")
    add("--molecule", required=True, help="the system")
    add("--size", nargs="+", default=["100percent"], help="frames (40, 1k) or per cent (25percent) [100percent]")
    add("--db_path", "--db-path", type=Path, default=Path("DATAPATH"), help="root of the data sets [DATAPATH]")
    add("--mixed", action="store_true", help="make a data set of several compositions and cells")
    add("--dry_run", "--dry-run", action="store_true", help="print the findings, write nothing")
    _add_reading(parser.add_argument_group("reading"))
    _add_dividing(parser.add_argument_group("dividing"))
    _add_description(parser.add_argument_group("description, for metadata.json"))
    return parser


def _add_reading(reading: argparse._ArgumentGroup) -> None:
    reading.add_argument("--energy-key", help="name of the energies in the file")
    reading.add_argument("--forces-key", help="name of the forces in the file")
    reading.add_argument(
        "--stress-key", help="name of the stresses or virials in the file; none: leave them aside [recognized]"
    )
    reading.add_argument("--format", help="name of the format in ASE")
    reading.add_argument("--formula", help="keep the frames of this composition, e.g. C9H8O4")
    reading.add_argument(
        "--where",
        type=key_value,
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="keep frames with this value, e.g. charge=0",
    )
    reading.add_argument("--open", action="store_true", help="remove the cell: a molecule in a large box")
    reading.add_argument(
        "--cell", type=float, nargs="+", metavar="Å", help="cell of frames without one: 3 or 9 numbers"
    )
    reading.add_argument("--type-map", nargs="+", default=[], help="elements of the types of a DeePMD folder")
    reading.add_argument("--energy-unit", type=named_unit(ENERGY_UNITS_EV), help=", ".join(ENERGY_UNITS_EV))
    reading.add_argument("--length-unit", type=named_unit(LENGTH_UNITS_A), help=", ".join(LENGTH_UNITS_A))
    reading.add_argument("--force-unit", type=named_unit(FORCE_UNITS_EV_PER_A), help="[energy unit/length unit]")
    reading.add_argument("--negate-forces", action="store_true", help="the file has gradients")
    reading.add_argument(
        "--allow-reactions",
        "--allow-relabeled",
        "--allow-relabelled",
        dest="allow_relabeled",
        action="store_true",
        help="accept frames in which bonds break and form",
    )
    reading.add_argument(
        "--allow-inconsistent",
        action="store_true",
        help="accept energies inconsistent with forces, and stiffness inconsistent with the temperature",
    )


def _add_dividing(dividing: argparse._ArgumentGroup) -> None:
    dividing.add_argument("--split", choices=["random", "blocks"], default="random", help="blocks: for trajectories")
    dividing.add_argument(
        "--test_frames", "--test-frames", type=int, help="number of test frames [10 %%, at most 10,000]"
    )
    dividing.add_argument("--gap-frames", type=int, default=0, help="blocks: unused frames between the stretches")
    dividing.add_argument("--validation-fraction", type=float, default=0.05, help="fraction of each size [0.05]")
    dividing.add_argument("--seed", type=int, default=123, help="seed of the split [123]")


def _add_description(described: argparse._ArgumentGroup) -> None:
    described.add_argument("--temperature-K", type=positive, help="temperature of frames from one canonical ensemble")
    described.add_argument("--frame-interval-fs", type=positive, help="time between frames in time order")
    described.add_argument("--contiguous", type=stretch, metavar="START:STOP", help="frames for contiguous.npz")
    described.add_argument(
        "--atomic-energies",
        type=atomic_energies,
        metavar="JSON",
        help='energies of isolated atoms in eV, e.g. \'{"H": -13.6, "O": -2043}\' [isolated atoms in the file]',
    )
    described.add_argument("--level-of-theory", default=NOT_STATED)
    described.add_argument("--license", default=NOT_STATED)
    described.add_argument("--source", help="[the names of the files]")


def as_cell(numbers: list[float] | None) -> np.ndarray | None:
    """The cell from three side lengths, or from nine numbers by rows."""
    if numbers is None:
        return None
    if len(numbers) not in (3, 9):
        raise DatasetError(f"--cell takes 3 or 9 numbers, found {len(numbers)}")
    cell = np.diag(numbers) if len(numbers) == 3 else np.reshape(numbers, (3, 3))
    if not np.isfinite(cell).all() or np.linalg.matrix_rank(cell) < 3:
        raise DatasetError(f"--cell takes three lattice vectors that span a volume, found {numbers}")
    return cell


def as_conversion(known: argparse.Namespace) -> own.Conversion:
    if known.contiguous is not None and known.frame_interval_fs is None:
        raise DatasetError("--contiguous needs --frame-interval-fs, the time between frames")
    if not 0 < known.validation_fraction < 1:
        raise DatasetError(f"--validation-fraction must be between 0 and 1, found {known.validation_fraction}")
    description = Description(
        source=known.source or f"converted from {', '.join(path.name for path in known.files)}",
        level_of_theory=known.level_of_theory,
        license=known.license,
        temperature_K=known.temperature_K,
        frame_interval_fs=known.frame_interval_fs,
        atomic_energies_eV=known.atomic_energies,
    )
    reading = Reading(
        known.energy_key,
        known.forces_key,
        known.format,
        known.formula,
        tuple(known.where),
        known.open,
        as_cell(known.cell),
        tuple(known.type_map),
        known.stress_key,
    )
    return own.Conversion(
        tuple(known.files),
        description,
        reading,
        Units(known.length_unit, known.energy_unit, known.force_unit),
        negate_forces=known.negate_forces,
        allow_relabeled=known.allow_relabeled,
        allow_inconsistent=known.allow_inconsistent,
        split=known.split,
        test_frames=known.test_frames,
        gap_frames=known.gap_frames,
        validation_fraction=known.validation_fraction,
        seed=known.seed,
        contiguous=known.contiguous,
        mixed=known.mixed,
    )


def convert(arguments: Sequence[str] | None = None, prog: str | None = None) -> int:
    """`data/convert.py` and equivalent commands. ``prog`` is the name of the command."""
    known = make_parser(prog).parse_args(arguments)
    return run(lambda: _convert(known, arguments))


def convert_command(arguments: Sequence[str] | None = None) -> int:
    """`mdsim data convert`."""
    return convert(arguments, "mdsim data convert")


def _convert(known: argparse.Namespace, arguments: Sequence[str] | None) -> None:
    conversion = as_conversion(known)
    settings = conversion.settings()
    folders = [known.db_path / known.name / known.molecule / size for size in known.size]
    missing = [folder for folder in folders if not is_there(folder, settings, conversion.contiguous)]
    for folder in folders:
        if folder not in missing:
            new = [] if known.dry_run else describe_again(folder, conversion.description)
            print(f"{folder}: is there already" + (f"; took in its {', '.join(new)}" if new else ""))
    if not missing:
        return
    prepared = mixed.prepare(conversion) if conversion.mixed else own.prepare(conversion)
    print(format_table(["found", ""], prepared.table()))
    command = shlex.join(["mdsim", "data", "convert", *(sys.argv[1:] if arguments is None else arguments)])
    for folder in missing:
        if known.dry_run:
            division = prepared.divide(conversion, folder.name)
            counts = f"train {len(division.train):,}, val {len(division.val):,}, test {len(division.test):,}"
            print(f"{folder}: would hold {counts}")
            continue
        dataset = _make(prepared, conversion, folder, settings, command)
        frames = ", ".join(f"{name} {count:,}" for name, count in dataset.metadata.n_frames.items())
        print(f"{folder}: wrote {frames}")


def _make(
    prepared: own.Prepared | mixed.PreparedMixed,
    conversion: own.Conversion,
    folder: Path,
    settings: dict[str, Any],
    command: str,
) -> Dataset | MixedDataset:
    if isinstance(prepared, own.Prepared):
        return own.make(prepared, conversion, folder, settings, command)
    return mixed.make(prepared, conversion, folder, settings, command)
