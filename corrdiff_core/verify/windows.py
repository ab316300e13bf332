"""Rows by window of valid time, and by lead time: means, ratios of means, scores of calibration."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.cycle import Slot
from corrdiff_core.metrics import ratio, spread_skill
from corrdiff_core.normalization import Statistics
from corrdiff_core.verify.layout import ANALYZED, CHECKED, MEASURES, SCORED
from corrdiff_core.verify.store import Rows

Float64 = NDArray[np.float64]

_EPOCH = datetime(1970, 1, 1)


def window_of(time: datetime, length: timedelta) -> datetime:
    """The start of the window of that length that a time is in; windows are multiples of it since 1970, UTC.

    >>> window_of(datetime(2025, 8, 1, 7), timedelta(days=1))
    datetime.datetime(2025, 8, 1, 0, 0)
    """
    return _EPOCH + (time - _EPOCH) // length * length


def windows_of(slots: Iterable[Slot], length: timedelta) -> list[datetime]:
    """The starts of the windows that hold any of the slots, ascending."""
    return sorted({window_of(slot.valid_time, length) for slot in slots})


def history(rows: Rows, length: timedelta, first: int, newest: int) -> xr.Dataset | None:
    """`Rows.read` of the `newest` windows, and of the first ones that were checked and that were scored.

    None where no slot has been looked at yet. A few listings for each month, one for each cycle of forecasts.
    """
    there: dict[str, set[Slot]] = {stage: set() for stage in MEASURES}
    for month in rows.months():
        for stage, slots in there.items():
            slots |= rows.all_marked(stage, month)
    chosen = set(windows_of(there[CHECKED], length)[-newest:])
    for slots in there.values():
        chosen |= set(windows_of(slots, length)[:first])
    if not chosen:
        return None
    return rows.read(
        {stage: [s for s in slots if window_of(s.valid_time, length) in chosen] for stage, slots in there.items()}
    )


def by_window(rows: xr.Dataset, length: timedelta, statistics: Statistics | None = None) -> xr.Dataset:
    """`Rows.read` by window of valid time, ascending; windows without a slot are none. NaN where nothing is known.

    checked, scored, analyzed (window): how many slots. In units (window, variable): crps, interpolation_error, bias,
    rmse, spread; pure numbers: crps_ratio, CRPS over the error of the interpolated input, and spread_skill. By
    threshold: reflectivity_share, observed_share, brier. By coarse_variable: coarse_bias, coarse_rmse, analysis_bias,
    analysis_rmse; by channel: input_bias, input_rmse; z_mean and z_std, of the slots' z-scores; all of them in scales
    of the model's inputs, NaN without `statistics`, beside the same in units with the suffix _units.
    """
    length64 = np.timedelta64(length, "ns")
    number = (rows.valid_time.values.astype("datetime64[ns]") - np.datetime64(_EPOCH, "ns")) // length64
    starts, group = np.unique(number, return_inverse=True)
    found = _grouped(rows, "window", group, len(starts), statistics)
    return found.assign_coords(window=np.datetime64(_EPOCH, "ns") + starts * length64)


def by_lead(rows: xr.Dataset) -> xr.Dataset:
    """The same by lead time in hours (lead)."""
    leads, group = np.unique(rows.lead_hours.values, return_inverse=True)
    return _grouped(rows, "lead", group, len(leads), None).assign_coords(lead=leads)


def _grouped(
    rows: xr.Dataset, name: str, group: NDArray[np.intp], count: int, statistics: Statistics | None
) -> xr.Dataset:
    def mean(of: str, where: str | None = None) -> xr.DataArray | None:
        if of not in rows:
            return None
        chosen = rows[of] if where is None else rows[of].where(rows[where])
        return xr.DataArray(_means(chosen.values, group, count), dims=(name, *chosen.dims[1:]))

    found: dict[str, xr.DataArray | None] = {
        stage.removesuffix("_at"): xr.DataArray(np.bincount(group, rows[stage].values, count).astype(int), dims=name)
        for stage in (CHECKED, SCORED, ANALYZED)
    }
    for score in ("crps", "interpolation_error", "bias", "reflectivity_share", "observed_share", "brier"):
        found[score] = mean(score)
    found["rmse"] = _root(mean("squared_error"))
    found["spread"] = _root(mean("variance"))
    found["crps_ratio"] = _ratio(mean("crps"), mean("interpolation_error"))
    found["spread_skill"] = _calibration(mean("variance", SCORED), mean("squared_error"), rows.attrs["members"])
    for kind, dimension in (("coarse", "coarse_variable"), ("analysis", "coarse_variable"), ("input", "channel")):
        scale = _scale(rows, dimension, statistics)
        for score, values in (("bias", mean(f"{kind}_bias")), ("rmse", _root(mean(f"{kind}_squared_error")))):
            found[f"{kind}_{score}_units"] = values
            found[f"{kind}_{score}"] = None if values is None else values / scale
    found |= _drift(rows, name, group, count, statistics)
    sizes = {str(n): rows[n].values for n in rows.coords if n in rows.dims and n != "slot"}
    return xr.Dataset({key: values for key, values in found.items() if values is not None}, sizes, rows.attrs)


def _drift(
    rows: xr.Dataset, name: str, group: NDArray[np.intp], count: int, statistics: Statistics | None
) -> dict[str, xr.DataArray | None]:
    """Mean and standard deviation, over the slots, of the z-score of the input's box mean."""
    channels = [str(channel) for channel in rows.channel.values]
    z = np.full(rows.input_mean.shape, np.nan)
    if statistics is not None:
        at = [statistics.names.index(channel) for channel in channels]
        z = (rows.input_mean.values - np.array(statistics.center)[at]) / np.array(statistics.scale)[at]
    mean, square = _means(z, group, count), _means(z**2, group, count)
    spread = np.sqrt(np.maximum(square - mean**2, 0))
    return {key: xr.DataArray(values, dims=(name, "channel")) for key, values in (("z_mean", mean), ("z_std", spread))}


def _scale(rows: xr.Dataset, dimension: str, statistics: Statistics | None) -> xr.DataArray:
    names = [str(name) for name in rows[dimension].values] if dimension in rows.coords else []
    scales = [float("nan") if statistics is None else statistics.scale[statistics.names.index(name)] for name in names]
    return xr.DataArray(np.array(scales, np.float64), dims=dimension)


def _means(values: Float64, group: NDArray[np.intp], count: int) -> Float64:
    """Mean of the finite of `values` (slot, ...) in each group, (count, ...); NaN where there is none."""
    finite = np.isfinite(values)
    sums, numbers = np.zeros((2, count, *values.shape[1:]))
    np.add.at(sums, group, np.where(finite, values, 0.0))
    np.add.at(numbers, group, finite)
    return ratio(sums, numbers)


def _root(values: xr.DataArray | None) -> xr.DataArray | None:
    return None if values is None else values.copy(data=np.sqrt(values.values))


def _ratio(left: xr.DataArray | None, right: xr.DataArray | None) -> xr.DataArray | None:
    return None if left is None or right is None else left.copy(data=ratio(left.values, right.values))


def _calibration(variance: Any, squared_error: Any, members: int) -> xr.DataArray:
    found: xr.DataArray = variance.copy(data=spread_skill(variance.values, squared_error.values, members))
    return found
