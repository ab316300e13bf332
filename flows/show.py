"""Pictures of what is in an archive."""

from datetime import datetime

from corrdiff_core.archive.archive import Archive
from corrdiff_core.archive.layout import Series
from corrdiff_core.cycle import Slot, compact
from corrdiff_core.errors import ArchiveError
from flows.slots import draw_slot


def draw_store(url: str, lead_hours: int | None = None, source: str = "gfs", out: str | None = None) -> str:
    """Draw a slot of the store at `url`, or of the newest run of `source` where that is an archive; where the PNG is.

    The first lead that is published by default. ArchiveError where there is no such slot.
    """
    archive, series, slots = _published(url, source)
    chosen = [slot for slot in slots if lead_hours is None or slot.lead_hours == lead_hours]
    if not chosen:
        leads = ", ".join(str(slot.lead_hours) for slot in slots)
        raise ArchiveError(f"{url} has no lead of {lead_hours} h: choose among {leads}")
    slot = chosen[0]
    return draw_slot(archive, series, slot, out or f"{compact(series.start(slot))}+{slot.lead_hours:03d}h.png")


def _published(url: str, source: str) -> tuple[Archive, Series, list[Slot]]:
    archive, series, init_time = _store(url.rstrip("/"), source)
    slots = sorted(archive.published(series, init_time))
    if not slots:
        raise ArchiveError(f"{url}: no slot is published there; name a store that a run has filled")
    return archive, series, slots


def _store(url: str, source: str) -> tuple[Archive, Series, datetime]:
    if not url.endswith(".zarr"):
        archive = Archive(url)
        latest = archive.latest(source)
        if latest is None:
            raise ArchiveError(f"{url} names no newest run of {source}: name a store, forecast/.../<init>.zarr")
        return archive, Series("forecast", source, latest.model), latest.init_time
    parts = url.rsplit("/", 4)
    if len(parts) < 5 or parts[1] != "forecast":
        raise ArchiveError(f"{url} is no store of forecasts: name <archive>/forecast/<source>/<model>/<init>.zarr")
    series = Series("forecast", parts[2], parts[3])
    init_time = series.parse_store(parts[4])
    if init_time is None:
        raise ArchiveError(f"{url}: {parts[4]} is not named as stores are, YYYYMMDDTHH.zarr")
    return Archive(parts[0]), series, init_time
