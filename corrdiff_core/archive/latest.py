"""`latest.json`: which run of a source is the newest whose window is whole. A hint; the stores are the truth."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from corrdiff_core.cycle import HOUR, parse_time
from corrdiff_core.errors import ArchiveError


@dataclass(frozen=True)
class Latest:
    """The newest whole window of a source: a store, the leads (hours) that make the window, when this was written."""

    init_time: datetime
    url: str
    leads: tuple[int, ...]
    model: str
    written: datetime

    @property
    def order(self) -> tuple[datetime, timedelta]:
        """What only ever grows: the cycle, then how far the window reaches."""
        return self.init_time, self.leads[-1] * HOUR

    def to_json(self) -> bytes:
        values: dict[str, Any] = {
            "init_time": f"{self.init_time.isoformat()}Z",
            "url": self.url,
            "leads": list(self.leads),
            "model": self.model,
            "written": f"{self.written.isoformat(timespec='seconds')}Z",
        }
        return json.dumps(values, indent=1).encode()

    @classmethod
    def from_json(cls, data: bytes, url: str) -> "Latest":
        """The record at `url`; ArchiveError where it is none."""
        try:
            values = json.loads(data)
            return cls(
                init_time=parse_time(values["init_time"]),
                url=values["url"],
                leads=tuple(values["leads"]),
                model=values["model"],
                written=parse_time(values["written"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ArchiveError(
                f"{url} is no record of a run ({error!r}): delete it, the next whole window writes it anew"
            ) from None
