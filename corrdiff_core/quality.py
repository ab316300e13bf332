"""Checks that fields are plausible weather for their slot: inputs before a network runs, ensembles before a write."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.cycle import Slot
from corrdiff_core.errors import CheckpointError, QualityError
from corrdiff_core.normalization import Statistics
from corrdiff_core.variables import INPUTS, OUTPUTS, STANDARD_GRAVITY, Variable

WARN_BEYOND = 4.0  # scales of the box mean from its center; a real cold surge over Taiwan reaches -4.9
REFUSE_BEYOND = 8.0
ZERO_CELSIUS = 273.15  # K


def check_inputs(
    inputs: xr.Dataset, slot: Slot, statistics: Statistics | None = None, variables: Sequence[Variable] = INPUTS
) -> list[str]:
    """Raise QualityError unless `inputs` (latitude, longitude) are `variables`, by default all twelve, at `slot`.

    Refused: another set, order, unit or time, coordinates that do not ascend, non-finite or impossible values, a
    constant field, and a box mean more than 8 scales from the center of `statistics`. Returns a warning in words for
    each box mean beyond 4 scales.
    """
    _refuse_other_variables(inputs, variables, slot)
    _refuse_other_time(inputs, slot)
    _refuse_descending(inputs, slot)
    warnings: list[str] = []
    for variable in variables:
        _refuse_other_units(inputs[variable.name], variable, slot)
        values = _checked_values(inputs[variable.name], variable, ("latitude", "longitude"), slot)
        _refuse_constant(values, variable, slot)
        if statistics is not None and variable.name in statistics.names:
            warnings += _far_out(values, variable, statistics, slot)
    return warnings


def check_ensemble(
    ensemble: xr.Dataset, slot: Slot, variables: Sequence[Variable] = OUTPUTS
) -> dict[str, dict[str, float]]:
    """Minimum, maximum and mean of each variable of an ensemble (member, y, x), for the provenance.

    Raises QualityError unless it holds `variables`, by default all four, all values finite and physically possible.
    """
    _refuse_other_variables(ensemble, variables, slot)
    summary = {}
    for variable in variables:
        values = _checked_values(ensemble[variable.name], variable, ("member", "y", "x"), slot)
        mean = values.mean(dtype=np.float64)
        summary[variable.name] = {"min": float(values.min()), "max": float(values.max()), "mean": float(mean)}
    return summary


def check_magnitudes(inputs: xr.Dataset, variables: Sequence[Variable]) -> None:
    """QualityError where the mean of a field is no value that the variable can have in its units.

    Geopotential height given for geopotential (a factor of 9.8), degrees Celsius for kelvin.
    """
    for variable in variables:
        mean = float(inputs[variable.name].mean(dtype=np.float64))
        if not variable.valid_min <= mean <= variable.valid_max:
            raise QualityError(
                f"inputs: {variable.name} has a mean of {mean:g}, beyond the possible {variable.valid_min:g}.."
                f"{variable.valid_max:g} {variable.units}: {_cure(mean, mean, variable)}"
            )


def check_statistics(statistics: Statistics, variables: Sequence[Variable]) -> None:
    """CheckpointError where the center of one of `variables` is no value that it can have in its units."""
    for variable in variables:
        center = statistics.center[statistics.names.index(variable.name)]
        if not variable.valid_min <= center <= variable.valid_max:
            raise CheckpointError(
                f"the center of {variable.name} is {center:g}, beyond the possible {variable.valid_min:g}.."
                f"{variable.valid_max:g} {variable.units}: {_cure(center, center, variable)}"
            )


def _refuse_other_variables(fields: xr.Dataset, expected: Sequence[Variable], slot: Slot) -> None:
    have, want = [str(name) for name in fields.data_vars], [variable.name for variable in expected]
    missing, extra = [name for name in want if name not in have], [name for name in have if name not in want]
    if missing or extra:
        raise QualityError(
            f"{slot}: variables missing: {', '.join(missing) or 'none'}; not known: {', '.join(extra) or 'none'}: "
            f"deliver exactly {', '.join(want)}"
        )
    if have != want:
        raise QualityError(f"{slot}: variables come as {', '.join(have)}: reorder them to {', '.join(want)}")


def _refuse_other_time(inputs: xr.Dataset, slot: Slot) -> None:
    wanted = {"valid_time": slot.valid_time} | ({} if slot.init_time is None else {"init_time": slot.init_time})
    for name, time in wanted.items():
        if name not in inputs.coords:
            raise QualityError(f"{slot}: the fields carry no {name}, {time.isoformat()} is due: set the coordinate")
        stored = inputs[name].values
        if not np.array_equal(stored, np.datetime64(time)):
            raise QualityError(
                f"{slot}: {name} of the fields is {stored}, {time.isoformat()} is due: fetch the slot's own fields"
            )


def _refuse_descending(inputs: xr.Dataset, slot: Slot) -> None:
    for name in ("latitude", "longitude"):
        if name not in inputs.coords or inputs[name].dims != (name,):
            raise QualityError(f"{slot}: the fields have no 1-D coordinate {name!r}: name their axes by regrid.cover")
        lines = inputs[name].values
        if not (np.diff(lines) > 0).all():
            raise QualityError(
                f"{slot}: {name} runs {lines[0]:g}..{lines[-1]:g} and does not ascend: turn the fields by regrid.cover"
            )


def _refuse_other_units(field: xr.DataArray, variable: Variable, slot: Slot) -> None:
    units = field.attrs.get("units")
    if units != variable.units:
        raise QualityError(
            f"{slot}: {variable.name} is given in {units!r}, {variable.units!r} is due: convert it in its source"
        )


def _checked_values(field: xr.DataArray, variable: Variable, dims: tuple[str, ...], slot: Slot) -> NDArray[np.floating]:
    """The field's values, once its dims are right, all of it finite and within the variable's bounds."""
    if field.dims != dims or field.size == 0:
        raise QualityError(
            f"{slot}: {variable.name} has dims {dict(field.sizes)}, {dims} not empty are due: transpose it"
        )
    values: NDArray[np.floating] = field.values
    broken = np.count_nonzero(~np.isfinite(values))
    if broken:
        raise QualityError(f"{slot}: {variable.name} is not finite at {broken} of {values.size} points: get it anew")
    low, high = float(values.min()), float(values.max())
    if low < variable.valid_min or high > variable.valid_max:
        raise QualityError(
            f"{slot}: {variable.name} {low:g}..{high:g} {variable.units} is beyond the possible "
            f"{variable.valid_min:g}..{variable.valid_max:g} {variable.units}: {_cure(low, high, variable)}"
        )
    return values


def _cure(low: float, high: float, variable: Variable) -> str:
    """What would bring low..high into the variable's bounds."""
    conversions = {
        "m2 s-2": (
            (STANDARD_GRAVITY, 0.0, f"it looks like gpm; multiply it by {STANDARD_GRAVITY} once"),
            (1 / STANDARD_GRAVITY, 0.0, f"it looks multiplied twice; divide it by {STANDARD_GRAVITY}"),
        ),
        "K": ((1.0, ZERO_CELSIUS, f"it looks like degrees Celsius; add {ZERO_CELSIUS}"),),
    }
    for factor, offset, words in conversions.get(variable.units, ()):
        if variable.valid_min <= low * factor + offset and high * factor + offset <= variable.valid_max:
            return words
    return "check its units and its decoding"


def _refuse_constant(values: NDArray[np.floating], variable: Variable, slot: Slot) -> None:
    if values.min() == values.max():
        raise QualityError(
            f"{slot}: {variable.name} is {values.flat[0]:g} {variable.units} at all {values.size} points, "
            "which no weather is: get it anew"
        )


def _far_out(values: NDArray[np.floating], variable: Variable, statistics: Statistics, slot: Slot) -> list[str]:
    """A warning where the box mean is unusual; QualityError where it is beyond belief."""
    mean = float(values.mean(dtype=np.float64))
    score = statistics.z_score(variable.name, mean)
    place = f"{slot}: {variable.name} has a box mean of {mean:g} {variable.units}, {score:+.1f} scales from the center"
    if abs(score) > REFUSE_BEYOND:
        raise QualityError(
            f"{place}, beyond {REFUSE_BEYOND:g}: check its source, its units and the checkpoint's statistics"
        )
    return [f"{place}, beyond {WARN_BEYOND:g}: unusual weather, look at it"] if abs(score) > WARN_BEYOND else []
