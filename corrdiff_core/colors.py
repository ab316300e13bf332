"""Color scales of weather maps: bands of color between round values, that fit the fields they are made for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import BoundaryNorm, Colormap, LinearSegmentedColormap, ListedColormap
from matplotlib.typing import ColorType
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Anchors = Mapping[float, str]  # the color at each value; between them it is interpolated

# Reflectivity as weather services draw it: white below 5 dBZ, then a color for every 5 dBZ, and one above 65.
_RADAR = (
    "#ffffff", "#04e9e7", "#019ff4", "#0300f4", "#02fd02", "#01c501", "#008e00", "#fdf802", "#e5bc00", "#fd9500",
    "#fd0000", "#d40000", "#bc0000",
)  # fmt: skip
_RADAR_ABOVE = "#f800fd"
# By value, in °C and kg m-2: a color means the same on every map.
_TEMPERATURE: Anchors = {
    -12: "#4b2991", -4: "#3b5bc9", 4: "#3fa5e0", 10: "#86d6d6", 15: "#3fae6a", 20: "#b5d95b", 24: "#fff3a0",
    28: "#fdb44c", 32: "#ee5a2e", 36: "#b0123b", 42: "#7a1a7a",
}  # fmt: skip
_WATER_VAPOUR: Anchors = {
    0: "#7f4f24", 10: "#c79a5b", 20: "#f2e2b8", 30: "#cfe5a3", 40: "#7cc28b", 50: "#2f9e9a", 60: "#2f6fb8",
    70: "#4b3a9e", 80: "#8a2a8a",
}  # fmt: skip
# By share of the largest value.
_WIND: Anchors = {
    -1: "#0b3c7d", -0.6: "#3f8fc5", -0.2: "#c3deee", 0: "#f7f7f7", 0.2: "#fad3bd", 0.6: "#d9573f", 1: "#7c0a24",
}  # fmt: skip
_SPREAD: Anchors = {0: "#fdfbf2", 0.25: "#fee391", 0.5: "#fb9a29", 0.75: "#cc4c02", 1: "#5f1d04"}


@dataclass(frozen=True)
class Scale:
    """Colors in bands: `colors[i]` from `levels[i]` up to `levels[i + 1]`; `above` beyond the last, if that may be."""

    levels: Float64
    colors: Sequence[ColorType]
    above: ColorType | None = None

    @property
    def norm(self) -> BoundaryNorm:
        return BoundaryNorm(self.levels, len(self.colors))

    @property
    def cmap(self) -> Colormap:
        return ListedColormap(self.colors).with_extremes(over=self.above)

    @property
    def ticks(self) -> Float64:
        """Every level, or every second, fifth ..., so that they are twelve at most; 0 is kept where it is a level."""
        number = np.round(self.levels / (self.levels[1] - self.levels[0]))
        every = next(every for every in (1, 2, 5, 10) if len(number) <= 12 * every)
        chosen: Float64 = self.levels[number % every == 0]
        return chosen


def nice_step(width: float, most: int) -> float:
    """The smallest of 1, 2, 5 times a power of ten of which at most `most` are needed to span `width` (> 0).

    >>> [nice_step(width, 10) for width in (0.9, 10, 11, 21, 51)]
    [0.1, 1.0, 2.0, 5.0, 10.0]
    """
    power = 10.0 ** np.floor(np.log10(width / most))
    return float(next(power * factor for factor in (1, 2, 5, 10) if power * factor * most >= width * (1 - 1e-9)))


def radar(values: Float64) -> Scale:
    """Reflectivity in dBZ: always the same, 0 to 65 by 5."""
    return Scale(np.arange(0.0, 66.0, 5.0), _RADAR, _RADAR_ABOVE)


def temperature(values: Float64) -> Scale:
    """Temperature in °C, usually by 1."""
    return _bands(_levels(values.min(), values.max(), 40), _TEMPERATURE)


def water_vapour(values: Float64) -> Scale:
    """Total column water vapour in kg m-2."""
    return _bands(_levels(values.min(), values.max(), 20), _WATER_VAPOUR)


def wind(values: Float64) -> Scale:
    """A wind component: blue below, red above 0, symmetric about it."""
    levels = _levels(0.0, np.abs(values).max(), 12)
    return _bands(np.concatenate([-levels[:0:-1], levels]), _WIND, unit=levels[-1])


def spread(values: Float64) -> Scale:
    """What is never below 0, pale where it is small."""
    levels = _levels(0.0, values.max(), 18)
    return _bands(levels, _SPREAD, unit=levels[-1])


SCALES: dict[str, Callable[[Float64], Scale]] = {
    "mrr": radar,
    "t2m": temperature,
    "u10m": wind,
    "v10m": wind,
    "tcwv": water_vapour,
}


def _levels(low: float, high: float, most: int) -> Float64:
    """Band edges at multiples of a nice step, the first at or below `low`, the last above `high`; 0.1 wide at least."""
    high = max(high, low + 0.1)
    step = nice_step(high - low, most)
    first, last = np.floor(low / step), np.floor(np.round(high / step, 6)) + 1
    return np.round(step * np.arange(first, last + 1), 9)


def _bands(levels: Float64, anchors: Anchors, unit: float = 1.0) -> Scale:
    """Between `levels` the color that `anchors`, in multiples of `unit`, have in the middle."""
    at = np.array(list(anchors), np.float64)
    ramp = LinearSegmentedColormap.from_list("", list(zip((at - at[0]) / np.ptp(at), anchors.values(), strict=True)))
    middles = (levels[1:] + levels[:-1]) / 2 / unit
    return Scale(levels, [tuple(color) for color in ramp((middles - at[0]) / np.ptp(at))])
