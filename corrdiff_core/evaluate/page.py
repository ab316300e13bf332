"""A figure as a sheet of paper: places in pixels from the top left."""

from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

DPI = 100


@dataclass(frozen=True)
class Page:
    """A figure of `width` x `height` pixels."""

    figure: Figure
    width: int
    height: int

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def write(self, left: float, top: float, text: str, **style: Any) -> None:
        self.figure.text(left / self.width, 1 - top / self.height, text, va="center", **style)


def blank(width: int, height: int) -> Figure:
    """A white figure of that many pixels."""
    return Figure((width / DPI, height / DPI), DPI, facecolor="white")
