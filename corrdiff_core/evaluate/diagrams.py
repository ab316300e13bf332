"""The diagrams of the panel, each drawn into axes that it is given. Whiskers are 95 % intervals."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from corrdiff_core.evaluate.scores import RESOLVED, Scores
from corrdiff_core.metrics import ratio
from corrdiff_core.variables import OUTPUT

# A color means the same forecast, or the same threshold, in every diagram.
COLORS = {"bilinear": "#8a8a8a", "regression": "#2b7bba", "ensemble": "#cc4c02", "perfect": "#6a51a3"}
TITLES = {"bilinear": "bilinear", "regression": "regression", "ensemble": "ensemble", "perfect": "perfect"}
DASHES = {"bilinear": ":", "regression": "--", "ensemble": "-", "perfect": (0, (1, 1))}
THRESHOLD_COLORS = ("#01a501", "#d9a400", "#d40000")
UNITS = {"K": "°C", "m s-1": "m s⁻¹"}  # as written on maps
WITHIN = 1.5  # the factor of power that is shaded


def plain(axes: Axes) -> Axes:
    """Axes as all diagrams have them."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, length=3)
    axes.grid(color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    return axes


def _title(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=11, fontweight="bold", pad=9)


# --- diagrams of a variable -------------------------------------------------------------------------------------------


def draw_crps(axes: Axes, scores: Scores, variable: str) -> None:
    names = scores.forecasts
    found = [scores.mean_error("crps", variable, name) for name in names]
    values, places = [estimate.value for estimate in found], range(len(names))
    axes.barh(places, values, color=[COLORS[name] for name in names], height=0.62)
    for place, estimate in zip(places, found, strict=True):
        axes.plot([estimate.low, estimate.high], [place, place], color="black", linewidth=1.2, solid_capstyle="butt")
        end = np.nanmax([estimate.value, estimate.high])
        axes.text(end, place, f" {estimate.value:.3f}", va="center", fontsize=9.5)
    largest = float(np.nanmax([*values, *(estimate.high for estimate in found)]))
    axes.set(yticks=places, ylim=(len(names) - 0.5, -0.5), xlim=(0, 1.22 * largest or 1.0))
    axes.set_yticklabels([TITLES[name] for name in names])
    axes.set_xlabel(OUTPUT[variable].units.replace("m s-1", UNITS["m s-1"]), fontsize=9, labelpad=1)
    axes.grid(visible=False, axis="y")


def draw_ranks(axes: Axes, scores: Scores, variable: str) -> None:
    counts = scores.values["ranks"].sel(variable=variable).sum("time").values
    frequency = counts / counts.sum() * len(counts)
    axes.bar(range(len(counts)), frequency, color=COLORS["ensemble"], width=0.86)
    axes.axhline(1, color="black", linewidth=1)
    axes.set(xlim=(-0.6, len(counts) - 0.4), ylim=(0, max(2.0, 1.2 * float(frequency.max()))))
    axes.set_xlabel("members below the truth", fontsize=9, labelpad=1)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    estimate = scores.spread_skill(variable)
    axes.text(
        0.5, 0.96, f"spread / skill {estimate.value:.2f}", transform=axes.transAxes, ha="center", va="top", fontsize=9.5
    )
    axes.grid(visible=False, axis="x")


def draw_power(axes: Axes, scores: Scores, variable: str) -> None:
    wavelength = scores.values.band.values
    low, high = RESOLVED
    axes.fill_between([low, high], 1 / WITHIN, WITHIN, color="0.88", linewidth=0)
    axes.axhline(1, color="black", linewidth=1)
    for name in ("bilinear", "regression", "ensemble"):
        power = scores.power_ratio(variable, name)
        axes.plot(wavelength, np.where(power > 0, power, np.nan), color=COLORS[name], label=TITLES[name], linewidth=1.8)
    axes.set(xscale="log", yscale="log", xlim=(wavelength.max(), wavelength.min()), ylim=(0.02, 4))
    _label(axes.xaxis, [at for at in (5, 20, 50, 200, 1000) if wavelength.min() <= at <= wavelength.max()])
    _label(axes.yaxis, [0.03, 0.1, 0.3, 1, 3])
    axes.set_xlabel("wavelength, km", fontsize=9, labelpad=1)
    axes.legend(fontsize=8.5, edgecolor="none", framealpha=0.85, loc="lower left", handlelength=1.4, borderaxespad=0.2)


def _label(axis: Any, at: list[float]) -> None:
    axis.set_major_locator(FixedLocator(at))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


# --- diagrams under the rows ------------------------------------------------------------------------------------------


def draw_calibration(axes: Axes, scores: Scores) -> None:
    """Spread-skill ratio and, where it is known, CRPS over the perfect one: both 1 at best."""
    kinds = [("spread / skill", scores.spread_skill, "o", COLORS["ensemble"])]
    if "perfect" in scores.forecasts:
        kinds.append(("CRPS / perfect", scores.against_perfect, "s", COLORS["perfect"]))
    axes.axhline(1, color="black", linewidth=1)
    for kind, (label, estimate, marker, color) in enumerate(kinds):
        found = [estimate(name) for name in scores.variables]
        at = np.arange(len(found)) + 0.18 * (kind - (len(kinds) - 1) / 2)
        axes.vlines(at, [e.low for e in found], [e.high for e in found], color=color, linewidth=1.6)
        axes.plot(at, [e.value for e in found], marker, color=color, label=label, markersize=6)
    axes.set_xticks(range(len(scores.variables)), labels=scores.variables)
    axes.set_xlim(-0.5, len(scores.variables) - 0.5)
    axes.margins(y=0.25)
    axes.legend(fontsize=9, frameon=False, ncols=2, loc="upper center", handletextpad=0.2)
    axes.grid(visible=False, axis="x")
    _title(axes, "calibration and skill of the ensemble")


def draw_reliability(axes: Axes, scores: Scores) -> None:
    """How often reflectivity came beyond a threshold when so many members said so; larger where often said."""
    axes.plot([0, 1], [0, 1], color="black", linewidth=1)
    for threshold, color in zip(scores.thresholds, THRESHOLD_COLORS, strict=True):
        counts = scores.values[["issued", "came"]].sel(threshold=threshold).sum("time")
        issued, came = counts.issued.values, counts.came.values
        said = issued > 0
        probability = np.arange(len(issued)) / (len(issued) - 1)
        sizes = 12 + 60 * np.minimum(1.0, issued[said] / max(int(issued[1:].max()), 1))
        axes.plot(probability[said], came[said] / issued[said], color=color, linewidth=1.6, label=f"{threshold:g} dBZ")
        axes.scatter(probability[said], came[said] / issued[said], sizes, color=color)
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axes.set_xlabel("share of members", fontsize=9, labelpad=1)
    axes.set_ylabel("share of truth", fontsize=9, labelpad=2)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    _title(axes, "reliability of reflectivity beyond")


def draw_fractions(axes: Axes, scores: Scores) -> None:
    sides = scores.values.neighborhood.values
    for threshold, color in zip(scores.thresholds, THRESHOLD_COLORS, strict=True):
        for name in [name for name in scores.forecasts if name != "bilinear"]:
            skill = scores.fractions_skill(threshold, name)
            axes.plot(sides, skill, color=color, linestyle=DASHES[name], linewidth=1.6)
    for name in [name for name in scores.forecasts if name != "bilinear"]:
        axes.plot([], [], color="0.3", linestyle=DASHES[name], label=TITLES[name])
    axes.set(xscale="log", ylim=(-0.03, 1.03))
    _label(axes.xaxis, list(sides))
    axes.set_xlabel("side of the neighborhood, km", fontsize=9, labelpad=1)
    axes.legend(fontsize=9, frameon=False, loc="best", handlelength=1.8)
    _title(axes, "fractions skill score")


def draw_brier(axes: Axes, scores: Scores) -> None:
    """Brier score over that of never foreseeing the event, which is how often it came."""
    names = [name for name in scores.forecasts if name != "bilinear"]
    width = 0.8 / len(names)
    for place, name in enumerate(names):
        at = np.arange(len(scores.thresholds)) + (place - (len(names) - 1) / 2) * width
        found = [[scores.brier(at, of).value for at in scores.thresholds] for of in (name, "bilinear")]
        shares = ratio(*map(np.array, found))
        axes.bar(at, shares, width * 0.92, color=COLORS[name], label=TITLES[name])
    axes.axhline(1, color="black", linewidth=1)
    axes.set_xticks(range(len(scores.thresholds)), labels=[f"{threshold:g} dBZ" for threshold in scores.thresholds])
    axes.legend(fontsize=9, frameon=False, loc="upper left", ncols=len(names), handlelength=1.2, columnspacing=1.0)
    axes.margins(y=0.25)
    axes.grid(visible=False, axis="x")
    _title(axes, "Brier score over that of “never”")
