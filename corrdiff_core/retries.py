"""Patience with remote storage: which failures pass, how often and how long to try again, how long to wait at all."""

import asyncio
import http.client
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import aiohttp
import fsspec
from botocore.exceptions import (  # type: ignore[import-untyped]
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    SSLError,
)
from botocore.parsers import ResponseParserError  # type: ignore[import-untyped]

from corrdiff_core.credentials import refuse_credentials

TRIES = 6
FIRST_PAUSE = 0.25  # s; doubled after every try, so all six take 8 s at most beside what the requests take
CONNECT_TIMEOUT = 10.0  # s
READ_TIMEOUT = 30.0  # s without a byte

# What a filesystem may raise for a request that went wrong; not all of it is an OSError.
FAILURES = (OSError, aiohttp.ClientError, BotoCoreError, ClientError, http.client.HTTPException, ResponseParserError)

_BROKEN = (
    ConnectionError,
    TimeoutError,
    http.client.IncompleteRead,
    aiohttp.ClientPayloadError,
    aiohttp.ClientConnectionError,
    EndpointConnectionError,
    ConnectTimeoutError,
    HTTPClientError,
    IncompleteReadError,
    ResponseParserError,  # an answer cut off in its XML
)
_PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
# Codes of S3 that come with another status; a conflict is two conditional writes at once, of which neither may be done.
_PASSING_CODES = frozenset(
    {"SlowDown", "RequestTimeout", "RequestTimeoutException", "ConditionalRequestConflict", "OperationAborted"}
)

Answer = TypeVar("Answer")


def passing(error: BaseException) -> bool:
    """Whether the same request may succeed a little later: server errors, throttling, broken or slow connections.

    What is refused (401, 403, 404, 412, no such bucket, a bad certificate) lasts. fsspec translates failures, so what
    caused an error counts before the error itself.

    >>> passing(TimeoutError()), passing(PermissionError()), passing(FileNotFoundError())
    (True, False, False)
    """
    for cause in reversed(list(_causes(error))):
        if isinstance(cause, ClientError):
            answer = cause.response
            status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
            return status in _PASSING_STATUS or answer.get("Error", {}).get("Code") in _PASSING_CODES
        if isinstance(cause, aiohttp.ClientResponseError):
            return cause.status in _PASSING_STATUS
        if isinstance(cause, SSLError | aiohttp.ClientSSLError):
            return False
        if isinstance(cause, _BROKEN):
            return True
    return False


def absent(error: BaseException) -> bool:
    """Whether an error says that there is no such object; fsspec reports some failures as FileNotFoundError.

    A bucket that is not there is no empty one.

    >>> absent(FileNotFoundError()), absent(PermissionError())
    (True, False)
    """
    if not isinstance(error, FileNotFoundError) or _code_of(error) == "NoSuchBucket":
        return False
    return status_of(error) in (None, 404, 410) and not passing(error)


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error of a filesystem came from, None where there is none."""
    for cause in _causes(error):
        if isinstance(cause, ClientError):
            return cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode")  # type: ignore[no-any-return]
        if isinstance(cause, aiohttp.ClientResponseError):
            return cause.status
    return None


def _code_of(error: BaseException) -> str | None:
    """S3's own word for an error, None where it has none: the answer to HEAD has no body."""
    for cause in _causes(error):
        if isinstance(cause, ClientError):
            return cause.response.get("Error", {}).get("Code")  # type: ignore[no-any-return]
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def pause(tries: int) -> None:
    """Wait after the given number of failed tries: longer each time, and never as long as others who failed with us."""
    time.sleep(_seconds(tries))


def _seconds(tries: int) -> float:
    return FIRST_PAUSE * float(2 ** (tries - 1)) * random.uniform(0.5, 1)  # noqa: S311 (jitter is no secret)


def patiently(request: Callable[[], Answer]) -> Answer:
    """What `request` returns, asked again while its failures are `passing`, TRIES times at most.

    The last failure is raised as it is, with a note on the tries; one that lasts at once.
    """
    tries = 1
    while True:
        try:
            return request()
        except FAILURES as error:
            if _final(error, tries):
                raise
        pause(tries)
        tries += 1


async def patiently_awaited(request: Callable[[], Awaitable[Answer]]) -> Answer:
    """As `patiently`, for what is awaited."""
    tries = 1
    while True:
        try:
            return await request()
        except FAILURES as error:
            if _final(error, tries):
                raise
        await asyncio.sleep(_seconds(tries))
        tries += 1


def _final(error: BaseException, tries: int) -> bool:
    """Whether to give up after so many tries; where the last of them failed, that is noted."""
    if passing(error) and tries == TRIES:
        error.add_note(f"tried {tries} times")
    return not passing(error) or tries == TRIES


def in_words(error: BaseException) -> str:
    """An error for a one-line message: what S3 calls it where it comes from there, and what was noted on it.

    >>> in_words(TimeoutError("no answer"))
    'no answer'
    """
    words = str(error) or repr(error)
    for cause in _causes(error):
        if isinstance(cause, ClientError):
            told = cause.response.get(
                "Error", {}
            )  # Ceph tells no message, a HEAD of any server no more than the status
            words = f"{told.get('Message') or 'refused'} ({told.get('Code')}, HTTP {status_of(cause)})"
    return "; ".join([words, *getattr(error, "__notes__", [])])


def storage_options(url: str) -> dict[str, Any]:
    """How the filesystem of `url` is opened: with timeouts, and without retries of its own on S3.

    `patiently` is the one place for those: botocore would repeat a conditional write whose answer was lost, and take
    its own object for somebody else's. What fsspec's configuration says (`FSSPEC_S3`) goes before what is said here.
    ConfigurationError for a URL with credentials in it: every remote one comes by here.
    """
    refuse_credentials(url)
    scheme = url.partition("://")[0]
    configured = fsspec.config.conf.get(scheme, {})
    if scheme in ("s3", "s3a"):
        ours: dict[str, Any] = {
            "connect_timeout": CONNECT_TIMEOUT,
            "read_timeout": READ_TIMEOUT,
            "retries": {"mode": "standard", "total_max_attempts": 1},
        }
        return {"config_kwargs": {**ours, **configured.get("config_kwargs", {})}}
    if scheme in ("http", "https"):
        timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT, sock_read=READ_TIMEOUT)
        return {"client_kwargs": {"timeout": timeout, **configured.get("client_kwargs", {})}}
    return {}


def without_own_retries(filesystem: Any) -> Any:
    """`filesystem`, an s3fs one asked to try every request once."""
    if "s3" in filesystem.protocol:
        filesystem.retries = 1
    return filesystem
