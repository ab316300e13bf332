"""The CWA dataset's channels: found by name and pressure wherever they stand, refused by name where they are not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.cwa import (
    INPUT_CHANNELS,
    INPUT_INDICES,
    OUTPUT_CHANNELS,
    OUTPUT_INDICES,
    channel_indices,
)
from corrdiff_core.errors import CheckpointError
from corrdiff_core.variables import INPUT, INPUT_NAMES, OUTPUT_NAMES

LEVELED = ("geopotential_height", "temperature", "eastward_wind", "northward_wind")
# As save_cwb.py of the CorrDiff example writes them.
ERA5 = [
    ("tcwv", float("nan")),
    *((name, pressure) for pressure in (500.0, 700.0, 850.0, 925.0) for name in LEVELED),
    ("temperature_2m", float("nan")),
    ("eastward_wind_10m", float("nan")),
    ("northward_wind_10m", float("nan")),
]
NAMES, PRESSURES = [name for name, _ in ERA5], [pressure for _, pressure in ERA5]


def test_the_tables_follow_the_variables():
    assert tuple(INPUT_CHANNELS) == INPUT_NAMES
    assert tuple(OUTPUT_CHANNELS) == OUTPUT_NAMES
    assert {name: level for name, (_, level) in INPUT_CHANNELS.items()} == {
        name: variable.level for name, variable in INPUT.items()
    }
    assert all(len(indices) == len(INPUT_NAMES) for indices in INPUT_INDICES.values())
    assert all(len(indices) == len(OUTPUT_NAMES) for indices in OUTPUT_INDICES.values())


def test_names_lead_to_the_documented_indices():
    assert channel_indices(INPUT_CHANNELS, NAMES, PRESSURES) == list(INPUT_INDICES[20])
    names = [name for name, _ in OUTPUT_CHANNELS.values()]
    assert channel_indices(OUTPUT_CHANNELS, names) == list(OUTPUT_INDICES[4])
    assert channel_indices(OUTPUT_CHANNELS, names, np.full(4, np.nan)) == list(OUTPUT_INDICES[4])


@given(st.permutations(range(20)))
def test_any_order(order):
    found = channel_indices(INPUT_CHANNELS, [NAMES[i] for i in order], [PRESSURES[i] for i in order])
    assert [order[index] for index in found] == list(INPUT_INDICES[20])


@pytest.mark.parametrize("variable", INPUT_NAMES)
def test_a_channel_that_is_missing_or_there_twice(variable):
    place = channel_indices(INPUT_CHANNELS, NAMES, PRESSURES)[INPUT_NAMES.index(variable)]
    name, pressure = INPUT_CHANNELS[variable]
    level = "" if pressure is None else f" at {pressure:g} hPa"
    with pytest.raises(CheckpointError, match=f"^{variable} is {name}{level}, which stands 0 times among the channels"):
        channel_indices(INPUT_CHANNELS, NAMES[:place] + NAMES[place + 1 :], PRESSURES[:place] + PRESSURES[place + 1 :])
    with pytest.raises(CheckpointError, match=f"^{variable} is {name}{level}, which stands 2 times .*: name each once"):
        channel_indices(INPUT_CHANNELS, [*NAMES, NAMES[place]], [*PRESSURES, PRESSURES[place]])


def test_a_level_is_no_surface_and_a_surface_no_level():
    with pytest.raises(CheckpointError, match=r"t2m is temperature_2m, which stands 0 times .*temperature_2m 1000"):
        channel_indices(OUTPUT_CHANNELS, ["maximum_radar_reflectivity", "temperature_2m"], [float("nan"), 1000.0])
    with pytest.raises(CheckpointError, match="z500 is geopotential_height at 500 hPa, which stands 0 times"):
        channel_indices(INPUT_CHANNELS, NAMES)


@pytest.mark.parametrize("count", [0, 19, 21])
def test_pressures_are_as_many_as_names(count):
    with pytest.raises(CheckpointError, match=f"20 names and {count} pressures: each channel needs one of each"):
        channel_indices(INPUT_CHANNELS, NAMES, [500.0] * count)
