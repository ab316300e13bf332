"""Samples per second of each kind of samples and of the loader, on the Taiwan domain; prints, never fails on speed."""

from datetime import datetime
from time import perf_counter

import pytest
from torch.utils.data import DataLoader

from corrdiff_core.cycle import hours_from
from corrdiff_core.dataset import CwaDataset, NatureRun, WindowedSamples, build, sample_statistics
from corrdiff_core.dataset.cwa_fixture import write_cwa
from corrdiff_core.dataset.origins import NatureInputs, NatureTruth
from corrdiff_core.grid import TAIWAN

pytestmark = pytest.mark.benchmark

HOURS = hours_from(datetime(2021, 6, 7), 24)
READ = 48


def rate(action, count):
    """Calls of `action` with 0..count-1 per second, after a first one."""
    action(0)
    began = perf_counter()
    for number in range(count):
        action(number)
    return count / (perf_counter() - began)


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """The same day in every form; what writing it took, in hours per second."""
    folder = tmp_path_factory.mktemp("samples")
    sides = NatureInputs(1, TAIWAN.input_box), NatureTruth(1, TAIWAN)
    sides[1].read(HOURS[:1])  # the terrain is computed once
    began = perf_counter()
    stored = build(str(folder / "ours"), *sides, HOURS[0], HOURS[-1])
    built = len(stored) / (perf_counter() - began)
    write_cwa(str(folder / "cwa.zarr"), HOURS[:12])
    run = NatureRun(TAIWAN, 1, HOURS[0], HOURS[-1])
    return {"our layout": stored, "CWA layout": CwaDataset.open(str(folder / "cwa.zarr")), "nature run": run}, built


def test_reading(kinds, capsys, request):
    samples, built = kinds
    rates = {name: rate(lambda n, kind=kind: kind.read(n % len(kind)), READ) for name, kind in samples.items()}
    statistics = {}
    for name, kind in samples.items():
        began = perf_counter()
        sample_statistics(kind)
        statistics[name] = len(kind) / (perf_counter() - began)
    with capsys.disabled():
        print(f"\nbuilding our layout of the nature run: {built:.0f} hours/s")
        for name in samples:
            print(f"{name}: read {rates[name]:.0f} samples/s, statistics of {statistics[name]:.0f} samples/s")


def test_reading_from_object_storage(kinds, s3_url, capsys):
    import fsspec

    from corrdiff_core.dataset import open_samples

    fsspec.filesystem("s3").put(kinds[0]["our layout"].store.url, f"{s3_url}/ours", recursive=True)
    stored = open_samples(f"{s3_url}/ours")
    with capsys.disabled():
        found = rate(lambda n: stored.read(n % len(stored)), READ)
        print(f"\nour layout on S3 (moto, in this process): read {found:.0f} samples/s")


@pytest.mark.parametrize(("size", "windows"), [(None, 1), (160, 2)])
def test_loading(kinds, size, windows, capsys):
    """Whole domains as the taiwan preset sees them, crops as the demo's; with one worker and two."""
    for name, samples in kinds[0].items():
        dataset = WindowedSamples(samples, *sample_statistics(samples), size, windows)
        found = []
        for workers in (1, 2):
            loader = DataLoader(
                dataset, batch_size=4, sampler=range(160), num_workers=workers, multiprocessing_context="spawn",
                prefetch_factor=4,
            )  # fmt: skip
            batches = iter(loader)
            for _ in range(4 * workers + 1):  # past what was read ahead
                next(batches)
            began = perf_counter()
            rest = sum(len(batch[0]) for batch in batches)
            found.append(f"{rest / (perf_counter() - began):.0f} with {workers}")
        what = "whole domains" if size is None else f"{windows} windows of {size} points"
        with capsys.disabled():
            print(f"\n{name}, {what}: samples/s by worker processes: {', '.join(found)}")
