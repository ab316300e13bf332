"""Whether a model still does what it did and should: bounds on windows of valid time, and how many may be broken."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from corrdiff_core.errors import ConfigurationError
from corrdiff_core.evaluate.one_time import REFLECTIVITY

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Rules:
    """When a model counts as degraded: a bound is broken for one variable in `degraded` of the newest `of` windows.

    Only windows count in which the bound can be judged, so truth that is days late does not hide what it says. The
    reference is the mean over the first `reference` windows of the same model in which the number is known; they are
    not judged by it themselves. Beside 2-km truth, of each variable:

    1. CRPS is below the absolute error of the bilinearly interpolated input, where an input is called so;
    2. their ratio is at most `growth` times that of the reference;
    3. spread over skill lies within `spread_skill`.

    Without truth:

    4. the mean z-score of no input's box mean is beyond `drift`, either way;
    5. the spread of each variable but reflectivity, of which a dry week has none, lies within `spread` times that of
       the reference;
    6. the root mean squared difference of ensemble mean and input on the input's cells is at most `coarse` scales.

    ConfigurationError for bounds that nothing can meet.
    """

    degraded: int = 3
    of: int = 5
    reference: int = 5
    growth: float = 1.25
    spread_skill: tuple[float, float] = (0.5, 2.0)
    drift: float = 3.0
    spread: tuple[float, float] = (0.5, 2.0)
    coarse: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.degraded <= self.of or self.reference < 1:
            raise ConfigurationError(
                f"degraded {self.degraded} of {self.of} windows, {self.reference} of reference: 1 <= degraded <= of,"
                " and a reference of 1 or more, are needed"
            )
        ordered = all(0 <= low < high for low, high in (self.spread_skill, self.spread))
        if not (ordered and self.growth > 0 and self.drift > 0 and self.coarse > 0):
            raise ConfigurationError(f"{self}: bounds above 0, and low < high, are needed")


@dataclass(frozen=True)
class Finding:
    """One bound of one variable or channel over all windows; None of `broken` where it cannot be judged."""

    rule: str
    bound: str
    name: str
    windows: tuple[datetime, ...]
    values: tuple[float, ...]
    broken: tuple[bool | None, ...]
    too_often: bool

    def in_words(self, rules: Rules) -> str:
        known = [at for at, broken in enumerate(self.broken) if broken is not None][-rules.of :]
        bad = [at for at in known if self.broken[at]]
        shown = ", ".join(f"{self.values[at]:.2f}" for at in bad)
        first, last = (f"{self.windows[at]:%Y-%m-%dT%H}Z" for at in (known[0], known[-1]))
        return f"{self.name}: {self.bound}, but {shown} in {len(bad)} of the windows {first} to {last}"


@dataclass(frozen=True)
class Verdict:
    """`reasons` says which bounds are broken in too many windows, in words; `numbers` what was seen, as plain JSON."""

    degraded: bool
    reasons: list[str]
    findings: tuple[Finding, ...] = ()
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def worst(self) -> list[Finding]:
        """Those that make it degraded."""
        return [finding for finding in self.findings if finding.too_often]

    @property
    def broken(self) -> dict[datetime, list[Finding]]:
        """What is broken in each window in which anything is."""
        found: dict[datetime, list[Finding]] = {}
        for finding in self.findings:
            for window, broken in zip(finding.windows, finding.broken, strict=True):
                if broken:
                    found.setdefault(window, []).append(finding)
        return found


def k_of_n(broken: Sequence[bool | None], k: int, n: int) -> bool:
    """Whether k or more of the newest n that are known, the last of `broken`, are.

    >>> k_of_n([True, True, None, False, True, None], 2, 3), k_of_n([True, False, False], 1, 2)
    (True, False)
    """
    known = [one for one in broken if one is not None]
    return sum(known[-n:]) >= k


def judge(windows: xr.Dataset, rules: Rules | None = None) -> Verdict:
    """The verdict on `windows.by_window`, which begin with those of reference."""
    rules = rules or Rules()
    findings = tuple(_findings(windows, rules))
    worst = [finding for finding in findings if finding.too_often]
    numbers = {
        "rules": asdict(rules),
        "windows": [f"{start:%Y-%m-%dT%H}Z" for start in _starts(windows)][-rules.of :],
        "broken": [{"bound": finding.bound, "name": finding.name, **_newest(finding, rules)} for finding in worst],
    }
    return Verdict(bool(worst), [finding.in_words(rules) for finding in worst], findings, numbers)


def _newest(finding: Finding, rules: Rules) -> dict[str, Any]:
    known = [at for at, broken in enumerate(finding.broken) if broken is not None][-rules.of :]
    return {
        "windows": [f"{finding.windows[at]:%Y-%m-%dT%H}Z" for at in known],
        "values": [round(finding.values[at], 4) for at in known],
        "broken": [finding.broken[at] for at in known],
    }


def _findings(windows: xr.Dataset, rules: Rules) -> Iterator[Finding]:
    def bound(
        rule: str, words: str, values: xr.DataArray, breaks: Callable[[Float64], NDArray[np.bool_]]
    ) -> Iterator[Finding]:
        for name in values[values.dims[1]].values:
            column = values.sel({values.dims[1]: name}).values
            with np.errstate(invalid="ignore"):
                bad = breaks(column)
            broken = tuple(bool(b) if np.isfinite(v) else None for v, b in zip(column, bad, strict=True))
            too_often = k_of_n(broken, rules.degraded, rules.of)
            yield Finding(rule, words, str(name), _starts(windows), tuple(map(float, column)), broken, too_often)

    low, high = rules.spread_skill
    least, most = rules.spread
    ratio, lost = windows.crps_ratio, over_reference(windows.crps_ratio, rules)
    yield from bound("interpolation", "CRPS below the interpolated input's error is asked", ratio, lambda v: v >= 1)
    words = f"CRPS over the interpolated input's error of {rules.growth:g} times the reference's or less is asked"
    yield from bound("growth", words, lost, lambda v: v > rules.growth)
    words = f"spread over skill of {low:g} to {high:g} is asked"
    yield from bound("spread_skill", words, windows.spread_skill, lambda v: (v < low) | (v > high))
    words = f"a mean z-score within {rules.drift:g} is asked"
    yield from bound("drift", words, windows.z_mean, lambda v: np.abs(v) > rules.drift)
    words = f"a spread of {least:g} to {most:g} times the reference's is asked"
    spread = over_reference(of_weather_left_out(windows.spread), rules)
    yield from bound("spread", words, spread, lambda v: (v < least) | (v > most))
    if "coarse_rmse" in windows:
        words = f"a difference from the coarse input of {rules.coarse:g} scales or less is asked"
        yield from bound("coarse", words, windows.coarse_rmse, lambda v: v > rules.coarse)


def of_weather_left_out(spread: xr.DataArray) -> xr.DataArray:
    """Without reflectivity: how much of it there is, and so its spread, is the weather's."""
    return spread.sel(variable=[name != REFLECTIVITY for name in spread["variable"].values])


def over_reference(values: xr.DataArray, rules: Rules) -> xr.DataArray:
    """Over the mean of the first windows in which it is known; NaN in those, and where they are all there is."""
    found = np.full(values.shape, np.nan)
    for column in range(values.shape[1]):
        known = np.flatnonzero(np.isfinite(values.values[:, column]))
        first, later = known[: rules.reference], known[rules.reference :]
        if len(later):
            found[later, column] = values.values[later, column] / values.values[first, column].mean()
    return values.copy(data=found)


def _starts(windows: xr.Dataset) -> tuple[datetime, ...]:
    return tuple(windows.window.values.astype("datetime64[us]").tolist())
