"""The one table of variables: names, order, CF metadata, units, and the values that are physically possible."""

from dataclasses import dataclass

STANDARD_GRAVITY = (
    9.80665  # m s-2; geopotential = geopotential height in gpm times this (WMO, and ERA5's own definition)
)


@dataclass(frozen=True)
class Variable:
    """One physical field.

    `valid_min` and `valid_max` bound what is physically possible anywhere on Earth in `units`; a value outside is a
    wrong unit or a broken decode, never weather. `significant_bits` is the mantissa width that the archive keeps
    (CF 1.12 section 8.4), None for lossless.
    """

    name: str
    long_name: str
    standard_name: str
    units: str
    valid_min: float
    valid_max: float
    level: int | None = None  # hPa
    height: int | None = None  # m above ground
    significant_bits: int | None = None

    @property
    def attrs(self) -> dict[str, str]:
        """CF attributes."""
        return {"long_name": self.long_name, "standard_name": self.standard_name, "units": self.units}


def _at_level(level: int, z: tuple[float, float], t: tuple[float, float], wind: float) -> tuple[Variable, ...]:
    return (
        Variable(f"z{level}", f"geopotential at {level} hPa", "geopotential", "m2 s-2", *z, level=level),
        Variable(f"t{level}", f"temperature at {level} hPa", "air_temperature", "K", *t, level=level),
        Variable(f"u{level}", f"eastward wind at {level} hPa", "eastward_wind", "m s-1", -wind, wind, level=level),
        Variable(f"v{level}", f"northward wind at {level} hPa", "northward_wind", "m s-1", -wind, wind, level=level),
    )


INPUTS: tuple[Variable, ...] = (
    Variable(
        "tcwv", "total column water vapour", "atmosphere_mass_content_of_water_vapor", "kg m-2", -0.5, 120.0
    ),  # packing may undershoot 0 by a hair
    *_at_level(500, z=(42000.0, 62000.0), t=(210.0, 290.0), wind=150.0),
    # a typhoon of 880 hPa has its 850-hPa surface at 2990 m2 s-2; a height in gpm stays below 1887
    *_at_level(850, z=(1900.0, 18500.0), t=(210.0, 325.0), wind=120.0),
    Variable("t2m", "2 metre temperature", "air_temperature", "K", 170.0, 340.0, height=2),
    Variable("u10m", "10 metre eastward wind", "eastward_wind", "m s-1", -110.0, 110.0, height=10),
    Variable("v10m", "10 metre northward wind", "northward_wind", "m s-1", -110.0, 110.0, height=10),
)

OUTPUTS: tuple[Variable, ...] = (
    Variable(
        "mrr", "maximum radar reflectivity", "equivalent_reflectivity_factor", "dBZ", 0.0, 90.0, significant_bits=7
    ),
    Variable("t2m", "2 metre temperature", "air_temperature", "K", 170.0, 340.0, height=2, significant_bits=11),
    Variable("u10m", "10 metre eastward wind", "eastward_wind", "m s-1", -130.0, 130.0, height=10, significant_bits=7),
    Variable(
        "v10m", "10 metre northward wind", "northward_wind", "m s-1", -130.0, 130.0, height=10, significant_bits=7
    ),
)

INPUT_NAMES: tuple[str, ...] = tuple(variable.name for variable in INPUTS)
OUTPUT_NAMES: tuple[str, ...] = tuple(variable.name for variable in OUTPUTS)
INPUT: dict[str, Variable] = {variable.name: variable for variable in INPUTS}
OUTPUT: dict[str, Variable] = {variable.name: variable for variable in OUTPUTS}
