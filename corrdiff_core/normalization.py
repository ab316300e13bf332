"""Normalization by fixed statistics: what the networks see is (value - center) / scale, and back."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from corrdiff_core.errors import CheckpointError, QualityError


@dataclass(frozen=True)
class Statistics:
    """Center and scale of each variable, in the units of `variables.INPUTS` or `OUTPUTS`, in channel order."""

    names: tuple[str, ...]
    center: tuple[float, ...]
    scale: tuple[float, ...]

    def __post_init__(self) -> None:
        if not len(self.names) == len(set(self.names)) == len(self.center) == len(self.scale):
            raise CheckpointError(
                f"statistics of {len(self.names)} names ({len(set(self.names))} different), {len(self.center)} centers "
                f"and {len(self.scale)} scales: each variable needs one of each; repair their file"
            )
        for name, center, scale in zip(self.names, self.center, self.scale, strict=True):
            if not (np.isfinite(center) and np.isfinite(scale) and scale > 0):
                raise CheckpointError(
                    f"statistics of {name}: center {center} and scale {scale} must be finite and the scale above 0; "
                    "repair their file"
                )

    def normalize(self, fields: xr.Dataset) -> xr.Dataset:
        """(value - center) / scale of every variable of these statistics, in their order, float32, units "1".

        Lazy where `fields` is. Raises QualityError for a missing variable; others are left out.
        """
        self._refuse_missing(fields)
        normalized = {
            name: ((fields[name].astype(np.float64) - center) / scale).astype(np.float32)
            for name, center, scale in self._rows()
        }
        return fields[[]].assign({name: field.assign_attrs(units="1") for name, field in normalized.items()})

    def denormalize(self, fields: xr.Dataset) -> xr.Dataset:
        """value * scale + center, the inverse of `normalize`, float32; the caller names the units again."""
        self._refuse_missing(fields)
        physical = {
            name: (fields[name].astype(np.float64) * scale + center).astype(np.float32)
            for name, center, scale in self._rows()
        }
        return fields[[]].assign({name: field.drop_attrs() for name, field in physical.items()})

    def z_score(self, name: str, value: float) -> float:
        """How many scales `value` lies from the center of `name`."""
        position = self.names.index(name)
        return (value - self.center[position]) / self.scale[position]

    def _rows(self) -> Iterator[tuple[str, float, float]]:
        return zip(self.names, self.center, self.scale, strict=True)

    def _refuse_missing(self, fields: xr.Dataset) -> None:
        missing = [name for name in self.names if name not in fields.data_vars]
        if missing:
            raise QualityError(
                f"{', '.join(missing)} to be normalized but not among {', '.join(map(str, fields.data_vars))}: "
                "fetch every variable of the checkpoint's manifest"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain lists for a manifest; `from_dict` restores equal Statistics."""
        return {key: list(values) for key, values in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Statistics":
        return cls(**{key: tuple(column) for key, column in values.items()})


# The public CWA dataset's era5_center/era5_scale and cwb_center/cwb_scale (NGC nvidia/modulus, 2018-2021).
CWA_INPUT_STATISTICS = Statistics(
    names=("tcwv", "z500", "t500", "u500", "v500", "z850", "t850", "u850", "v850", "t2m", "u10m", "v10m"),
    center=(
        40.75619, 57383.76, 267.34906, 10.54944, 1.4951272, 14835.352, 288.62, -0.3087335, 0.5978903, 296.68073,
        -2.3695333, -1.5233605,
    ),
    scale=(
        14.70123, 452.9635, 2.961594, 11.571043, 5.2568445, 346.84357, 4.895034, 5.9592533, 5.0256424, 5.273516,
        4.2408953, 5.179821,
    ),
)  # fmt: skip
CWA_OUTPUT_STATISTICS = Statistics(
    names=("mrr", "t2m", "u10m", "v10m"),
    center=(2.8728955, 296.67792, -2.4250958, -1.74273),
    scale=(7.3989487, 5.7858133, 4.477587, 5.517276),
)
