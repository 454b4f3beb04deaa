"""`mdsim completion`: shell completion of commands, flags and files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mdsim.cli import shared
from mdsim.errors import ConfigError

SHELLS = ("bash", "zsh", "tcsh")
DESCRIPTION = """Print a script with which a shell completes the commands, flags and files of mdsim.

In bash: `mdsim completion bash > ~/.local/share/bash-completion/completions/mdsim`
"""


def completion_parser() -> argparse.ArgumentParser:
    """The arguments of `mdsim completion`."""
    parser = argparse.ArgumentParser(
        prog="mdsim completion", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shell", choices=SHELLS)
    return parser


def completion(arguments: Sequence[str] | None = None) -> int:
    """`mdsim completion`."""
    known = completion_parser().parse_args(arguments)
    return shared.run(lambda: print(script(known.shell)))


def script(shell: str) -> str:
    """The script for one of `SHELLS`.

    Raises:
        ConfigError: the optional package that writes it is missing.
    """
    try:
        import shtab
    except ModuleNotFoundError as error:
        raise ConfigError("completion needs the package shtab: pip install 'mdsim[completion]'") from error

    from mdsim.cli.main import make_parser

    parser = make_parser(whole=True)
    _complete_files(parser, shtab.FILE)
    return shtab.complete(parser, shell)


def _complete_files(parser: argparse.ArgumentParser, file: Mapping[str, Any]) -> None:
    """Complete every argument that is a path with file names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                _complete_files(child, file)
        elif action.type is Path:
            action.complete = file  # type: ignore[attr-defined]
