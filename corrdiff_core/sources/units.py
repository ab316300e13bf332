"""The one table of units that fields may come in beside ours, and how they are converted."""

from dataclasses import dataclass

from corrdiff_core.variables import STANDARD_GRAVITY, Variable

# Spellings of one unit, lower case, without `**`, `^` and what `_plain` takes away.
_SPELLINGS = {
    "K": ("k", "kelvin", "degk", "deg_k", "degree_kelvin", "degrees_kelvin"),
    "degC": ("degc", "deg_c", "c", "°c", "celsius", "degree_celsius", "degrees_celsius"),
    "m s-1": ("m s-1", "m/s", "ms-1", "meter s-1", "meters s-1", "metres per second", "meters per second"),
    "kt": ("kt", "kts", "knot", "knots"),
    "m2 s-2": ("m2 s-2", "m2/s2", "j kg-1", "j/kg"),
    "m": ("m", "meter", "meters", "metre", "metres"),
    "gpm": ("gpm", "geopotential meter", "geopotential meters", "geopotential metre", "geopotential metres"),
    "kg m-2": ("kg m-2", "kg/m2"),
    "mm": ("mm",),
    "hPa": ("hpa", "mb", "mbar", "millibar", "millibars", "hectopascal", "hectopascals"),
    "Pa": ("pa", "pascal", "pascals"),
}
_CANONICAL = {spelling: units for units, spellings in _SPELLINGS.items() for spelling in spellings}


@dataclass(frozen=True)
class Conversion:
    """value * factor + offset."""

    factor: float = 1.0
    offset: float = 0.0

    def __str__(self) -> str:
        return "none" if self == Conversion() else f"x {self.factor:g}" if not self.offset else f"+ {self.offset:g}"


# (given, ours)
_CONVERSIONS = {
    ("degC", "K"): Conversion(offset=273.15),
    ("gpm", "m2 s-2"): Conversion(STANDARD_GRAVITY),
    ("m", "m2 s-2"): Conversion(STANDARD_GRAVITY),  # of geopotential height
    ("kt", "m s-1"): Conversion(1852 / 3600),
    ("mm", "kg m-2"): Conversion(),  # a layer of water of 1000 kg m-3
    ("Pa", "hPa"): Conversion(0.01),
}


def canonical(units: str | None) -> str | None:
    """The unit in our spelling, None where the table does not know it.

    >>> canonical("m**2 s**-2"), canonical("millibars"), canonical("furlong")
    ('m2 s-2', 'hPa', None)
    """
    plain = " ".join((units or "").replace("**", "").replace("^", "").replace(".", " ").lower().split())
    return _CANONICAL.get(plain)


def conversion(given: str | None, ours: str) -> Conversion | None:
    """From `given` to `ours`, None where the table has none."""
    known = canonical(given)
    return Conversion() if known == ours else _CONVERSIONS.get((known or "", ours))


def refusal(variable: Variable, candidate: str, given: str | None) -> str:
    """Why a field of the units `given` cannot be `variable`."""
    held = "has no units" if given is None else f"is in {given!r}"
    return f"{variable.name} ({candidate}) {held}, {variable.units!r} or what the table of units converts to it is due"
