"""A domain from a TOML file: the example of the docs, and every mistake that a file can hold, by name."""

import re
import tomllib
from pathlib import Path

import numpy as np
import pytest

from corrdiff_core.domain_file import read_domain
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.grid import TAIWAN, Domain

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "domain-example.toml"


@pytest.fixture
def changed(tmp_path):
    """The example with some of its text replaced, as a file."""

    def write(*replacements: tuple[str, str]) -> str:
        text = EXAMPLE.read_text()
        for old, new in replacements:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "region.toml"
        path.write_text(text)
        return str(path)

    return write


def test_the_example_is_a_domain_that_is_not_square():
    domain, values = read_domain(str(EXAMPLE)), tomllib.loads(EXAMPLE.read_text())
    assert domain.shape == (64, 96)
    assert domain.outputs == ("t2m", "u10m", "v10m")
    assert set(values) == {"name", "projection", "x0", "y0", "step", "rows", "columns", "crop", "inputs", "outputs",
                           "invariants", "input_box"}  # fmt: skip
    np.testing.assert_array_equal(domain.y[:2], [-98000.0, -94000.0])
    assert Domain.from_dict(domain.to_dict()) == domain


def test_what_is_as_usual_is_not_written_so_that_old_digests_hold():
    assert set(TAIWAN.to_dict()) == {"name", "projection", "x0", "y0", "step", "rows", "columns", "crop", "input_box"}


def test_variables_may_be_left_out_and_degrees_are_a_grid(changed):
    lines = (
        ('projection = "+proj=lcc +lat_1=15 +lat_2=25 +lat_0=19 +lon_0=121 +R=6371229 +units=m +no_defs"',
         'projection = "+proj=longlat +R=6371229"'),
        ("x0 = -192000.0", "x0 = 119.25"), ("y0 = -102000.0", "y0 = 18.25"), ("step = 4000.0", "step = 0.03125"),
        ('outputs = ["t2m", "u10m", "v10m"]\n', ""),
    )  # fmt: skip
    domain = read_domain(changed(*lines))
    assert domain.outputs == TAIWAN.outputs
    assert domain.latitude[0, 5] == 18.28125
    assert domain.spacing == pytest.approx(3475, abs=1)
    assert domain.axes["y"]["units"] == "degrees_north"


def test_the_path_of_invariants_begins_at_the_file(changed, tmp_path):
    domain = read_domain(changed(('invariants = "terrain"', 'invariants = "relief.nc"')))
    assert domain.invariants == str(tmp_path / "relief.nc")
    assert Domain.from_dict(domain.to_dict()) == domain
    url = "s3://bucket/relief.zarr"
    assert read_domain(changed(('invariants = "terrain"', f'invariants = "{url}"'))).invariants == url


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("step = 4000.0\n", "", "missing step"),
        ("south = 17.75\n", "", "missing input_box.south"),
        ('invariants = "terrain"', "", "missing invariants"),
        ("crop = 1", "crop = 1\nsize = 3", "unknown size"),
        ("rows = 66", "rows = 66.5", "rows = 66.5: Input should be a valid integer"),
        ("rows = 66", 'rows = "66"', "rows = '66': Input should be"),
        ("rows = 66", "rows = 3", "rows = 3, columns = 98 and crop = 1 leave no grid"),
        ("step = 4000.0", "step = -1.0", "step = -1.0 must be above 0"),
        ('outputs = ["t2m", "u10m", "v10m"]', 'outputs = ["u10m", "t2m"]', "outputs = ['u10m', 't2m']: one or more of"),
        ('outputs = ["t2m", "u10m", "v10m"]', 'outputs = ["snow"]', "outputs = ['snow']: one or more of"),
        ('outputs = ["t2m", "u10m", "v10m"]', "outputs = []", "outputs = []: one or more of"),
        ("+proj=lcc", "+proj=stere", "known are +proj=lcc with"),
        ("+lat_2=25", "+lat_3=25", "missing ['lat_2'], unknown ['lat_3']"),
        ("east = 123.25", "east = 122.5", "does not hold the grid, which is 18.1062..20.3901 N, 119.1895..122.8490 E"),
        ("east = 123.25", "east = 110.0", "is no box"),
        ("rows = 66", "rows = = 66", "Invalid value"),
    ],
)
def test_every_mistake_is_named_with_the_file(changed, old, new, said):
    path = changed((old, new))
    with pytest.raises(ConfigurationError, match=f"domain {re.escape(path)}: .*{re.escape(said)}"):
        read_domain(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match=r"domain .*none.toml: .*No such file"):
        read_domain(str(tmp_path / "none.toml"))
