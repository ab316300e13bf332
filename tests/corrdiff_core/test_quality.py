"""Quality checks: weather passes, a cold surge passes with a warning, everything impossible is refused by name."""

from datetime import datetime

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from corrdiff_core.cycle import HOUR, Slot
from corrdiff_core.errors import CheckpointError, QualityError
from corrdiff_core.normalization import CWA_INPUT_STATISTICS, CWA_OUTPUT_STATISTICS, Statistics
from corrdiff_core.quality import check_ensemble, check_inputs, check_magnitudes, check_statistics
from corrdiff_core.variables import INPUT, INPUT_NAMES, INPUTS, OUTPUT_NAMES, OUTPUTS, STANDARD_GRAVITY

SLOT = Slot.forecast(datetime(2025, 1, 31, 18), 7 * HOUR)
WORDS = r"^20250131T18Z\+007h \(valid 20250201T01Z\): "
LATITUDE, LONGITUDE = np.arange(19.25, 28.01, 0.25), np.arange(116.0, 125.76, 0.25)


def weather(**scores):
    """Plausible inputs at SLOT, box means at 0 scales from the center or where `scores` says."""
    noise = np.random.default_rng(7).normal(0, 0.3, (12, 36, 40))
    noise -= noise.mean(axis=(1, 2), keepdims=True)
    table = zip(CWA_INPUT_STATISTICS.names, CWA_INPUT_STATISTICS.center, CWA_INPUT_STATISTICS.scale, strict=True)
    return xr.Dataset(
        {
            name: (
                ("latitude", "longitude"),
                (center + scale * (noise[channel] + scores.get(name, 0.0))).astype(np.float32),
                INPUT[name].attrs,
            )
            for channel, (name, center, scale) in enumerate(table)
        },
        coords={
            "latitude": LATITUDE,
            "longitude": LONGITUDE,
            "valid_time": np.datetime64(SLOT.valid_time, "ns"),
            "init_time": np.datetime64(SLOT.init_time, "ns"),
            "lead_time": np.timedelta64(7, "h").astype("m8[ns]"),
        },
    )


def refused(inputs, message, slot=SLOT, statistics=CWA_INPUT_STATISTICS):
    with pytest.raises(QualityError, match=message) as error:
        check_inputs(inputs, slot, statistics)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(str(slot))


class TestCheckInputs:
    @pytest.mark.parametrize("statistics", [CWA_INPUT_STATISTICS, None])
    def test_weather_passes_without_a_word(self, statistics):
        assert check_inputs(weather(), SLOT, statistics) == []

    def test_hindcast_needs_no_init_time(self):
        inputs = weather().drop_vars(["init_time", "lead_time"])
        assert check_inputs(inputs, Slot(SLOT.valid_time), CWA_INPUT_STATISTICS) == []

    def test_lazy_inputs_pass_too(self):
        assert check_inputs(weather().chunk(), SLOT, CWA_INPUT_STATISTICS) == []

    def test_a_cold_surge_passes_with_a_warning(self):
        (warning,) = check_inputs(weather(t850=-4.9), SLOT, CWA_INPUT_STATISTICS)
        assert warning == (
            "20250131T18Z+007h (valid 20250201T01Z): t850 has a box mean of 264.634 K, -4.9 scales from the center, "
            "beyond 4: unusual weather, look at it"
        )

    @given(st.sampled_from(["v500", "u850", "v850", "u10m", "v10m"]), st.floats(-9.5, 9.5))
    def test_z_score_decides(self, name, score):
        inputs = weather(**{name: score})
        if abs(score) > 8.001:
            refused(inputs, rf"{WORDS}{name} has a box mean of .*, .* scales from the center, beyond 8: check")
        elif abs(score) < 7.999:
            warnings = check_inputs(inputs, SLOT, CWA_INPUT_STATISTICS)
            if abs(abs(score) - 4) > 1e-3:
                assert len(warnings) == (abs(score) > 4)

    def test_is_scored_against_the_statistics_given(self):
        warmer = Statistics(("t2m",), (320.0,), (5.0,))
        assert len(check_inputs(weather(), SLOT, warmer)) == 1
        assert check_inputs(weather(t2m=-5), SLOT, None) == []

    def test_refuses_a_missing_variable(self):
        refused(weather().drop_vars("v10m"), rf"{WORDS}variables missing: v10m; not known: none: deliver exactly tcwv")

    def test_refuses_a_variable_too_many(self):
        refused(weather().assign(msl=weather()["t2m"]), r"missing: none; not known: msl")

    def test_refuses_another_order(self):
        names = [*INPUT_NAMES[1:], INPUT_NAMES[0]]
        refused(weather()[names], r"variables come as z500, .*, tcwv: reorder them to tcwv, z500")

    def test_refuses_another_valid_time(self):
        late = Slot.forecast(SLOT.init_time, 8 * HOUR)
        refused(weather(), r"valid_time of the fields is 2025-02-01T01:00:00\S*, 2025-02-01T02:00:00 is due", late)

    def test_refuses_another_cycle_of_the_same_valid_time(self):
        older = Slot.forecast(SLOT.init_time - 6 * HOUR, 13 * HOUR)
        refused(weather(), r"init_time of the fields is 2025-01-31T18:00:00\S*, 2025-01-31T12:00:00 is due", older)

    @pytest.mark.parametrize("name", ["valid_time", "init_time"])
    def test_refuses_fields_without_a_time(self, name):
        refused(weather().drop_vars(name), rf"the fields carry no {name}, .* is due: set the coordinate")

    def test_refuses_many_times_at_once(self):
        refused(
            weather().drop_vars("valid_time").expand_dims(valid_time=[np.datetime64(SLOT.valid_time, "ns")] * 2),
            "valid_time of the fields is",
        )

    @pytest.mark.parametrize("name", ["latitude", "longitude"])
    def test_refuses_descending_coordinates(self, name):
        refused(
            weather().isel({name: slice(None, None, -1)}),
            rf"{WORDS}{name} runs .* and does not ascend: turn the fields by regrid\.cover",
        )

    def test_refuses_axes_of_other_names(self):
        refused(weather().rename(latitude="lat"), "the fields have no 1-D coordinate 'latitude'")

    def test_refuses_transposed_fields(self):
        refused(weather().transpose("longitude", "latitude"), "tcwv has dims .* are due: transpose it")

    @pytest.mark.parametrize("variable", INPUTS, ids=INPUT_NAMES)
    def test_refuses_other_units(self, variable):
        inputs = weather()
        inputs[variable.name].attrs["units"] = "gpm"
        refused(
            inputs, rf"{WORDS}{variable.name} is given in 'gpm', '{variable.units}' is due: convert it in its source"
        )

    def test_refuses_no_units(self):
        inputs = weather()
        del inputs["t2m"].attrs["units"]
        refused(inputs, "t2m is given in None, 'K' is due")

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    @given(st.sampled_from(INPUT_NAMES), st.integers(0, 35), st.integers(0, 39))
    def test_refuses_one_point_that_is_not_finite(self, value, name, row, column):
        inputs = weather()
        inputs[name][row, column] = value
        refused(inputs, rf"{WORDS}{name} is not finite at 1 of 1440 points: get it anew")

    @pytest.mark.parametrize("variable", INPUTS, ids=INPUT_NAMES)
    def test_refuses_one_impossible_point(self, variable):
        for value in (variable.valid_min - 1, variable.valid_max + 1):
            inputs = weather()
            inputs[variable.name][3, 4] = value
            refused(inputs, rf"{WORDS}{variable.name} .* {variable.units} is beyond the possible .*{variable.units}: ")

    @pytest.mark.parametrize("name", ["z500", "z850"])
    def test_refuses_height_given_as_geopotential(self, name):
        inputs = weather()
        inputs[name] = (inputs[name] / STANDARD_GRAVITY).assign_attrs(INPUT[name].attrs)
        refused(inputs, rf"{name} .* is beyond the possible .*: it looks like gpm; multiply it by 9\.80665 once")

    @pytest.mark.parametrize("name", ["z500", "z850"])
    def test_refuses_geopotential_multiplied_twice(self, name):
        inputs = weather()
        inputs[name] = (inputs[name] * STANDARD_GRAVITY).assign_attrs(INPUT[name].attrs)
        refused(inputs, rf"{name} .*: it looks multiplied twice; divide it by 9\.80665")

    @pytest.mark.parametrize("name", ["t500", "t850", "t2m"])
    def test_refuses_celsius(self, name):
        inputs = weather()
        inputs[name] = (inputs[name] - 273.15).assign_attrs(INPUT[name].attrs)
        refused(inputs, rf"{name} .*: it looks like degrees Celsius; add 273\.15")

    def test_has_no_cure_to_guess_where_no_conversion_fits(self):
        inputs = weather()
        inputs["t2m"][0, 0] = 9999.0
        refused(inputs, r"t2m .*\.\.9999 K is beyond the possible 170\.\.340 K: check its units and its decoding")

    @pytest.mark.parametrize("name", INPUT_NAMES)
    def test_refuses_a_constant_field(self, name):
        inputs = weather()
        inputs[name][:] = inputs[name][0, 0]
        refused(inputs, rf"{WORDS}{name} is .* at all 1440 points, which no weather is: get it anew")


class TestCheckEnsemble:
    @pytest.fixture
    def ensemble(self):
        values = np.random.default_rng(8).uniform(0, 20, (4, 3, 16, 16)).astype(np.float32)
        values[1] += 280
        return xr.Dataset({name: (("member", "y", "x"), values[i]) for i, name in enumerate(OUTPUT_NAMES)})

    def test_summarizes_what_passes(self, ensemble):
        summary = check_ensemble(ensemble, SLOT)
        assert list(summary) == list(OUTPUT_NAMES)
        field = ensemble["t2m"].values.astype(np.float64)
        assert summary["t2m"] == {
            "min": field.min(),
            "max": field.max(),
            "mean": pytest.approx(field.mean(), rel=1e-12),
        }
        assert all(type(value) is float for each in summary.values() for value in each.values())

    def test_no_rain_anywhere_is_weather(self, ensemble):
        ensemble["mrr"][:] = 0
        assert check_ensemble(ensemble, SLOT)["mrr"] == {"min": 0.0, "max": 0.0, "mean": 0.0}

    @pytest.mark.parametrize("value", [np.nan, np.inf])
    def test_refuses_a_point_that_is_not_finite(self, ensemble, value):
        ensemble["u10m"][2, 3, 4] = value
        with pytest.raises(QualityError, match=rf"{WORDS}u10m is not finite at 1 of 768 points"):
            check_ensemble(ensemble, SLOT)

    @pytest.mark.parametrize(("name", "value"), [("mrr", -0.1), ("mrr", 200), ("t2m", 20), ("v10m", 500)])
    def test_refuses_an_impossible_point(self, ensemble, name, value):
        ensemble[name][2, 3, 4] = value
        with pytest.raises(QualityError, match=rf"{WORDS}{name} .* is beyond the possible"):
            check_ensemble(ensemble, SLOT)

    def test_refuses_another_set_order_or_shape(self, ensemble):
        with pytest.raises(QualityError, match="variables missing: mrr; not known: none"):
            check_ensemble(ensemble.drop_vars("mrr"), SLOT)
        with pytest.raises(QualityError, match="variables come as v10m, u10m, t2m, mrr: reorder"):
            check_ensemble(ensemble[list(OUTPUT_NAMES)[::-1]], SLOT)
        with pytest.raises(QualityError, match=r"mrr has dims {'y': 16, 'x': 16}"):
            check_ensemble(ensemble.isel(member=0), SLOT)
        with pytest.raises(QualityError, match=r"mrr has dims {'member': 0"):
            check_ensemble(ensemble.isel(member=[]), SLOT)


class TestCheckMagnitudes:
    def test_weather_passes(self):
        check_magnitudes(weather(), INPUTS)
        check_magnitudes(weather(t850=-4.9, u10m=7.9).chunk(), INPUTS)

    def test_only_what_is_named_is_looked_at(self):
        inputs = weather(t2m=50)
        check_magnitudes(inputs, [INPUT["u10m"]])
        with pytest.raises(QualityError, match="t2m"):
            check_magnitudes(inputs, INPUTS)

    @given(st.sampled_from(INPUTS), st.floats(-1, 2))
    def test_the_possible_range_decides(self, variable, part):
        low, high = variable.valid_min, variable.valid_max
        inputs = xr.Dataset({variable.name: ("x", np.full(3, low + part * (high - low)))})
        if 0.001 < part < 0.999:
            check_magnitudes(inputs, [variable])
        elif not -0.001 < part < 1.001:
            with pytest.raises(QualityError, match=rf"^inputs: {variable.name} has a mean of .*, beyond the possible"):
                check_magnitudes(inputs, [variable])

    @pytest.mark.parametrize(
        ("name", "change", "cure"),
        [
            ("z500", lambda field: field / STANDARD_GRAVITY, r"it looks like gpm; multiply it by 9\.80665 once"),
            ("z850", lambda field: field / STANDARD_GRAVITY, r"it looks like gpm; multiply it by 9\.80665 once"),
            ("z500", lambda field: field * STANDARD_GRAVITY, r"it looks multiplied twice; divide it by 9\.80665"),
            ("z850", lambda field: field * STANDARD_GRAVITY, r"it looks multiplied twice; divide it by 9\.80665"),
            ("t500", lambda field: field - 273.15, r"it looks like degrees Celsius; add 273\.15"),
            ("tcwv", lambda field: field * 10, "check its units and its decoding"),
        ],
    )
    def test_another_unit_is_named_with_its_cure(self, name, change, cure):
        inputs = weather()
        inputs[name] = change(inputs[name])
        with pytest.raises(QualityError, match=rf"^inputs: {name} has a mean of .* {INPUT[name].units}: {cure}$"):
            check_magnitudes(inputs, INPUTS)


class TestCheckStatistics:
    def test_the_public_ones_pass(self):
        check_statistics(CWA_INPUT_STATISTICS, INPUTS)
        check_statistics(CWA_OUTPUT_STATISTICS, OUTPUTS)

    @pytest.mark.parametrize(
        ("name", "center", "cure"),
        [
            ("z500", 5851.5, r"it looks like gpm; multiply it by 9\.80665 once"),
            ("z850", 1512.8, r"it looks like gpm; multiply it by 9\.80665 once"),
            ("z500", 562742.0, r"it looks multiplied twice; divide it by 9\.80665"),
            ("t850", 15.47, r"it looks like degrees Celsius; add 273\.15"),
            ("tcwv", 4e4, "check its units and its decoding"),
        ],
    )
    def test_a_center_in_another_unit(self, name, center, cure):
        changed = tuple(
            center if each == name else old for each, old in zip(INPUT_NAMES, CWA_INPUT_STATISTICS.center, strict=True)
        )
        statistics = Statistics(INPUT_NAMES, changed, CWA_INPUT_STATISTICS.scale)
        message = rf"^the center of {name} is \S+, beyond the possible \S+ {INPUT[name].units}: {cure}$"
        with pytest.raises(CheckpointError, match=message):
            check_statistics(statistics, INPUTS)
