"""The manifest of a checkpoint: all that must agree between training and use. Opens without torch."""

import hashlib
import json
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, Self

import fsspec

from corrdiff_core.archive.layout import NAME
from corrdiff_core.credentials import refuse_credentials
from corrdiff_core.errors import CheckpointError
from corrdiff_core.grid import Domain
from corrdiff_core.normalization import Statistics
from corrdiff_core.variables import INPUT, OUTPUT, Variable

MANIFEST = "manifest.json"
FORMAT = 1

Part = Literal["input", "grid", "invariants", "mean"]
Preconditioning = Literal["EDMPrecondSR", "EDMPrecondSuperResolution"]
_PARTS = ("input", "grid", "invariants", "mean")
_PRECONDITIONINGS = ("EDMPrecondSR", "EDMPrecondSuperResolution")
_RESTORE = "restore the checkpoint from its source"


@dataclass(frozen=True)
class Network:
    """One network: the fields of its `model.unet.UNetConfig`, and what it is conditioned on, in channel order."""

    unet: dict[str, Any]
    conditioning: tuple[Part, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "conditioning", tuple(self.conditioning))
        unknown = [part for part in self.conditioning if part not in _PARTS]
        if unknown:
            raise CheckpointError(f"conditioning on {unknown} is unknown: choose among {', '.join(_PARTS)}")


@dataclass(frozen=True)
class Sampling:
    """What a run uses unless told otherwise. `members` is the ensemble size; sigma in normalized units."""

    members: int
    num_steps: int = 18
    solver: Literal["heun", "euler"] = "heun"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.members < 1 or self.num_steps < 2:
            raise CheckpointError(f"{self.members} members and {self.num_steps} steps: at least 1 and 2 are needed")
        if self.solver not in ("heun", "euler"):
            raise CheckpointError(f"solver {self.solver!r} is unknown: choose heun or euler")


def check_name(name: str) -> None:
    """CheckpointError unless `name` can name a model, in archives and registries."""
    if not NAME.fullmatch(name):
        raise CheckpointError(
            f"model name {name!r}: begin with a letter or digit and go on with letters, digits, '.', '_' and '-' only"
        )


@dataclass(frozen=True)
class Manifest:
    """Everything a checkpoint says of itself; `digest` is the model's identity.

    `files` maps each file beside the manifest to its SHA-256, so the digest covers the weights too.
    """

    name: str
    domain: Domain
    input_statistics: Statistics
    output_statistics: Statistics
    invariants: tuple[str, ...]
    regression: Network
    diffusion: Network
    preconditioning: Preconditioning
    defaults: Sampling
    sigma_data: float = 0.5
    training: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for names, table in ((self.input_statistics.names, INPUT), (self.output_statistics.names, OUTPUT)):
            unknown = [name for name in names if name not in table]
            if unknown:
                raise CheckpointError(f"manifest of {self.name}: unknown variables {unknown}; known: {list(table)}")
        if not self.sigma_data > 0:
            raise CheckpointError(f"manifest of {self.name}: sigma_data is {self.sigma_data}, it must be above 0")
        if self.preconditioning not in _PRECONDITIONINGS:
            raise CheckpointError(
                f"manifest of {self.name}: preconditioning {self.preconditioning!r} is none of {_PRECONDITIONINGS}"
            )
        check_name(self.name)

    @property
    def inputs(self) -> tuple[Variable, ...]:
        return tuple(INPUT[name] for name in self.input_statistics.names)

    @property
    def outputs(self) -> tuple[Variable, ...]:
        return tuple(OUTPUT[name] for name in self.output_statistics.names)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; `from_dict` restores an equal manifest."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {
            "format": FORMAT,
            **values,
            "domain": self.domain.to_dict(),
            "input_statistics": self.input_statistics.to_dict(),
            "output_statistics": self.output_statistics.to_dict(),
            "units": {variable.name: variable.units for variable in (*self.inputs, *self.outputs)},
            "invariants": list(self.invariants),
            "regression": {**asdict(self.regression), "conditioning": list(self.regression.conditioning)},
            "diffusion": {**asdict(self.diffusion), "conditioning": list(self.diffusion.conditioning)},
            "defaults": asdict(self.defaults),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """Raises CheckpointError for missing or unknown keys, another format, or units that are not ours."""
        expected = {"format", "units", *(item.name for item in fields(cls))}
        if set(values) != expected:
            missing, unknown = sorted(expected - set(values)), sorted(set(values) - expected)
            raise CheckpointError(f"manifest: missing keys {missing}, unknown keys {unknown}: {_RESTORE}")
        if values["format"] != FORMAT:
            raise CheckpointError(f"manifest format {values['format']}, this package reads {FORMAT}: upgrade it")
        plain = ("name", "preconditioning", "sigma_data", "training", "scores", "files")
        try:
            manifest = cls(
                **{name: values[name] for name in plain},
                domain=Domain.from_dict(values["domain"]),
                input_statistics=Statistics.from_dict(values["input_statistics"]),
                output_statistics=Statistics.from_dict(values["output_statistics"]),
                invariants=tuple(values["invariants"]),
                regression=Network(**values["regression"]),
                diffusion=Network(**values["diffusion"]),
                defaults=Sampling(**values["defaults"]),
            )
        except (TypeError, KeyError, AttributeError, ValueError) as error:
            raise CheckpointError(f"manifest of {values['name']}: {error}; {_RESTORE}") from error
        manifest._refuse_other_units(values["units"])
        return manifest

    def _refuse_other_units(self, units: dict[str, str]) -> None:
        ours = self.to_dict()["units"]
        if units != ours:
            raise CheckpointError(
                f"manifest of {self.name}: units {units}, this package works in {ours}: convert its statistics"
            )

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=1, sort_keys=True) + "\n"

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the manifest's canonical JSON, hexadecimal."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    @property
    def identity(self) -> str:
        """Name and the first 8 digits of the digest, as archives spell the model."""
        return f"{self.name}-{self.digest[:8]}"

    def with_files(self, files: dict[str, bytes]) -> Self:
        return replace(self, files={name: hashlib.sha256(content).hexdigest() for name, content in files.items()})


def read_manifest(path: str) -> Manifest:
    """The manifest of the checkpoint folder at `path` (any fsspec URL); CheckpointError where there is no sound one."""
    refuse_credentials(path)
    url = f"{path.rstrip('/')}/{MANIFEST}"
    try:
        with fsspec.open(url, "rt", encoding="utf-8") as file:  # type: ignore[no-untyped-call]
            values = json.load(file)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no checkpoint here, {MANIFEST} is missing; name a checkpoint folder") from None
    except ValueError as error:
        raise CheckpointError(f"{url}: not JSON ({error}); {_RESTORE}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{url}: a JSON {type(values).__name__} where an object is due; {_RESTORE}")
    try:
        return Manifest.from_dict(values)
    except CheckpointError as error:
        raise CheckpointError(f"{url}: {error}") from error
