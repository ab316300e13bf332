"""Synthetic weather written as ECMWF's open data: CCSDS-packed GRIB2 by ecCodes, with an index beside it."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import eccodes
import numpy as np
import xarray as xr

from corrdiff_core.cycle import Slot
from corrdiff_core.sources.ecmwf import ECMWF
from corrdiff_core.variables import STANDARD_GRAVITY

# Parameter, level in hPa, input, factor from our units. In the order of a file.
HEIGHTS = tuple(("gh", level, f"z{level}", 1 / STANDARD_GRAVITY) for level in (500, 850))
GEOPOTENTIALS = tuple(("z", level, f"z{level}", 1.0) for level in (500, 850))
OTHERS = (
    *((letter, level, f"{letter}{level}", 1.0) for letter in "tuv" for level in (500, 850)),
    ("10u", None, "u10m", 1.0),
    ("10v", None, "v10m", 1.0),
    ("2t", None, "t2m", 1.0),
)
TCWV = ("tcwv", None, "tcwv", 1.0)
TCW = ("tcw", None, "tcwv", 1.1)
Row = tuple[str, int | None, str, float]
IFS: tuple[Row, ...] = (*HEIGHTS, ("t", 700, "t850", 0.97), *OTHERS, TCWV)
AIFS: tuple[Row, ...] = (*GEOPOTENTIALS, *HEIGHTS, *OTHERS, TCW)


def message(field: xr.DataArray, param: str, level: int | None, slot: Slot, member: int | None) -> bytes:
    """One field as ECMWF encodes it: centre ecmf, north to south, grid_ccsds."""
    field = field.sortby("latitude", ascending=False)
    handle = eccodes.codes_grib_new_from_samples("regular_ll_pl_grib2" if level else "regular_ll_sfc_grib2")
    keys: dict[str, Any] = {
        "centre": "ecmf",
        "tablesVersion": 32,
        "Ni": field.longitude.size,
        "Nj": field.latitude.size,
        "latitudeOfFirstGridPointInDegrees": float(field.latitude[0]),
        "latitudeOfLastGridPointInDegrees": float(field.latitude[-1]),
        "longitudeOfFirstGridPointInDegrees": float(field.longitude[0]),
        "longitudeOfLastGridPointInDegrees": float(field.longitude[-1]),
        "iDirectionIncrementInDegrees": float(field.longitude[1] - field.longitude[0]),
        "jDirectionIncrementInDegrees": float(field.latitude[0] - field.latitude[1]),
        "dataDate": int(f"{slot.init_time:%Y%m%d}"),
        "dataTime": int(f"{slot.init_time:%H%M}"),
        "indicatorOfUnitOfTimeRange": 1,
        "forecastTime": slot.lead_hours,
    }
    if member is not None:
        keys |= {"productDefinitionTemplateNumber": 1, "perturbationNumber": member, "numberOfForecastsInEnsemble": 51}
    keys |= {"shortName": param} | ({"level": level} if level else {}) | {"bitsPerValue": 24}
    for key, value in keys.items():
        eccodes.codes_set(handle, key, value)
    eccodes.codes_set_values(handle, field.values.astype(np.float64).ravel())
    eccodes.codes_set(handle, "packingType", "grid_ccsds")
    written = bytes(eccodes.codes_get_message(handle))
    eccodes.codes_release(handle)
    return written


@dataclass
class Written:
    """A slot in a local directory, to be damaged."""

    root: Path
    slot: Slot
    source: ECMWF
    file: Path
    index: Path

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.index.read_text().splitlines()]

    def rewrite(self, lines: Iterable[dict[str, Any]]) -> None:
        self.index.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def span(self, param: str, level: int | None = None) -> tuple[int, int]:
        (line,) = [
            line for line in self.lines() if (line["param"], line.get("levelist")) == (param, level and str(level))
        ]
        return line["_offset"], line["_offset"] + line["_length"]


def write(
    root: Path,
    variant: str,
    slot: Slot,
    weather: xr.Dataset,
    rows: tuple[Row, ...] = IFS,
    members: tuple[int | None, ...] = (None,),
) -> Written:
    """One slot of `ecmwf-<variant>` where its source looks first; an ensemble's file holds several members."""
    source = ECMWF(variant, str(root))
    name, beside = next(source.names(slot))
    body, lines = b"", []
    for param, level, variable, factor in rows:
        for member in members:
            field = weather[variable] * factor + (member or 0)
            coded = message(field, param, level, slot, member)
            line = {
                "domain": "g",
                "date": f"{slot.init_time:%Y%m%d}",
                "time": f"{slot.init_time:%H%M}",
                "expver": "0001",
                "class": "od" if variant == "ifs" else "ai",
                "type": source.product.kind,
                "stream": source.product.stream,
                "step": str(slot.lead_hours),
                "levtype": "pl" if level else "sfc",
                "param": param,
                "_offset": len(body),
                "_length": len(coded),
            }
            line |= {"levelist": str(level)} if level else {}
            line |= {"number": str(member)} if source.product.kind == "pf" else {}
            lines.append(line)
            body += coded
    written = Written(root, slot, source, root / name, root / beside)
    written.file.parent.mkdir(parents=True, exist_ok=True)
    written.file.write_bytes(body)
    written.rewrite(lines)
    return written
