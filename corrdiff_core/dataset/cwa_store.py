"""The public CWA dataset (NVIDIA, NGC `nvidia/modulus`, `cwa_dataset.zarr`) as it is stored.

Zarr v2, consolidated: `era5` and `cwb` (time, channel, south_north, west_east) in physical units on the 450 x 450 grid,
channels by name and pressure, masks of valid times, `XLAT` and `XLONG`. Source: `datasets/cwb.py` of physicsnemo's
CorrDiff example. Its `ds_factor`, which blurs the truth, has no counterpart here.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import xarray as xr
import zarr
from fsspec.core import url_to_fs
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

from corrdiff_core.archive.objects import open_objects
from corrdiff_core.credentials import refuse_credentials
from corrdiff_core.cwa import INPUT_CHANNELS, OUTPUT_CHANNELS, Channel, channel_indices
from corrdiff_core.dataset.samples import Float32
from corrdiff_core.errors import CheckpointError, DatasetError
from corrdiff_core.grid import Domain

FARTHEST = 50.0  # m that a point of XLAT, XLONG may lie from the domain's; stored in float32 they are 1 m wrong
_WHOLE = ("cwb/", "era5/")  # of which every chunk that is asked for must be there; others omit chunks of zeros


class _WholeStore(WrapperStore[Store]):
    """A chunk that is not there is an error; Zarr would hand out the fill value."""

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        found = await super().get(key, prototype, byte_range)
        name = key.rpartition("/")[2]
        if found is None and key.startswith(_WHOLE) and not name.startswith(".z") and name != "zarr.json":
            raise DatasetError(f"{self._store}: {key} is absent where the masks say valid: download the dataset anew")
        return found


def is_cwa(url: str) -> bool:
    """Whether `url` is a consolidated Zarr v2 with arrays `cwb` and `era5`."""
    data = open_objects(url).get(".zmetadata")
    try:
        return data is not None and {"cwb/.zarray", "era5/.zarray"} <= set(json.loads(data)["metadata"])
    except (ValueError, KeyError, TypeError):
        return False


@dataclass(frozen=True)
class CwaStore:
    """The arrays at `url`, cut to `domain`, which lies [crop:-crop] in them. It is pickled without what it has opened.

    Whatever is missing, damaged or on another grid is a DatasetError.
    """

    url: str
    domain: Domain

    def __getstate__(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def fields(self, name: str, row: int) -> Float32:
        """The used channels of `era5` or `cwb` at a time, as stored, (channel, y, x); one chunk is read."""
        array, channels = self._array(name), self.channels[name]
        crop = slice(self.domain.crop, -self.domain.crop or None)
        with self._named(f"{name} at row {row}"):
            if array.chunks[1] == array.shape[1]:  # a chunk holds all channels; twice as fast as an outer index
                values = np.asarray(array[row])[channels, crop, crop]
            else:
                values = np.asarray(array.oindex[row, channels, crop, crop])  # type: ignore[index]
        return np.ascontiguousarray(values, np.float32)

    @cached_property
    def truth_valid(self) -> NDArray[np.bool_]:
        """Of every time, whether its truth is valid; a chunk of a mask that is absent counts as not valid."""
        return np.asarray(self.values("cwb_valid") == 1)

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """Of every time, whether its truth and all used inputs are valid."""
        used = self.values("era5_valid")[:, self.channels["era5"]]
        return np.asarray(self.truth_valid & (used == 1).all(axis=1))

    @cached_property
    def _group(self) -> zarr.Group:
        scheme, separator, path = self.url.partition("://")
        local = scheme in ("file", "local") if separator else True
        refuse_credentials(self.url)
        store: Store = (
            LocalStore(path if separator else self.url, read_only=True)
            if local
            else FsspecStore.from_url(self.url, read_only=True)
        )
        try:
            return zarr.open_group(_WholeStore(store), mode="r", zarr_format=2, use_consolidated=True)
        except (OSError, ValueError, KeyError) as error:
            raise DatasetError(f"{self.url} is no consolidated Zarr v2 ({error}): download the dataset anew") from error

    def _array(self, name: str) -> zarr.Array[Any]:
        array = self._group.get(name)
        if not isinstance(array, zarr.Array):
            raise DatasetError(f"{self.url} lacks the array {name}: download the dataset anew")
        return array

    def values(self, name: str) -> NDArray[Any]:
        """A whole array."""
        array = self._array(name)
        with self._named(name):
            return np.asarray(array[...])

    @contextmanager
    def _named(self, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, RuntimeError) as error:
            raise DatasetError(f"{self.url}: {what} is damaged ({error}): download the dataset anew") from error

    @cached_property
    def channels(self) -> Mapping[str, list[int]]:
        """Where the variables stand among the channels of either array."""
        return {"era5": self._standing("era5", INPUT_CHANNELS), "cwb": self._standing("cwb", OUTPUT_CHANNELS)}

    def _standing(self, array: str, wanted: Mapping[str, Channel]) -> list[int]:
        names = [str(name) for name in self.values(f"{array}_variable")]
        try:
            return channel_indices(wanted, names, self.values(f"{array}_pressure"))
        except CheckpointError as error:
            raise DatasetError(f"{self.url}: channels of {array}: {error}") from error

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        """Of every row, decoded from its units; seconds, UTC."""
        array = self._array("time")
        stored = xr.Dataset({"time": ("time", np.asarray(array[...]), dict(array.attrs))})
        try:
            times = xr.decode_cf(stored, decode_timedelta=False)["time"].values
        except ValueError as error:
            raise DatasetError(f"{self.url}: time cannot be decoded from its units ({error})") from error
        if times.dtype.kind != "M":
            raise DatasetError(f"{self.url}: time has no units of a date, its attributes are {dict(array.attrs)}")
        return np.asarray(times, "datetime64[s]")

    def refuse_another_grid(self) -> None:
        """DatasetError unless XLAT, XLONG are the domain's points before its crop."""
        whole = replace(self.domain, crop=0)
        latitude, longitude = self.values("XLAT"), self.values("XLONG")
        if latitude.shape != whole.shape or longitude.shape != whole.shape:
            raise DatasetError(
                f"{self.url}: XLAT, XLONG have {latitude.shape} points, the domain {whole.name} has {whole.shape}"
            )
        x, y = whole.project(longitude.astype(np.float64), latitude.astype(np.float64))
        off = float(np.hypot(x - whole.x[None, :], y - whole.y[:, None]).max())
        if not off <= FARTHEST:
            raise DatasetError(
                f"{self.url}: XLAT, XLONG lie up to {off:.0f} m from {whole.name}, allowed are {FARTHEST:g} m"
            )

    @cached_property
    def _sizes(self) -> dict[str, int]:
        """Bytes of each stored object of both arrays, by key below the store; two listings."""
        filesystem, root = url_to_fs(self.url, use_listings_cache=False)  # type: ignore[no-untyped-call]
        root = root.rstrip("/")
        return {
            path.removeprefix(root).lstrip("/"): int(about["size"])
            for array in ("era5", "cwb")
            for path, about in filesystem.find(f"{root}/{array}", detail=True).items()
        }

    def size(self, name: str, row: int) -> list[int]:
        """Bytes of each stored chunk of the used channels at a row; DatasetError where one is absent."""
        array = self._array(name)
        blocks = [range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
        blocks[0] = range(row // array.chunks[0], row // array.chunks[0] + 1)
        used = sorted({channel // array.chunks[1] for channel in self.channels[name]})
        places = product(blocks[0], used, *blocks[2:])
        keys = [f"{name}/{array.metadata.encode_chunk_key(place)}" for place in places]
        absent = [key for key in keys if key not in self._sizes]
        if absent:
            raise DatasetError(f"{self.url}/{absent[0]} is absent where the masks say valid: download the dataset anew")
        return [self._sizes[key] for key in keys]
