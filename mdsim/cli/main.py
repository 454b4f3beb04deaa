"""The `mdsim` command: the table of its commands, and the dispatch to them.

mdsim init --data PATH --model NAME        configurations with values derived from a data set
mdsim pretrain --config-yml CONFIG         fit energies and forces, or validate a fit
mdsim train --config-yml CONFIG            StABlE training
mdsim simulate --config-yml CONFIG         held-out evaluation
mdsim compare RUN_DIR [RUN_DIR ...]        results before and after training, as a table and figures
mdsim report RUN [RUN ...]                  the HTML report of evaluations, drawn anew
mdsim predict --checkpoint FILE ...        energies and forces of frames
mdsim stress-test MODEL --structure FILE   does a force field stay stable, and if not, why
mdsim export CHECKPOINT --to ENGINE ...    a force field for LAMMPS, OpenMM, torch-sim, i-PI, metatomic, ASE
mdsim doctor                               versions, devices and kernels here, and what is missing
mdsim data check PATH                      statistics, warnings and a figure of a data set
mdsim data convert FILE ...                conversion of custom frames to a data set

The imports of a command take seconds. They start after the command line is parsed.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mdsim
from mdsim.cli.pretrain import PRETRAIN_DEBUG, pretraining
from mdsim.cli.stable import compare, stable_debug, stable_training

__all__ = ["PRETRAIN_DEBUG", "compare", "main", "make_parser", "pretraining", "stable_debug", "stable_training"]


@dataclass(frozen=True)
class Command:
    """One command: its help text, and the functions that parse its arguments and run it."""

    help: str
    module: str
    function: str
    parser: str

    def carry_out(self, arguments: Sequence[str]) -> int:
        """Run the command, and return its exit status."""
        return self._named(self.function)(arguments)

    def make_parser(self) -> argparse.ArgumentParser:
        """Parser of its arguments."""
        return self._named(self.parser)()

    def _named(self, name: str) -> Callable:
        return getattr(importlib.import_module(self.module), name)


COMMANDS = {
    "init": Command("write configurations for a data set", "mdsim.cli.init", "init", "init_parser"),
    "pretrain": Command("fit energies and forces", "mdsim.cli.pretrain", "pretrain", "pretrain_parser"),
    "train": Command("run StABlE training of a force field", "mdsim.cli.stable", "train", "train_parser"),
    "simulate": Command(
        "evaluate a force field in held-out simulations", "mdsim.cli.stable", "simulate", "simulate_parser"
    ),
    "compare": Command(
        "compare evaluations before and after training", "mdsim.cli.stable", "compare", "compare_parser"
    ),
    "report": Command("write the HTML report of evaluations", "mdsim.cli.stable", "report", "report_parser"),
    "predict": Command("write energies and forces of frames", "mdsim.cli.pretrain", "predict", "predict_parser"),
    "stress-test": Command(
        "test whether a force field stays stable",
        "mdsim.cli.stress_test",
        "stress_test_command",
        "stress_test_parser",
    ),
    "export": Command("hand a force field to another engine", "mdsim.cli.export", "export_command", "export_parser"),
    "doctor": Command("show this environment and what it lacks", "mdsim.cli.doctor", "doctor", "doctor_parser"),
    "completion": Command(
        "print a completion script for a shell", "mdsim.cli.completion", "completion", "completion_parser"
    ),
}
DATA_COMMANDS = {
    "check": Command("check a data set before training", "mdsim.cli.data", "check", "check_parser"),
    "convert": Command("convert frames to a data set", "mdsim.cli.convert", "convert_command", "make_parser"),
}
#: Earlier names of commands, with the present ones.
DEPRECATED: dict[str, tuple[Callable[[Sequence[str] | None], int], str]] = {
    "pretraining": (pretraining, "mdsim pretrain"),
    "stable-training": (stable_training, "mdsim train and mdsim simulate"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """`mdsim`, and `python -m mdsim.cli`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    first, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if first in DEPRECATED:
        command, instead = DEPRECATED[first]
        print(f"note: `{first}` is deprecated; use {instead}", file=sys.stderr)
        return command(rest)
    if first == "data" and rest and rest[0] in DATA_COMMANDS:
        return DATA_COMMANDS[rest[0]].carry_out(rest[1:])
    if first in COMMANDS:
        return COMMANDS[first].carry_out(rest)
    parser = make_parser()
    known = parser.parse_args(arguments)  # exits for --help, --version and unknown words
    known.parser.print_help(sys.stderr)  # a command is missing
    return 2


def make_parser(whole: bool = False) -> argparse.ArgumentParser:
    """The tree of commands.

    Args:
        whole: include the arguments of every command. This imports all their modules.
    """
    parser = argparse.ArgumentParser(
        prog="mdsim",
        description=mdsim.__doc__,
        epilog="`mdsim COMMAND --help` explains each. The manual: `make docs` in a checkout.",
    )
    parser.add_argument("--version", action="version", version=f"mdsim {mdsim.__version__}")
    parser.set_defaults(parser=parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    data = commands.add_parser("data", help="check and convert data sets", description="Check and convert data sets.")
    data.set_defaults(parser=data)
    _add(data.add_subparsers(title="commands", metavar="COMMAND"), DATA_COMMANDS, whole)
    _add(commands, COMMANDS, whole)
    return parser


def _add(subparsers: argparse._SubParsersAction, commands: dict[str, Command], whole: bool) -> None:
    for name, command in commands.items():
        if whole:
            full = command.make_parser()
            subparsers.add_parser(name, help=command.help, description=full.description, parents=[full], add_help=False)
        else:
            subparsers.add_parser(name, help=command.help)


if __name__ == "__main__":
    sys.exit(main())
