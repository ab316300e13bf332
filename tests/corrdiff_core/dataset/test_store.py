"""Our layout: what is stored comes back to the bit, anybody's reader opens it, and what is not whole is refused."""

import json
import os
import pickle
import signal
import subprocess
import sys
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

from corrdiff_core.cycle import HOUR, compact
from corrdiff_core.dataset import StoredSamples
from corrdiff_core.dataset.index import index_to_json
from corrdiff_core.dataset.store import Store
from corrdiff_core.errors import DatasetError
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES
from tests.corrdiff_core.dataset.dataset_cases import END, HOURS, START, built, interpolated, truth, weather


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> StoredSamples:
    return built(tmp_path_factory.mktemp("whole") / "dataset")


@pytest.fixture
def made(tmp_path) -> StoredSamples:
    return built(tmp_path / "dataset")


def files(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


class TestReading:
    def test_samples_are_the_fields_that_were_given(self, whole):
        assert whole.times == tuple(HOURS)
        expected = truth().to_dataarray().values
        for index, time in enumerate(HOURS):
            sample = whole.read(index)
            assert sample.time == time
            np.testing.assert_array_equal(sample.truth, expected[:, index])
            np.testing.assert_allclose(sample.inputs, interpolated(time), rtol=1e-6)
            assert (sample.inputs.dtype, sample.truth.dtype) == (np.float32, np.float32)

    def test_a_month_opens_with_plain_xarray(self, whole):
        with xr.open_zarr(f"{whole.store.url}/202101.zarr", decode_coords="all") as month:
            assert dict(month.sizes) | {"latitude": 0, "longitude": 0} == {
                "time": 744, "input": 12, "latitude": 0, "longitude": 0, "output": 4, "y": 32, "x": 32,
            }  # fmt: skip
            assert month["inputs"].attrs["names"] == list(INPUT_NAMES)
            assert month["truth"].attrs["names"] == list(OUTPUT_NAMES)
            assert month["truth"].attrs["units"] == ["dBZ", "K", "m s-1", "m s-1"]
            there = month["truth"].notnull().all(("output", "y", "x"))
            assert month["time"].values[there.values].tolist() == np.array(HOURS[:3], "datetime64[ns]").tolist()
            np.testing.assert_array_equal(
                month["inputs"].sel(time=START).values, weather(HOURS[:1]).to_dataarray().values[:, 0]
            )
            assert {"latitude", "longitude", "y", "x", "spatial_ref"} <= set(month.coords)

    def test_the_index_is_the_truth_about_what_is_there(self, whole):
        index = json.loads(Path(whole.store.url, "202102.json").read_text())
        assert list(index) == [compact(time) for time in HOURS[3:]]
        inputs, target = weather(HOURS[3:4]), truth(HOURS[3:4])
        content = b"".join(fields.to_dataarray().values.astype("<f4").tobytes() for fields in (inputs, target))
        first = index[compact(HOURS[3])]
        assert first["sha256"] == sha256(content).hexdigest()
        assert (first["source"], first["truth"]) == ("nature-1", "nature-1")

    def test_a_worker_gets_the_same(self, whole):
        copy = pickle.loads(pickle.dumps(whole))  # noqa: S301 (as a worker gets it)
        assert copy.digest == whole.digest
        np.testing.assert_array_equal(copy.read(5).inputs, whole.read(5).inputs)


class TestDigest:
    def test_a_copy_elsewhere_is_the_same_data(self, whole, tmp_path):
        assert built(tmp_path / "elsewhere").digest == whole.digest

    def test_a_span_stays_frozen_when_the_dataset_grows(self, whole, tmp_path):
        short = built(tmp_path / "grown", end=HOURS[4])
        span = short.select(START, HOURS[3])
        grown = built(tmp_path / "grown")
        assert grown.digest == whole.digest != short.digest
        assert grown.select(START, HOURS[3]).digest == span.digest
        assert grown.select(START, HOURS[3]).times == tuple(HOURS[:3])

    def test_other_data_have_another(self, whole, tmp_path):
        assert built(tmp_path / "seed", seed=2).digest != whole.digest
        assert whole.select(HOURS[1], END).digest != whole.digest

    def test_description(self, whole):
        assert whole.description == ("6 samples of 20210131T21..20210201T02 on small, inputs nature-1, truth nature-1")


class TestWhatIsNotWhole:
    def test_a_chunk_that_is_gone(self, made):
        Path(made.store.url, "202101.zarr/truth/c/741/0/0/0").unlink()
        with pytest.raises(DatasetError, match=r"truth of 20210131T21, is gone: delete .*202101.json"):
            made.read(0)
        assert made.read(1).time == HOURS[1]

    def test_a_chunk_of_another_hour(self, made):
        folder = Path(made.store.url, "202101.zarr/truth/c")
        (folder / "741/0/0/0").write_bytes((folder / "742/0/0/0").read_bytes())
        with pytest.raises(DatasetError, match=r"20210131T21: its arrays have SHA-256 \w+, the index names"):
            made.read(0)

    @pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: data[::-1]])
    def test_a_damaged_chunk(self, made, damage):
        path = Path(made.store.url, "202101.zarr/inputs/c/741/0/0/0")
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(DatasetError, match=r"inputs/c/741/0/0/0 is damaged \(\d+ bytes of \d+\)"):
            made.read(0)

    def test_holes_are_named(self, made):
        inputs, field = made.store.get(START)
        field[0, :2] = np.nan
        made.store.put(START, inputs, field)
        with pytest.raises(DatasetError, match="20210131T21: mrr at 64 of 1024 points not finite"):
            made.read(0)

    def test_metadata_that_are_gone(self, made):
        Path(made.store.url, "202101.zarr/truth/zarr.json").unlink()
        with pytest.raises(DatasetError, match=r"202101.zarr/truth/zarr.json is gone"):
            StoredSamples.open(made.store.url).read(0)

    def test_a_broken_index(self, made):
        path = Path(made.store.url, "202101.json")
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(DatasetError, match=r"202101\.json is no index of samples"):
            StoredSamples.open(made.store.url)

    def test_another_order_of_variables(self, made):
        path = Path(made.store.url, "dataset.json")
        about = json.loads(path.read_text())
        about["outputs"] = dict(reversed(about["outputs"].items()))
        path.write_text(json.dumps(about))
        with pytest.raises(DatasetError, match=r"dataset.json: outputs are .*v10m.*, due are"):
            StoredSamples.open(made.store.url)

    def test_no_dataset(self, tmp_path):
        with pytest.raises(DatasetError, match="there is no dataset"):
            StoredSamples.open(str(tmp_path))


def test_object_storage(s3_url, whole):
    stored = built(f"{s3_url}/dataset")
    assert stored.digest == whole.digest
    copy = pickle.loads(pickle.dumps(stored))  # noqa: S301 (as a worker gets it)
    np.testing.assert_array_equal(copy.read(3).truth, whole.read(3).truth)
    fsspec.filesystem("s3").rm(f"{s3_url}/dataset/202102.zarr/truth/c/0/0/0/0")
    with pytest.raises(DatasetError, match="is gone"):
        copy.read(3)


# Forks a builder per line of input and kills it, for real, at the given step among those that change the file system.
KILLER = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import dask
from corrdiff_core.dataset import builder
from tests.corrdiff_core.dataset.dataset_cases import HOURS, built, interpolated, truth

truth(HOURS[:1])  # the terrain is computed once, before the forks
builder.TOGETHER, builder.AT_ONCE = 2, 1
STEPS = ("open", "os.mkdir", "os.rename", "os.link", "os.remove")

def step_counter(url, last):
    count = 0
    def step(event, arguments):
        nonlocal count
        if event in STEPS and url in str(arguments[0]):
            count += 1
            if count == last:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(step)
    with dask.config.set(scheduler="synchronous"):
        built(url)
    return count

for line in sys.stdin:
    url, last = line.split()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, str(step_counter(url, int(last))).encode())
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), os.read(reading, 20).decode() or "-", flush=True)
    os.close(reading)
"""


@pytest.fixture
def killed():
    """Builds into a folder until the step; exit code and number of steps."""
    command = [sys.executable, "-c", KILLER, str(Path(__file__).parents[3])]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def build_until(url, step):
        process.stdin.write(f"{url} {step}\n")
        process.stdin.flush()
        code, steps = process.stdout.readline().split()
        return int(code), steps

    yield build_until
    process.communicate()


@pytest.mark.service
def test_a_killed_builder_leaves_nothing_but_whole_samples(killed, whole, tmp_path):
    code, steps = killed(tmp_path / "undisturbed", 0)
    assert code == 0
    expected = files(whole.store.url)
    assert files(tmp_path / "undisturbed") == expected
    for step in range(1, int(steps) + 1, max(1, int(steps) // 17)):
        folder = tmp_path / f"killed-{step}"
        assert killed(folder, step)[0] == -signal.SIGKILL
        if (folder / "dataset.json").exists():
            left = StoredSamples.open(str(folder))
            for index in range(len(left)):
                left.read(index)
        assert built(folder).digest == whole.digest
        assert {name: digest for name, digest in files(folder).items() if "partial" not in name} == expected


WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from datetime import datetime
from tests.corrdiff_core.dataset.dataset_cases import END, START, built
sys.stdin.readline()
built(sys.argv[2], seed=int(sys.argv[3]))
"""


def writers(folder, seeds):
    """Builders at once, each in a process of its own; their exit codes."""
    root = str(Path(__file__).parents[3])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, root, str(folder), str(seed)],
            stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "error"},
        )
        for seed in seeds
    ]  # fmt: skip
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    return [(process.communicate()[1], process.returncode) for process in processes]


@pytest.mark.service
def test_two_writers_of_the_same_data_end_in_the_same_bytes(whole, tmp_path):
    assert [code for _, code in writers(tmp_path / "both", (1, 1))] == [0, 0]
    assert files(tmp_path / "both") == files(whole.store.url)


def test_what_another_writer_named_stays_named(made):
    store = Store(made.store.url)
    month = datetime(2021, 1, 1)
    before = store.index(month)
    late = START.replace(hour=5)
    store.add(month, {late: before[START]})
    assert set(store.index(month)) == {*before, late}


def test_a_writer_of_other_data_is_refused(made, tmp_path):
    other = built(tmp_path / "other", seed=2)
    with pytest.raises(DatasetError, match="20210131T21 was stored by another writer"):
        made.store.add(datetime(2021, 1, 1), dict(other.store.index(datetime(2021, 1, 1))))
    made.store.put(START, *other.store.get(START))
    with pytest.raises(DatasetError, match="the index names"):
        made.read(0)


def test_the_index_does_not_depend_on_the_order_of_building(whole, tmp_path):
    built(tmp_path / "dataset", start=HOURS[2])
    assert files(built(tmp_path / "dataset").store.url) == files(whole.store.url)
    index = whole.store.index(datetime(2021, 1, 1))
    assert index_to_json(dict(reversed(index.items()))) == index_to_json(index)
    assert HOURS[-1] + HOUR == END
