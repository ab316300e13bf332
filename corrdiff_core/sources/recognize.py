"""Which field of somebody's files is which of our inputs: by our names, by CF, or as ECMWF, NCEP and CMIP name them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose

from corrdiff_core.variables import INPUT, Variable

# On pressure levels, by the letter of our names.
_ON_LEVELS = {
    "z": {"z", "gh", "hgt", "zg", "geopotential", "geopotential_height"},
    "t": {"t", "ta", "tmp", "temperature", "air_temperature"},
    "u": {"u", "ua", "ugrd", "u_component_of_wind", "eastward_wind", "x_wind"},
    "v": {"v", "va", "vgrd", "v_component_of_wind", "northward_wind", "y_wind"},
}
# By themselves.
_NAMED = {
    "tcwv": {
        "tcwv", "pwat", "prw", "total_column_water_vapour", "total_column_water_vapor",
        "atmosphere_mass_content_of_water_vapor",
    },
    "t2m": {"t2m", "2t", "tas", "2m_temperature"},
    "u10m": {"u10m", "u10", "10u", "uas", "10m_u_component_of_wind"},
    "v10m": {"v10m", "v10", "10v", "vas", "10m_v_component_of_wind"},
}  # fmt: skip
_MOST_LISTED = 40


@dataclass(frozen=True)
class Candidate:
    """A field as its files name it: `keys` are its names in lower case, `pressure` in hPa, `height` in m above ground.

    `elsewhere` says in words where a field lies that is on neither; no input lies there.
    """

    name: str
    keys: frozenset[str]
    units: str | None
    pressure: float | None = None
    height: float | None = None
    elsewhere: str = ""

    def __str__(self) -> str:
        if self.pressure is not None:
            return f"{self.name} at {self.pressure:g} hPa"
        return f"{self.name} at {self.height:g} m" if self.height is not None else f"{self.name}{self.elsewhere}"

    def may_be(self, variable: Variable) -> bool:
        """Whether it is this input, by its names and where it lies; its units are not asked."""
        if self.elsewhere:
            return False
        if variable.level is not None:
            alike = self.pressure is not None and isclose(self.pressure, variable.level, rel_tol=1e-6)
            return alike and bool(self.keys & _ON_LEVELS[variable.name[0]])
        if self.pressure is not None:
            return False
        there = self.height == variable.height
        if variable.height is not None and there and self.keys & _ON_LEVELS[variable.name[0]]:
            return True
        return bool(self.keys & _NAMED[variable.name]) and (there or not self.height)


def recognize(candidates: Iterable[Candidate], names: Sequence[str]) -> dict[str, list[Candidate]]:
    """Who may be each of the inputs `names`: one, none, or several; who has exactly our name is the one."""
    given = list(candidates)
    found = {}
    for name in names:
        ours = [candidate for candidate in given if candidate.name == name and not candidate.elsewhere]
        found[name] = ours or [candidate for candidate in given if candidate.may_be(INPUT[name])]
    return found


def listing(candidates: Iterable[Candidate]) -> str:
    """The fields in words, those of one name together.

    >>> t = frozenset("t")
    >>> listing([Candidate("t", t, "K", 500.0), Candidate("t", t, "K", 850.0), Candidate("d", t, None)])
    't at 500, 850 hPa; d'
    """
    groups: dict[tuple[str, str], list[float]] = {}
    for each in candidates:
        if each.pressure is not None:
            groups.setdefault((each.name, "hPa"), []).append(each.pressure)
        elif each.height is not None:
            groups.setdefault((each.name, "m"), []).append(each.height)
        else:
            groups.setdefault((str(each), ""), [])
    told = [_group(name, units, sorted(set(levels))) for (name, units), levels in groups.items()]
    more = [f"and {len(told) - _MOST_LISTED} others"] if len(told) > _MOST_LISTED else []
    return "; ".join(told[:_MOST_LISTED] + more) or "nothing"


def _group(name: str, units: str, levels: Sequence[float]) -> str:
    return f"{name} at {', '.join(f'{level:g}' for level in levels)} {units}" if levels else name


def complaint(found: Mapping[str, Sequence[Candidate]], candidates: Iterable[Candidate]) -> str | None:
    """What is missing and what is ambiguous, beside all that there is; None where each has exactly one."""
    missing = [name for name, those in found.items() if not those]
    several = [f"{name} ({', '.join(map(str, those))})" for name, those in found.items() if len(those) > 1]
    if not missing and not several:
        return None
    told = [f"missing {', '.join(missing)}"] if missing else []
    told += [f"ambiguous {', '.join(several)}"] if several else []
    return (
        f"{'; '.join(told)}; there is {listing(candidates)}: name a variable as ours is named, give it its CF "
        "standard_name and level or height, or add the file that has it (levels are not interpolated)"
    )
