"""HTTP downloads that resume, retry, verify, and appear under their final name only when complete.

``NAME.part`` has the received bytes, and ``NAME.part.json`` their address and version. A download continues only if the
server confirms that the file is unchanged (``If-Range`` with a strong ETag or the date of the last change). Otherwise
it starts over. Both files survive an interruption, and become ``NAME`` and ``NAME.json`` at the end.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests

from mdsim.datasets.npz import write_atomically
from mdsim.datasets.sources.remote import DownloadError, RemoteFile, alone, is_whole, sha256_of, verify

CHUNK_BYTES = 1 << 16  # largest loss when a connection breaks
TIMEOUT_S = (15.0, 60.0)  # to connect; without any received byte
RETRIES = 6  # consecutive attempts without new bytes
RETRIES_TO_REACH = 3  # attempts to reach a server that does not answer
LONGEST_PAUSE_S = 60.0
RETRIED_STATUS = {408, 425, 429, 500, 502, 503, 504}
#: Creates a progress bar from the total or None, the present size, and a description.
Progress = Callable[[int | None, int, str], AbstractContextManager[Any]]

log = logging.getLogger("mdsim")


class _Interrupted(Exception):
    """A failure after which another attempt may succeed."""

    def __init__(self, reason: str, pause_s: float = 0.0, retries: int = RETRIES) -> None:
        super().__init__(reason)
        self.pause_s, self.retries = pause_s, retries


@dataclass(frozen=True)
class _Version:
    """Origin of a partial file: its address, and the validator that the server must confirm."""

    url: str
    validator: str | None
    total_bytes: int | None


def fetch(
    remote: RemoteFile,
    folder: Path,
    *,
    progress: Progress = lambda total, initial, description: nullcontext(),
    pause: Callable[[float], object] = time.sleep,
) -> Path:
    """The file in ``folder``, downloaded unless it is there. Proxies are taken from the usual environment variables.

    Args:
        remote: the file. Its addresses are tried in turn.
        folder: target folder, created if missing. A second process with the same file waits for the first.
        progress: creates a progress bar.
        pause: function that waits for some seconds.

    Raises:
        DownloadError: no address has the file, or the received file is wrong. The message says what to do.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / remote.name
    with alone(folder / f".{remote.name}.lock"):
        if target.is_file():
            verify(target, remote)
            return target
        partial = _Partial(folder / f"{remote.name}.part")
        failures = []
        for url in remote.urls:
            try:
                _download(url, remote, partial, progress, pause)
                break
            except DownloadError as error:
                failures.append(str(error))
        else:
            raise DownloadError(f"{'; '.join(failures)}. The same command continues later; or {other_ways(target)}")
        try:
            verify(partial.path, remote)
        except DownloadError as error:
            partial.discard()
            raise DownloadError(f"{error}; it is deleted. You may {other_ways(target)}") from error
        partial.finish(target)
    return target


def other_ways(target: Path) -> str:
    """Advice for a file that cannot be downloaded."""
    return f"give another address with --base-url, or put the file, fetched by other means, at {target}"


class _Partial:
    """The received part of a file, and its version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.record = path.with_name(path.name + ".json")

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.is_file() else 0

    def version(self, url: str) -> _Version | None:
        """Validator of the present part, if it can be continued from this address."""
        try:
            found = _Version(**json.loads(self.record.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return found if found.url == url and found.validator and self.size else None

    def start(self, version: _Version) -> None:
        self.discard()
        text = json.dumps(asdict(version))
        write_atomically(self.record, lambda file: file.write(text.encode()))

    def discard(self) -> None:
        self.path.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)

    def finish(self, target: Path) -> None:
        record = json.loads(self.record.read_text(encoding="utf-8"))
        record |= {"size_bytes": self.size, "sha256": sha256_of(self.path)}
        text = json.dumps(record, indent=2) + "\n"
        write_atomically(target.with_name(target.name + ".json"), lambda file: file.write(text.encode()))
        self.path.replace(target)
        self.record.unlink()


def _download(
    url: str, remote: RemoteFile, partial: _Partial, progress: Progress, pause: Callable[[float], object]
) -> None:
    """Receive until the file is complete, over any number of broken connections that deliver new bytes."""
    failures, furthest = 0, partial.size
    while True:
        try:
            with requests.Session() as session:
                _receive(session, url, remote, partial, progress)
            return
        except _Interrupted as error:
            failures = 0 if partial.size > furthest else failures + 1
            furthest = max(furthest, partial.size)
            if failures >= error.retries:
                raise DownloadError(f"{url}: {error}, {failures} times in a row") from error
            wait_s = max(min(2.0**failures, LONGEST_PAUSE_S), error.pause_s)
            log.warning("%s: %s; next attempt in %.0f s", url, error, wait_s)
            pause(wait_s)


def _receive(session: requests.Session, url: str, remote: RemoteFile, partial: _Partial, progress: Progress) -> None:
    """One request. Its body is appended to the partial file.

    Raises:
        _Interrupted: the connection broke or the server is busy.
        DownloadError: another attempt would end the same way.
    """
    known, total, retries = partial.version(url), None, RETRIES_TO_REACH
    headers = {"Accept-Encoding": "identity", "User-Agent": f"mdsim/{version('mdsim')}"}
    if known is not None:
        headers |= {"Range": f"bytes={partial.size}-", "If-Range": str(known.validator)}
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            retries = RETRIES
            if response.status_code == 416 and known is not None:
                _nothing_left(response, partial)
                return
            _check_status(response)
            if response.status_code == 206:
                total = _continue(response, known, partial)
            else:
                total = _start(response, url, known, partial)
            _check_total(total, remote, partial)
            _append(response, remote, partial, total, progress)
    except (requests.exceptions.SSLError, requests.TooManyRedirects) as error:
        raise DownloadError(f"{url}: {_innermost(error)}") from error
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        raise _Interrupted(f"the connection failed ({_innermost(error)})", retries=retries) from error
    except requests.RequestException as error:
        raise DownloadError(f"{url}: {_innermost(error)}") from error
    if partial.size != total and not (total is None and is_whole(partial.path, remote)):
        raise _Interrupted(f"the connection ended after {partial.size:,} of {total or 'unknown'} bytes")


def _check_status(response: requests.Response) -> None:
    status = f"the server answers {response.status_code} {response.reason}"
    if response.status_code in RETRIED_STATUS:
        wait = response.headers.get("Retry-After", "")
        raise _Interrupted(status, min(float(wait), LONGEST_PAUSE_S) if wait.isdigit() else 0.0)
    if response.status_code not in (200, 206):
        raise DownloadError(f"{response.url}: {status}")


def _start(response: requests.Response, url: str, known: _Version | None, partial: _Partial) -> int | None:
    """Start with the first byte. Returns the size of the file if the server gives it."""
    if response.headers.get("Content-Type", "").startswith("text/html"):  # before the present part is discarded
        raise _something_else(response)
    if known is not None:
        log.info("%s: cannot be continued (it has changed, or the server sends whole files only), starting over", url)
    if response.headers.get("Content-Encoding", "identity") != "identity":  # lengths and ranges refer to another file
        partial.start(_Version(url, None, None))
        return None
    length = response.headers.get("Content-Length", "")
    total = int(length) if length.isdigit() else None
    partial.start(_Version(url, _validator(response), total))
    return total


def _continue(response: requests.Response, known: _Version | None, partial: _Partial) -> int:
    """Check that the body continues the partial file in the same version. Returns the full size."""
    span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
    validator = _validator(response)
    if (
        span is None
        or known is None
        or int(span[1]) != partial.size
        # A server that ignores If-Range would mix two versions.
        or validator not in (None, known.validator)
        or (validator is None and known.total_bytes not in (None, int(span[2])))
    ):
        partial.discard()
        raise _Interrupted("the file has changed, starting over")
    return int(span[2])


def _validator(response: requests.Response) -> str | None:
    """Identifier of this version of the file, byte for byte. A weak ETag does not qualify."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def _append(
    response: requests.Response, remote: RemoteFile, partial: _Partial, total: int | None, progress: Progress
) -> None:
    with partial.path.open("ab") as file, progress(total, partial.size, remote.name) as bar:
        for chunk in response.iter_content(CHUNK_BYTES):
            if file.tell() == 0 and not chunk.startswith(remote.magic):
                partial.discard()
                raise _something_else(response)
            file.write(chunk)
            if bar is not None:
                bar.update(len(chunk))


def _something_else(response: requests.Response) -> DownloadError:
    kind = response.headers.get("Content-Type", "something else")
    return DownloadError(
        f"{response.url}: the server sent {kind} instead of the file; look at it in a browser: a proxy may want a"
        " login, or the file has moved"
    )


def _nothing_left(response: requests.Response, partial: _Partial) -> None:
    """Handle a range beyond the end: the part may be complete, otherwise the download starts over."""
    if response.headers.get("Content-Range") != f"bytes */{partial.size}":
        partial.discard()
        raise _Interrupted("the file has become shorter, starting over")


def _check_total(total: int | None, remote: RemoteFile, partial: _Partial) -> None:
    """Check the announced size and the free disk space before receiving."""
    if total is None:
        return
    if remote.size_bytes not in (None, total):
        partial.discard()
        raise DownloadError(
            f"{remote.name}: the server announces {total:,} bytes, published were {remote.size_bytes:,}"
            " (--ignore-checksum accepts it)"
        )
    needed, free = total - partial.size, shutil.disk_usage(partial.path.parent).free
    if needed > free:
        raise DownloadError(f"{partial.path.parent}: {needed / 1e9:.2f} GB are needed, {free / 1e9:.2f} GB are free")


def _innermost(error: BaseException) -> str:
    """The innermost cause of an exception."""
    while error.args and isinstance(error.args[0], BaseException):
        error = error.args[0]
    reason = str(getattr(error, "reason", None) or (error.args[0] if error.args else error))
    return reason.partition("): ")[2] or reason if reason.startswith("HTTP") else reason
