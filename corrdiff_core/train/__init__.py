"""Training of the two stages, one after the other: the regression mean, then diffusion on its residuals."""

from corrdiff_core.train.networks import networks
from corrdiff_core.train.preset import PRESETS, Preset, read_preset
from corrdiff_core.train.processes import leads
from corrdiff_core.train.run import train

__all__ = ["PRESETS", "Preset", "leads", "networks", "read_preset", "train"]
