"""A second region, not square and without radar, from nothing but its TOML file to a picture of its ensemble."""

import shutil
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.dataset import StoredSamples, box_lines, terrain_invariants
from corrdiff_core.domain_file import read_domain
from corrdiff_core.grid import Domain
from corrdiff_core.nature import write_gfs
from corrdiff_core.train import train
from flows.settings import Settings
from flows.show import draw_store
from flows.slots import Run, fetch_slot, generate_slot, open_run
from tests.flows.flow_cases import REPOSITORY, Corrdiff, toml
from tests.flows.test_datasets import corrdiff as command
from tests.small_domain import PRESET

TIMES = [datetime(2021, month, 3 * month, hour) for month in (5, 6, 7, 8, 9) for hour in (0, 12)]
INIT = datetime(2021, 7, 20, 6)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("region") / "luzon.toml"
    shutil.copy(REPOSITORY / "docs" / "domain-example.toml", path)
    return str(path)


@pytest.fixture(scope="module")
def dataset(file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Built by the command line from files with names of their own, and a truth without reflectivity."""
    folder, domain = tmp_path_factory.mktemp("data"), read_domain(file)
    fields = [nature.weather(1, time, *box_lines(domain.input_box)) for time in TIMES]
    truth = [nature.truth(each, 1, domain)[list(domain.outputs)] for each in fields]
    _joined(truth).to_netcdf(folder / "truth.nc", engine="h5netcdf")
    inputs = _joined(fields).rename(t2m="tas", u10m="uas", v10m="vas", tcwv="prw")
    for month, part in inputs.groupby("time.month"):
        part.to_netcdf(folder / f"mine_{month}.nc", engine="scipy")
    period = ("--start", "2021-01-01", "--end", "2022-01-01", "--domain", file)
    url, sides = str(folder / "dataset"), ("--source", str(folder / "mine_*.nc"), "--truth", str(folder / "truth.nc"))
    done = command("dataset", "build", url, *sides, *period)
    assert done.exit_code == 0, done.output
    assert "10 samples of 20210515T00..20210927T12 on luzon, inputs fields, truth fields" in done.stdout
    return url


def _joined(fields: list[xr.Dataset]) -> xr.Dataset:
    return xr.concat(fields, "valid_time").rename(valid_time="time")


@pytest.fixture(scope="module")
def model(dataset: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("training")
    train(replace(PRESET, name="luzon"), StoredSamples.open(dataset), folder, workers=0, report=lambda line: None)
    return str(folder / "checkpoint")


@pytest.fixture(scope="module")
def leads(file: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    root = str(tmp_path_factory.mktemp("gfs"))
    write_gfs(root, INIT, [0, 1], box=read_domain(file).input_box)
    return root


def test_the_dataset_is_on_the_domain(dataset: str, file: str) -> None:
    samples, domain = StoredSamples.open(dataset), read_domain(file)
    assert samples.domain == domain
    sample = samples.read(3)
    assert sample.inputs.shape == (12, 64, 96)
    expected = nature.truth(nature.weather(1, TIMES[3], *box_lines(domain.input_box)), 1, domain)
    np.testing.assert_array_equal(sample.truth, np.stack([expected[name] for name in ("t2m", "u10m", "v10m")]))


def test_from_weather_to_a_picture(model: str, leads: str, file: str, tmp_path: Path) -> None:
    run = open_run(
        Settings.of(model=model, source_url=leads, archive=str(tmp_path / "archive"), members=3, device="cpu")
    )
    slot = Slot.forecast(INIT, HOUR)
    assert fetch_slot(run, slot) is None
    generate_slot(run, slot)
    _check_store(run, slot, read_domain(file))
    with Image.open(draw_store(run.store_url(slot), 1, out=str(tmp_path / "luzon.png"))) as picture:
        width, height = picture.size
    assert width > 1.5 * height  # three rows of panels that are wider than high


def _check_store(run: Run, slot: Slot, domain: Domain) -> None:
    """What any reader finds: the three variables, where the TOML says."""
    opened = xr.open_zarr(run.store_url(slot), decode_coords="all")
    assert set(opened.data_vars) >= {"t2m", "u10m", "v10m"}
    assert "mrr" not in opened
    ensemble = opened.sel(lead_time=np.timedelta64(slot.lead_time))
    assert ensemble["t2m"].dims == ("member", "y", "x")
    assert ensemble["t2m"].shape == (3, 64, 96)
    assert np.isfinite(ensemble[["t2m", "u10m", "v10m"]].to_dataarray()).all()
    assert float(opened.y[0]) == -98000.0
    assert float(opened.x[-1]) == -192000.0 + 96 * 4000.0
    corner = domain.unproject(np.array(-188000.0), np.array(-98000.0))
    assert (float(opened.longitude[0, 0]), float(opened.latitude[0, 0])) == tuple(map(float, corner))
    assert opened.spatial_ref.attrs["standard_parallel"] == [15.0, 25.0]
    assert opened.attrs["title"].endswith("luzon, 4 km")


def test_the_networks_were_told_the_terrain(model: str, file: str) -> None:
    from corrdiff_core.checkpoint import load_checkpoint

    made = load_checkpoint(model)
    assert made.manifest.invariants == ("elevation", "land_fraction")
    assert made.manifest.outputs[0].name == "t2m"
    assert made.invariants.equal(terrain_invariants(read_domain(file)))


def test_fewer_inputs_and_no_invariants(file: str, leads: str, tmp_path: Path) -> None:
    """The least that a region may have: five inputs, one output, degrees for metres, no terrain."""
    domain = replace(
        read_domain(file), name="sparse", projection="+proj=longlat +R=6371229", x0=119.5, y0=18.25, step=0.0625,
        rows=34, columns=50, inputs=("tcwv", "t850", "t2m", "u10m", "v10m"), outputs=("t2m",), invariants="none",
    )  # fmt: skip
    text = toml(domain.to_dict())
    (tmp_path / "sparse.toml").write_text(text)
    url, period = str(tmp_path / "dataset"), ("--start", "2021-07-01", "--end", "2021-07-01T05")
    done = command("nature", "write-training", url, *period, "--domain", str(tmp_path / "sparse.toml"))
    assert "inputs t850 " in done.stdout
    assert "inputs z500 " not in done.stdout
    assert "truth  mrr" not in done.stdout
    samples = StoredSamples.open(url)
    made = train(replace(PRESET, name="sparse"), samples, tmp_path / "run", workers=0, report=lambda line: None)
    assert made.manifest.diffusion.conditioning == ("mean", "input")
    slot, settings = Slot.forecast(INIT, HOUR), Settings.of(source_url=leads, archive=str(tmp_path / "archive"))
    run = Run(settings, str(tmp_path / "run" / "checkpoint"), _wide(made.manifest))
    assert fetch_slot(run, slot) is None
    stored = xr.open_zarr(run.store_url(slot), group="inputs")
    assert {"tcwv", "t850", "t2m", "u10m", "v10m"} <= set(stored.data_vars)
    assert "z500" not in stored
    opened = xr.open_zarr(run.store_url(slot), decode_coords="all")
    assert opened.y.attrs["units"] == "degrees_north"
    np.testing.assert_array_equal(opened.latitude[:, 0], opened.y)


def _wide(manifest):  # type: ignore[no-untyped-def]
    """Five hours of training are no climate: the check of the inputs is told of a wider one."""
    statistics = manifest.input_statistics
    return replace(manifest, input_statistics=replace(statistics, scale=tuple(100 * s for s in statistics.scale)))


def test_another_domain_than_the_datasets_is_refused(dataset: str, file: str, tmp_path: Path) -> None:
    other = Path(file).read_text().replace("crop = 1", "crop = 2")
    (tmp_path / "other.toml").write_text(other)
    arguments = ("--dataset", dataset, "--out", str(tmp_path / "run"), "--domain", str(tmp_path / "other.toml"))
    with pytest.raises(
        Exception, match=r"is on the domain luzon that it was built with, .*other.toml describes another"
    ):
        command("train", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.service
def test_the_command_line_alone(corrdiff: Corrdiff, file: str, model: str, tmp_path: Path) -> None:
    root, archive, cycle = str(tmp_path / "noaa"), str(tmp_path / "archive"), ("--init", f"{INIT:%Y-%m-%dT%H}")
    written = corrdiff("nature", "write", root, *cycle, "--leads", "0-1", "--domain", file)
    assert written.returncode == 0, written.stderr
    made = corrdiff("hourly", *cycle, "--leads", "0-1", "--model", model, "--members", "2", CORRDIFF_GFS_URL=root)
    assert made.returncode == 0, made.stderr
    shown = corrdiff("show", archive, "--out", "luzon.png")
    assert shown.returncode == 0, shown.stderr
    assert (tmp_path / "luzon.png").read_bytes().startswith(b"\x89PNG")
