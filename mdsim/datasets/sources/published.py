"""Published data sets: download, verification, division and writing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from ase.formula import Formula
from ase.symbols import Symbols

from mdsim.datasets.divide import Division
from mdsim.datasets.folder import Dataset
from mdsim.datasets.sources import convert
from mdsim.datasets.sources.convert import Description, Excerpt
from mdsim.datasets.sources.download import Progress, fetch, other_ways
from mdsim.datasets.sources.raw import RawFrames, Units
from mdsim.datasets.sources.remote import RemoteFile, sha256_of, verify
from mdsim.datasets.sources.unit_detection import with_units
from mdsim.errors import DatasetError

SEED = 123  # seed of the published experiments
CONTIGUOUS_FRAMES = 10_000

log = logging.getLogger("mdsim")


@dataclass(frozen=True)
class PublishedSet:
    """A published file of frames of one system, and its known properties."""

    name: str  # name of the collection and of the folder
    molecule: str
    remote: RemoteFile
    formula: str
    n_frames: int
    read: Callable[[Path], RawFrames]
    divide: Callable[[int, str, int, int | None], Division]  # by frames, size, seed, and number of test frames if asked
    description: Description


@dataclass(frozen=True)
class Request:
    """The size to make, and the source of the file."""

    size: str
    contiguous: Excerpt | None = None
    seed: int = SEED
    test_frames: int | None = None  # None: the published number
    base_urls: tuple[str, ...] = ()  # empty: the published address
    from_file: Path | None = None
    check_sum: bool = True
    command: str = ""


def make(
    published: PublishedSet,
    request: Request,
    downloads: Path,
    root: Path,
    progress: Progress = lambda total, initial, description: nullcontext(),
) -> Dataset | None:
    """Make one size of a published data set.

    Args:
        published: the data set.
        request: its size, and the source of the file.
        downloads: folder of the published files, shared by all sizes.
        root: folder of all data sets.
        progress: creates a progress bar for the download.

    Returns:
        The data set. None if it existed already.

    Raises:
        DatasetError: the file is not available or not the published one, or the size is invalid.
    """
    folder = root / published.name / published.molecule / request.size
    settings = {"file": published.remote.name, "seed": request.seed, "test_frames": request.test_frames}
    if convert.is_there(folder, settings, request.contiguous):
        return None
    path = _obtain(published, request, downloads, progress)
    settings["source_sha256"] = sha256_of(path)
    convert.is_there(folder, settings, request.contiguous)  # an existing set must come from the same file
    log.info("reading %s", path)
    raw = _checked(path, published, strict=request.from_file is None and request.check_sum)
    division = published.divide(len(raw), request.size, request.seed, request.test_frames)
    return convert.write(folder, raw, division, published.description, settings, request.contiguous, request.command)


def _obtain(published: PublishedSet, request: Request, downloads: Path, progress: Progress) -> Path:
    """The file: given by the user, existing, or downloaded."""
    remote = published.remote.at(request.base_urls) if request.base_urls else published.remote
    if request.from_file is not None:
        if not request.from_file.is_file():
            raise DatasetError(f"{request.from_file}: no such file (--from-file)")
        verify(request.from_file, remote.unchecked())
        return request.from_file
    return fetch(remote if request.check_sum else remote.unchecked(), downloads, progress=progress)


def _checked(path: Path, published: PublishedSet, strict: bool) -> RawFrames:
    """The frames of the file, checked against the published set: composition, number, magnitudes."""
    raw = published.read(path)
    formula = Symbols(raw.atomic_numbers).formula.count()
    if formula != Formula(published.formula).count():
        raise DatasetError(
            f"{path}: holds {Symbols(raw.atomic_numbers).get_chemical_formula()}, but {published.molecule} is"
            f" {published.formula}"
        )
    if len(raw) != published.n_frames:
        text = f"{path}: holds {len(raw):,} frames, published were {published.n_frames:,}"
        if strict:
            raise DatasetError(f"{text} (--ignore-checksum accepts it); or {other_ways(path)}")
        log.warning("%s", text)
    return with_units(str(path), raw, Units())


def find(known: Sequence[PublishedSet], molecule: str) -> PublishedSet:
    """The data set of a molecule, for any capitalization and separators of its name.

    Raises:
        DatasetError: there is none.
    """

    def plain(name: str) -> str:
        return name.lower().replace("-", "_").replace(" ", "_")

    by_name = {plain(one.molecule): one for one in known}
    if plain(molecule) not in by_name:
        raise DatasetError(
            f"--molecule {molecule}: {known[0].name} has {', '.join(sorted(one.molecule for one in known))}"
        )
    return by_name[plain(molecule)]
