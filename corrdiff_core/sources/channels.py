"""The one table of the twelve inputs as NCEP names and codes them, in inventories and in GRIB2."""

from dataclasses import dataclass

from corrdiff_core.sources.grib import Parameter
from corrdiff_core.variables import STANDARD_GRAVITY

# Category and number (code table 4.2, discipline 0), shortName on a pressure level and units in ecCodes.
_ELEMENTS = {
    "HGT": (3, 5, "gh", "gpm"),
    "TMP": (0, 0, "t", "K"),
    "DPT": (0, 6, "dpt", "K"),
    "UGRD": (2, 2, "u", "m s**-1"),
    "VGRD": (2, 3, "v", "m s**-1"),
}


@dataclass(frozen=True)
class Channel:
    """One input as NCEP writes it; its value times `factor` is in our units."""

    element: str
    level: str
    parameter: Parameter
    factor: float = 1.0


def pressure_level(element: str, level: int) -> Channel:
    """A field on a pressure level in hPa."""
    category, number, short_name, units = _ELEMENTS[element]
    parameter = Parameter(category, number, 100, level, short_name, "isobaricInhPa", units)
    return Channel(element, f"{level} mb", parameter, STANDARD_GRAVITY if element == "HGT" else 1.0)


def above_ground(element: str, height: int, short_name: str) -> Channel:
    """A field at a height in m above ground."""
    category, number, _, units = _ELEMENTS[element]
    parameter = Parameter(category, number, 103, height, short_name, "heightAboveGround", units)
    return Channel(element, f"{height} m above ground", parameter)


_COLUMN_WATER = Parameter(1, 3, 200, 0, "pwat", "atmosphereSingleLayer", "kg m**-2")
CHANNELS: dict[str, Channel] = {
    "tcwv": Channel("PWAT", "entire atmosphere (considered as a single layer)", _COLUMN_WATER),
    **{
        f"{letter}{level}": pressure_level(element, level)
        for level in (500, 850)
        for letter, element in (("z", "HGT"), ("t", "TMP"), ("u", "UGRD"), ("v", "VGRD"))
    },
    "t2m": above_ground("TMP", 2, "2t"),
    "u10m": above_ground("UGRD", 10, "10u"),
    "v10m": above_ground("VGRD", 10, "10v"),
}
