"""What slots are verified against: 2-km truth on the model's own domain, or a source of analyses."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.cycle import HOUR, Slot, compact
from corrdiff_core.errors import ConfigurationError, DatasetError
from corrdiff_core.grid import Box, Domain
from corrdiff_core.nature import SEED
from corrdiff_core.sources import SOURCES, as_hindcast, is_place, open_source
from corrdiff_core.sources.source import HindcastSource, NotYet
from corrdiff_core.variables import OUTPUT

if TYPE_CHECKING:
    from corrdiff_core.dataset.origins import Side

Float32 = NDArray[np.float32]

_NATURE = re.compile(r"nature(?::(\d+))?")


class HoleError(DatasetError):
    """Truth of one time that has missing or impossible values."""


@dataclass(frozen=True)
class Truth:
    """2-km truth by time, on `domain`."""

    side: "Side"
    domain: Domain

    @classmethod
    def open(cls, truth: str, domain: Domain) -> "Truth":
        """The CWA dataset, a Zarr or NetCDF of the domain's outputs, or `nature[:SEED]`, which has every hour.

        DatasetError where it is none of these, or on another grid than the domain's.
        """
        # What reads datasets needs torch beside it, which verification by itself does not.
        from corrdiff_core.dataset.builder import open_truth
        from corrdiff_core.dataset.origins import NatureTruth

        nature = _NATURE.fullmatch(truth)
        side = NatureTruth(int(nature[1] or SEED), domain) if nature else open_truth(truth, domain)
        side.read([])  # its grid is looked at
        return cls(side, domain)

    def read(self, time: datetime) -> tuple[Float32, str] | None:
        """(output, y, x) in the order of the domain's outputs, and where from; None where it is not there yet.

        HoleError where values are missing, impossible or damaged. A place that is kept for the time and holds nothing
        but NaN is not there yet.
        """
        from corrdiff_core.dataset.origins import check

        try:
            field = self.side.read([time]).get(time) if self.side.hours(time, time + HOUR) else None
            if field is None or np.isnan(field.values).all():
                return None
            check(f"{field.origin}, {compact(time)}", field.values, [OUTPUT[name] for name in self.domain.outputs])
        except DatasetError as error:
            raise HoleError(str(error)) from error
        return field.values, field.origin


def is_analysis(truth: str) -> bool:
    """Whether `truth` names a source of analyses, such as era5, and no 2-km truth; ConfigurationError for neither.

    >>> is_analysis("era5"), is_analysis("nature:1"), is_analysis("s3://weather/cwa.zarr")
    (True, False, False)
    """
    if _NATURE.fullmatch(truth) or is_place(truth):
        return False
    if truth.partition("-")[0] not in SOURCES:
        raise ConfigurationError(
            f"truth {truth!r}: no such place, and no source is called so: name a Zarr or NetCDF of 2-km truth, nature,"
            " or era5"
        )
    return True


def open_analyses(name: str, url: str | None, cache: str | None, channels: tuple[str, ...]) -> HindcastSource:
    """The source called `name`; ConfigurationError where that has forecasts, which are no truth."""
    return as_hindcast(open_source(name, url, cache, channels))


def fetch_analysis(source: HindcastSource, time: datetime, box: Box) -> tuple[xr.Dataset, str] | NotYet:
    """The fields of `box`, (latitude, longitude), and where from; NotYet where they are not there yet."""
    found = source.fetch(Slot(time), box)
    if isinstance(found, NotYet):
        return found
    return found.inputs, f"{source.name}{' (preliminary)' if found.preliminary else ''}"
