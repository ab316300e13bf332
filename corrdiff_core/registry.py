"""The registry: numbered versions of named checkpoints, and which version of a name is in production.

<models>/<name>/<0001...>/                a checkpoint folder for each version, never changed
<models>/<name>/<0001...>/claimed.json    its number is taken; a version is complete once its manifest is there
<models>/<name>/production.json           the version in use: the one object that promote and rollback replace
<models>/<name>/history/<0001...>.json    an entry for each change of production, never changed
<models>/<name>/verdicts/<0001...>.json   what was decided of the version of that number, never changed
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from corrdiff_core.archive.layout import NAME
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.cycle import utc_now
from corrdiff_core.errors import CheckpointError
from corrdiff_core.manifest import MANIFEST, Manifest, check_name, read_manifest

PRODUCTION, HISTORY, CLAIM, VERDICTS = "production.json", "history", "claimed.json", "verdicts"

Action = Literal["first", "promote", "rollback"]
Record = TypeVar("Record")


@dataclass(frozen=True)
class Version:
    """A complete version of a model; `url` is its checkpoint folder."""

    name: str
    number: int
    url: str
    manifest: Manifest

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.number}"


@dataclass(frozen=True)
class _Production:
    """production.json; `digest` is the version's manifest's, `history` the number of the entry it came with."""

    version: int
    digest: str
    since: str
    history: int

    def __post_init__(self) -> None:
        _require_numbers(version=self.version, history=self.history)


@dataclass(frozen=True)
class _Change:
    """An entry of the history; `previous` and `after` are the version and the entry in use as it was written."""

    action: Action
    version: int
    previous: int | None
    digest: str
    at: str
    reason: dict[str, Any]
    after: int | None

    def __post_init__(self) -> None:
        _require_numbers(version=self.version, after=0 if self.after is None else self.after)


@dataclass(frozen=True)
class _Claim:
    at: str


def is_reference(ref: str) -> bool:
    """Whether `ref` is a `name` or `name@version` of a registry, and no path and no URL.

    >>> [is_reference(ref) for ref in ("taiwan", "taiwan@2", "./taiwan", "models/taiwan", "s3://bucket/taiwan")]
    [True, True, False, False, False]
    """
    return "/" not in ref and not ref.startswith(".")


class Registry:
    """The versions under one fsspec URL, a local directory or an object store. Names follow the manifest's rule.

    production.json is the truth about what is in use: whole at any instant, and never naming a version that was not
    complete. A change of production writes its history entry first; the entry names the one in use as it was written
    (`after`), and production.json names the entry it came with (`history`). The changes that count are therefore those
    on the chain from production.json back to the first. Whoever is killed between the two leaves an entry off that
    chain: `history` and `rollback` pass it over, and the next change takes the next number.

    Of two changes at once one stays. Each looks at production.json before it replaces it and after, and is refused
    where it finds the other's there. Not every storage can compare and swap, so between a look and the replacement
    that follows it the other's may be lost: its entry is then off the chain, like that of a change never made.

    Whatever is unknown, incomplete or does not agree is a CheckpointError that names both sides and the cure; what the
    storage refuses is the ArchiveError of `archive.objects`.
    """

    def __init__(self, url: str) -> None:
        self._objects = open_objects(url)

    @property
    def url(self) -> str:
        return self._objects.url

    # Versions

    def add(self, name: str, write: Callable[[str], Manifest], *, candidate: bool = False) -> Version:
        """The next version of `name`, which `write(folder URL)` writes, its manifest last.

        Its number is claimed first, so of writers at once each has a folder of its own; the number of one that fails
        or is killed is never used again. The first version of a name to complete goes into production, unless it is a
        `candidate`, which waits to be promoted.
        """
        check_name(name)
        claim = _to_json(_Claim(_now()))
        number = self._take(self._numbers(name), lambda free: f"{_folder(name, free)}/{CLAIM}", claim)
        url = f"{self.url}/{_folder(name, number)}"
        written = write(url)
        version = Version(name, number, url, read_manifest(url))
        if version.manifest.digest != written.digest:
            raise CheckpointError(
                f"{url}: the manifest there has digest {version.manifest.digest[:12]}, written was"
                f" {written.digest[:12]}: add the version again"
            )
        if not candidate and self._in_production(name) is None:
            self._change("first", version, None, {})
        return version

    def names(self) -> list[str]:
        """Names with a complete version, ascending; empty where there is no registry."""
        return [name for name in self._listing("") if NAME.fullmatch(name) and self._complete(name)]

    def versions(self, name: str) -> list[Version]:
        """The complete versions of `name`, ascending; CheckpointError where there is none."""
        check_name(name)
        numbers = self._complete(name)
        if not numbers:
            raise self._nothing(name)
        return [self.version(name, number) for number in numbers]

    def version(self, name: str, number: int) -> Version:
        """A version by its number; CheckpointError where that is not complete."""
        check_name(name)
        if not self._is_complete(name, number):
            numbers = self._complete(name)
            if not numbers:
                raise self._nothing(name)
            raise CheckpointError(f"{name}@{number} is not in {self.url}: choose {_choices(name, numbers)}")
        url = f"{self.url}/{_folder(name, number)}"
        return Version(name, number, url, read_manifest(url))

    def claimed(self, version: Version) -> str | None:
        """When the version's number was claimed, ISO 8601 UTC; None for a folder that was put there by other means."""
        claim = self._read(f"{_folder(version.name, version.number)}/{CLAIM}", _Claim)
        return None if claim is None else claim.at

    def find(self, ref: str) -> Version:
        """The version in production of `name`, or `name@version`, as taiwan@2 or taiwan@0002."""
        name, separator, number = ref.partition("@")
        if not separator:
            return self.production(name)
        if not (number.isascii() and number.isdecimal()):
            raise CheckpointError(f"{ref!r} is no version of a model: write a name, or name@number as in taiwan@2")
        return self.version(name, int(number))

    def resolve(self, ref: str) -> str:
        """The checkpoint folder of `find(ref)`."""
        return self.find(ref).url

    # Production

    def production_number(self, name: str) -> int | None:
        """Which version production.json names, unchecked; None where none is in production."""
        check_name(name)
        record = self._in_production(name)
        return None if record is None else record.version

    def production(self, name: str) -> Version:
        """The version in production; CheckpointError where there is none, or where it is not what was promoted."""
        record = self._require_production(name)
        if not self._is_complete(name, record.version):
            raise CheckpointError(
                f"{self.url}/{name}/{PRODUCTION} names version {record.version}, whose folder has no {MANIFEST}:"
                " restore the folder, or promote another version"
            )
        return self._unchanged(self.version(name, record.version), record.digest, f"{name}/{PRODUCTION}")

    def promote(self, name: str, number: int, reason: dict[str, Any]) -> Version:
        """Put a complete version into production; nothing changes where it is there already.

        `reason` holds plain JSON values. CheckpointError where a change to another version came between.
        """
        version, before = self.version(name, number), self._in_production(name)
        if before is not None and before.version == number:
            return self.production(name)
        self._change_or_refuse("first" if before is None else "promote", version, before, reason)
        return version

    def rollback(self, name: str, reason: dict[str, Any]) -> Version:
        """Put the version back that was in production before the present one was promoted.

        A version that was rolled back is not returned to: after 1, 2, 3 two rollbacks lead to 2, then to 1. The version
        in production need not be readable. Otherwise as `promote`.
        """
        before = self._require_production(name)
        promoted: list[_Change] = []
        for change in self._changes(name, before):
            promoted = promoted[:-1] if change.action == "rollback" else [*promoted, change]
        if len(promoted) < 2:
            raise CheckpointError(
                f"nothing was in production before {name}@{before.version}: promote"
                f" {_choices(name, self._complete(name))} instead"
            )
        former = promoted[-2]
        version = self._unchanged(self.version(name, former.version), former.digest, f"{name}/{HISTORY}")
        self._change_or_refuse("rollback", version, before, reason)
        return version

    def history(self, name: str) -> list[dict[str, Any]]:
        """The changes of production, oldest first: action, version, previous, digest, at, reason, after."""
        check_name(name)
        production = self._in_production(name)
        if production is None and not self._complete(name):
            raise self._nothing(name)
        return [] if production is None else [asdict(change) for change in self._changes(name, production)]

    # Verdicts

    def record(self, version: Version, verdict: dict[str, Any]) -> dict[str, Any]:
        """Keep what was decided of `version`, plain JSON values; the first on a version stands; it is returned."""
        found = {"version": version.number, "digest": version.manifest.digest, "at": _now(), **verdict}
        key = f"{version.name}/{VERDICTS}/{version.number:04d}.json"
        self._objects.create(key, json.dumps(found, indent=1, allow_nan=False).encode())
        return self._verdict(key)

    def verdicts(self, name: str) -> list[dict[str, Any]]:
        """The verdicts on versions of `name`, by version; empty where none was kept."""
        check_name(name)
        folder = f"{name}/{VERDICTS}"
        return [self._verdict(f"{folder}/{part}") for part in self._listing(folder) if part.endswith(".json")]

    def _verdict(self, key: str) -> dict[str, Any]:
        data = self._objects.get(key)
        try:
            verdict: dict[str, Any] = json.loads(data or b"")
        except ValueError as error:
            raise CheckpointError(f"{self.url}/{key} is broken ({error}): restore it from a copy") from None
        return verdict

    def _in_production(self, name: str) -> _Production | None:
        return self._read(f"{name}/{PRODUCTION}", _Production)

    def _require_production(self, name: str) -> _Production:
        check_name(name)
        production = self._in_production(name)
        if production is None:
            numbers = self._complete(name)
            if not numbers:
                raise self._nothing(name)
            raise CheckpointError(
                f"no version of {name} in {self.url} is in production: promote {_choices(name, numbers)}"
            )
        return production

    def _changes(self, name: str, production: _Production) -> list[_Change]:
        """Those that led to `production`, oldest first."""
        changes: list[_Change] = []
        number: int | None = production.history
        while number is not None:
            key = _entry(name, number)
            change = self._read(key, _Change)
            if change is None or (change.after or 0) >= number:
                found = "is gone" if change is None else f"says that it came after entry {change.after}"
                raise CheckpointError(f"{self.url}/{key} {found}: restore it from a copy")
            changes.append(change)
            number = change.after
        if changes[0].version != production.version:
            raise CheckpointError(
                f"{self.url}/{name}/{PRODUCTION} names version {production.version}, its entry"
                f" {_entry(name, production.history)} version {changes[0].version}: promote the right one"
            )
        return changes[::-1]

    def _change_or_refuse(
        self, action: Action, version: Version, before: _Production | None, reason: dict[str, Any]
    ) -> None:
        if self._change(action, version, before, reason):
            return
        number = self.production_number(version.name)
        if number != version.number:
            raise CheckpointError(
                f"{version.name}@{number} came into production while {version.ref} was about to:"
                " decide anew which is to stay, and promote that"
            )

    def _change(self, action: Action, version: Version, before: _Production | None, reason: dict[str, Any]) -> bool:
        """Whether `version` is now in production, where `before` was; False where another change came between."""
        name, digest, now = version.name, version.manifest.digest, _now()
        previous, after = (None, None) if before is None else (before.version, before.history)
        change = _Change(action, version.number, previous, digest, now, reason, after)
        number = self._take(self._entries(name), lambda free: _entry(name, free), _to_json(change))
        production = _Production(version.number, digest, now, number)
        if before is None:
            self._objects.create(f"{name}/{PRODUCTION}", _to_json(production))
        elif self._in_production(name) == before:
            self._objects.put(f"{name}/{PRODUCTION}", _to_json(production))
        return self._in_production(name) == production

    def _unchanged(self, version: Version, digest: str, key: str) -> Version:
        found = version.manifest.digest
        if found != digest:
            raise CheckpointError(
                f"{version.url}: the manifest has digest {found[:12]}, {self.url}/{key} says {digest[:12]}:"
                " restore the folder, or promote another version"
            )
        return version

    # Objects

    def _numbers(self, name: str) -> list[int]:
        """Those that are taken, complete or not."""
        return [int(part) for part in self._listing(name) if re.fullmatch(r"\d{4,}", part)]

    def _entries(self, name: str) -> list[int]:
        parts = self._listing(f"{name}/{HISTORY}")
        return [int(part.removesuffix(".json")) for part in parts if re.fullmatch(r"\d{4,}\.json", part)]

    def _listing(self, key: str) -> list[str]:
        return self._objects.names(key)

    def _is_complete(self, name: str, number: int) -> bool:
        return self._objects.exists(f"{_folder(name, number)}/{MANIFEST}")

    def _complete(self, name: str) -> list[int]:
        return sorted(number for number in self._numbers(name) if self._is_complete(name, number))

    def _take(self, taken: list[int], key: Callable[[int], str], data: bytes) -> int:
        """The next free number, taken by creating its object."""
        number = max(taken, default=0) + 1
        while not self._objects.create(key(number), data):
            number += 1
        return number

    def _read(self, key: str, kind: type[Record]) -> Record | None:
        data = self._objects.get(key)
        if data is None:
            return None
        try:
            return kind(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{self.url}/{key} is broken ({error}): restore it from a copy") from None

    def _nothing(self, name: str) -> CheckpointError:
        """What to say of a name without a complete version."""
        if self._numbers(name):
            return CheckpointError(
                f"no version of {name} in {self.url} is complete: its imports were cut off or are under way;"
                " wait for them, or import it again"
            )
        names = self.names()
        cure = f"choose {' or '.join(names)}" if names else "none is there yet, import one"
        return CheckpointError(f"no model is called {name!r} in {self.url}: {cure}, or write ./{name} for a folder")


def _folder(name: str, number: int) -> str:
    return f"{name}/{number:04d}"


def _entry(name: str, number: int) -> str:
    return f"{name}/{HISTORY}/{number:04d}.json"


def _choices(name: str, numbers: list[int]) -> str:
    return " or ".join(f"{name}@{number}" for number in numbers)


def _require_numbers(**values: object) -> None:
    wrong = [f"{name} is {value!r}" for name, value in values.items() if type(value) is not int]
    if wrong:
        raise TypeError(f"{', '.join(wrong)} where a whole number is due")


def _now() -> str:
    return f"{utc_now().isoformat(timespec='seconds')}Z"


def _to_json(record: _Production | _Change | _Claim) -> bytes:
    return json.dumps(asdict(record), indent=1, allow_nan=False).encode()
