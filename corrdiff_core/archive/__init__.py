"""The archive of ensembles and their inputs: plain Zarr v3 on any fsspec URL."""

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.latest import Latest
from corrdiff_core.archive.layout import Layout, Series

__all__ = ["Archive", "Latest", "Layout", "Series"]
