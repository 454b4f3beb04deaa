"""Results of evaluations, read from the files of their runs and validated.

`final_metrics.json` is written last. It holds the sha256 of every array beside it, and a digest of its own content, so
that a result that is read is the one that was written. Results of earlier versions have no digests.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mdsim.errors import ConfigError, one_line
from mdsim.evaluation.files import read_json, write_json
from mdsim.evaluation.measures import Measure
from mdsim.evaluation.metrics import followed_ps
from mdsim.stability.survival import Lifetimes

log = logging.getLogger("mdsim")

SUMMARY = "final_metrics.json"
ARRAYS, DIGEST = "sha256", "digest"  # keys of the summary
NUMBERS = ("replicas", "horizon_ps", "temperature_K")  # required in every summary
ERRORS = ("energy_mae_meV", "force_mae")  # prefixes of the keys that are averaged over runs


@dataclass(frozen=True)
class Results:
    """Results of one or several evaluations of one kind, with their replicas pooled."""

    summaries: tuple[dict[str, Any], ...]
    groups: tuple[Lifetimes, ...]  # the replicas of each evaluation
    weights: np.ndarray  # stable frames of each replica
    observables: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]  # values [replica bin], axis, reference
    departures: tuple[Lifetimes, ...] | None = None  # times to the departure from the support, where measured

    def weights_of(self, name: str) -> np.ndarray:
        """Weights of the replicas: stable frames for structural observables, equal weights for dynamical ones."""
        return self.weights if self.measure_of(name).structural else np.ones_like(self.weights)

    def measure_of(self, name: str) -> Measure:
        """The measure of an observable, the same in all evaluations."""
        return Measure.read(self.summaries[0], name, self.observables[name][1])

    @property
    def lifetimes(self) -> Lifetimes:
        """All replicas together."""
        return Lifetimes.together(self.groups)

    @property
    def horizon_ps(self) -> float:
        """Horizon of all evaluations, ps."""
        return min(summary["horizon_ps"] for summary in self.summaries)

    @property
    def followed_ps(self) -> float:
        """Time up to which survival is known in all evaluations, ps."""
        return min(followed_ps(group) for group in self.groups)


@dataclass(frozen=True)
class _Evaluation:
    """The files of one evaluation."""

    folder: Path
    summary: dict[str, Any]
    sha256: dict[str, str] | None  # of each array; None: written by an earlier version

    def observables(self) -> list[str]:
        """Names of the observables."""
        files = [path.name for path in self.folder.glob("*.npy")] if self.sha256 is None else self.sha256
        return sorted(name.removesuffix("_axis.npy") for name in files if name.endswith("_axis.npy"))

    def has(self, name: str) -> bool:
        """Whether there is an array of this name."""
        file = f"{name}.npy"
        return (self.folder / file).exists() if self.sha256 is None else file in self.sha256

    def array(self, name: str, shape: tuple[int | None, ...]) -> np.ndarray:
        """Array of numbers in a file, checked for its content and shape. None stands for any length except zero."""
        path = self.folder / f"{name}.npy"
        try:
            content = path.read_bytes()
            array = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # damaged files raise many kinds of errors
            why = getattr(error, "strerror", None) or error
            raise ConfigError(f"{path} is missing or damaged ({one_line(why)}); evaluate again") from error
        if self.sha256 is not None and _sha256(content) != self.sha256.get(path.name):
            raise ConfigError(f"{path}: is damaged, or of another evaluation than {SUMMARY}; evaluate again")
        fits = array.ndim == len(shape) and all(
            found == length if length is not None else found > 0
            for length, found in zip(shape, array.shape, strict=True)
        )
        if not fits or array.dtype.kind not in "bif":
            wanted = " x ".join("any" if length is None else str(length) for length in shape)
            raise ConfigError(
                f"{path}: holds {array.dtype} of shape {array.shape}, not {wanted} numbers; evaluate again"
            )
        return array


def write_summary(folder: Path, summary: Mapping[str, Any], arrays: Iterable[str]) -> None:
    """Write `final_metrics.json`, after everything else, with the digests of all results.

    Args:
        folder: of the evaluation.
        summary: its metrics.
        arrays: names of the `.npy` files in the folder that belong to it.
    """
    digests = {name: _sha256((folder / name).read_bytes()) for name in arrays}
    content = {**summary, ARRAYS: digests}
    write_json(folder / SUMMARY, content | {DIGEST: _sha256_of_json(content)})


def read_results(*folders: str | os.PathLike) -> Results:
    """Read evaluations of one kind; the replicas of several are put together.

    Args:
        folders: of the evaluations, ``<run folder>/inference/<eval_model>``; at least one.

    Returns:
        Their `final_metrics.json` (``summaries``), the stable times of all replicas in ps (``lifetimes``), and the
        observables of each replica.

    Raises:
        ConfigError: a file is missing or damaged, or the evaluations are incompatible.
        ValueError: no folder is given.
    """
    if not folders:
        raise ValueError("read_results needs the folder of at least one evaluation")
    return _read([Path(folder) for folder in folders])


def _read(folders: Sequence[Path]) -> Results:
    evaluations = [_open(folder) for folder in folders]
    first, *others = evaluations

    def each(name: str, *shape: int) -> list[np.ndarray]:
        return [one.array(name, (one.summary["replicas"], *shape)) for one in evaluations]

    def joined(name: str, *shape: int) -> np.ndarray:
        return np.concatenate(each(name, *shape))

    observables = {}
    for name in first.observables():
        axis, reference = (first.array(f"{name}_{part}", (None,)) for part in ("axis", "reference"))
        has_reference = Measure.read(first.summary, name, axis).has_reference
        _require_finite(first.folder, name, axis, reference if has_reference else np.zeros_like(axis))
        for other in others:
            if not np.array_equal(other.array(f"{name}_axis", (None,)), axis):
                raise ConfigError(f"{other.folder}: {name} has another axis than in {first.folder}; evaluate again")
        observables[name] = (joined(name, len(axis)), axis, reference)
    times, broken, frames = (joined(name) for name in ("stable_time_ps", "broken", "stable_frames"))
    if not np.isfinite(times).all() or (times < 0).any() or (frames < 0).any() or broken.dtype != bool:
        raise ConfigError(f"{folders[0]}: stable times are not what an evaluation writes; evaluate again")
    groups = tuple(map(Lifetimes, each("stable_time_ps"), each("broken")))
    departures = None
    if all(one.has("departure_time_ps") for one in evaluations):
        left, departed = each("departure_time_ps"), each("departed")
        for folder, when, whether, group in zip(folders, left, departed, groups, strict=True):
            _require_departures(folder, when, whether, group)
        departures = tuple(map(Lifetimes, left, departed))
    summaries = tuple(one.summary for one in evaluations)
    return Results(summaries, groups, frames.astype(float), observables, departures)


def check_comparable(results: Mapping[str, Results]) -> None:
    """Raise an error if evaluations had different settings.

    Raises:
        ConfigError: a setting differs. The message names it.
    """
    (before, first), *others = results.items()
    for after, second in others:
        for one, other in zip(first.summaries, second.summaries, strict=False):
            for key in NUMBERS:
                if one[key] != other[key]:
                    raise ConfigError(f"{key} differs between {before} ({one[key]}) and {after} ({other[key]})")
    kinds = ((name, found.observables.keys()) for name, found in results.items())
    errors = ((n, {k for k in s if k.startswith(ERRORS)}) for n, found in results.items() for s in found.summaries)
    for what, found in (("observables", list(kinds)), ("errors", list(errors))):
        for name, keys in found:
            if differing := sorted(keys ^ found[0][1]):
                shown = one_line(", ".join(differing), 200)
                raise ConfigError(f"{found[0][0]} and {name} do not have the same {what}: {shown}; evaluate again")


def _open(folder: Path) -> _Evaluation:
    """The summary of an evaluation, checked for its digest and for the numbers that tables and figures need."""
    path = folder / SUMMARY
    summary = read_json(path)
    sha256 = _checked_digests(path, summary)
    needed: dict[str, Any] = {key: summary.get(key) for key in NUMBERS}
    given = {key: value for key, value in summary.items() if key.startswith(ERRORS) and value is not None}
    for key, value in (needed | given).items():
        if not _is_number(value) or (key in NUMBERS and not value > 0):
            raise ConfigError(f"{path}: {key} is {one_line(repr(value), 60)}: it is damaged; evaluate again")
    return _Evaluation(folder, summary, sha256)


def _checked_digests(path: Path, summary: dict[str, Any]) -> dict[str, str] | None:
    """Take the digests out of a summary, and compare its own. None for summaries of earlier versions."""
    if not {ARRAYS, DIGEST} & summary.keys():
        log.debug("%s: has no digests (an earlier version): only the form of the results is checked", path)
        return None
    digest = summary.pop(DIGEST, None)
    if digest != _sha256_of_json(summary):
        raise ConfigError(f"{path}: is damaged: its content is not what its digest says; evaluate again")
    return summary.pop(ARRAYS)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _sha256_of_json(values: Mapping[str, Any]) -> str:
    """Of the content, however it is laid out in the file."""
    return _sha256(json.dumps(values, sort_keys=True).encode())


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < np.inf


def _require_departures(folder: Path, times: np.ndarray, departed: np.ndarray, stable: Lifetimes) -> None:
    """A replica that broke has departed, and none departs later than it breaks."""
    right = departed.dtype == bool and (times >= 0).all() and (times <= stable.times + 1e-9).all()
    if not right or (stable.broken & ~departed).any():
        raise ConfigError(f"{folder}: departure times are not what an evaluation writes; evaluate again")


def _require_finite(folder: Path, name: str, axis: np.ndarray, reference: np.ndarray) -> None:
    rising = len(axis) < 2 or (np.diff(axis) > 0).all()
    if axis.shape != reference.shape or not rising or not np.isfinite([axis, reference]).all():
        raise ConfigError(f"{folder}: the axis or the reference of {name} is damaged; evaluate again")
