"""Pictures of what is in an archive."""

from datetime import datetime

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import KINDS, Kind, Series
from corrdiff_core.cycle import Slot, compact
from corrdiff_core.errors import ArchiveError
from flows.slots import draw_slot


def draw_store(
    url: str, lead_hours: int | None = None, at: datetime | None = None, source: str = "gfs", out: str | None = None
) -> str:
    """Draw a slot of the store at `url`, or of the newest run of `source` where that is an archive; where the PNG is.

    The first slot that is published by default, `at` for the one of that valid time. ArchiveError where there is none.
    """
    archive, series, slots = _published(url, source)
    chosen = [slot for slot in slots if lead_hours in (None, slot.lead_hours) and (at is None or slot.valid_time == at)]
    if not chosen:
        asked = f"valid at {compact(at)}Z" if at is not None else f"with a lead of {lead_hours} h"
        some = ", ".join(map(str, slots[:3])) + (f" ... {slots[-1]}" if len(slots) > 3 else "")
        raise ArchiveError(f"{url} has no slot {asked}: choose among {some}")
    slot = chosen[0]
    return draw_slot(archive, series, slot, out or _file(series, slot))


def _file(series: Series, slot: Slot) -> str:
    if series.kind == "hindcast":
        return f"{compact(slot.valid_time)}.png"
    return f"{compact(series.start(slot))}+{slot.lead_hours:03d}h.png"


def _published(url: str, source: str) -> tuple[Archive, Series, list[Slot]]:
    archive, series, start = _store(url.rstrip("/"), source)
    slots = sorted(archive.published(series, start))
    if not slots:
        raise ArchiveError(f"{url}: no slot is published there; name a store that a run has filled")
    return archive, series, slots


def _store(url: str, source: str) -> tuple[Archive, Series, datetime]:
    if not url.endswith(".zarr"):
        archive = Archive(url)
        latest = archive.latest(source)
        if latest is None:
            raise ArchiveError(
                f"{url} names no newest run of {source}: name a store, forecast/.../<init>.zarr or "
                "hindcast/.../<month>.zarr"
            )
        return archive, Series("forecast", source, latest.model), latest.init_time
    parts = url.rsplit("/", 4)
    kind: Kind | None = next((kind for kind in KINDS if len(parts) == 5 and kind == parts[1]), None)
    if kind is None:
        raise ArchiveError(f"{url} is no store: name <archive>/forecast|hindcast/<source>/<model>/<init or month>.zarr")
    series = Series(kind, parts[2], parts[3])
    start = series.parse_store(parts[4])
    if start is None:
        raise ArchiveError(f"{url}: {parts[4]} is not named as stores are, YYYYMMDDTHH.zarr or YYYYMM.zarr")
    return Archive(parts[0]), series, start
