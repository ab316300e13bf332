"""ECMWF's open data at 0.25 degrees (0.4 before February 2024): IFS, AIFS and the members of AIFS-ENS.

Index lines, paths and steps are as public code and notes quote them, some with dates at which they were probed; no file
of ECMWF's was read here. The AIFS products have no total column water vapour, as far as known: they are refused, with
the list of what their index lacks, until it lists all twelve.
"""

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import ClassVar

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.buckets import root_of
from corrdiff_core.sources.ecmwf_index import Field, locate, parse
from corrdiff_core.sources.grib import Parameter
from corrdiff_core.sources.inputs import init_time_of
from corrdiff_core.sources.messages import Indexed, Message
from corrdiff_core.sources.ranges import Found, Span
from corrdiff_core.sources.schedule import ALWAYS, Eras, every, in_force, six_hourly
from corrdiff_core.variables import STANDARD_GRAVITY

PORTAL = "https://data.ecmwf.int/forecasts"  # the last days; s3://ecmwf-forecasts holds years
AT_ONCE = 8  # requests for ranges that ECMWF asks for at most; the servers answer 503 to more
_TURN = threading.Lock()  # of this process: slots are fetched by several threads

# As ecCodes words them; ECMWF's tcwv is another parameter than NCEP's (category 1, number 3).
_TCWV = Parameter(1, 64, 1, 0, "tcwv", "entireAtmosphere", "kg m**-2")
_T2M = Parameter(0, 0, 103, 2, "2t", "heightAboveGround", "K")
_U10M = Parameter(2, 2, 103, 10, "10u", "heightAboveGround", "m s**-1")
_V10M = Parameter(2, 3, 103, 10, "10v", "heightAboveGround", "m s**-1")


def _on_level(level: int) -> dict[Field, tuple[Parameter, float]]:
    rows = {
        "z": (3, 4, "m**2 s**-2", 1.0),
        "gh": (3, 5, "gpm", STANDARD_GRAVITY),
        "t": (0, 0, "K", 1.0),
        "u": (2, 2, "m s**-1", 1.0),
        "v": (2, 3, "m s**-1", 1.0),
    }
    return {
        Field(param, level): (Parameter(category, number, 100, level, param, "isobaricInhPa", units), factor)
        for param, (category, number, units, factor) in rows.items()
    }


# What each field must hold, and the factor from its units to ours.
FIELDS: dict[Field, tuple[Parameter, float]] = {
    Field("tcwv"): (_TCWV, 1.0),
    **_on_level(500),
    **_on_level(850),
    Field("2t"): (_T2M, 1.0),
    Field("10u"): (_U10M, 1.0),
    Field("10v"): (_V10M, 1.0),
}
# The fields that serve as each input, the one to be preferred first: IFS has heights, AIFS geopotential or both.
WANTED: dict[str, tuple[Field, ...]] = {
    "tcwv": (Field("tcwv"),),
    **{
        f"{letter}{level}": tuple(Field(param, level) for param in (("z", "gh") if letter == "z" else (letter,)))
        for level in (500, 850)
        for letter in "ztuv"
    },
    "t2m": (Field("2t"),),
    "u10m": (Field("10u"),),
    "v10m": (Field("10v"),),
}


@dataclass(frozen=True)
class Product:
    """One model: its folders and leads by era, and how its files' names end."""

    folders: Eras[tuple[str, ...]]
    leads: Eras[dict[int, tuple[timedelta, ...]]]  # by hour of the cycle
    stream: str
    kind: str  # MARS's type


def _cycles(long: tuple[timedelta, ...], short: tuple[timedelta, ...]) -> dict[int, tuple[timedelta, ...]]:
    """Leads of the cycles at 00 and 12 UTC, and of those at 06 and 18."""
    return {0: long, 6: short, 12: long, 18: short}


_TO_90, _TO_144 = every((3, 90)), every((3, 144))
_TO_240, _TO_360 = every((3, 144), (6, 240)), every((3, 144), (6, 360))
_SIX_HOURLY = every((6, 360))
_MERGED = datetime(2026, 5, 12)  # from here on the cycles at 06 and 18 UTC are `oper` too
_IFS = Product(
    folders=(
        (ALWAYS, ("0p4-beta",)),
        (datetime(2024, 1, 31, 6), ("ifs/0p25", "0p25")),
        (datetime(2024, 2, 28, 6), ("ifs/0p25",)),
    ),
    leads=(
        (ALWAYS, _cycles(_TO_240, _TO_90)),
        (datetime(2024, 11, 12, 6), _cycles(_TO_360, _TO_144)),
    ),
    stream="oper",
    kind="fc",
)
_AIFS = Product(
    folders=(
        (ALWAYS, ("aifs/0p25",)),
        (datetime(2025, 2, 24, 6), ("aifs-single/0p25/experimental",)),
        (datetime(2025, 2, 25, 6), ("aifs-single/0p25",)),
    ),
    leads=((ALWAYS, _cycles(_SIX_HOURLY, _SIX_HOURLY)),),
    stream="oper",
    kind="fc",
)
_AIFS_ENS = {
    kind: Product(((ALWAYS, ("aifs-ens/0p25",)),), ((ALWAYS, _cycles(_SIX_HOURLY, _SIX_HOURLY)),), "enfo", kind)
    for kind in ("cf", "pf")
}


class ECMWF(Indexed):
    """One product's forecasts below `url`, in the layout of ECMWF's open data; by default from ECMWF's portal.

    >>> ECMWF("aifsens-p07")
    ECMWF('aifsens-p07', 'https://data.ecmwf.int/forecasts')
    """

    publication_delay = timedelta(hours=7, minutes=40)  # of 00 and 12 UTC since October 2025, an hour more before
    longest: ClassVar[timedelta] = _TO_360[-1]

    def __init__(self, variant: str, url: str = PORTAL) -> None:
        super().__init__(root_of(url))
        self.name = f"ecmwf-{variant}"
        self.product, self.member = _product(variant)
        self._variant = variant

    @classmethod
    def open(cls, variant: str, url: str | None, cache: str | None) -> "ECMWF":
        """As `sources.Opener` says; nothing is cached."""
        return cls(variant) if url is None else cls(variant, url)

    def __repr__(self) -> str:
        return f"ECMWF({self._variant!r}, {self.url!r})"

    def lead_times(self, init_time: datetime) -> tuple[timedelta, ...]:
        """IFS from 00 and 12 UTC 3-hourly to 144 h and 6-hourly to 360 h, from 06 and 18 to 144 h; AIFS 6-hourly."""
        return in_force(self.product.leads, init_time)[init_time.hour] if six_hourly(init_time) else ()

    def names(self, slot: Slot) -> Iterator[tuple[str, str]]:
        init_time, product = init_time_of(slot), self.product
        short = product is _IFS and init_time.hour in (6, 18) and init_time < _MERGED
        stream = "scda" if short else product.stream
        file = f"{init_time:%Y%m%d%H}0000-{slot.lead_hours}h-{stream}-{product.kind}"
        for folder in in_force(product.folders, init_time):
            path = f"{init_time:%Y%m%d}/{init_time:%H}z/{folder}/{stream}/{file}"
            yield f"{path}.grib2", f"{path}.index"

    def locate(self, index: str, slot: Slot, size: int, url: str) -> dict[str, Message]:
        number = self.member if self.product.kind == "pf" else None
        located = locate(parse(index, url), WANTED, self.product.kind, number, slot, size, url)
        return {name: Message(entry.line, entry.span, *FIELDS[entry.field]) for name, entry in located.items()}

    def read(self, found: Found, spans: list[Span]) -> list[bytes]:
        """The bytes of each span, at most eight requests at once in this process."""
        bodies = []
        with _TURN:
            for first in range(0, len(spans), AT_ONCE):
                bodies += self._root.read(found, spans[first : first + AT_ONCE])
        return bodies


def _product(variant: str) -> tuple[Product, int | None]:
    """What `ecmwf-<variant>` is, and which member of it."""
    if variant in ("ifs", "aifs"):
        return (_IFS if variant == "ifs" else _AIFS), None
    if variant == "aifsens-cf":
        return _AIFS_ENS["cf"], 0
    match = re.fullmatch(r"aifsens-p(0[1-9]|[1-4]\d|50)", variant)
    if match is None:
        raise ConfigurationError(
            f"no source is called 'ecmwf-{variant}': use ecmwf-ifs, ecmwf-aifs, ecmwf-aifsens-cf or ecmwf-aifsens-p01 "
            "to ecmwf-aifsens-p50"
        )
    return _AIFS_ENS["pf"], int(match[1])
