"""One picture of a verification: skill and calibration of each variable by window and lead, and what needs no truth."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from io import BytesIO
from textwrap import wrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from corrdiff_core.archive import Series
from corrdiff_core.evaluate.diagrams import plain
from corrdiff_core.evaluate.one_time import REFLECTIVITY
from corrdiff_core.evaluate.page import Page, blank
from corrdiff_core.variables import OUTPUT
from corrdiff_core.verify import diagrams
from corrdiff_core.verify.verdict import Rules, Verdict, of_weather_left_out
from corrdiff_core.verify.windows import by_lead

# Pixels.
_LEFT, _HEADER, _WIDE, _HIGH, _GAP, _ROW, _BELOW = 108, 138, 330, 156, 84, 186, 322
_NO_TRUTH = "no 2-km truth yet"


@dataclass(frozen=True)
class Shown:
    """What is drawn: `rows` as `Rows.read`, `windows` as `by_window` of that length, the verdict on them by `rules`."""

    series: Series
    rows: xr.Dataset
    windows: xr.Dataset
    length: timedelta
    rules: Rules
    verdict: Verdict
    note: str = ""

    @property
    def variables(self) -> list[str]:
        return [str(name) for name in self.windows.variable.values]

    @property
    def starts(self) -> list[datetime]:
        return list(self.windows.window.values.astype("datetime64[us]").tolist())

    @property
    def middles(self) -> Any:
        """Of the windows, as matplotlib counts days."""
        return np.array([diagrams.day(start + self.length / 2) for start in self.starts])

    def broken(self, rules: set[str], name: str | None = None) -> list[datetime]:
        """The windows in which one of the rules is broken for a variable, or for any."""
        return [
            window
            for window, findings in self.verdict.broken.items()
            if any(finding.rule in rules and name in (None, finding.name) for finding in findings)
        ]


def draw(shown: Shown) -> bytes:
    """The PNG of `figure`."""
    drawn, file = figure(shown), BytesIO()
    drawn.savefig(file, format="png", metadata={"Software": None, "Title": shown.series.key})
    return file.getvalue()


def figure(shown: Shown) -> Figure:
    """A row for each variable: CRPS, skill, calibration by window, CRPS by lead or ranks; then drift and consistency.

    A window is shaded where a bound of what is drawn there is broken.
    """
    page = _Page.of(shown)
    page.write_header(shown)
    leads = by_lead(shown.rows)
    for row, variable in enumerate(shown.variables):
        last = row == len(shown.variables) - 1
        page.write_row(row, variable)
        _by_window(page.diagram(row, 0), shown, last, variable, set(), diagrams.draw_crps)
        _by_window(page.diagram(row, 1), shown, last, variable, {"interpolation", "growth"}, _draw_skill)
        _by_window(page.diagram(row, 2), shown, last, variable, {"spread_skill"}, _spread_skill(shown.rules))
        _last_column(page.diagram(row, 3), shown, leads, last, variable)
    _draw_drift(page, shown)
    _draw_consistency(page.below(0, 2), shown)
    _draw_spread(page.below(0, 3), shown)
    if page.analyzed:
        _draw_input_error(page, shown)
    return page.figure


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page(Page):
    """Rows of diagrams under a header."""

    rows: int
    analyzed: bool

    @classmethod
    def of(cls, shown: Shown) -> "_Page":
        rows, analyzed = len(shown.variables), bool(shown.windows.analyzed.sum())
        width = _LEFT + 4 * (_WIDE + _GAP) - _GAP + 40
        height = _HEADER + rows * _ROW + 34 + (2 if analyzed else 1) * _BELOW + 6
        return cls(blank(width, height), width, height, rows, analyzed)

    def write_header(self, shown: Shown) -> None:
        windows = shown.windows
        counts = {name: int(windows[name].sum()) for name in ("checked", "scored", "analyzed")}
        words = [
            f"windows of {_hours(shown.length)} from {shown.starts[0]:%d %b %Y}",
            f"{counts['checked']} slots of {windows.attrs['members']} members",
            f"{counts['scored']} scored beside 2-km truth",
            *([f"{counts['analyzed']} compared with an analysis"] if counts["analyzed"] else []),
            *([shown.note] if shown.note else []),
        ]
        color = "#b0123b" if shown.verdict.degraded else "#23703a"
        title = f"Verification of {shown.series.source} · {shown.series.model}"
        self.write(_LEFT, 26, title, fontsize=17, weight="bold")
        self.write(_LEFT, 54, " · ".join(words), fontsize=11)
        for line, text in enumerate(wrap(_in_short(shown), self.width // 10)[:2]):
            self.write(_LEFT, 76 + 18 * line, text, fontsize=11, color=color, weight="bold")
        fourth = "CRPS by lead time, h" if shown.series.kind == "forecast" else "rank of the truth"
        titles = ("CRPS", "CRPS over the interpolated input's error", "spread over skill", fourth)
        for column, title in enumerate(titles):
            middle = _LEFT + column * (_WIDE + _GAP) + _WIDE / 2
            self.write(middle, _HEADER - 18, title, fontsize=11, weight="bold", ha="center")

    def write_row(self, row: int, variable: str) -> None:
        text = "\n".join(wrap(OUTPUT[variable].long_name, 17))
        middle = _HEADER + row * _ROW + _HIGH / 2
        self.write(26, middle, text, fontsize=11, weight="bold", rotation=90, ha="center", linespacing=1.2)

    def diagram(self, row: int, column: int) -> Axes:
        return plain(self.axes(_LEFT + column * (_WIDE + _GAP), _HEADER + row * _ROW, _WIDE, _HIGH))

    def below(self, row: int, column: int, columns: int = 1) -> Axes:
        """Under the rows of variables."""
        top = _HEADER + self.rows * _ROW + 34 + row * _BELOW + 30
        width = columns * (_WIDE + _GAP) - _GAP - (60 if columns > 1 else 0)  # room for a color bar
        return plain(self.axes(_LEFT + column * (_WIDE + _GAP), top, width, _BELOW - 78))


def _hours(length: timedelta) -> str:
    days, rest = divmod(length, timedelta(days=1))
    return f"{length // timedelta(hours=1)} h" if rest else f"{days} d"


def _in_short(shown: Shown) -> str:
    """The verdict in one line: which variables, by which rules."""
    if not shown.verdict.degraded:
        return "within all bounds"
    names: dict[str, list[str]] = {}
    for finding in shown.verdict.worst:
        names.setdefault(finding.name, []).append(finding.rule.replace("_", " "))
    told = "; ".join(f"{name} ({', '.join(rules)})" for name, rules in names.items())
    return f"degraded in {shown.rules.degraded} or more of {shown.rules.of} windows: {told}"


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, fontweight="bold", pad=9)


# --- rows of variables ------------------------------------------------------------------------------------------------

_Draw = Callable[[Axes, xr.Dataset, Any, str], bool]


def _by_window(axes: Axes, shown: Shown, last: bool, variable: str, rules: set[str], drawn: _Draw) -> None:
    if not drawn(axes, shown.windows, shown.middles, variable):
        known = int(shown.windows.scored.sum())
        diagrams.empty(axes, "no input is called so" if known else _NO_TRUTH)
    elif drawn is diagrams.draw_crps:
        axes.set_ylabel(diagrams.unit(variable), fontsize=9, labelpad=2)
    diagrams.mark(axes, shown.broken(rules, variable), shown.length)
    diagrams.date_axis(axes, shown.starts[0], shown.starts[-1] + shown.length, last)


def _draw_skill(axes: Axes, windows: xr.Dataset, at: Any, variable: str) -> bool:
    if variable != REFLECTIVITY:
        return diagrams.draw_ratio(axes, windows, at, variable)
    if diagrams.draw_brier(axes, windows, at):
        axes.set_ylabel("Brier over “never”", fontsize=9, labelpad=2)
    else:
        diagrams.draw_share(axes, windows, at)
        axes.set_ylabel("share of points", fontsize=9, labelpad=2)
    return True


def _spread_skill(rules: Rules) -> _Draw:
    return lambda axes, windows, at, name: diagrams.draw_spread_skill(axes, windows, at, name, rules.spread_skill)


def _last_column(axes: Axes, shown: Shown, leads: xr.Dataset, last: bool, variable: str) -> None:
    if shown.series.kind == "forecast":
        drawn = diagrams.draw_crps(axes, leads, leads.lead.values, variable)
        diagrams.lead_axis(axes, leads.lead.values, last)
    else:
        drawn = diagrams.draw_ranks(axes, np.nansum(shown.rows.ranks.sel(variable=variable).values, axis=0))
        axes.tick_params(labelbottom=last)
    if not drawn:
        diagrams.empty(axes, _NO_TRUTH)
    elif shown.series.kind == "forecast":
        axes.set_ylabel(diagrams.unit(variable), fontsize=9, labelpad=2)


# --- without truth ----------------------------------------------------------------------------------------------------


def _draw_drift(page: _Page, shown: Shown) -> None:
    axes = page.below(0, 0, 2)
    _title(axes, f"drift of the inputs: mean z-score, framed beyond {shown.rules.drift:g}")
    values = shown.windows.z_mean
    if not np.isfinite(values).any():
        diagrams.empty(axes, "the model's statistics are not at hand")
        return
    channels = [str(name) for name in values.channel.values]
    broken = {
        (at, channels.index(finding.name))
        for at, start in enumerate(shown.starts)
        for finding in shown.verdict.broken.get(start, [])
        if finding.rule == "drift"
    }
    _draw_table(page, axes, shown, values, shown.rules.drift, "RdBu_r", broken)


def _draw_input_error(page: _Page, shown: Shown) -> None:
    axes = page.below(1, 0, 2)
    _title(axes, "input beside analysis, RMS in scales")
    values = shown.windows.input_rmse
    if np.isfinite(values).any():
        _draw_table(page, axes, shown, values, max(0.1, float(np.nanmax(values))), "YlOrBr", set())
    else:
        diagrams.empty(axes, "the model's statistics are not at hand")
    if "analysis_rmse" not in shown.windows:
        return
    beside = page.below(1, 2)
    _title(beside, "mean beside analysis, RMS in scales")
    _draw_scales(beside, shown, shown.windows.analysis_rmse, ())


def _draw_table(
    page: _Page, axes: Axes, shown: Shown, values: xr.DataArray, most: float, colors: str, broken: set[tuple[int, int]]
) -> None:
    """A color for each channel and window; windows without slots stay white."""
    first, last = shown.starts[0], shown.starts[-1] + shown.length
    every = [first + number * shown.length for number in range((last - first) // shown.length + 1)]
    whole = values.reindex(window=np.array(every[:-1], "datetime64[ns]"))
    place = {start: every.index(start) for start in shown.starts}
    framed = {(place[shown.starts[at]], channel) for at, channel in broken}
    edges = np.array([diagrams.day(time) for time in every])
    mesh = diagrams.draw_channels(axes, whole, edges, most, colors, framed)
    box = axes.get_position()
    bar = page.figure.add_axes((box.x1 + 10 / page.width, box.y0, 11 / page.width, box.height))
    page.figure.colorbar(mesh, cax=bar, extend="both" if colors.startswith("RdBu") else "neither")
    bar.yaxis.set_major_locator(MaxNLocator(6))
    bar.tick_params(labelsize=9, length=2, pad=2)
    diagrams.date_axis(axes, first, last, True)


def _draw_consistency(axes: Axes, shown: Shown) -> None:
    _title(axes, "mean beside coarse input, RMS in scales")
    if "coarse_rmse" not in shown.windows:
        diagrams.empty(axes, "no output is an input")
        return
    _draw_scales(axes, shown, shown.windows.coarse_rmse, (shown.rules.coarse,))
    diagrams.mark(axes, shown.broken({"coarse"}), shown.length)


def _draw_scales(axes: Axes, shown: Shown, values: xr.DataArray, bounds: tuple[float, ...]) -> None:
    if not diagrams.draw_lines(axes, values, shown.middles, bounds):
        diagrams.empty(axes, "no whole cell of the input\nin the domain, or no statistics")
    diagrams.date_axis(axes, shown.starts[0], shown.starts[-1] + shown.length, True)


def _draw_spread(axes: Axes, shown: Shown) -> None:
    """Over the reference's, where there is that; the windows of reference are at their own share of it."""
    _title(axes, "spread over its reference")
    spread = of_weather_left_out(shown.windows.spread)
    first = spread.isel(window=slice(0, shown.rules.reference)).mean("window")
    if not diagrams.draw_lines(axes, spread / first, shown.middles, shown.rules.spread):
        diagrams.empty(axes, "one member has no spread")
    diagrams.mark(axes, shown.broken({"spread"}), shown.length)
    diagrams.date_axis(axes, shown.starts[0], shown.starts[-1] + shown.length, True)
