"""The diagrams of verification, each drawn into axes that it is given."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator
from numpy.typing import NDArray

from corrdiff_core.evaluate.diagrams import COLORS, THRESHOLD_COLORS, UNITS
from corrdiff_core.evaluate.one_time import THRESHOLDS
from corrdiff_core.variables import OUTPUT

Array = NDArray[Any]

VARIABLE_COLORS = {"mrr": "#6a51a3", "t2m": "#cc4c02", "u10m": "#2b7bba", "v10m": "#238b45"}
RARE = 1e-4  # share of points below which a Brier score over "never" says nothing
MARK = "#f6c9c4"  # behind a window whose bound is broken
_DRAWN: dict[str, Any] = {"linewidth": 1.6, "marker": "o", "markersize": 3.5}


def day(time: datetime) -> float:
    """As matplotlib counts days."""
    return float(date2num(time))  # type: ignore[no-untyped-call]


def mark(axes: Axes, windows: Iterable[datetime], length: timedelta) -> None:
    """Shade windows in which a bound of what is drawn is broken."""
    for window in windows:
        axes.axvspan(day(window), day(window + length), color=MARK, linewidth=0, zorder=0)


def draw_crps(axes: Axes, along: xr.Dataset, at: Array, variable: str) -> bool:
    """CRPS of the ensemble and the error of the interpolated input at `at`; whether there is any."""
    values = along.sel(variable=variable)
    if not np.isfinite(values.crps).any():
        return False
    axes.plot(at, values.crps, color=COLORS["ensemble"], label="ensemble", **_DRAWN)
    if np.isfinite(values.interpolation_error).any():
        axes.plot(at, values.interpolation_error, color=COLORS["bilinear"], label="interpolated input", **_DRAWN)
    axes.set_ylim(0, 1.25 * float(np.nanmax([values.crps, values.interpolation_error])) or 1.0)
    _legend(axes)
    return True


def draw_ratio(axes: Axes, along: xr.Dataset, at: Array, variable: str) -> bool:
    """CRPS over the error of the interpolated input; whether there is any."""
    values = along.crps_ratio.sel(variable=variable)
    if not np.isfinite(values).any():
        return False
    axes.axhline(1, color="black", linewidth=1)
    axes.plot(at, values, color=COLORS["ensemble"], **_DRAWN)
    axes.set_ylim(0, max(1.2, 1.15 * float(np.nanmax(values))))
    return True


def draw_brier(axes: Axes, along: xr.Dataset, at: Array) -> bool:
    """Brier score over that of never foreseeing the event, which is how often it came; whether there is any."""
    shown = False
    for threshold, color in zip(THRESHOLDS, THRESHOLD_COLORS, strict=True):
        came = along.sel(threshold=threshold)
        values = (came.brier / came.observed_share.where(came.observed_share >= RARE)).values
        if np.isfinite(values).any():
            axes.plot(at, values, color=color, label=f"{threshold:g} dBZ", **_DRAWN)
            shown = True
    if shown:
        axes.axhline(1, color="black", linewidth=1)
        axes.set_ylim(0, min(3.0, max(1.4, 1.25 * axes.get_ylim()[1])))
        _legend(axes)
    return shown


def draw_share(axes: Axes, along: xr.Dataset, at: Array) -> None:
    """The share of members and points at or above each threshold, which needs no truth."""
    for threshold, color in zip(THRESHOLDS, THRESHOLD_COLORS, strict=True):
        axes.plot(
            at, along.reflectivity_share.sel(threshold=threshold), color=color, label=f"{threshold:g} dBZ", **_DRAWN
        )
    axes.set_ylim(0, max(0.01, 1.3 * float(along.reflectivity_share.max())))
    _legend(axes)


def draw_spread_skill(axes: Axes, along: xr.Dataset, at: Array, variable: str, bounds: tuple[float, float]) -> bool:
    """Spread over skill with its bounds, on a logarithmic axis; whether there is any."""
    values = along.spread_skill.sel(variable=variable)
    if not np.isfinite(values).any():
        return False
    axes.axhline(1, color="black", linewidth=1)
    for bound in bounds:
        axes.axhline(bound, color="0.55", linewidth=1, linestyle=(0, (4, 3)))
    axes.plot(at, values, color=COLORS["ensemble"], **_DRAWN)
    axes.set(yscale="log", ylim=(min(0.2, 0.8 * float(np.nanmin(values))), max(4, 1.25 * float(np.nanmax(values)))))
    axes.yaxis.set_major_locator(FixedLocator([0.05, 0.1, 0.2, 0.5, 1, 2, 4, 10]))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    return True


def draw_ranks(axes: Axes, ranks: Array) -> bool:
    """How often the truth has each rank, over a flat histogram's; whether there is any."""
    if not ranks.sum():
        return False
    frequency = ranks / ranks.sum() * len(ranks)
    axes.bar(range(len(ranks)), frequency, color=COLORS["ensemble"], width=0.86)
    axes.axhline(1, color="black", linewidth=1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_ylim(0, max(2.0, 1.2 * float(frequency.max())))
    axes.grid(visible=False, axis="x")
    return True


def draw_lines(axes: Axes, values: xr.DataArray, at: Array, bounds: Iterable[float], legend: bool = True) -> bool:
    """A line for each variable, and dashed bounds; whether there is any."""
    dimension = str(values.dims[1])
    known = [str(name) for name in values[dimension].values if np.isfinite(values.sel({dimension: name})).any()]
    for name in known:
        axes.plot(at, values.sel({dimension: name}), color=VARIABLE_COLORS[name], label=name, **_DRAWN)
    if not known:
        return False
    largest = float(np.nanmax(values))
    for bound in bounds:
        axes.axhline(bound, color="0.55", linewidth=1, linestyle=(0, (4, 3)))
    axes.set_ylim(0, 1.3 * max(largest, *bounds))
    if legend:
        _legend(axes, columns=4)
    return True


def draw_channels(
    axes: Axes, values: xr.DataArray, edges: Array, most: float, colors: str, broken: set[tuple[int, int]]
) -> QuadMesh:
    """A row for each channel, a cell for each window between `edges`; those of `broken` have a frame."""
    names = [str(name) for name in values.channel.values]
    low = -most if colors.startswith("RdBu") else 0.0
    mesh = axes.pcolormesh(edges, np.arange(len(names) + 1), values.values.T, cmap=colors, vmin=low, vmax=most)
    for window, channel in sorted(broken):
        left, right = edges[window], edges[window + 1]
        axes.plot(
            [left, right, right, left, left],
            [channel, channel, channel + 1, channel + 1, channel],
            color="black",
            linewidth=1.8,
        )
    axes.set_yticks(np.arange(len(names)) + 0.5, labels=names)
    axes.set_ylim(len(names), 0)
    axes.grid(visible=False)
    return mesh


def date_axis(axes: Axes, first: datetime, last: datetime, named: bool) -> None:
    """Dates from `first` to `last`; without their labels where they are not `named`."""
    locator = AutoDateLocator(minticks=2, maxticks=6)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
    axes.set_xlim(day(first), day(last))
    axes.xaxis.get_offset_text().set_fontsize(9)
    if not named:
        axes.tick_params(labelbottom=False)
        axes.xaxis.get_offset_text().set_visible(False)


def lead_axis(axes: Axes, leads: Array, named: bool) -> None:
    """Lead times in hours."""
    axes.set_xlim(float(leads.min()) - 0.5, float(leads.max()) + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(7, integer=True))
    axes.tick_params(labelbottom=named)


def empty(axes: Axes, why: str) -> None:
    """Axes that say why there is nothing in them."""
    axes.text(0.5, 0.5, why, transform=axes.transAxes, ha="center", va="center", fontsize=10, color="0.45")
    axes.set(yticks=[])
    axes.tick_params(labelbottom=False, bottom=False)
    axes.grid(visible=False)


def unit(variable: str) -> str:
    """As written beside an axis of differences: kelvin stays kelvin."""
    units = OUTPUT[variable].units
    return units if units == "K" else UNITS.get(units, units)


def _legend(axes: Axes, columns: int = 3) -> None:
    axes.legend(
        fontsize=9, frameon=False, loc="upper right", ncols=columns, handlelength=1.3, columnspacing=1.0, borderpad=0.1
    )
