"""`corrdiff train`: from a dataset's URL to a checkpoint, and what it says when it cannot."""

import json
import subprocess
import sys
from datetime import datetime
from importlib.resources import files

import pytest

from corrdiff_core.checkpoint import load_checkpoint
from corrdiff_core.dataset import NatureRun
from corrdiff_core.errors import ConfigurationError
from flows.training import split
from tests.small_domain import SMALL

SUMMER = "nature:1:20180601T00:20180901T00:12"
# The demo's, as small as the whole domain allows.
SMALLER = {
    "model_channels = 24": "model_channels = 4",
    "channel_mult = [1, 2, 2, 2]": "channel_mult = [1, 1]",
    "statistics_samples = 400": "statistics_samples = 4",
    "window = 160": "window = 32",
    "regression_samples = 7_200": "regression_samples = 6",
    "diffusion_samples = 16_200": "diffusion_samples = 6",
    "validation_times = 12": "validation_times = 1",
    'name = "demo"': 'name = "smaller"',
}


def corrdiff(*arguments):
    command = [sys.executable, "-W", "error", "-m", "flows.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture
def preset(tmp_path):
    text = (files("corrdiff_core.train") / "presets" / "demo.toml").read_text()
    for old, new in SMALLER.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path / "smaller.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.service
def test_a_training_from_the_command_line(preset, tmp_path):
    out = tmp_path / "run"
    command = [
        "train", "--dataset", SUMMER, "--preset", preset, "--out", str(out), "--end", "2018-08-01", "--workers", "0"
    ]  # fmt: skip
    done = corrdiff(*command)
    assert done.returncode == 0, done.stderr
    manifest = load_checkpoint(out / "checkpoint").manifest
    assert done.stdout.splitlines()[-1] == f"{manifest.identity}: {out}/checkpoint"
    assert "diffusion 6/6 samples, validation loss" in done.stdout
    whole = NatureRun(manifest.domain, 1, datetime(2018, 6, 1), datetime(2018, 9, 1), 12)
    training = whole.select(datetime(2018, 6, 1), datetime(2018, 8, 1))
    assert manifest.training["data_digest"] == training.digest
    assert (
        manifest.training["validation"]["data_digest"]
        == whole.select(datetime(2018, 8, 1), datetime(2018, 9, 1)).digest
    )
    assert json.loads((out / "progress.json").read_text())["stage"] == "diffusion"
    again = corrdiff(*command)
    assert again.stdout == done.stdout.splitlines(keepends=True)[-1]


@pytest.mark.service
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--preset", "big"], "no preset is called 'big': use demo, mini, taiwan or FILE.toml"),
        (["--end", "2017-01-01"], "its 12 samples are of 2018-06-"),
        (["--end", "yesterday"], "yesterday"),
    ],
)
def test_a_failure_is_one_line(options, message, tmp_path):
    done = corrdiff("train", "--dataset", SUMMER, "--out", str(tmp_path / "run"), *options)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not (tmp_path / "run").exists()


def test_the_help_shows_what_is_in_brackets_and_between_colons():
    told = " ".join(corrdiff("train", "--help").stdout.split())
    assert "Torch device [cuda, else cpu]." in told
    assert "nature:SEED:START:END:COUNT" in told


class TestSplit:
    samples = NatureRun(SMALL, 1, datetime(2020, 12, 1), datetime(2021, 2, 1), 60)
    first, end, last = datetime(1, 1, 1), datetime(2021, 1, 1), datetime(9999, 12, 31)

    def test_training_ends_where_validation_begins(self):
        training, held_out = split(self.samples, "it", self.first, self.end, self.last)
        assert max(training.times) < self.end <= min(held_out.times)
        assert len(training) + len(held_out) == 60

    def test_there_may_be_no_validation(self):
        assert split(self.samples, "it", self.first, self.end, self.end)[1] is None
        assert split(self.samples, "it", self.first, self.last, self.last)[1] is None
        assert split(self.samples, "it", self.first, datetime(2021, 3, 1), self.last)[1] is None

    def test_nothing_to_train_on_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"it: its 60 samples are of 2020-12-.* none is from"):
            split(self.samples, "it", self.first, datetime(2020, 1, 1), self.last)
