"""A domain from a TOML file, every key checked: all that a second region needs (docs/domain-example.toml)."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from corrdiff_core.errors import ConfigurationError, CorrdiffError
from corrdiff_core.grid import NO_INVARIANTS, TERRAIN, Box, Domain
from corrdiff_core.variables import INPUT_NAMES, OUTPUT_NAMES

_EXAMPLE = "see docs/domain-example.toml"
_NEVER_LEFT_OUT = ("invariants",)  # another region's is never Taiwan's by accident


def read_domain(path: str) -> Domain:
    """The domain that a TOML file describes; a relative path of `invariants` in it begins at the file's folder.

    Raises ConfigurationError, naming the file, for one that cannot be read, for every key that is unknown, missing or
    of another type, and for a grid, variables or an input box that make no sense.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"domain {path}: {error}; {_EXAMPLE}") from error
    domain = _parsed(values, path)
    wrong = list(_mistakes(domain))
    if wrong:
        raise ConfigurationError(f"domain {path}: {'; '.join(wrong)}; {_EXAMPLE}")
    return _placed(domain, values, Path(path).parent)


def _parsed(values: dict[str, Any], path: str) -> Domain:
    told = _keys(values, Domain, "")
    if isinstance(values.get("input_box"), dict):
        told += _keys(values["input_box"], Box, "input_box.")
    if told:
        raise ConfigurationError(f"domain {path}: {'; '.join(told)}; {_EXAMPLE}")
    try:
        return _types().validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))} = {item['input']!r}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError(f"domain {path}: {'; '.join(wrong)}; {_EXAMPLE}") from None


@cache
def _types() -> TypeAdapter[Domain]:
    return TypeAdapter(Domain)


def _keys(values: dict[str, Any], cls: Any, prefix: str) -> list[str]:
    known = {field.name for field in fields(cls)}
    needed = {field.name for field in fields(cls) if field.default is MISSING or field.name in _NEVER_LEFT_OUT}
    found = (("missing", sorted(needed - set(values))), ("unknown", sorted(set(values) - known)))
    return [f"{what} {', '.join(prefix + name for name in names)}" for what, names in found if names]


def _mistakes(domain: Domain) -> list[str]:
    wrong = [f"{name} = {getattr(domain, name)} must be above 0" for name in ("step",) if not getattr(domain, name) > 0]
    if domain.crop < 0 or min(domain.rows, domain.columns) < 2 * domain.crop + 2:
        wrong.append(
            f"rows = {domain.rows}, columns = {domain.columns} and crop = {domain.crop} leave no grid of 2 x 2 points"
        )
    wrong += _misnamed("inputs", domain.inputs, INPUT_NAMES) + _misnamed("outputs", domain.outputs, OUTPUT_NAMES)
    if not domain.name or not domain.invariants:
        wrong.append(f"name = {domain.name!r} and invariants = {domain.invariants!r} must not be empty")
    if wrong:
        return wrong
    try:
        return _outside(domain)
    except CorrdiffError as error:
        return [f"projection = {domain.projection!r}: {str(error).removeprefix(f'projection {domain.projection!r}: ')}"]


def _misnamed(key: str, names: Sequence[str], known: Sequence[str]) -> list[str]:
    if names and list(names) == [name for name in known if name in names]:
        return []
    return [f"{key} = {list(names)}: one or more of {list(known)} are due, each once, in this order"]


def _outside(domain: Domain) -> list[str]:
    latitude, longitude, box = domain.latitude, domain.longitude, domain.input_box
    edges = latitude.min(), latitude.max(), longitude.min(), longitude.max()
    south, north, west, east = map(float, edges)
    if box.south <= south and north <= box.north and box.west <= west and east <= box.east:
        return []
    held = f"{box.south:g}..{box.north:g} N, {box.west:g}..{box.east:g} E"
    grid = f"{south:.4f}..{north:.4f} N, {west:.4f}..{east:.4f} E"
    return [f"input_box = {held} does not hold the grid, which is {grid}"]


def _placed(domain: Domain, values: dict[str, Any], folder: Path) -> Domain:
    """The domain whose invariants are found from anywhere."""
    where = domain.invariants
    if where in (TERRAIN, NO_INVARIANTS) or "://" in where:
        return domain
    return Domain.from_dict({**domain.to_dict(), "invariants": str((folder / where).expanduser().absolute())})
