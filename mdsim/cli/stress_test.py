"""`mdsim stress-test`: does a force field stay stable in dynamics, and if not, why."""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mdsim.cli import shared
from mdsim.errors import ConfigError
from mdsim.reporting.console import finished, show
from mdsim.reporting.live import waiting

if TYPE_CHECKING:
    from mdsim.stress_test.run import Plan, Result
    from mdsim.stress_test.structure import Structure
    from mdsim.stress_test.subjects.base import Subject
    from mdsim.typing import Tensor

log = logging.getLogger("mdsim")

FAILED = 3  # exit status of a test that is not passed
RESULTS = "stress_test.json"

DESCRIPTION = """Test whether a force field stays stable in molecular dynamics, and say why if it does not.

Checks forces against energies, units, smoothness, short-range repulsion and energy conservation, and runs many replicas
until they break. Works for any force field: checkpoints of mdsim, MACE, SevenNet and nequip, calculators of ASE, models
of torch-sim. Exit status: 0 passed, 3 not passed, 1 error.
"""

EXAMPLES = """examples:
  mdsim stress-test last.pt --structure aspirin.xyz
  mdsim stress-test 7net-0 --model sevenn --structure POSCAR --budget-minutes 10
  mdsim stress-test ase:emt --structure cluster.xyz --timesteps-fs 5
  mdsim stress-test my_module:make_calculator --structure water.extxyz --min-stable-ps 50
"""


def stress_test_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim stress-test`."""
    parser = argparse.ArgumentParser(
        prog="mdsim stress-test",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "subject",
        metavar="MODEL",
        help="a checkpoint; ase:NAME, a calculator of ASE; or package.module:factory, a function that returns an ASE "
        "calculator, a torch-sim model or a ForceField",
    )
    parser.add_argument("--structure", type=Path, required=True, help="start of the dynamics, any file that ASE reads")
    parser.add_argument(
        "--data", type=Path, help="reference frames of the same system, a data set or a file: ranges of coordinates"
    )
    parser.add_argument(
        "--temperatures-K", type=shared.positive, nargs="+", default=[300.0, 500.0], metavar="K", help="[300 500]"
    )
    parser.add_argument(
        "--timesteps-fs", type=shared.positive, nargs="+", default=[0.5], metavar="FS", help="time steps [0.5]"
    )
    parser.add_argument("--ensemble", choices=("nvt", "nve", "ramp"), default="nvt", help="ramp: heating [nvt]")
    parser.add_argument(
        "--compress-percent",
        type=shared.positive,
        default=0.0,
        metavar="PERCENT",
        help="also run in a cell with shorter edges",
    )
    parser.add_argument("--replicas", type=_count, default=8, help="per temperature and time step [8]")
    parser.add_argument("--length-ps", type=shared.positive, help="length of the dynamics [what the budget allows]")
    parser.add_argument(
        "--budget-minutes", type=shared.positive, default=5.0, help="approximate time, if no length is given [5]"
    )
    parser.add_argument(
        "--min-stable-ps", type=shared.positive, metavar="PS", help="pass only if every replica is stable this long"
    )
    parser.add_argument("--processes", type=_count, help="of an ASE calculator [one per replica, at most one per core]")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="DIR", help=f"folder for report.html and {RESULTS}")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    parser.add_argument("--allow-factory", metavar="MODULE:FUNCTION", help="factory of a custom model of a checkpoint")
    shared.foreign_flags(parser)
    shared.output_flags(parser)
    return parser


def stress_test_command(arguments: Sequence[str] | None = None) -> int:
    """`mdsim stress-test`."""
    known = stress_test_parser().parse_args(arguments)
    return shared.run(lambda: _run(known), after_interrupt="nothing was written")


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, found {text}")
    return value


def _run(known: argparse.Namespace) -> int:
    shared.set_output(known)
    with waiting("loading PyTorch and the models"):
        from mdsim.stress_test.run import conditions_of, stress_test
        from mdsim.stress_test.structure import read_structure
    plan = _plan(known)
    conditions_of(plan)  # refuses what does not fit together
    structure = read_structure(known.structure)
    reference = None if known.data is None else _frames(known.data, structure)
    if known.output is not None:
        known.output.mkdir(parents=True, exist_ok=True)
    with waiting(f"reading {known.subject}"):
        subject = _subject(known)
    try:
        again = [known.subject, "--structure", str(known.structure)]
        again += [] if known.model is None else ["--model", known.model]
        data = None if known.data is None else str(known.data)
        result = stress_test(subject, structure, plan, reference, again, data)
    finally:
        subject.close()
    _show(result, known)
    return 0 if result.verdict.passed else FAILED


def _show(result: Result, known: argparse.Namespace) -> None:
    """Print the result, and write its files."""
    from mdsim.evaluation.files import write_json
    from mdsim.stress_test.page import write_report
    from mdsim.stress_test.report import as_json, as_text

    if known.json_logs:
        log.info("%s", as_text(result))
    elif not known.quiet:
        show(as_text(result))
    files = {}
    if known.output is not None:
        write_json(known.output / RESULTS, as_json(result))
        files[write_report(known.output, result)] = "findings, survival curves, what to try next"
        files[known.output / RESULTS] = "all numbers"
    finished(f"stress test of {result.subject.name}: {result.verdict.label}", files)


def _plan(known: argparse.Namespace) -> Plan:
    from mdsim.stress_test.run import Plan

    if known.length_ps is not None and known.min_stable_ps is not None and known.length_ps < known.min_stable_ps:
        raise ConfigError(
            f"--min-stable-ps {known.min_stable_ps:g}: cannot be reached in --length-ps {known.length_ps:g}; "
            "make the dynamics longer, or leave the length out"
        )
    return Plan(
        tuple(known.temperatures_K),
        tuple(sorted(set(known.timesteps_fs))),
        known.ensemble,
        known.replicas,
        known.length_ps,
        60 * known.budget_minutes,
        known.compress_percent,
        known.min_stable_ps,
        known.seed,
    )


def _subject(known: argparse.Namespace) -> Subject:
    from mdsim.assembly.models import device
    from mdsim.assembly.runs import flush_denormals
    from mdsim.stress_test.subjects.loading import load_subject

    flush_denormals()
    return load_subject(
        known.subject,
        device("cpu" if known.cpu else None),
        known.model,
        dict(known.model_option),
        known.allow_unpickling,
        known.allow_factory,
        known.processes or min(known.replicas, os.cpu_count() or 1),
    )


def _frames(path: Path, structure: Structure) -> Tensor:
    """Reference frames of the same system, from a data set or a file."""
    from mdsim.datasets.folder import load_dataset
    from mdsim.datasets.structures import read_structures
    from mdsim.suggest.place import place_of

    if path.is_file():
        return read_structures(path, structure.system)
    place = place_of(path)
    frames = load_dataset(place.root, place.name, place.molecule, place.size).train
    if frames.atomic_numbers.tolist() != structure.system.atomic_numbers.tolist():
        raise ConfigError(f"--data {path}: its atoms are not those of {structure.name} in the same order")
    return frames.positions
