"""A backfill of ERA5: what sampling hides, memory in the number of slots, planning, a year predicted from one slot."""

import os
import re
import subprocess
import sys
import threading
import time
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import mean, median

import boto3
import numpy as np
import pytest
import torch

from corrdiff_core import nature
from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.archive.template import OUTPUT_MARKER
from corrdiff_core.checkpoint import save_checkpoint
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.nature_era5 import LEVELS, write_arco
from corrdiff_core.sources.era5 import ERA5
from corrdiff_core.sources.era5_arco import NAMES
from flows.backfill import backfill
from flows.outcome import Backfilled
from flows.planning import asked, plan
from flows.report import Began, Said, reporting_to
from tests.archive_cases import HINDCAST
from tests.flows.flow_cases import REPOSITORY
from tests.flows.prefect_server import prefect_with_limits
from tests.flows.test_planning import HINDCAST_LAYOUT
from tests.small_domain import SMALL, checkpoint

pytestmark = pytest.mark.benchmark

START = datetime(2021, 1, 31, 12)  # across the end of a month, and so of a store
BOX = SMALL.input_box
AREA = (np.arange(BOX.south, BOX.north + 0.1, 0.25), np.arange(BOX.west, BOX.east + 0.1, 0.25))
SLOTS, MANY = 24, 240
HEAVY = {"members": 6, "steps": 8}  # half a second to a second a slot, by one thread
# The command line, and at its end what this process alone holds: a child's usage would count the Prefect server's.
MEASURED = """
import atexit, re
from flows.cli import main
atexit.register(lambda: print(*re.findall("VmHWM.*|VmRSS.*", open("/proc/self/status").read())))
main()
"""


@pytest.fixture(scope="module")
def era5(tmp_path_factory):
    root = tmp_path_factory.mktemp("era5")
    write_arco(str(root), START, START + MANY * HOUR, area=AREA)
    return root


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path, made = tmp_path_factory.mktemp("models") / "small", checkpoint()
    save_checkpoint(str(path), made.manifest, made.regression, made.diffusion, made.invariants)
    return str(path)


@pytest.fixture(scope="module")
def prefect():
    with prefect_with_limits():
        yield


@pytest.fixture
def one_thread():
    """Leaves a core to everything else, as a GPU would."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Slow(BaseHTTPRequestHandler):
    """Serves ranges of a directory's files; the chunks of fields `server.pause` seconds late."""

    def do_HEAD(self):
        self.answer(b"")

    def do_GET(self):
        if self.path.split("/")[1] in NAMES.values():
            time.sleep(self.server.pause)
        self.answer(self.file.read_bytes() if self.file.is_file() else b"")

    @property
    def file(self):
        return self.server.root / self.path.lstrip("/")

    def answer(self, body):
        if not self.file.is_file():
            self.send_error(404)
            return
        status, size = 200, self.file.stat().st_size
        if self.command == "GET" and "Range" in self.headers:
            first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
            status, body = 206, body[first : last + 1]
            size = len(body)
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@pytest.fixture
def slow(era5):
    """The ERA5 store behind an HTTP server that answers as late as its `pause` says."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    server.root, server.pause, server.daemon_threads = era5, 0.0, True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def backfilled(source_url, archive, hours, **options):
    """The provenance of each slot, and the seconds from when slots began to be made to when all were."""
    marks = []

    def mark(event):
        if isinstance(event, Began | Backfilled):
            marks.append(time.perf_counter())

    period = {"start": START.isoformat(), "end": (START + hours * HOUR).isoformat()}
    with reporting_to(mark):
        result = backfill(source="era5", source_url=source_url, archive=archive.url, **period, **options)
    assert (result.exit_code, len(result.outcomes)) == (0, hours)
    series = Series("hindcast", "era5", Path(result.where).name)
    made = [archive.provenance(series, outcome.slot) for outcome in result.outcomes]
    return made, marks[-1] - marks[0]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("place", "slower"), [("local", 1), ("local", 3), ("s3", 1)])
def test_fetching_and_writing_are_hidden(
    place, slower, slow, era5, model, prefect, one_thread, request, tmp_path, capsys
):
    """By sampling, where fetching an hour from a slow HTTP server takes `slower` times as long."""
    archive = Archive(str(tmp_path / "made") if place == "local" else f"{request.getfixturevalue('s3_url')}/made")
    given = {"model": model, "cache": str(tmp_path / "cache"), **HEAVY}
    warm, _ = backfilled(str(era5), Archive(str(tmp_path / "warm")), 3, **given)
    slow.pause = slower * median(slot["seconds"]["sample"] for slot in warm)
    made, wall = backfilled(f"http://127.0.0.1:{slow.server_port}", archive, SLOTS, **given)
    fetch, sample, write = (sum(slot["seconds"][stage] for slot in made) for stage in ("fetch", "sample", "write"))
    with capsys.disabled():
        print(
            f"\n{SLOTS} slots to {place}, fetched in {fetch / SLOTS:.2f} s, sampled in {sample / SLOTS:.2f} s, written"
            f" in {write / SLOTS:.3f} s each: {wall:.1f} s = {wall / sample:.3f} x the sampling alone"
            f" ({sample:.1f} s; goal 1.1); {wall - sample:.1f} s beyond it of {fetch + write:.1f} s fetching and"
            f" writing ({write:.1f} s)"
        )
    assert mean(slot["seconds"]["fetch"] for slot in made) > slow.pause


@pytest.mark.timeout(1800)
def test_memory_does_not_grow_with_the_slots(era5, model, tmp_path, capsys):
    held = {hours: held_mib(era5, model, hours, tmp_path / str(hours)) for hours in (SLOTS, MANY)}
    told = [f"peak {peak:.0f} MiB, {end:.0f} MiB at the end for {hours} slots" for hours, (peak, end) in held.items()]
    growth = [1024 * (many - few) / (MANY - SLOTS) for few, many in zip(held[SLOTS], held[MANY], strict=True)]
    with capsys.disabled():
        print(f"\ncorrdiff backfill: {'; '.join(told)}: {growth[0]:.0f} and {growth[1]:.0f} KiB more a slot")


def held_mib(era5, model, hours, folder):
    """Resident memory of `corrdiff backfill`, its Prefect server not counted: the most, and at the end."""
    folder.mkdir()
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("CORRDIFF_", "PREFECT_", "OMP_"))}
    settings = {
        "CORRDIFF_ERA5_URL": str(era5), "CORRDIFF_MODEL": model, "OMP_NUM_THREADS": "1",
        "PREFECT_HOME": str(folder), "PYTHONPATH": str(REPOSITORY),
    }  # fmt: skip
    end = (START + hours * HOUR).isoformat()
    command = ["backfill", "--source", "era5", "--start", START.isoformat(), "--end", end, "--members", "1"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *command, "--steps", "2"],
        env=inherited | settings,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{hours} of {hours} slots" in done.stdout
    return [int(re.findall(rf"{name}:\s*(\d+) kB", done.stdout)[-1]) / 1024 for name in ("VmHWM", "VmRSS")]


HOURS, PUBLISHED = 100_000, 10_000
FIRST = datetime(2010, 1, 1)


def planned(archive):
    """The plan of `HOURS` slots, and its seconds."""
    source, started = ERA5("nowhere"), time.perf_counter()
    found = plan(archive, HINDCAST, source, asked(source, FIRST, FIRST + HOURS * HOUR))
    return found, time.perf_counter() - started


def by_month(hours):
    months = {}
    for time_ in hours:
        months.setdefault(HINDCAST.store_start(time_), []).append(time_)
    return months


def marker(start, time_):
    """The object that publishes an hour."""
    return f"{HINDCAST.store_key(start)}/{OUTPUT_MARKER}/c/{(time_ - start) // HOUR}"


def test_planning_beside_many_published_slots(tmp_path, capsys):
    archive = Archive(str(tmp_path))
    for start, hours in by_month(hours_from(FIRST, PUBLISHED)).items():
        archive.create(HINDCAST, Slot(start), HINDCAST_LAYOUT)
        for time_ in hours:
            path = tmp_path / marker(start, time_)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    found, seconds = planned(archive)
    with capsys.disabled():
        print(f"\n{HOURS:,} slots planned on a disk with {found.there:,} published: {seconds:.2f} s (goal 5)")
    assert (found.there, len(found.todo)) == (PUBLISHED, HOURS - PUBLISHED)


def test_planning_on_s3(faulty, s3_url, capsys):
    archive, bucket = Archive(f"{s3_url}/made"), s3_url.removeprefix("s3://")
    archive.create(HINDCAST, Slot(FIRST), HINDCAST_LAYOUT)
    month = hours_from(FIRST, 31 * 24)
    for time_ in month:
        boto3.client("s3").put_object(Bucket=bucket, Key=f"made/{marker(FIRST, time_)}", Body=b"")
    faulty.faults.requests.clear()
    found, seconds = planned(archive)
    requests = faulty.faults.requests
    listings = [request for request in requests if request.rstrip("/") == f"GET /{bucket}"]
    months = len(by_month(slot.valid_time for slot in found.slots))
    with capsys.disabled():
        print(
            f"\n{HOURS:,} slots planned on S3 with {found.there:,} published: {seconds:.2f} s, {len(listings)} listings"
            f" for {months} months, {len(requests) - len(listings)} other requests"
        )
    assert (found.there, len(found.todo)) == (len(month), HOURS - len(month))


GLOBE = (np.linspace(-90, 90, 721), np.arange(0, 360, 0.25))
REGION = (nature.GFS_LATITUDE, nature.GFS_LONGITUDE)
RAW = 4 * 721 * 1440 * (4 * len(LEVELS) + 4)  # bytes of an hour's eight chunks, not compressed


def everywhere(seed, time_, latitude, longitude, weather=nature.weather):
    """The nature run in its own region, and its mirror images in the rest of the globe."""
    fields = weather(seed, time_, *REGION)
    positions = {}
    for name, lines, own in zip(("latitude", "longitude"), (latitude, longitude), REGION, strict=True):
        steps = np.rint((lines - own[0]) / 0.25).astype(int) % (2 * own.size - 2)
        positions[name] = np.minimum(steps, 2 * own.size - 2 - steps)
    return fields.isel(positions).assign_coords(latitude=latitude, longitude=longitude)


@pytest.mark.timeout(1800)
def test_a_year_from_one_slot(prefect, tmp_path, monkeypatch, capsys):
    """Demo checkpoint, eight members, from chunks as large as ARCO-ERA5's, of synthetic weather."""
    monkeypatch.setattr(nature, "weather", everywhere)
    era5, archive = str(tmp_path / "era5"), str(tmp_path / "made")
    hours = 3 if torch.cuda.is_available() else 1  # a GPU is slow at first
    write_arco(era5, START, START + hours * HOUR, area=GLOBE)
    options = {"members": 8, "cache": str(tmp_path / "cache")}
    busy = time.process_time()
    made = backfilled(era5, Archive(archive), hours, **options)[0][-1]
    busy, said = (time.process_time() - busy) / hours, []
    chunks = sum(chunk["size"] for chunk in made["inputs"]["objects"].values())
    year = {"start": "2020-01-01", "end": "2021-01-01", "dry_run": True}
    with reporting_to(lambda event: said.append(event.text) if isinstance(event, Said) else None):
        backfill(source="era5", source_url=era5, archive=archive, **year, **options)
    how = f"{made['members']} members, {made['steps']} {made['solver']} steps on {made['device']}"
    with capsys.disabled():
        print(
            f"\none slot, {how}, {torch.get_num_threads()} threads: fetch {made['seconds']['fetch']:.1f} s, sample"
            f" {made['seconds']['sample']:.1f} s, write {made['seconds']['write']:.1f} s, {busy:.0f} s of CPU in all;"
            f" chunks compressed to {chunks / RAW:.0%}\n" + said[-1]
        )
    assert "8784 slots, 0 are there, 8784 to make" in said[-1]
