"""The table of variables: the contract's order, unambiguous units, bounds that know weather from a wrong unit."""

import math

import pytest

from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS
from corrdiff_core.variables import (
    INPUT,
    INPUT_NAMES,
    INPUTS,
    OUTPUT,
    OUTPUT_NAMES,
    OUTPUTS,
    STANDARD_GRAVITY,
)

DRY_AIR = 287.05  # J kg-1 K-1


def test_order_is_the_contracts():
    assert " ".join(INPUT_NAMES) == "tcwv z500 t500 u500 v500 z850 t850 u850 v850 t2m u10m v10m"
    assert " ".join(OUTPUT_NAMES) == "mrr t2m u10m v10m"
    assert tuple(INPUT.values()) == INPUTS
    assert tuple(OUTPUT.values()) == OUTPUTS


@pytest.mark.parametrize(
    ("name", "units", "standard_name", "level", "height"),
    [
        ("tcwv", "kg m-2", "atmosphere_mass_content_of_water_vapor", None, None),
        ("z500", "m2 s-2", "geopotential", 500, None),
        ("t850", "K", "air_temperature", 850, None),
        ("u500", "m s-1", "eastward_wind", 500, None),
        ("v850", "m s-1", "northward_wind", 850, None),
        ("t2m", "K", "air_temperature", None, 2),
        ("u10m", "m s-1", "eastward_wind", None, 10),
        ("v10m", "m s-1", "northward_wind", None, 10),
    ],
)
def test_inputs_carry_cf_names_units_and_places(name, units, standard_name, level, height):
    variable = INPUT[name]
    assert (variable.units, variable.standard_name) == (units, standard_name)
    assert (variable.level, variable.height) == (level, height)
    assert variable.attrs == {"units": units, "standard_name": standard_name, "long_name": variable.long_name}


def test_long_names_tell_the_variables_apart():
    for table in (INPUTS, OUTPUTS):
        assert len({variable.long_name for variable in table}) == len(table)


def test_archive_keeps_the_bits_of_the_contract():
    assert {name: OUTPUT[name].significant_bits for name in OUTPUT_NAMES} == {"mrr": 7, "t2m": 11, "u10m": 7, "v10m": 7}


@pytest.mark.parametrize("variable", [*INPUTS, *OUTPUTS], ids=lambda variable: variable.long_name)
def test_bounds_hold_the_climate_of_taiwan(variable):
    table = CWA_INPUT_STATISTICS if variable in INPUTS else CWA_OUTPUT_STATISTICS
    position = table.names.index(variable.name)
    center, scale = table.center[position], table.scale[position]
    assert variable.valid_min <= center < center + 3 * scale < variable.valid_max


@pytest.mark.parametrize("name", ["z500", "z850"])
def test_no_geopotential_height_passes_as_geopotential(name):
    """Even the highest height in gpm is below the lowest geopotential, and the other way round."""
    variable = INPUT[name]
    assert variable.valid_max / STANDARD_GRAVITY < variable.valid_min


@pytest.mark.parametrize("name", ["t500", "t850", "t2m"])
def test_no_celsius_passes_as_kelvin(name):
    assert INPUT[name].valid_max - 273.15 < INPUT[name].valid_min


def test_the_core_of_a_super_typhoon_is_possible():
    """880 hPa at the sea puts the 850-hPa surface at 305 gpm: hypsometric equation, z = R T / g ln(880/850), 300 K."""
    height = DRY_AIR * 300 / STANDARD_GRAVITY * math.log(880 / 850)
    assert INPUT["z850"].valid_min <= height * STANDARD_GRAVITY
