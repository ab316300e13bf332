"""What NCEP's models have in common: files by era, and inventories (`.idx`) that say which bytes hold which field."""

from abc import abstractmethod
from collections.abc import Iterator
from datetime import datetime

from corrdiff_core.cycle import Slot
from corrdiff_core.sources.channels import CHANNELS
from corrdiff_core.sources.inputs import init_time_of
from corrdiff_core.sources.inventory import locate, parse
from corrdiff_core.sources.messages import Indexed, Message

_WANTED = {name: (channel.element, channel.level) for name, channel in CHANNELS.items()}


def object_name(template: str, slot: Slot) -> str:
    """A slot's GRIB2 file below the root, from a template of `day`, `hour` and `lead`; `.idx` is its inventory."""
    init_time = init_time_of(slot)
    return template.format(day=f"{init_time:%Y%m%d}", hour=f"{init_time:%H}", lead=slot.lead_hours)


class NCEP(Indexed):
    """Forecasts of a model of NCEP, laid out as on NCEP's servers."""

    @abstractmethod
    def layouts(self, init_time: datetime) -> tuple[str, ...]:
        """The path templates of a cycle's era, in the order they are tried."""

    def names(self, slot: Slot) -> Iterator[tuple[str, str]]:
        for template in self.layouts(init_time_of(slot)):
            name = object_name(template, slot)
            yield name, f"{name}.idx"

    def locate(self, index: str, slot: Slot, size: int, url: str) -> dict[str, Message]:
        located = locate(parse(index, url), _WANTED, slot, size, url)
        return {
            name: Message(
                line=place.entry.line,
                span=place.span,
                parameter=CHANNELS[name].parameter,
                factor=CHANNELS[name].factor,
                field=place.entry.field,
                fields=place.fields,
            )
            for name, place in located.items()
        }
