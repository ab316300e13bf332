"""A small ERA5 of the nature run: three hours, a little more than Taiwan's input box."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np

from corrdiff_core import nature
from corrdiff_core.cycle import HOUR, Slot, hours_from
from corrdiff_core.grid import TAIWAN, Box
from corrdiff_core.sources.source import Fetched

BOX = TAIWAN.input_box
START = datetime(2021, 6, 7, 21)  # the third hour is the last of its day
HOURS = hours_from(START, 3)
END = HOURS[-1] + HOUR
SLOT = Slot(HOURS[1])
# Not the lines of the box, so that a cut that is off by one is seen; still 0.25 degrees.
AREA = (np.arange(18.5, 29.51, 0.25), np.arange(115.25, 127.01, 0.25))


def lines_of(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The 0.25-degree lines of a box; the processes that tests start import no torch for them."""
    return np.arange(box.south, box.north + 0.1, 0.25), np.arange(box.west, box.east + 0.1, 0.25)


def assert_weather(answer: object, time: datetime, box: Box = BOX) -> None:
    """The twelve, in order, bit for bit."""
    assert isinstance(answer, Fetched), answer
    weather = nature.weather(nature.SEED, time, *lines_of(box))
    assert list(answer.inputs.data_vars) == list(weather.data_vars)
    assert answer.inputs["valid_time"].values == weather["valid_time"].values
    for name, field in weather.data_vars.items():
        assert answer.inputs[name].dtype == np.float32
        assert answer.inputs[name].attrs == field.attrs
        np.testing.assert_array_equal(answer.inputs[name].values, field.values)
    for name in ("latitude", "longitude"):
        np.testing.assert_array_equal(answer.inputs[name].values, weather[name].values)


def edit(store: Path, key: str, **changes: object) -> None:
    """Change entries of a metadata document of a store, `.zarray` or `.zattrs`; None takes one out."""
    path = store / ".zmetadata"
    whole = json.loads(path.read_text())
    document = whole["metadata"][key]
    for name, value in changes.items():
        document.pop(name, None)
        if value is not None:
            document[name] = value
    path.write_text(json.dumps(whole))
