"""A Zarr store on object storage or a web server, read with patience; what cannot be read never passes for absent."""

from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from http.client import IncompleteRead
from typing import Self

from zarr.abc.store import ByteRequest, RangeByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from corrdiff_core.errors import SourceError
from corrdiff_core.retries import absent, patiently_awaited, storage_options, without_own_retries


class PatientStore(WrapperStore[FsspecStore]):
    """The store at an fsspec URL, read-only: failures that pass are tried again (`retries.patiently_awaited`).

    A key is absent (None) where the storage says so, and nowhere else: Zarr reads its fill value there.
    """

    @classmethod
    def at(cls, url: str) -> Self:
        options = {"use_listings_cache": False, **storage_options(url)}
        store = FsspecStore.from_url(url, options, read_only=True, allowed_exceptions=())
        without_own_retries(store.fs)
        return cls(store)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """The object, or `byte_range` of it at its full length; SourceError where the server ignores the range."""

        async def once() -> Buffer | None:
            body = await self._store.get(key, prototype, byte_range)
            if body is not None and isinstance(byte_range, RangeByteRequest):
                self._check_length(key, byte_range, body)
            return body

        try:
            return await patiently_awaited(once)
        except FileNotFoundError as error:
            if not absent(error):
                raise
            return None

    def _check_length(self, key: str, asked: RangeByteRequest, body: Buffer) -> None:
        due = asked.end - asked.start
        if len(body) > due:
            raise SourceError(
                f"{self._store.path}/{key}: asked for {due} bytes, got {len(body)}: the server ignores Range requests;"
                " use another mirror"
            )
        if len(body) < due:
            raise IncompleteRead(body.to_bytes(), due - len(body))

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def _get_many(
        self, requests: Iterable[tuple[str, BufferPrototype, ByteRequest | None]]
    ) -> AsyncGenerator[tuple[str, Buffer | None], None]:
        for key, prototype, byte_range in requests:
            yield key, await self.get(key, prototype, byte_range)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        async def once() -> list[str]:
            return [name async for name in self._store.list_dir(prefix)]

        for name in await patiently_awaited(once):
            yield name
