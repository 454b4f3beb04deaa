"""Remote files: their address, and the checks of a local copy."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

from mdsim.errors import DatasetError

log = logging.getLogger("mdsim")


class DownloadError(DatasetError):
    """A file could not be downloaded, or is not the published file."""


@dataclass(frozen=True)
class RemoteFile:
    """A published file, its addresses and its checksums."""

    name: str
    urls: tuple[str, ...]  # tried in turn
    magic: bytes  # first bytes of files of this kind
    size_bytes: int | None = None
    sha256: str | None = None

    def at(self, base_urls: Sequence[str]) -> RemoteFile:
        """The same file at the given mirrors."""
        return replace(self, urls=tuple(f"{base.rstrip('/')}/{self.name}" for base in base_urls))

    def unchecked(self) -> RemoteFile:
        """The same file without checks of size and sha256."""
        return replace(self, size_bytes=None, sha256=None)


def verify(path: Path, remote: RemoteFile) -> None:
    """Check the beginning and end of a file, and its published size and sha256 if known.

    Raises:
        DownloadError: a check fails.
    """
    with path.open("rb") as file:
        start = file.read(len(remote.magic))
    if start != remote.magic:
        raise DownloadError(f"{path}: is no {Path(remote.name).suffix[1:]} file, it begins with {start!r}")
    if not is_whole(path, remote):
        raise DownloadError(f"{path}: is truncated after {path.stat().st_size:,} bytes")
    as_it_is = "(--ignore-checksum accepts it)"
    size = path.stat().st_size
    if remote.size_bytes is not None and size != remote.size_bytes:
        raise DownloadError(f"{path}: has {size:,} bytes, published were {remote.size_bytes:,} {as_it_is}")
    if remote.sha256 is not None and (digest := sha256_of(path)) != remote.sha256:
        raise DownloadError(f"{path}: its sha256 is {digest}, published was {remote.sha256} {as_it_is}")


def is_whole(path: Path, remote: RemoteFile) -> bool:
    """Whether a file has the end of a complete file of its kind."""
    if path.stat().st_size == 0:
        return False
    if remote.name.endswith(".npz"):
        return zipfile.is_zipfile(path)  # the directory of the archive
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"."  # the stop code of a pickle


def sha256_of(path: Path) -> str:
    """The sha256 of a file of any size."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def alone(path: Path) -> Iterator[None]:
    """Hold a lock. If another process has it, a message is logged."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0.2)
    except Timeout:
        log.info("%s: another process fetches this file, waiting for it", path.with_name(path.name[1:-5]))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()
