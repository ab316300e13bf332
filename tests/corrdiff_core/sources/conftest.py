"""Weather written as GFS leads, servers that hand it out, and the real files of ../shared where they are."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.sources.gfs import GFS, layouts, object_name, write_lead
from corrdiff_core.variables import INPUTS

SHARED = Path(__file__).resolve().parents[3] / "../shared/data"
SLOT = Slot.forecast(datetime(2025, 8, 1), 7 * HOUR)
CENTER = {"tcwv": 40.0, "z500": 57384.0, "t500": 267.0, "z850": 14835.0, "t850": 288.0, "t2m": 296.0}


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """Path of a real file; skips where the folder is absent."""

    def find(name: str) -> Path:
        path = SHARED / name
        if not path.exists():
            pytest.skip(f"no ../shared/data/{name} beside this checkout")
        return path

    return find


def make_weather(latitude: np.ndarray, longitude: np.ndarray, seed: int = 0) -> xr.Dataset:
    """Twelve distinct fields, each with its own center, on the grid given."""
    generator = np.random.default_rng(seed)
    fields = {}
    for variable in INPUTS:
        values = generator.normal(CENTER.get(variable.name, 0.0), 5.0, (latitude.size, longitude.size))
        fields[variable.name] = (("latitude", "longitude"), values.astype(np.float32), variable.attrs)
    return xr.Dataset(fields, {"latitude": latitude, "longitude": longitude})


@pytest.fixture(scope="session")
def weather() -> xr.Dataset:
    """0.25 degrees around Taiwan, a little more than the input box, south to north."""
    return make_weather(np.arange(18.0, 29.25, 0.25), np.arange(115.0, 127.25, 0.25))


@pytest.fixture(scope="session")
def make() -> Callable[..., xr.Dataset]:
    return make_weather


@dataclass
class Lead:
    """One written lead in a local directory, to be damaged."""

    root: Path
    slot: Slot

    @property
    def file(self) -> Path:
        assert self.slot.init_time is not None
        return self.root / object_name(layouts(self.slot.init_time)[0], self.slot)

    @property
    def idx(self) -> Path:
        return self.file.with_name(f"{self.file.name}.idx")

    @property
    def source(self) -> GFS:
        return GFS(str(self.root))

    def span(self, key: str) -> tuple[int, int]:
        """Bytes of the message that the inventory lists under ELEMENT:LEVEL."""
        lines = self.idx.read_text().splitlines()
        offsets = [int(line.split(":")[1]) for line in lines] + [self.file.stat().st_size]
        (at,) = [index for index, line in enumerate(lines) if f":{key}:" in line]
        return offsets[at], offsets[at + 1]

    def edit_idx(self, old: str, new: str) -> None:
        text = self.idx.read_text()
        assert old in text
        self.idx.write_text(text.replace(old, new))


@pytest.fixture
def lead(tmp_path: Path, weather: xr.Dataset) -> Lead:
    write_lead(str(tmp_path), SLOT, weather)
    return Lead(tmp_path, SLOT)


@pytest.fixture
def lead_of(tmp_path: Path) -> Callable[[Slot], Lead]:
    return partial(Lead, tmp_path)


@dataclass
class Requests:
    """What a server was asked, and how many answers were under way at once."""

    lines: list[str] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def one(self, line: str) -> Iterator[None]:
        with self.lock:
            self.lines.append(line)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            yield
        finally:
            with self.lock:
                self.at_once -= 1


def _handler(root: Path, mode: str, requests: Requests) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(send_body=False)

        def do_GET(self) -> None:
            self.answer(send_body=True)

        def answer(self, send_body: bool) -> None:
            asked = self.headers.get("Range")
            with requests.one(f"{self.command} {asked}"):
                path = root / self.path.lstrip("/")
                if mode.isdigit() or not path.is_file():
                    self.send_error(int(mode) if mode.isdigit() else 404)
                    return
                body = path.read_bytes()
                if asked and mode != "ignores-range":
                    start, stop = map(int, asked.removeprefix("bytes=").split("-"))
                    body = body[start : stop + 1]
                    if mode == "cuts":
                        body = body[: len(body) // 2]
                    if mode == "slow":
                        threading.Event().wait(0.1)
                self.send_response(206 if asked and mode != "ignores-range" else 200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Last-Modified", "Fri, 01 Aug 2025 03:40:00 GMT")
                self.end_headers()
                if send_body:
                    self.wfile.write(body)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, Requests]]]:
    """Starts an HTTP server of a directory: `serve(path, mode)` gives its URL and what it was asked.

    Modes: plain, ignores-range (200 and everything), cuts (half of each range), slow, or a status such as 503.
    """
    servers: list[ThreadingHTTPServer] = []

    def start(root: Path, mode: str = "plain") -> tuple[str, Requests]:
        requests = Requests()
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(root, mode, requests))
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}", requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
