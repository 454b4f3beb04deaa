"""`mdsim init`: configurations derived from a data set."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from mdsim.cli import shared
from mdsim.errors import ConfigError
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
    parser.add_argument(
        "--data",
        type=Path,
        required=True,
        help="the data set, <root>/<name>/<molecule>/<size>, or a file of frames, which is converted first",
    )
    parser.add_argument("--model", choices=MODELS, required=True)
    parser.add_argument(
        "--checkpoint", help="start from this file, a checkpoint of mdsim or of the model's package [fit the model]"
    )
    shared.foreign_flags(parser, model=False)
    parser.add_argument("--out", type=Path, help="folder of the files [configs/<name>/<molecule>_<size>_<model>]")
    parser.add_argument("--temperature-K", type=shared.positive, help="temperature of the dynamics [that of the data]")
    parser.add_argument(
        "--composition", help="the one to simulate, of data of several, e.g. C2H6O [the most frequent]; fits use all"
    )
    parser.add_argument("--allow-reactions", action="store_true", help="bonds of the data may break and form")
    parser.add_argument("--cpu", action="store_true", help="choose values for a CPU even if there is a GPU")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    return parser


def _init(known: argparse.Namespace) -> None:
    from mdsim.suggest.choices import File
    from mdsim.suggest.files import default_folder, machine, summary, write
    from mdsim.suggest.findings import inspect

    model, file = MODELS[known.model], None
    if known.checkpoint is not None:
        file = File(known.checkpoint, dict(known.model_option), known.allow_unpickling)
        _check_readable(known)
    elif model.foreign is not None and model.is_foreign:
        raise ConfigError(f"--model {model.name}: needs --checkpoint, {model.foreign.files}")
    is_of_a_data_set = (known.data.parent / "metadata.json").exists()
    data = _converted(known) if known.data.is_file() and not is_of_a_data_set else known.data
    found = inspect(data, known.temperature_K, known.allow_reactions, known.composition)
    folder = known.out or default_folder(found, model)
    written = write(found, model, machine(known.cpu), folder, known.overwrite, file)
    print(summary(found, written, fitted=file is None))


def _check_readable(known: argparse.Namespace) -> None:
    """Read the checkpoint now, so that a file that cannot be used is refused before anything is written."""
    from mdsim.models import load_force_field

    path = MODELS[known.model].located(known.checkpoint)
    load_force_field(path, None, known.model, dict(known.model_option), known.allow_unpickling)


def _converted(known: argparse.Namespace) -> Path:
    """The data set made of a file of frames, below `DATAPATH` and named after the file."""
    from mdsim.cli.convert import convert_command, make_parser
    from mdsim.suggest.mixed import holds_several

    name = known.data.name.partition(".")[0]
    temperature = [] if known.temperature_K is None else ["--temperature-K", str(known.temperature_K)]
    reactions = ["--allow-reactions"] if known.allow_reactions else []
    several = ["--mixed"] if holds_several(known.data) else []
    arguments = [str(known.data), "--name", name, "--molecule", name, *temperature, *reactions, *several]
    if convert_command(arguments):
        raise ConfigError(f"{known.data}: was not converted; `mdsim data convert` has flags for other files")
    target = make_parser().parse_args(arguments)
    return target.db_path / target.name / target.molecule / target.size[0]
