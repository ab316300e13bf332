"""A server that fails as object storage does, in front of one that does not: a real HTTP proxy on loopback."""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

# What may befall a request. The first three never reach the server; the others do, and only its answer is harmed.
BEFORE = ("error", "slow down", "reset")
AFTER = ("lost", "dropped", "slow")
CUT, STALE, CONFLICT = "cut", "stale", "conflict"  # for a GET, a listing, a conditional PUT
FORBIDDEN = "forbidden"  # lasts, so it is only planned
SLOW = 0.6  # s; the fixture makes clients lose patience before

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "expect", "content-length"}


class Faults:
    """How a FaultyServer fails: at random with `rate`, and as `plan` says. `happened` counts what did, by kind."""

    def __init__(self, seed: int = 0) -> None:
        self.rate = 0.0
        self.kinds: tuple[str, ...] = (*BEFORE, *AFTER, CUT, STALE, CONFLICT)
        self.happened: Counter[str] = Counter()
        self.requests: list[str] = []
        self._random = random.Random(seed)  # noqa: S311
        self._planned: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self.listings: dict[str, list[tuple[int, dict[str, str], bytes]]] = {}

    def plan(self, *kinds: str, verb: str = "PUT") -> None:
        """The next requests of `verb` fail, one after the other, with `kinds` (`fine`: one does not)."""
        self._planned = []
        self.then(*kinds, verb=verb)

    def then(self, *kinds: str, verb: str) -> None:
        """After what is planned already."""
        self._planned += [(verb, kind) for kind in kinds]

    def draw(self, verb: str, path: str, conditional: bool) -> str:
        """What befalls a request, `fine` for nothing."""
        with self._lock:
            self.requests.append(f"{verb} {urlsplit(path).path}")
            if self._planned and self._planned[0][0] == verb:
                kind = self._planned.pop(0)[1]
            elif self._random.random() < self.rate:
                kind = self._random.choice(self.kinds)
            else:
                return "fine"
            fits = {CUT: verb == "GET", STALE: path in self.listings, CONFLICT: conditional}
            if kind == "fine" or not fits.get(kind, True):
                return "fine"
            self.happened[kind] += 1
            return kind


class FaultyServer:
    """In front of the S3 server at `endpoint`, under `url`, until `close`."""

    def __init__(self, endpoint: str, seed: int = 0) -> None:
        self.faults = Faults(seed)
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.faults, self._server.upstream = self.faults, urlsplit(endpoint).netloc
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False  # clients keep their connections
    faults: Faults
    upstream: str

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away are none."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        kind = self.server.faults.draw(self.command, self.path, "If-None-Match" in self.headers)
        if kind == "error":
            self._refuse(500, "InternalError")
        elif kind == "slow down":
            self._refuse(503, "SlowDown")
        elif kind == FORBIDDEN:
            self._refuse(403, "AccessDenied")
        elif kind == "reset":
            self._reset()
        elif kind == STALE:
            self._answer(*self.server.faults.listings[self.path][0])
        else:
            self._harm(kind, *self._forward(body))

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        connection = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            connection.request(self.command, self.path, body or None, {**headers, "Content-Length": str(len(body))})
            answer = connection.getresponse()
            data = answer.read()
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in _HOP_BY_HOP}
            length = answer.headers.get("Content-Length", str(len(data)))
        finally:
            connection.close()
        whole = answer.status, {**kept, "Content-Length": length}, data
        if self.command == "GET" and "list-type=2" in self.path:
            self.server.faults.listings.setdefault(self.path, []).append(whole)
        return whole

    def _harm(self, kind: str, status: int, headers: dict[str, str], data: bytes) -> None:
        if kind == "lost":
            self._refuse(500, "InternalError")
        elif kind == CONFLICT:
            self._refuse(412, "PreconditionFailed")
        elif kind == "dropped":
            self._reset()
        elif kind == CUT:
            self._answer(status, headers, data[: len(data) // 2])
            self._reset()
        else:
            if kind == "slow":
                time.sleep(SLOW)
            self._answer(status, headers, data)

    def _refuse(self, status: int, code: str) -> None:
        text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>a fault, for the test</Message></Error>'
        self._answer(status, {"Content-Type": "application/xml", "Content-Length": str(len(text))}, text.encode())

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        """The client sees its connection reset, as from a crashed server."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wfile.flush()
        self.close_connection = True
        self.connection.close()


for _verb in ("GET", "PUT", "HEAD", "POST", "DELETE"):
    setattr(_Handler, f"do_{_verb}", _Handler.handle_request)
