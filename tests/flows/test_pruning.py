"""`corrdiff archive prune` as a user types it."""

import re
from datetime import timedelta

import pytest
from typer.testing import CliRunner

from corrdiff_core.archive import Archive
from corrdiff_core.cycle import HOUR, Slot, floor_cycle, utc_now
from flows.cli import app
from tests.archive_cases import FORECAST, LAYOUT, ensemble

NOW = floor_cycle(utc_now(), 6 * HOUR)
OLD, NEW = (Slot.forecast(NOW - days * timedelta(days=1), HOUR) for days in (40, 2))


@pytest.fixture
def archive(tmp_path):
    made = Archive(str(tmp_path))
    for one in (OLD, NEW):
        made.create(FORECAST, one, LAYOUT)
        made.write(FORECAST, one, ensemble())
        made.publish(FORECAST, one, {})
    return made


def typed(*arguments):
    return CliRunner().invoke(app, ["archive", "prune", *arguments])


def contents(archive):
    return {path: path.stat().st_mtime_ns for path in archive._objects.root.rglob("*")}


def test_old_stores_go_and_their_size_is_told(archive):
    before = contents(archive)
    told = typed("--archive", archive.url, "--keep", "30d", "--dry-run")
    assert told.exit_code == 0
    assert contents(archive) == before
    [store, summary] = told.output.splitlines()
    assert store.startswith(FORECAST.store_key(OLD.init_time))
    assert re.search(r"1 forecast stores without a slot since .*Z would be removed: \d+ objects, \d\.\d MB$", summary)
    done = typed("--archive", archive.url, "--keep", "30d")
    assert done.output.splitlines()[0] == store
    assert archive.stores(FORECAST) == [NEW.init_time]
    assert "0 forecast stores" in typed("--archive", archive.url, "--keep", "30d").output


def test_without_keep_nothing_goes(archive, monkeypatch):
    monkeypatch.setenv("CORRDIFF_ARCHIVE", archive.url)
    before = contents(archive)
    assert typed().exit_code == 2
    assert typed("--keep", "1y").exception is not None
    assert contents(archive) == before
    assert typed("--keep", "24h").exit_code == 0
    assert archive.stores(FORECAST) == []
