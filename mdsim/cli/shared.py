"""Shared parts of the commands: common flags, overrides of a configuration, and one-line errors."""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from mdsim.errors import ConfigError, UserError, one_line
from mdsim.models.registry import MODELS
from mdsim.reporting.console import STYLE, exclaim, finished, setup_logging
from mdsim.reporting.interrupts import orderly_interrupts
from mdsim.reporting.live import clear, waiting
from mdsim.reporting.stops import STOPPED, StopRequests, seconds

log = logging.getLogger("mdsim")

#: Errors of the user or of files, and missing optional packages. They give one line instead of a traceback.
EXPECTED = (UserError, OSError, ModuleNotFoundError)
OVERRIDES = "Any key of the configuration can be overridden: --any.key=value"


def run(action: Callable[[], int | None], after_interrupt: str = "the same command with --resume continues") -> int:
    """Run a command and return its exit status. Expected errors give one line and exit status 1."""
    STYLE.quiet, STYLE.as_json, STYLE.hidden_warnings, STYLE.begun_s = False, False, 0, time.monotonic()
    setup_logging(None)  # to the console; a run adds its own file
    try:
        with orderly_interrupts():
            return action() or 0
    except EXPECTED as error:
        clear()
        exclaim(_message(error))
        return 1
    except KeyboardInterrupt:
        clear()
        exclaim(f"interrupted; {after_interrupt}", "warning")
        return 130
    finally:
        clear()
        logging.shutdown()


def until_stopped(known: argparse.Namespace, action: Callable[[Callable[[], bool]], bool]) -> int:
    """Carry out what may be stopped by a signal or by `--time-limit`; its exit status.

    Args:
        known: the flags of the command.
        action: is given the function that says whether to stop; returns whether it reached its end.
    """
    from mdsim.distributed.launch import process_group  # imports torch, which takes a second

    stops = StopRequests(known.time_limit)
    with process_group(), stops.listening():
        if action(stops):
            return 0
        change = " with --resume instead of --overwrite" if known.overwrite else " with --resume"
        finished(f"stopped: {stops.reason}; the same command{'' if known.resume else change} continues")
        return STOPPED


def _message(error: BaseException) -> str:
    """One line of bounded length, the file first; errors of this package have both already."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{one_line(error.filename, 200)}: {error.strerror}"
    return one_line(error)


def flag(parser: argparse.ArgumentParser, name: str, **options: Any) -> None:
    """A flag that may be written with underscores or hyphens."""
    hyphens = "--" + name[2:].replace("_", "-")
    parser.add_argument(*dict.fromkeys((name, hyphens)), **options)


def foreign_flags(parser: argparse.ArgumentParser, mode: str = "", model: bool = True) -> None:
    """The flags of a checkpoint that is a file of another package."""
    if model:
        names = [name for name, record in MODELS.items() if record.foreign is not None]
        parser.add_argument("--model", choices=names, help=f"{mode}model of a checkpoint of another package")
    parser.add_argument(
        "--model-option",
        type=key_value,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"{mode}option of that model, such as head=NAME of a MACE",
    )
    parser.add_argument(
        "--allow-unpickling",
        action="store_true",
        help=f"{mode}let that package unpickle its file, which can run any code that the author put there",
    )


def key_value(text: str) -> tuple[str, str]:
    """Argument type: KEY=VALUE."""
    key, sign, value = text.partition("=")
    if not key or not sign:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, value


def output_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose what the console shows."""
    flag(parser, "--quiet", action="store_true", help="show errors and the last line alone")
    flag(parser, "--json_logs", action="store_true", help="show each line of the log as a JSON object")


def set_output(known: argparse.Namespace) -> None:
    """Show on the console what the flags ask for."""
    STYLE.quiet, STYLE.as_json = known.quiet, known.json_logs
    setup_logging(None)


def run_parser(prog: str | None, description: str) -> argparse.ArgumentParser:
    """Parser with the common flags of commands that run a configuration.

    Args:
        prog: name of the command. None: name of the script.
        description: description in the help text.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=OVERRIDES, allow_abbrev=False)
    parser.add_argument("--config-yml", type=Path, metavar="CONFIG", help="the configuration")
    parser.add_argument("--seed", type=int, help="overrides seed")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    parser.add_argument("--debug", action="store_true", help="run every step once at a tiny size, in a run named debug")
    flag(
        parser,
        "--time_limit",
        type=time_limit,
        metavar="LIMIT",
        help=f"minutes or HH:MM:SS; stop before an epoch that would exceed it, with exit status {STOPPED}",
    )
    output_flags(parser)
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--resume", action="store_true", help="continue a stopped run from its last saved state")
    existing.add_argument("--overwrite", action="store_true", help="start an existing run from the beginning")
    return parser


def parse(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Known flags, and `--any.key=value` overrides; anything else is an error."""
    known, rest = parser.parse_known_args(arguments)
    for argument in rest:
        if not (argument.startswith("--") and "=" in argument):
            parser.error(f"{argument!r} is neither a flag nor an override of the form --any.key=value")
    set_output(known)
    return known, rest


def config_path(known: argparse.Namespace) -> Path:
    """Path of the configuration on the command line.

    Raises:
        ConfigError: there is none.
    """
    if known.config_yml is None:
        raise ConfigError("--config-yml CONFIG is missing")
    return known.config_yml


def overwrites(known: argparse.Namespace) -> bool:
    """Whether an existing run may be replaced. Runs with `--debug` always may."""
    return known.overwrite or (known.debug and not known.resume)


def as_overrides(named: dict[str, object]) -> list[str]:
    """Values of flags as `key=value`. Text is quoted, so that YAML reads `--identifier 1e3` as text."""
    return [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in named.items() if value is not None]


def runs() -> ModuleType:
    """The module of the runs. Its import takes seconds, so `--help` and configuration errors avoid it."""
    with waiting("loading PyTorch and the models"):
        from mdsim.assembly import runs

    runs.flush_denormals()
    return runs


def positive(text: str) -> float:
    """A number above zero."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be positive, found {text}")
    return value


def time_limit(text: str) -> float:
    """A time limit in seconds."""
    try:
        return seconds(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"must be minutes (90) or HH:MM:SS (01:30:00), found {text!r}") from error
