"""`mdsim init`: configurations derived from a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdsim.cli import shared
from mdsim.models.registry import MODELS


def init(arguments: Sequence[str] | None = None) -> int:
    """Write the configurations, and print the chosen values and the next commands."""
    known = init_parser().parse_args(arguments)
    return shared.run(lambda: _init(known))


def init_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim init`."""
    parser = argparse.ArgumentParser(
        prog="mdsim init",
        description="Write configurations for pretraining, StABlE training and evaluation, with values derived from a "
        "data set, and why.",
    )
    parser.add_argument("--data", type=Path, required=True, help="the data set, <root>/<name>/<molecule>/<size>")
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument("--out", type=Path, help="folder of the files [configs/<name>/<molecule>_<size>_<model>]")
    parser.add_argument("--temperature-K", type=shared.positive, help="temperature of the dynamics [that of the data]")
    parser.add_argument("--allow-reactions", action="store_true", help="bonds of the data may break and form")
    parser.add_argument("--cpu", action="store_true", help="choose values for a CPU even if there is a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def _init(known: argparse.Namespace) -> None:
    from mdsim.suggest.files import default_folder, machine, summary, write
    from mdsim.suggest.findings import inspect

    found = inspect(known.data, known.temperature_K, known.allow_reactions)
    model = MODELS[known.model]
    folder = known.out or default_folder(found, model)
    written = write(found, model, machine(known.cpu), folder, known.overwrite)
    print(summary(found, written))
