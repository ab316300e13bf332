"""`corrdiff dataset` and `corrdiff nature write-training | write-cwa`, as a user types them."""

import re
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner, Result

from corrdiff_core import nature
from corrdiff_core.archive import Archive, Layout, Series
from corrdiff_core.cycle import HOUR, Slot, hours_from, parse_time
from corrdiff_core.dataset import CwaDataset, StoredSamples, box_lines, open_samples
from corrdiff_core.errors import ConfigurationError, DatasetError
from corrdiff_core.grid import TAIWAN
from flows.cli import app

START = parse_time("2021-06-07T10:00")
PERIOD = ("--start", "2021-06-07T10:00", "--end", "2021-06-07T12:00")


def corrdiff(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Result]:
    url = str(tmp_path_factory.mktemp("training") / "dataset")
    return url, corrdiff("nature", "write-training", url, *PERIOD)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Three hours of truth, one more than the first build asks for."""
    lines = box_lines(TAIWAN.input_box)
    fields = [nature.truth(nature.weather(1, time, *lines), 1) for time in hours_from(START, 3)]
    url = str(tmp_path_factory.mktemp("truth") / "truth.nc")
    xr.concat(fields, "valid_time").rename(valid_time="time").to_netcdf(url, engine="h5netcdf")
    return url


def archive(root: Path, leads: range) -> str:
    """What the hourly run leaves of its inputs."""
    series, lines = Series("forecast", "gfs", "demo-1a2b3c4d"), box_lines(TAIWAN.input_box)
    layout = Layout(TAIWAN, 1, [hour * HOUR for hour in range(4)], *lines)
    for lead in leads:
        slot = Slot.forecast(START, lead * HOUR)
        Archive(str(root)).create(series, slot, layout)
        Archive(str(root)).write_inputs(series, slot, nature.weather(1, slot.valid_time, *lines), {})
    return str(root)


def test_synthetic_training_data(training: tuple[str, Result]) -> None:
    url, done = training
    assert done.exit_code == 0
    samples = StoredSamples.open(url)
    assert samples.times == tuple(hours_from(START, 2))
    assert samples.domain == TAIWAN
    assert f"digest {samples.digest}" in done.stdout
    assert re.search(r"inputs z500 +mean +5\d{4}\.\d+ +std +\d+\.\d+ m2 s-2", done.stdout)
    assert re.search(r"truth +mrr +mean +\d+\.\d+ +std +\d+\.\d+ dBZ", done.stdout)


def test_a_model_can_be_trained_on_what_the_hourly_run_archived(
    tmp_path: Path, training: tuple[str, Result], truth: str
) -> None:
    inputs, url = archive(tmp_path / "archive", range(2)), str(tmp_path / "dataset")
    done = corrdiff("dataset", "build", url, "--source", inputs, "--truth", truth, *PERIOD)
    assert "2021-06: 2 samples, 2 of them new" in done.stdout
    assert "inputs forecast/gfs, truth fields" in done.stdout
    assert f"digest {StoredSamples.open(training[0]).digest}" in done.stdout

    assert "2 samples, 0 of them new" in corrdiff("dataset", "extend", url, "--end", "2021-07-01").stdout
    archive(tmp_path / "archive", range(2, 4))
    assert "3 samples, 1 of them new" in corrdiff("dataset", "extend", url, "--end", "2021-07-01").stdout
    assert len(open_samples(url)) == 3


def test_the_cwa_layout(tmp_path: Path) -> None:
    url = str(tmp_path / "cwa_dataset.zarr")
    assert corrdiff("nature", "write-cwa", url, *PERIOD).stdout == f"{url}: 2 hours\n"
    samples = open_samples(url)
    assert isinstance(samples, CwaDataset)
    assert samples.times == tuple(hours_from(START, 2))
    assert samples.read(1).truth.shape == (4, 448, 448)


def test_what_makes_no_sense_is_named(tmp_path: Path, truth: str) -> None:
    with pytest.raises(DatasetError, match="there is no dataset"):
        corrdiff("dataset", "extend", str(tmp_path), "--end", "2021-07-01")
    with pytest.raises(ConfigurationError, match="is no time"):
        corrdiff("dataset", "extend", str(tmp_path), "--end", "yesterday")
    with pytest.raises(ConfigurationError, match="sources of forecasts need an init_time"):
        corrdiff("dataset", "build", str(tmp_path / "d"), "--source", "gfs", "--truth", truth, *PERIOD)
