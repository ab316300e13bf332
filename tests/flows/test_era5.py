"""ERA5 as a user meets it: `corrdiff nature write-era5`, and training data from CORRDIFF_ERA5_URL."""

from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner, Result

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot, hours_from, parse_time
from corrdiff_core.dataset import StoredSamples, box_lines
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import TAIWAN
from corrdiff_core.sources import open_source
from flows.cli import app

START = parse_time("2021-06-07T10:00")
PERIOD = ("--start", "2021-06-07T10:00", "--end", "2021-06-07T13:00")


def corrdiff(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> str:
    lines = box_lines(TAIWAN.input_box)
    fields = [nature.truth(nature.weather(1, time, *lines), 1) for time in hours_from(START, 3)]
    url = str(tmp_path_factory.mktemp("truth") / "truth.nc")
    xr.concat(fields, "valid_time").rename(valid_time="time").to_netcdf(url, engine="h5netcdf")
    return url


def test_a_store_is_written_and_grows(tmp_path: Path) -> None:
    url = str(tmp_path / "era5")
    done = corrdiff("nature", "write-era5", url, *PERIOD, "--era5t-from", "2021-06-07T12:00", "--extended", "5")
    assert done.stdout == (
        f"{url}: valid_time_start 2021-06-07T10:00, valid_time_stop 2021-06-07T11:00, "
        "valid_time_stop_era5t 2021-06-07T12:00\n"
    )
    source = open_source("era5", url)
    assert [source.available(Slot(START + lead * HOUR)) for lead in range(5)] == [True] * 3 + [False] * 2
    more = ("--start", "2021-06-07T13:00", "--end", "2021-06-07T14:00")
    assert "valid_time_stop 2021-06-07T13:00" in corrdiff("nature", "write-era5", url, *more).stdout
    assert source.available(Slot(START + 3 * HOUR))


def test_options_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="are of --layout arco"):
        corrdiff("nature", "write-era5", str(tmp_path), *PERIOD, "--layout", "ncar", "--extended", "3")
    with pytest.raises(ConfigurationError, match="is no time"):
        corrdiff("nature", "write-era5", str(tmp_path), "--start", "yesterday", "--end", "2021-06-07")


def test_training_data_from_era5(tmp_path: Path, truth: str, monkeypatch: pytest.MonkeyPatch) -> None:
    root, url, cache = (str(tmp_path / name) for name in ("era5", "dataset", "cache"))
    monkeypatch.setenv("CORRDIFF_ERA5_URL", root)
    corrdiff("nature", "write-era5", root, "--start", "2021-06-07T10:00", "--end", "2021-06-07T12:00")
    build = ("dataset", "build", url, "--source", "era5", "--truth", truth, *PERIOD, "--cache", cache)
    done = corrdiff(*build)
    assert "2021-06: 2 samples, 2 of them new" in done.stdout
    assert "left out: 20210607T12: not there yet in era5" in done.stdout
    assert "inputs era5, truth fields" in done.stdout
    assert len([path for path in Path(cache).rglob("*") if path.is_file()]) == 2

    later = ("--start", "2021-06-07T12:00", "--end", "2021-06-07T13:00", "--era5t-from", "2021-06-07T12:00")
    corrdiff("nature", "write-era5", root, *later)
    extend = ("dataset", "extend", url, "--end", "2021-07-01", "--source", "era5", "--truth", truth)
    assert "3 samples, 1 of them new" in corrdiff(*extend).stdout
    samples = StoredSamples.open(url)
    assert [entry.source for _, entry in sorted(samples.index.items())] == [
        f"era5 at {root}",
        f"era5 at {root}",
        f"era5 at {root} (preliminary)",
    ]
    direct = str(tmp_path / "direct")
    corrdiff("nature", "write-training", direct, *PERIOD)
    for number in range(3):
        assert (samples.read(number).inputs == StoredSamples.open(direct).read(number).inputs).all()
