"""`python -m mdsim.cli init`: look at a data set, and write configurations for it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdsim.cli.convert import positive
from mdsim.suggest.files import default_folder, machine, summary, write
from mdsim.suggest.findings import inspect

MODELS = ("schnet", "nequip", "gemnet_t")


def init(arguments: Sequence[str] | None = None) -> None:
    """Carry out the command, and print what was chosen and what to do next."""
    known = _parser().parse_args(arguments)
    found = inspect(known.data, known.temperature_K, known.allow_reactions)
    folder = known.out or default_folder(found, known.model)
    written = write(found, known.model, machine(known.cpu), folder, known.overwrite)
    print(summary(found, written))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mdsim.cli init",
        description="Write configurations for pretraining, StABlE training and evaluation, with values chosen from a "
        "data set, and why.",
    )
    parser.add_argument("--data", type=Path, required=True, help="the data set, <root>/<name>/<molecule>/<size>")
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--out", type=Path, help="folder of the files [configs/<name>/<molecule>_<size>_<model>]")
    parser.add_argument("--temperature-K", type=positive, help="of the dynamics [that of the data]")
    parser.add_argument("--allow-reactions", action="store_true", help="bonds of the data may break and form")
    parser.add_argument("--cpu", action="store_true", help="for a CPU, even where there is a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    return parser
