"""Sources of weather, by name. A new source is one file here and one line in SOURCES."""

from collections.abc import Callable, Mapping

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources.gfs import GFS
from corrdiff_core.sources.source import Source

SOURCES: Mapping[str, Callable[..., Source]] = {"gfs": GFS}


def open_source(name: str, url: str | None = None) -> Source:
    """The source called `name`, at `url` or where it is published. ConfigurationError for a name not in SOURCES."""
    if name not in SOURCES:
        raise ConfigurationError(f"no source is called {name!r}: use one of {', '.join(sorted(SOURCES))}")
    return SOURCES[name]() if url is None else SOURCES[name](url)
