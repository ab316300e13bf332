"""Sources of weather, by name. A new source is one file here and one line in SOURCES."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, cast

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.aiwp import AIWP
from corrdiff_core.sources.ecmwf import ECMWF
from corrdiff_core.sources.era5 import ERA5
from corrdiff_core.sources.gefs import GEFS
from corrdiff_core.sources.gfs import GFS
from corrdiff_core.sources.own import OwnData
from corrdiff_core.sources.places import is_glob
from corrdiff_core.sources.source import ForecastSource, HindcastSource, Source
from corrdiff_core.variables import INPUT_NAMES


class Opener(Protocol):
    """Opens the sources of one family."""

    def __call__(self, variant: str, url: str | None, cache: str | None) -> Source:
        """The source called `<family>-<variant>` (no hyphen where empty) at `url`, by default where it is published.

        `cache` is a directory for what need not be read from there twice. ConfigurationError for another variant.
        """
        ...


SOURCES: Mapping[str, Opener] = {
    "aiwp": AIWP.open,
    "ecmwf": ECMWF.open,
    "era5": ERA5.open,
    "gefs": GEFS.open,
    "gfs": GFS.open,
}  # by family, the first part of a name


def open_source(
    name: str, url: str | None = None, cache: str | None = None, inputs: Sequence[str] = INPUT_NAMES
) -> Source:
    """The source called `name`, at `url` or where it is published; data of one's own where `name` is a path or URL.

    `inputs` are those that data of one's own must have; all other sources have all. ConfigurationError for a name that
    is neither in SOURCES nor a place.
    """
    if is_place(name):
        return OwnData(name, inputs, taken=list(SOURCES))
    family, _, variant = name.partition("-")
    if family not in SOURCES:
        raise ConfigurationError(
            f"no source is called {name!r}: use one of {', '.join(sorted(SOURCES))}, or the path or URL of your data"
        )
    return SOURCES[family](variant, url, cache)


def is_place(name: str) -> bool:
    """Whether `name` is a path, URL or glob of data, and no name of a source."""
    if "/" in name or is_glob(name):
        return True
    return name.partition("-")[0] not in SOURCES and Path(name).exists()


def as_forecasts(source: Source) -> ForecastSource:
    """The source as one with cycles; ConfigurationError for a source of analyses, which has none."""
    if source.kind != "forecast":
        raise ConfigurationError(f"{source.name} is a source of analyses and has no cycles: use `corrdiff backfill`")
    return cast(ForecastSource, source)


def as_hindcast(source: Source) -> HindcastSource:
    """The source as one of analyses; ConfigurationError for forecasts."""
    if source.kind != "hindcast":
        raise ConfigurationError(f"{source.name} is a source of forecasts, not of analyses: use another")
    return cast(HindcastSource, source)
