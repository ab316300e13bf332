"""A URL says what kind of samples it names."""

from datetime import datetime

import pytest

from corrdiff_core.dataset import CwaDataset, NatureRun, StoredSamples, open_samples
from corrdiff_core.dataset.cwa_fixture import write_cwa
from corrdiff_core.errors import DatasetError
from corrdiff_core.grid import TAIWAN
from tests.corrdiff_core.dataset.dataset_cases import HOURS, built
from tests.small_domain import SMALL


@pytest.mark.parametrize(
    "period",
    [
        "2021-01-01:2022-01-01",
        "20210101T00:20220101T00",
        "2021-01-01T00:00:2022-01-01T00:00",
        "2021-01-01T00:00:00:2022-01-01",
    ],
)
def test_a_nature_run(period):
    samples = open_samples(f"nature:7:{period}:24")
    assert samples == NatureRun(TAIWAN, 7, datetime(2021, 1, 1), datetime(2022, 1, 1), 24)
    assert open_samples(f"nature:7:{period}:24", SMALL).domain == SMALL


@pytest.mark.parametrize("url", ["nature:", "nature:1:2021-01-01:24", "nature:x:2021-01-01:2022-01-01:24", "nature:1"])
def test_no_nature_run(url):
    with pytest.raises(DatasetError, match="is no nature run: write nature:SEED:START:END:COUNT"):
        open_samples(url)


def test_ours_and_the_public_one(tmp_path):
    built(tmp_path / "ours")
    write_cwa(str(tmp_path / "cwa.zarr"), HOURS[:2], SMALL)
    assert isinstance(open_samples(str(tmp_path / "ours")), StoredSamples)
    assert isinstance(open_samples(f"file://{tmp_path}/cwa.zarr", SMALL), CwaDataset)


def test_anything_else_names_the_three(tmp_path):
    for name in ("nothing", "."):
        with pytest.raises(DatasetError, match=r"dataset.json .*CWA dataset .*nature:SEED"):
            open_samples(str(tmp_path / name))
