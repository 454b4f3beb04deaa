"""A local HTTP server with the faults of real servers and networks."""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PIECE_BYTES = 16_384


@dataclass
class FileServer:
    """Serves ``files`` by the last part of the path; a context manager. Faults can be changed while it runs."""

    files: dict[str, bytes]
    ranges: bool = True  # answers a Range header with 206
    etag: str | None = '"one"'
    last_modified: str | None = None
    minds_if_range: bool = True
    cut_after: int | None = None  # bytes of body, then the connection is dropped
    length_error: int = 0  # added to Content-Length
    states_length: bool = True
    chunked: bool = False
    html: bool = False
    status: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # answered first, one a request
    pause_s: float = 0.0  # between pieces
    requests: list[dict[str, str]] = field(default_factory=list)  # path and headers of each
    sent_bytes: int = 0

    def __enter__(self) -> FileServer:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}"


def _handler(state: FileServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            state.requests.append({"path": self.path, **{name.lower(): v for name, v in self.headers.items()}})
            if state.status:
                status, headers = state.status.pop(0)
                self._answer(status, headers, b"")
            elif state.html:
                self._answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<!DOCTYPE html><h1>Sign in</h1>")
            else:
                name = self.path.rpartition("/")[2].partition("?")[0]
                content = state.files.get(name)
                if content is None:
                    self._answer(404, {}, b"")
                else:
                    self._serve(content)

        def _serve(self, content: bytes) -> None:
            headers = {"Content-Type": "application/octet-stream"}
            headers |= {"ETag": state.etag} if state.etag else {}
            headers |= {"Last-Modified": state.last_modified} if state.last_modified else {}
            start = self._first_byte()
            if start is None:
                self._answer(200, headers, content)
            elif start >= len(content):
                self._answer(416, headers | {"Content-Range": f"bytes */{len(content)}"}, b"")
            else:
                span = f"bytes {start}-{len(content) - 1}/{len(content)}"
                self._answer(206, headers | {"Content-Range": span}, content[start:])

        def _first_byte(self) -> int | None:
            span = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if span is None or not state.ranges:
                return None
            asked = self.headers.get("If-Range")
            if state.minds_if_range and asked is not None and asked not in (state.etag, state.last_modified):
                return None
            return int(span[1])

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if state.chunked:
                self.send_header("Transfer-Encoding", "chunked")
            elif state.states_length:
                self.send_header("Content-Length", str(len(body) + (state.length_error if status == 200 else 0)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.close_connection = True
            limit = len(body) if state.cut_after is None else state.cut_after
            with suppress(ConnectionError):  # the client may have gone
                self._send(body[:limit], whole=limit >= len(body))

        def _send(self, body: bytes, whole: bool) -> None:
            for start in range(0, len(body), PIECE_BYTES):
                piece = body[start : start + PIECE_BYTES]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if state.chunked else piece)
                state.sent_bytes += len(piece)
                time.sleep(state.pause_s)
            if state.chunked and whole:
                self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    return Handler
