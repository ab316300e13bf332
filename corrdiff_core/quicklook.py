"""One picture of one slot: coarse input, ensemble mean, one member and spread of the four output variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from textwrap import fill, wrap
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection, QuadMesh
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from scipy.spatial import KDTree

from corrdiff_core import colors
from corrdiff_core.archive.objects import open_objects
from corrdiff_core.colors import Scale
from corrdiff_core.cycle import Slot
from corrdiff_core.errors import ConfigurationError, QualityError
from corrdiff_core.grid import Box
from corrdiff_core.projection import Projection, projection_of
from corrdiff_core.quality import ZERO_CELSIUS, check_ensemble, check_inputs
from corrdiff_core.regrid import cover
from corrdiff_core.terrain import COASTLINES
from corrdiff_core.variables import INPUT, INPUTS, OUTPUTS, Variable

Float64 = NDArray[np.float64]

STAND_IN = {"mrr": "tcwv"}  # an output that no input has, and the input that is drawn in its place
UNITS = {"K": "°C", "m s-1": "m s⁻¹", "kg m-2": "kg m⁻²"}  # as written on the picture, where not as stored

# Pixels; the picture is as high as its domain asks for, 1500 for a square one.
_DPI, _WIDTH, _HEADER, _FOOTER = 100, 1600, 108, 40
_LEFT, _PANEL, _GAP, _BAR, _BAR_SPACE = 108, 320, 12, 14, 68


def quicklook(inputs: xr.Dataset, ensemble: xr.Dataset, url: str, title: str, note: str = "") -> None:
    """Draw `figure` into the PNG at `url`, a path or any fsspec URL; it appears whole, folders are made.

    Raises what `figure` raises, and ConfigurationError where `url` names no file in a folder.
    """
    folder, slash, name = url.rpartition("/")
    if not name or folder.endswith(":/"):
        raise ConfigurationError(f"{url!r} cannot hold a picture: name a file in a folder, such as memory://here/a.png")
    open_objects(folder + slash).put(name, _png(figure(inputs, ensemble, title, note), title))


def figure(inputs: xr.Dataset, ensemble: xr.Dataset, title: str, note: str = "") -> Figure:
    """Rows: the ensemble's variables, those of `variables.OUTPUTS` or some; columns: input, mean, first member, spread.

    `inputs` (latitude, longitude) are those of `variables.INPUTS` or some, drawn cell by cell on their own grid;
    `ensemble` (member, y, x) has its projection in `spatial_ref` and its y, x, as `Archive.read` returns it.
    Both carry scalar valid_time, and init_time where they are a forecast's. `title` says source and model; `note` warns
    the reader. Input, mean and member of a variable share one color scale; the spread is the standard deviation of the
    members; the smallest and the largest value of a panel are in its corner.

    Raises QualityError for fields that are missing, not finite, implausible or of another time, GridError for an
    ensemble that does not say its projection or is not inside the inputs.
    """
    slot = _slot(ensemble)
    given, shown = _known(inputs, INPUTS), _known(ensemble, OUTPUTS)
    check_inputs(inputs, slot, variables=given)
    check_ensemble(ensemble, slot, shown)
    page = _Page(_Map.of(ensemble), note, len(shown))
    inputs = cover(inputs, page.map.box)
    page.write_header(_headline(slot, ensemble.sizes["member"]), title)
    page.write_columns(_columns(inputs, ensemble, page.map.projection.unit))
    for row, variable in enumerate(shown):
        page.write_row(row, variable.long_name)
        _draw_row(page, row, variable, inputs, ensemble)
    return page.figure


def _draw_row(page: "_Page", row: int, variable: Variable, inputs: xr.Dataset, ensemble: xr.Dataset) -> None:
    name, coarse = variable.name, INPUT[STAND_IN.get(variable.name, variable.name)]
    members = _shown(ensemble[name], variable)
    mean, member = members.mean(axis=0), members[0]
    drawn, alike = coarse.name in inputs, coarse.name == name
    source = _shown(inputs[coarse.name], coarse) if drawn else members[:0]
    scale = colors.SCALES[name](np.concatenate([field.ravel() for field in (mean, member, *[source] * alike)]))

    panel = page.panel(row, 0, f"{name} input")
    lacks = f"the input has no {variable.long_name.split()[-1]}"
    if drawn:
        source_scale = scale if alike else colors.SCALES[coarse.name](source)
        page.map.draw_cells(panel, inputs, source, source_scale)
        page.bar(row, 0, source_scale, _units(coarse), f"{name} input bar")
    if not alike or not drawn:
        _remark(panel, f"{coarse.long_name}:\n{lacks}" if drawn else lacks)
    page.map.draw_points(page.panel(row, 1, f"{name} mean"), mean, scale)
    page.map.draw_points(page.panel(row, 2, f"{name} member"), member, scale)
    page.bar(row, 2, scale, _units(variable), f"{name} member bar")
    _draw_spread(page, row, variable, members)


def _draw_spread(page: "_Page", row: int, variable: Variable, members: Float64) -> None:
    panel = page.panel(row, 3, f"{variable.name} spread")
    if len(members) == 1:
        _remark(panel, "one member: no spread")
        return
    spread = members.std(axis=0, ddof=1)
    scale = colors.spread(spread)
    page.map.draw_points(panel, spread, scale)
    page.bar(row, 3, scale, _units(variable), f"{variable.name} spread bar")


def _known(fields: xr.Dataset, table: Sequence[Variable]) -> list[Variable]:
    """Those of `table` that `fields` have; all of them where they have none, which is then refused by name."""
    return [variable for variable in table if variable.name in fields] or list(table)


# --- words ------------------------------------------------------------------------------------------------------------


def _slot(ensemble: xr.Dataset) -> Slot:
    if "valid_time" not in ensemble.coords:
        raise QualityError("the ensemble carries no valid_time: set the coordinate, or read it from the archive")
    times: dict[str, datetime] = {
        name: ensemble[name].values.astype("datetime64[s]").item()
        for name in ("valid_time", "init_time")
        if name in ensemble.coords
    }
    return Slot(**times)


def _headline(slot: Slot, members: int) -> str:
    words = [f"valid {slot.valid_time:%a %d %b %Y %H:%M} UTC"]
    if slot.init_time is not None:
        words += [f"init {slot.init_time:%a %d %b %H:%M} UTC", f"lead +{slot.lead_hours} h"]
    return "  ·  ".join([*words, f"{members} members" if members > 1 else "1 member"])


def _columns(inputs: xr.Dataset, ensemble: xr.Dataset, unit: float) -> tuple[str, str, str, str]:
    coarse = f"{np.diff(inputs.latitude).mean():.3g}°"
    fine = f"{unit * np.diff(ensemble.y).mean() / 1000:.3g} km"
    which = ensemble.member.values[0]
    return f"input, {coarse}", f"ensemble mean, {fine}", f"member {which}, {fine}", "ensemble spread (std. dev.)"


def _shown(field: xr.DataArray, variable: Variable) -> Float64:
    """Values in the units of the picture."""
    values = np.asarray(field, np.float64)
    return values - ZERO_CELSIUS if variable.units == "K" else values


def _units(variable: Variable) -> str:
    return UNITS.get(variable.units, variable.units)


def _remark(panel: Axes, text: str, low: bool = False) -> None:
    """Words in the upper left corner of a panel, or in the lower right."""
    inset = 0.987 if low else 0.013
    panel.text(
        inset,
        1 - inset,
        text,
        transform=panel.transAxes,
        ha="right" if low else "left",
        va="bottom" if low else "top",
        fontsize=9,
        bbox={"facecolor": "white", "edgecolor": "black", "linewidth": 0.5, "pad": 3},
    )


def _name_extremes(panel: Axes, field: Float64) -> None:
    minus = "\N{MINUS SIGN}"
    _remark(panel, f"{field.min():.1f} … {field.max():.1f}".replace("-", minus), low=True)


# --- the map ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Map:
    """What every panel shows: a window of the projection, with coastline and graticule.

    Lines are (points, 2): x, y in metres. Meridians run north, parallels east, both beyond the window.
    """

    projection: Projection
    extent: tuple[float, float, float, float]  # west, east, south, north in metres
    box: Box
    coast: list[Float64]
    meridians: dict[str, Float64]
    parallels: dict[str, Float64]

    @classmethod
    def of(cls, ensemble: xr.Dataset) -> "_Map":
        """The window of the ensemble's cells, their outer edges included; its box is that of the cells' centers."""
        attrs = ensemble.spatial_ref.attrs if {"spatial_ref", "x", "y"} <= set(ensemble.coords) else {}
        projection = projection_of(attrs)
        x, y = np.asarray(ensemble.x, np.float64), np.asarray(ensemble.y, np.float64)
        longitude, latitude = projection.inverse(*np.meshgrid(x, y))
        box = Box(*(float(edge) for field in (latitude, longitude) for edge in (field.min(), field.max())))
        coast = [_line(projection, *np.transpose([*points, points[0]])) for points in COASTLINES]
        (west, east), (south, north) = _edges(x)[[0, -1]], _edges(y)[[0, -1]]
        return cls(projection, (west, east, south, north), box, coast, *_graticule(projection, box))

    @property
    def aspect(self) -> float:
        west, east, south, north = self.extent
        return (north - south) / (east - west)

    def dress(self, panel: Axes, left: bool, bottom: bool) -> None:
        """Coastline, graticule, and degrees along the edges that are asked for."""
        west, east, south, north = self.extent
        graticule = [*self.meridians.values(), *self.parallels.values()]
        panel.add_collection(LineCollection(graticule, colors="0.2", linewidths=0.5, alpha=0.35, gid="graticule"))
        panel.add_collection(LineCollection(self.coast, colors="black", linewidths=1.0, gid="coastline"))
        panel.set(xlim=(west, east), ylim=(south, north), aspect="equal")
        x = {name: float(np.interp(south, line[:, 1], line[:, 0])) for name, line in self.meridians.items()}
        y = {name: float(np.interp(west, line[:, 0], line[:, 1])) for name, line in self.parallels.items()}
        _tick(panel.xaxis, x, west, east, bottom)
        _tick(panel.yaxis, y, south, north, left)

    def draw_cells(self, panel: Axes, grid: xr.Dataset, field: Float64, scale: Scale) -> None:
        """A field (latitude, longitude), each cell as the quadrangle that it is in the projection."""
        x, y = self.projection.forward(*np.meshgrid(_edges(grid.longitude.values), _edges(grid.latitude.values)))
        panel.pcolormesh(x, y, field, cmap=scale.cmap, norm=scale.norm)
        _name_extremes(panel, field)

    def draw_points(self, panel: Axes, field: Float64, scale: Scale) -> None:
        """A field (y, x), row 0 in the south."""
        panel.imshow(field, scale.cmap, scale.norm, extent=self.extent, origin="lower", interpolation_stage="data")
        _name_extremes(panel, field)


def _line(projection: Projection, longitude: ArrayLike, latitude: ArrayLike) -> Float64:
    return np.stack(projection.forward(*np.broadcast_arrays(longitude, latitude)), axis=-1)


def _edges(centers: Float64) -> Float64:
    """Edges of the cells around `centers`, one more than these."""
    between = (centers[1:] + centers[:-1]) / 2
    return np.concatenate([[2 * centers[0] - between[0]], between, [2 * centers[-1] - between[-1]]])


def _graticule(projection: Projection, box: Box) -> tuple[dict[str, Float64], dict[str, Float64]]:
    """Meridians and parallels by their names."""
    step = colors.nice_step(max(box.east - box.west, box.north - box.south), 6)
    along = np.linspace(box.south - step, box.north + step, 200)
    across = np.linspace(box.west - step, box.east + step, 200)
    meridians = {_degrees(at, "EW"): _line(projection, at, along) for at in _multiples(step, box.west, box.east)}
    parallels = {_degrees(at, "NS"): _line(projection, across, at) for at in _multiples(step, box.south, box.north)}
    return meridians, parallels


def _multiples(step: float, low: float, high: float) -> Float64:
    return step * np.arange(np.ceil(low / step), np.floor(high / step) + 1)


def _degrees(value: float, sides: str) -> str:
    return f"{abs(value):.6g}°{sides[int(value < 0)]}"


def _tick(axis: Axis, places: dict[str, float], low: float, high: float, named: bool) -> None:
    inside = {name: place for name, place in places.items() if low < place < high}
    axis.set_ticks(list(inside.values()), labels=list(inside) if named else [""] * len(inside), fontsize=9)
    axis.set_tick_params(length=3, pad=2)


# --- the page ---------------------------------------------------------------------------------------------------------


class _Page:
    """The figure, its places counted in pixels from the top left."""

    def __init__(self, window: _Map, note: str, rows: int) -> None:
        self.map, self._rows = window, rows
        self._notes = wrap(note, 140)
        self._head = _HEADER + 20 * len(self._notes)
        self._high = round(_PANEL * float(np.clip(window.aspect, 0.7, 1.6)))
        self._height = self._head + rows * (self._high + _GAP) - _GAP + _FOOTER
        self.figure = Figure(figsize=(_WIDTH / _DPI, self._height / _DPI), dpi=_DPI, facecolor="white")

    def _left(self, column: int) -> float:
        return _LEFT + column * _PANEL + (0, _BAR_SPACE, _BAR_SPACE + _GAP, 2 * _BAR_SPACE + _GAP)[column]

    def _top(self, row: int) -> float:
        return self._head + row * (self._high + _GAP)

    def _axes(self, left: float, top: float, width: float, height: float, label: str) -> Axes:
        bottom = self._height - top - height
        places = left / _WIDTH, bottom / self._height, width / _WIDTH, height / self._height
        return self.figure.add_axes(places, label=label)

    def _write(self, left: float, top: float, text: str, **style: Any) -> None:
        self.figure.text(left / _WIDTH, 1 - top / self._height, text, va="center", **style)

    def write_header(self, headline: str, title: str) -> None:
        self._write(_LEFT, 30, headline, fontsize=17, fontweight="bold")
        self._write(_LEFT, 62, title, fontsize=12.5)
        for line, note in enumerate(self._notes):
            self._write(_LEFT, 88 + 20 * line, note, fontsize=12.5, fontweight="bold", color="#b00020")

    def write_columns(self, names: tuple[str, ...]) -> None:
        for column, name in enumerate(names):
            middle = self._left(column) + _PANEL / 2
            self._write(middle, self._head - 13, name, fontsize=12, fontweight="bold", ha="center")

    def write_row(self, row: int, name: str) -> None:
        middle, text = self._top(row) + self._high / 2, fill(name, 18)
        self._write(24, middle, text, fontsize=12, fontweight="bold", rotation=90, linespacing=1.3, ha="center")

    def panel(self, row: int, column: int, label: str) -> Axes:
        """Axes with coastline, graticule and degrees, and no field yet."""
        axes = self._axes(self._left(column), self._top(row), _PANEL, self._high, label)
        self.map.dress(axes, left=column == 0, bottom=row == self._rows - 1)
        return axes

    def bar(self, row: int, column: int, scale: Scale, units: str, label: str) -> None:
        """The color bar right of a panel, its units on top."""
        head = 22
        left, top = self._left(column) + _PANEL + 10, self._top(row) + head
        axes = self._axes(left, top, _BAR, self._high - head, label)
        extend, tip = ("max" if scale.above else "neither"), 0.04
        shown = ScalarMappable(scale.norm, scale.cmap)
        bar = self.figure.colorbar(shown, cax=axes, ticks=scale.ticks, extend=extend, extendfrac=tip)
        bar.minorticks_off()
        axes.tick_params(labelsize=9, length=2, pad=2)
        above = 1 + tip * bool(scale.above)  # left to matplotlib, the place is the same and takes half a second
        axes.set_title(units, fontsize=9.5, pad=6, loc="left", y=above)


# --- the file ---------------------------------------------------------------------------------------------------------


def _png(drawn: Figure, title: str) -> bytes:
    """Half the bytes of a PNG in all colors: 256 of them, and in the place of every other the nearest of these."""
    canvas = FigureCanvasAgg(drawn)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())[..., :3].astype(np.uint32)  # type: ignore[no-untyped-call]
    places = pixels @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    counts = np.bincount(places.ravel(), minlength=1 << 24)  # a third of the time of sorting the pixels
    codes = np.flatnonzero(counts)
    used = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=-1).astype(np.float64)
    palette = _palette(used, counts[codes], _scale_colors(drawn))
    nearest = np.zeros(1 << 24, np.uint8)
    nearest[codes] = KDTree(palette).query(used)[1]
    image = Image.fromarray(nearest[places])
    image.putpalette(palette.astype(np.uint8).tobytes())
    words, file = PngInfo(), BytesIO()
    words.add_itxt("Title", title)
    image.save(file, "png", pnginfo=words)
    return file.getvalue()


def _palette(used: Float64, counts: NDArray[np.intp], needed: Float64) -> Float64:
    """256 colors: the `needed`, then again and again that of the `used` which errs most over its `counts` pixels."""
    palette = [*needed[:256]]
    error = np.asarray(KDTree(needed).query(used)[0]) ** 2
    while len(palette) < 256:
        palette.append(used[np.argmax(error * counts)])
        error = np.minimum(error, ((used - palette[-1]) ** 2).sum(axis=-1))
    return np.array(palette)


def _scale_colors(drawn: Figure) -> Float64:
    """The colors of all scales, which must be told apart however rare they are; shape (colors, 3)."""
    maps = [mesh.cmap for axes in drawn.axes for mesh in axes.collections if isinstance(mesh, QuadMesh)]
    shades = [cmap(np.arange(cmap.N + 1), bytes=True)[:, :3] for cmap in maps]  # the last is the color beyond
    return np.unique(np.concatenate(shades), axis=0).astype(np.float64)
