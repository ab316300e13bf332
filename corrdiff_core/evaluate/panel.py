"""One picture of an evaluation: maps of one time beside CRPS, ranks and power of each variable; reflectivity below."""

from dataclasses import dataclass
from io import BytesIO
from textwrap import wrap

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from corrdiff_core import colors
from corrdiff_core.evaluate import diagrams
from corrdiff_core.evaluate.diagrams import UNITS, plain
from corrdiff_core.evaluate.one_time import REFLECTIVITY, Forecasts
from corrdiff_core.evaluate.page import Page, blank
from corrdiff_core.evaluate.scores import Scores
from corrdiff_core.quality import ZERO_CELSIUS
from corrdiff_core.terrain import COASTLINES
from corrdiff_core.variables import INPUT, OUTPUT, Variable

Float64 = NDArray[np.float64]

# Pixels.
_LEFT, _HEADER, _MAP, _BAR, _DIAGRAM, _GAP, _ROW, _BELOW = 64, 118, 250, 74, 262, 62, 300, 330
_COLUMNS = ("truth", "bilinear", "regression", "member")


@dataclass
class Example:
    """The time that is drawn: of those it is called with, the one of the most reflectivity, or the first."""

    forecasts: Forecasts | None = None

    def __call__(self, forecasts: Forecasts) -> None:
        if self.forecasts is None or _weather(forecasts) > _weather(self.forecasts):
            self.forecasts = forecasts


def _weather(forecasts: Forecasts) -> float:
    if REFLECTIVITY not in forecasts.variables:
        return 0.0
    return float(forecasts.truth[forecasts.variables.index(REFLECTIVITY)].mean())


def draw(scores: Scores, example: Forecasts | None = None) -> bytes:
    """The PNG of `figure`."""
    drawn, file = figure(scores, example), BytesIO()
    drawn.savefig(file, format="png", metadata={"Software": None, "Title": scores.evaluation.model})
    return file.getvalue()


def figure(scores: Scores, example: Forecasts | None = None) -> Figure:
    """A row for each variable: maps of `example` where there is one, CRPS by forecast, ranks, power; then reflectivity.

    Whiskers are 95 % intervals.
    """
    page = _Page.of(scores, example is not None)
    page.write_header(scores, example)
    for row, variable in enumerate(scores.variables):
        page.write_row(row, OUTPUT[variable])
        if example is not None:
            _draw_maps(page, row, example)
        diagrams.draw_crps(page.diagram(row, 0), scores, variable)
        diagrams.draw_ranks(page.diagram(row, 1), scores, variable)
        diagrams.draw_power(page.diagram(row, 2), scores, variable)
    diagrams.draw_calibration(page.below(0), scores)
    if scores.thresholds:
        diagrams.draw_reliability(page.below(1), scores)
        diagrams.draw_fractions(page.below(2), scores)
        diagrams.draw_brier(page.below(3), scores)
    return page.figure


# --- the page ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Page(Page):
    """Rows of diagrams under a header."""

    rows: int
    diagrams: int  # left edge of the first
    wide: int  # a diagram beside the maps

    @classmethod
    def of(cls, scores: Scores, maps: bool) -> "_Page":
        rows = len(scores.variables)
        diagrams = _LEFT + (len(_COLUMNS) * (_MAP + 8) + _BAR + 66 if maps else 70)
        wide = _DIAGRAM if maps else 400
        width = diagrams + 3 * (wide + _GAP)
        height = _HEADER + rows * _ROW + _BELOW + 36
        return cls(blank(width, height), width, height, rows, diagrams, wide)

    def write_header(self, scores: Scores, example: Forecasts | None) -> None:
        told = scores.evaluation
        days = scores.resamples.blocks
        words = (
            f"{len(told.times)} times on {days} days · {told.members} members · {told.num_steps} {told.solver} steps ·"
            f" {told.data}"
        )
        self.write(_LEFT, 26, f"Scores of {told.model}", fontsize=17, fontweight="bold")
        for line, text in enumerate(wrap(words, self.width // 9)[:2]):
            self.write(_LEFT, 54 + 18 * line, text, fontsize=11)
        titles = ("CRPS, lower is better", "rank of the truth", "power over the truth's, gray: within 1.5")
        for column, title in enumerate(titles):
            self._write_column(self.diagrams + column * (self.wide + _GAP) + self.wide / 2, title)
        if example is not None:
            when = f"{example.time:%d %b %Y %H:%M} UTC"
            for column, title in enumerate((f"truth, {when}", "input, bilinear", "regression mean", "one member")):
                self._write_column(_LEFT + column * (_MAP + 8) + _MAP / 2, title)

    def _write_column(self, middle: float, title: str) -> None:
        self.write(middle, _HEADER - 16, title, fontsize=11, fontweight="bold", ha="center")

    def write_row(self, row: int, variable: Variable) -> None:
        middle = _HEADER + row * _ROW + _MAP / 2
        text = "\n".join(wrap(variable.long_name, 18))
        self.write(30, middle, text, fontsize=11, fontweight="bold", rotation=90, ha="center", linespacing=1.2)

    def map(self, row: int, column: int) -> Axes:
        return self.axes(_LEFT + column * (_MAP + 8), _HEADER + row * _ROW, _MAP, _MAP)

    def bar(self, row: int) -> Axes:
        return self.axes(_LEFT + len(_COLUMNS) * (_MAP + 8) + 4, _HEADER + row * _ROW + 16, 13, _MAP - 16)

    def diagram(self, row: int, column: int) -> Axes:
        left = self.diagrams + column * (self.wide + _GAP)
        return plain(self.axes(left, _HEADER + row * _ROW, self.wide, _MAP - 6))

    def below(self, column: int) -> Axes:
        """One of four diagrams under the rows, over the whole width."""
        wide = (self.width - _LEFT - 20) / 4
        return plain(self.axes(_LEFT + 20 + column * wide, _HEADER + self.rows * _ROW + 40, wide - 76, _BELOW - 90))


# --- maps -------------------------------------------------------------------------------------------------------------


def _draw_maps(page: _Page, row: int, example: Forecasts) -> None:
    variable = OUTPUT[example.variables[row]]
    stacks = (example.truth, *(example.singles[name] for name in _COLUMNS[1:3]), example.members[0])
    fields = [_shown(stack[row], variable) for stack in stacks]
    scale = colors.SCALES[variable.name](np.concatenate([field.ravel() for field in fields]))
    domain = example.domain
    half = domain.step / 2
    extent = (domain.x[0] - half, domain.x[-1] + half, domain.y[0] - half, domain.y[-1] + half)
    coast = [np.stack(domain.project(*np.transpose([*line, line[0]]).astype(np.float64)), -1) for line in COASTLINES]
    for column, field in enumerate(fields):
        panel = page.map(row, column)
        panel.imshow(field, scale.cmap, scale.norm, extent=extent, origin="lower", interpolation_stage="data")
        panel.add_collection(LineCollection(coast, colors="black", linewidths=0.8))
        panel.set(xlim=extent[:2], ylim=extent[2:], xticks=[], yticks=[], aspect="equal")
        if _COLUMNS[column] == "bilinear" and variable.name not in INPUT:
            _remark(panel, f"no input has {variable.long_name.split()[-1]}")
    extend = "max" if scale.above else "neither"
    shown = ScalarMappable(scale.norm, scale.cmap)
    axes = page.bar(row)
    page.figure.colorbar(shown, cax=axes, ticks=scale.ticks, extend=extend, extendfrac=0.04).minorticks_off()
    axes.tick_params(labelsize=9, length=2, pad=2)
    axes.set_title(UNITS.get(variable.units, variable.units), fontsize=9, pad=6, loc="left")


def _shown(field: NDArray[np.floating], variable: Variable) -> Float64:
    values = np.asarray(field, np.float64)
    return values - ZERO_CELSIUS if variable.units == "K" else values


def _remark(panel: Axes, text: str) -> None:
    box = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.5, "pad": 3}
    panel.text(0.03, 0.97, text, transform=panel.transAxes, ha="left", va="top", fontsize=9, bbox=box)
