"""What the flow tests share: a cycle, a directory of GFS files, `corrdiff` as a callable."""

import json
import subprocess
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from corrdiff_core.checkpoint import Checkpoint, save_checkpoint
from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.manifest import Manifest
from corrdiff_core.nature import write_gfs
from corrdiff_core.sources.gfs import layouts, object_name

REPOSITORY = Path(__file__).resolve().parents[2]
INIT = datetime(2025, 8, 1, 6)

Corrdiff = Callable[..., subprocess.CompletedProcess[str]]


@dataclass(frozen=True)
class Gfs:
    """A directory of GFS files that a test fills lead by lead."""

    root: Path
    stock: Path

    def put(self, init_time: datetime, *leads: int) -> None:
        """Write those leads; of `INIT` they are linked from the stock."""
        for lead in leads:
            name = object_name(layouts(init_time)[0], Slot.forecast(init_time, lead * HOUR))
            if init_time != INIT or not (self.stock / name).exists():
                write_gfs(str(self.root), init_time, [lead])
                continue
            for part in (name, f"{name}.idx"):
                (self.root / part).parent.mkdir(parents=True, exist_ok=True)
                (self.root / part).hardlink_to(self.stock / part)

    def file(self, init_time: datetime, lead: int) -> Path:
        return self.root / object_name(layouts(init_time)[0], Slot.forecast(init_time, lead * HOUR))


def writer(made: Checkpoint, **changes: Any) -> Callable[[str], Manifest]:
    """What a registry is to write for that checkpoint with another manifest."""
    manifest = replace(made.manifest, **changes)
    return lambda path: save_checkpoint(path, manifest, made.regression, made.diffusion, made.invariants)


def toml(values: dict[str, Any]) -> str:
    """JSON's spelling of plain values is TOML's, and tables come last."""
    plain = {name: value for name, value in values.items() if not isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    for name in values.keys() - plain.keys():
        lines += [f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in values[name].items())]
    assert tomllib.loads("\n".join(lines))
    return "\n".join(lines)
