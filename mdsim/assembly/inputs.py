"""Fingerprints of the inputs of a run: settings, data, and the initial force field."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mdsim.config.schema import Section
from mdsim.datasets.folder import Dataset
from mdsim.datasets.mixed_folder import MixedDataset
from mdsim.errors import ConfigError

#: Keys that may differ between a stopped run and its continuation: they say how long, how it is shown, or where things
#: lie. What lies there is compared by its content.
MAY_CHANGE = {
    "epochs",
    "max_cycles",
    "max_force_evaluations",
    "optim.max_epochs",
    "optim.early_stopping_time_s",
    "print_every",
    "departures",  # a saved state says by itself whether they were followed, and how
    "stable_dir",  # an evaluation checks by itself that it goes on with the same force field
    "wandb",
    "trajectory",
    "device",  # results differ by rounding
    *("data.path", "model_dir", "log_dir", "results_dir", "exp_name", "run_dir", "identifier"),
}
FILES = ("reference_file", "charges_file")  # keys that name a file of numbers
NEW = {"state_points"}  # which earlier releases did not have: a run that leaves them out keeps its identity
NOT_IN_THE_RESULTS = ("sha256", "n_frames", "program_versions", "command", "source", "license")  # of the metadata


def inputs_of(
    config: Section, datasets: Iterable[tuple[Dataset | MixedDataset, Iterable[str]]], **files: Path
) -> dict[str, str]:
    """The sha256 of everything that a run reads, by name.

    Args:
        config: of the run; reference files that it names are among the inputs.
        datasets: the data sets, each with the names of the files that are read (``train``, ``test``, ...).
        files: further files by what they are.

    Raises:
        ConfigError: a file cannot be read.
    """
    found = {}
    for dataset, names in datasets:
        place = "/".join(dataset.folder.parts[-3:])
        if f"{place}/metadata.json" in found:  # another root has data of these names
            place = dataset.folder.as_posix()
        kept = {key: value for key, value in dataset.metadata.stated().items() if key not in NOT_IN_THE_RESULTS}
        found[f"{place}/metadata.json"] = _digest(json.dumps(kept, sort_keys=True).encode())
        for name in (f"{name}.npz" for name in names):
            if name in dataset.metadata.sha256:
                found[f"{place}/{name}"] = dataset.metadata.sha256[name]
    named = {name.replace("_", " "): path for name, path in files.items()}
    for key, path in (named | dict(_named_files(config.model_dump(mode="json")))).items():
        try:
            found[key] = _digest(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError(f"{path}: cannot be read ({error})") from error
    return found


def identity(config: Section, inputs: Mapping[str, str]) -> str:
    """What a run computes, as one number: two runs of one identity go the same way, wherever they lie."""
    stated = flat(config.model_dump(mode="json")).items()
    settings = {key: value for key, value in stated if not may_change(key) and not (key in NEW and value is None)}
    return _digest(json.dumps([settings, dict(inputs)], sort_keys=True, default=str).encode())


def may_change(key: str) -> bool:
    """Whether a key of the configuration may differ between a stopped run and its continuation."""
    return any(key == free or key.startswith(free + ".") for free in MAY_CHANGE)


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings by the path to them."""
    if isinstance(values, dict) and values:
        return {k: v for key, value in values.items() for k, v in flat(value, f"{prefix}{key}.").items()}
    return {prefix.rstrip("."): values}


def _named_files(values: Any, place: str = "") -> Iterator[tuple[str, Path]]:
    """The files that keys of `FILES` name, anywhere in the configuration."""
    items = values.items() if isinstance(values, dict) else enumerate(values) if isinstance(values, list) else ()
    for key, value in items:
        if key in FILES and isinstance(value, str):
            yield f"{place}{key}", Path(value)
        else:
            yield from _named_files(value, f"{place}{key}.")


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
