"""The archive of ensembles and their inputs: plain Zarr v3 on any fsspec URL."""

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.latest import Latest
from corrdiff_core.archive.layout import Layout, Series
from corrdiff_core.archive.readers import open_forecasts, open_hindcast

__all__ = ["Archive", "Latest", "Layout", "Series", "open_forecasts", "open_hindcast"]
