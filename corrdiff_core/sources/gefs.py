"""Members of NCEP's GEFS: where their files lie, and which leads they hold.

Verified by a real file: `pgrb2a/gep19.t00z.pgrb2af180` of 2009 (1 degree, U and V in one message, JPEG 2000). The other
layouts and the eras' beginnings are as public code names them (AWS holds cycles from 2017 on); none was read here.
"""

import re
from datetime import datetime, timedelta
from typing import ClassVar

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.buckets import root_of
from corrdiff_core.sources.ncep import NCEP
from corrdiff_core.sources.schedule import ALWAYS, Eras, every, in_force, six_hourly

NOAA = "s3://noaa-gefs-pds"
MEMBERS = ("c00", *(f"p{number:02d}" for number in range(1, 31)))  # p21 to p30 since v12

_OLD = "gefs.{day}/{hour}/pgrb2a/ge@.t{hour}z.pgrb2af{lead:02d}"  # 1 degree; two digits below 100
_FLAT = "gefs.{day}/{hour}/ge@.t{hour}z.pgrb2af{lead:03d}"  # the same on AWS before 2018-07-27
_HALF = "gefs.{day}/{hour}/pgrb2ap5/ge@.t{hour}z.pgrb2a.0p50.f{lead:03d}"
_ATMOS = "gefs.{day}/{hour}/atmos/pgrb2ap5/ge@.t{hour}z.pgrb2a.0p50.f{lead:03d}"
_V12 = datetime(2020, 9, 23, 12)
ERAS: Eras[tuple[str, ...]] = (
    (ALWAYS, (_OLD, _FLAT, _HALF)),  # the whole forecast at 1 degree before its first half at 0.5: a store has one grid
    (datetime(2020, 9, 23), (_ATMOS, _OLD)),  # the day of the change; which of its cycles were first is not known
    (_V12, (_ATMOS,)),
)
# 00 UTC goes on to 840 h since v12, which this source leaves out.
LEADS: Eras[tuple[timedelta, ...]] = ((ALWAYS, every((6, 384))), (_V12, every((3, 240), (6, 384))))


class GEFS(NCEP):
    """One member's forecasts below `url`, in NOAA's layout; by default from NOAA's own bucket, anonymously.

    >>> GEFS("p19")
    GEFS('p19', 's3://noaa-gefs-pds')
    """

    publication_delay = timedelta(hours=7)  # f384 comes last; probing decides
    longest: ClassVar[timedelta] = LEADS[-1][1][-1]

    def __init__(self, member: str, url: str = NOAA) -> None:
        super().__init__(root_of(url))
        self.name = f"gefs-{member}"
        self.member = int(re.sub("[cp]", "", member))
        self._letters = member

    @classmethod
    def open(cls, variant: str, url: str | None, cache: str | None) -> "GEFS":
        """As `sources.Opener` says; nothing is cached."""
        if variant not in MEMBERS:
            name = f"gefs-{variant}" if variant else "gefs"
            raise ConfigurationError(f"no source is called {name!r}: name a member, gefs-c00 or gefs-p01 to gefs-p30")
        return cls(variant) if url is None else cls(variant, url)

    def __repr__(self) -> str:
        return f"GEFS({self._letters!r}, {self.url!r})"

    def lead_times(self, init_time: datetime) -> tuple[timedelta, ...]:
        """To 384 h from 00, 06, 12 and 18 UTC: 6-hourly, since v12 3-hourly up to 240 h."""
        return in_force(LEADS, init_time) if six_hourly(init_time) else ()

    def layouts(self, init_time: datetime) -> tuple[str, ...]:
        return tuple(template.replace("@", self._letters) for template in in_force(ERAS, init_time))
