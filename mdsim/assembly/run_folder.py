"""Run folders: protection against accidental changes and parallel use, and checks before a run is continued."""

from __future__ import annotations

import difflib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from mdsim.assembly.inputs import flat, identity, may_change
from mdsim.config.loading import read_yaml, save_config
from mdsim.config.schema import Section
from mdsim.errors import ConfigError, one_line
from mdsim.reporting.console import setup_logging
from mdsim.reporting.scalars import WANDB_ID_FILE

log = logging.getLogger("mdsim")

LOCK = ".lock"
INPUTS = "inputs.json"
RESULTS = ("config.yml", "last.pt", "state.pt", "checkpoints/last.pt", "checkpoints/best_checkpoint.pt")
OUTPUTS = (  # evaluations of the initial force field remain, because they are valid for the next training
    *(
        "*.pt",
        "checkpoints/*.pt",
        "events.out.tfevents.*",
        "log.txt",
        "metrics.json",
        "inference/post*",
        INPUTS,
        WANDB_ID_FILE,
    ),
    *("frames", "trajectories", "final_metrics.json", "*.npy", "*.png", "report.html"),
)
UNFINISHED = tuple(  # written by a process that was killed in the middle
    f"{folder}{name}"
    for folder in ("", "checkpoints/", "frames/", "trajectories/")
    for name in (".*.tmp", "*.tmp", "*.tmp.npy")
)


@dataclass(frozen=True)
class Run:
    """An open run.

    Attributes:
        identity: of its settings and inputs; saved with everything that can be resumed.
        is_older: it was started by a release that kept no fingerprints.
    """

    identity: str
    is_older: bool = False


def check_folder(folder: Path, config: Section, resume: bool, overwrite: bool) -> None:
    """Refuse an existing run unless it is continued with unchanged settings or replaced."""
    holds_run = any((folder / name).exists() for name in RESULTS)
    if holds_run and not (resume or overwrite):
        raise ConfigError(
            f"{folder}: holds a run; continue it with --resume, replace it with --overwrite, or choose another name"
        )
    if resume and (folder / "config.yml").exists():
        _check_unchanged(folder / "config.yml", config)
    elif resume and holds_run:
        raise ConfigError(f"{folder}: config.yml is missing, so that it is not known how the run was started")
    elif resume:
        log.warning("--resume: there is no run in %s yet: starting at the beginning%s", folder, _beside(folder))


@contextmanager
def open_folder(
    folder: Path, config: Section, resume: bool, overwrite: bool, inputs: Mapping[str, str]
) -> Iterator[Run]:
    """Create the run folder and its log, and lock it against other processes.

    Entered after all input has been read, so that errors leave no trace.

    Args:
        folder: the run folder.
        config: configuration of the run.
        resume: continue an existing run.
        overwrite: remove an existing run.
        inputs: fingerprints of all input files, by name.

    Raises:
        ConfigError: another process uses the folder, or its run was started from other inputs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not resume:  # another process may have started it since it was checked
            check_folder(folder, config, resume, overwrite)
        if overwrite:
            _remove(folder, OUTPUTS)
        _remove(folder, UNFINISHED)
        continued = resume and (folder / "config.yml").exists()
        older = continued and not (folder / INPUTS).exists()
        if continued:
            _check_inputs(folder / INPUTS, inputs)
        setup_logging(folder)
        save_config(config, folder / "config.yml")
        if not older:  # its state does not say which run wrote it until it is saved again
            _write_json(folder / INPUTS, inputs)
        yield Run(identity(config, inputs), older)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """The folder belongs to this process until the end of the block, or of the process."""
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"{folder}: another process is at work in this run folder; wait for its end, or choose another name"
        ) from error
    except NotImplementedError:  # a file system without locks
        log.warning("%s: cannot be locked: start no second process in it", folder)
    try:
        yield
    finally:
        lock.release()


def _check_unchanged(file: Path, config: Section) -> None:
    old, new = flat(read_yaml(file)), flat(config.model_dump(mode="json"))
    differing = [
        f"{key}: {one_line(repr(old.get(key)), 80)} -> {one_line(repr(new.get(key)), 80)}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key) and not may_change(key)
    ]
    if differing:
        raise ConfigError(
            f"{file}: the run was started with other settings ({one_line('; '.join(differing), 500)}); "
            "resume with the old ones, or choose another name"
        )


def _check_inputs(file: Path, inputs: Mapping[str, str]) -> None:
    """Refuse to continue a run on other data, other labels or another force field than it was started from."""
    if not file.exists():
        log.warning("%s is missing (an older run): whether the data are those of its start is not checked", file)
        return
    try:
        old = json.loads(file.read_text(encoding="utf-8"))
        differing = sorted(name for name in old.keys() | inputs.keys() if old.get(name) != inputs.get(name))
    except (OSError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{file}: cannot be read ({one_line(error)}); start anew with --overwrite") from error
    if differing:
        raise ConfigError(
            f"{file}: the run was started from other content of {one_line(', '.join(differing), 300)}; "
            "resume with the old files, start anew with --overwrite, or choose another name"
        )


def check_output_file(path: Path) -> None:
    """Refuse a name under which no file can be written, before any work is done for it.

    Raises:
        ConfigError: something other than a regular file has this name (renaming onto a device would remove the
            device), or its folder is missing.
    """
    if path.exists() and not path.is_file():
        kind = "a folder" if path.is_dir() else "a device or pipe"
        raise ConfigError(f"{path}: is {kind}; name a file to write")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: No such file or directory: its folder {path.parent} is missing; make it first")


def _beside(folder: Path) -> str:
    """The runs in neighboring folders, the most similar names first: one of them may have been meant."""
    there = [path.parent.name for path in folder.parent.glob("*/config.yml")]
    near = difflib.get_close_matches(folder.name, there, n=3, cutoff=0.0)
    return f" (runs beside it: {', '.join(near)})" if near else ""


def _write_json(path: Path, values: Mapping[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(dict(values), indent=2) + "\n", encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _remove(folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
