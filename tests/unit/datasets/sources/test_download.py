"""Downloads from a real server that is slow, drops connections, sends wrong bytes, and changes the file."""

from __future__ import annotations

import hashlib
import io
import json
import threading

import numpy as np
import pytest
from file_server import FileServer

from mdsim.datasets.sources.download import RETRIES, RETRIES_TO_REACH, fetch
from mdsim.datasets.sources.remote import DownloadError, RemoteFile

NAME = "set.npz"


def archive(seed: int, n_values: int = 60_000) -> bytes:
    """An npz file of half a megabyte."""
    buffer = io.BytesIO()
    np.savez(buffer, R=np.random.default_rng(seed).random(n_values))
    return buffer.getvalue()


CONTENT, CHANGED = archive(0), archive(1)


def remote(server: FileServer, *, known: bool = False) -> RemoteFile:
    digest = hashlib.sha256(CONTENT).hexdigest()
    whole = RemoteFile(NAME, (f"{server.url}/{NAME}",), b"PK\x03\x04", len(CONTENT), digest)
    return whole if known else whole.unchecked()


@pytest.fixture
def server():
    with FileServer({NAME: CONTENT}) as running:
        yield running


class Stop(BaseException):
    """The person presses Ctrl-C, or the machine goes down."""


class Pauses(list):
    """Notes how long a download would have waited."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def stopped_after(n_bytes: int):
    """A progress bar that stops the download once this much has arrived."""

    class Bar:
        arrived = 0

        def __init__(self, total: int | None, initial: int, description: str) -> None: ...

        def __enter__(self):
            return self

        def __exit__(self, *_: object) -> None: ...

        def update(self, n: int) -> None:
            self.arrived += n
            if self.arrived >= n_bytes:
                raise Stop

    return Bar


def interrupted(server: FileServer, folder, n_bytes: int = 200_000) -> int:
    """Begin a download and stop in the middle; how much lies there."""
    with pytest.raises(Stop):
        fetch(remote(server), folder, progress=stopped_after(n_bytes))
    assert not (folder / NAME).exists()
    return (folder / f"{NAME}.part").stat().st_size


def leftovers(folder) -> set[str]:
    return {path.name for path in folder.iterdir()} - {f".{NAME}.lock"}


def test_a_file_arrives_whole_and_says_where_from(server, tmp_path):
    path = fetch(remote(server, known=True), tmp_path)
    assert path.read_bytes() == CONTENT
    record = json.loads((tmp_path / f"{NAME}.json").read_text())
    assert record["url"] == f"{server.url}/{NAME}" and record["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert leftovers(tmp_path) == {NAME, f"{NAME}.json"}


def test_what_is_there_is_not_fetched_again(server, tmp_path):
    for _ in range(2):
        fetch(remote(server, known=True), tmp_path)
    assert len(server.requests) == 1


def test_an_interrupted_download_goes_on_where_it_stopped(server, tmp_path):
    there = interrupted(server, tmp_path)
    assert fetch(remote(server, known=True), tmp_path).read_bytes() == CONTENT
    again = server.requests[-1]
    assert again["range"] == f"bytes={there}-" and again["if-range"] == '"one"'


def test_the_date_of_change_serves_where_there_is_no_strong_etag(server, tmp_path):
    server.etag, server.last_modified = 'W/"weak"', "Mon, 01 Jan 2024 00:00:00 GMT"
    interrupted(server, tmp_path)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["if-range"] == server.last_modified


@pytest.mark.parametrize("fault", ["no ranges", "no validator"])
def test_what_cannot_be_continued_starts_over(server, tmp_path, fault):
    server.ranges = fault != "no ranges"
    server.etag = None if fault == "no validator" else server.etag
    interrupted(server, tmp_path)
    assert fetch(remote(server), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("minds_if_range", [True, False])
def test_two_versions_are_never_spliced(server, tmp_path, minds_if_range):
    interrupted(server, tmp_path)
    server.files[NAME], server.etag, server.minds_if_range = CHANGED, '"two"', minds_if_range
    assert len(CHANGED) == len(CONTENT)
    assert fetch(remote(server), tmp_path, pause=Pauses()).read_bytes() == CHANGED


def test_a_file_that_has_become_shorter_starts_over(server, tmp_path):
    interrupted(server, tmp_path, 400_000)
    server.files[NAME], server.minds_if_range = archive(2, 20_000), False
    assert fetch(remote(server), tmp_path, pause=Pauses()).read_bytes() == server.files[NAME]


def test_cut_connections_are_taken_up_again(server, tmp_path):
    server.cut_after = 150_000
    pauses = Pauses()
    assert fetch(remote(server, known=True), tmp_path, pause=pauses).read_bytes() == CONTENT
    assert len(server.requests) == 4 and pauses == [1.0, 1.0, 1.0]  # each brought something new
    assert server.sent_bytes < 1.5 * len(CONTENT)


@pytest.mark.parametrize("chunked", [True, False])
def test_a_cut_is_seen_where_no_length_is_stated(server, tmp_path, chunked):
    server.chunked, server.states_length, server.cut_after = chunked, False, 200_000
    server.ranges = False

    class Repaired(Pauses):
        def __call__(self, seconds: float) -> None:
            server.cut_after = None

    assert fetch(remote(server), tmp_path, pause=Repaired()).read_bytes() == CONTENT


def test_a_server_without_ranges_that_always_cuts_is_given_up(server, tmp_path):
    server.cut_after, server.ranges = 150_000, False
    pauses = Pauses()
    with pytest.raises(DownloadError, match=rf"{RETRIES} times in a row.*--base-url, or put the file"):
        fetch(remote(server), tmp_path, pause=pauses)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert not (tmp_path / NAME).exists()


def test_a_length_stated_too_large(server, tmp_path):
    server.length_error = 100
    assert fetch(remote(server), tmp_path, pause=Pauses()).read_bytes() == CONTENT


def test_a_length_stated_too_small_is_found_out(server, tmp_path):
    server.length_error = -1000
    with pytest.raises(DownloadError, match=r"is truncated after"):
        fetch(remote(server), tmp_path)
    assert leftovers(tmp_path) == set()


def test_another_size_than_published_is_refused_before_it_is_fetched(server, tmp_path):
    server.files[NAME] = archive(2, 20_000)
    with pytest.raises(DownloadError, match=r"the server announces 160,.* published were 480,.*--ignore-checksum"):
        fetch(remote(server, known=True), tmp_path)
    assert leftovers(tmp_path) == set()
    assert fetch(remote(server, known=True).unchecked(), tmp_path).read_bytes() == server.files[NAME]


def test_another_content_than_published_is_refused(server, tmp_path):
    server.files[NAME] = CHANGED
    with pytest.raises(DownloadError, match=r"its sha256 is .* published was"):
        fetch(remote(server, known=True), tmp_path)
    assert leftovers(tmp_path) == set()


def test_a_web_page_is_not_taken_for_the_file(server, tmp_path):
    server.html = True
    with pytest.raises(DownloadError, match=r"sent text/html.* instead of the file; look at it in a browser"):
        fetch(remote(server), tmp_path)
    assert leftovers(tmp_path) == set()


def test_a_web_page_does_not_cost_what_has_arrived(server, tmp_path):
    there = interrupted(server, tmp_path)
    server.html = True
    with pytest.raises(DownloadError, match="instead of the file"):
        fetch(remote(server), tmp_path)
    server.html = False
    assert fetch(remote(server, known=True), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1]["range"] == f"bytes={there}-"


def test_busy_servers_are_asked_again_after_the_time_they_name(server, tmp_path):
    server.status = [(503, {"Retry-After": "7"}), (429, {}), (500, {})]
    pauses = Pauses()
    fetch(remote(server), tmp_path, pause=pauses)
    assert pauses == [7.0, 4.0, 8.0]  # the first is the server's wish, then it doubles


def test_a_missing_file_is_asked_for_once_and_the_mirror_serves_it(server, tmp_path):
    wrong = RemoteFile(NAME, (f"{server.url}/elsewhere.npz",), b"PK\x03\x04")
    with pytest.raises(DownloadError, match=r"answers 404 Not Found.*--base-url"):
        fetch(wrong, tmp_path)
    assert len(server.requests) == 1
    both = RemoteFile(NAME, (*wrong.urls, *remote(server).urls), b"PK\x03\x04")
    assert fetch(both, tmp_path).read_bytes() == CONTENT


def test_no_server_at_all(tmp_path):
    with FileServer({}) as server:
        url = server.url
    pauses = Pauses()
    with pytest.raises(DownloadError, match=r"onnection refused.*times in a row"):
        fetch(RemoteFile(NAME, (f"{url}/{NAME}",), b"PK"), tmp_path, pause=pauses)
    assert len(pauses) == RETRIES_TO_REACH - 1


def test_a_stalled_server_counts_as_broken(server, tmp_path, monkeypatch):
    monkeypatch.setattr("mdsim.datasets.sources.download.TIMEOUT_S", (1.0, 0.2))
    server.pause_s = 1.0

    class Repaired(Pauses):
        def __call__(self, seconds: float) -> None:
            server.pause_s = 0.0
            super().__call__(seconds)

    pauses = Repaired()
    assert fetch(remote(server), tmp_path, pause=pauses).read_bytes() == CONTENT
    assert pauses


def test_a_slow_server_is_waited_for(server, tmp_path):
    server.pause_s = 0.01
    assert fetch(remote(server, known=True), tmp_path).read_bytes() == CONTENT


def test_proxies_of_the_environment_are_used(server, tmp_path, monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", server.url)
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    fetch(RemoteFile(NAME, (f"http://data.invalid/{NAME}",), b"PK\x03\x04"), tmp_path)
    assert server.requests[0]["path"] == f"http://data.invalid/{NAME}"


def test_two_processes_fetch_once(server, tmp_path):
    server.pause_s = 0.01
    threads = [threading.Thread(target=fetch, args=(remote(server, known=True), tmp_path)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1 and (tmp_path / NAME).read_bytes() == CONTENT


def test_a_full_disk_is_noticed_before(server, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(DownloadError, match=r"0.00 GB are needed, 0.00 GB are free"):
        fetch(remote(server), tmp_path)


def test_a_damaged_file_of_an_earlier_time_is_named_and_kept(server, tmp_path):
    (tmp_path / NAME).write_bytes(CONTENT[:1000])
    with pytest.raises(DownloadError, match=r"is truncated after 1,000 bytes"):
        fetch(remote(server), tmp_path)
    assert (tmp_path / NAME).stat().st_size == 1000 and not server.requests


def test_a_bar_starts_where_the_last_download_ended(server, tmp_path):
    there = interrupted(server, tmp_path)
    bars = []

    class Bar(stopped_after(10**9)):
        def __init__(self, *arguments: object) -> None:
            bars.append(arguments)

    fetch(remote(server), tmp_path, progress=Bar)
    assert bars == [(len(CONTENT), there, NAME)]
