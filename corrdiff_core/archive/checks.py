"""What fields must be before they may enter a store."""

from collections.abc import Hashable, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr

from corrdiff_core.archive.store import Store
from corrdiff_core.archive.template import INPUTS_GROUP
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ArchiveError
from corrdiff_core.grid import Domain


def check_fields(store: Store, group: str, slot: Slot, fields: xr.Dataset) -> None:
    """That `fields` are whole, finite, and those of `slot` on the grid of the store; ArchiveError names both sides."""
    where = f"{store.url}, {slot}"
    names = store.inputs if group == INPUTS_GROUP else store.outputs
    given = [str(name) for name in fields.data_vars]
    if given != names:
        raise ArchiveError(f"{where}: variables {given} given but the store holds {names}, in this order")
    for name, path in zip(names, store.field_paths(group), strict=True):
        _check_field(where, fields[name], store.slot_shape(path))
    _check_coordinates(where, fields, _coordinates(store, group))
    _check_times(where, slot, fields)


def _check_field(where: str, field: xr.DataArray, expected: dict[str, int]) -> None:
    if field.dims != tuple(expected) or dict(field.sizes) != expected:
        raise ArchiveError(f"{where}: {field.name} is {_shape(field.sizes)} but the store holds {_shape(expected)}")
    if field.dtype != np.float32:
        raise ArchiveError(f"{where}: {field.name} is {field.dtype} but the store holds float32")
    finite = np.isfinite(field.values)
    if not finite.all():
        raise ArchiveError(
            f"{where}: {field.name} has {int((~finite).sum())} missing or infinite of {field.size} values"
        )


def _shape(sizes: Mapping[Hashable, int] | Mapping[str, int]) -> str:
    return "(" + ", ".join(f"{dimension} {size}" for dimension, size in sizes.items()) + ")"


def _coordinates(store: Store, group: str) -> dict[str, Any]:
    layout = store.layout
    if group == INPUTS_GROUP:
        return {"latitude": layout["input_latitude"], "longitude": layout["input_longitude"]}
    domain = Domain.from_dict(layout["domain"])
    return {"member": np.arange(layout["members"]), "y": domain.y, "x": domain.x}


def _check_coordinates(where: str, fields: xr.Dataset, expected: dict[str, Any]) -> None:
    for name, values in expected.items():
        if name in fields.coords and not np.allclose(fields[name].values, values, rtol=1e-6, atol=1e-6):
            given = fields[name].values
            raise ArchiveError(
                f"{where}: {name} runs {given[0]:g}..{given[-1]:g} but the store's {values[0]:g}..{values[-1]:g};"
                f" the fields are on another grid or in another order"
            )


def _check_times(where: str, slot: Slot, fields: xr.Dataset) -> None:
    expected: dict[str, datetime | None] = {"valid_time": slot.valid_time, "init_time": slot.init_time}
    for name, time in expected.items():
        if name in fields.coords and time is not None and fields[name].values != np.datetime64(time, "ns"):
            raise ArchiveError(
                f"{where}: {name} of the fields is {fields[name].values}, of the slot {time.isoformat()}"
            )
