"""Presets: what is trained and for how long. Those of this package are files in presets/, to copy and change."""

import json
import tomllib
from dataclasses import MISSING, asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from corrdiff_core.errors import ConfigurationError, CorrdiffError
from corrdiff_core.grid import Domain
from corrdiff_core.manifest import Sampling, check_name

StageName = Literal["regression", "diffusion"]

PRESETS = ("demo", "mini", "taiwan")


@dataclass(frozen=True)
class Preset:
    """What is trained and for how long. A sample is one window of one time; durations are counted in samples.

    A step sees `times_per_step` times with `windows_per_time` random windows of `window` x `window` points each
    ("domain": the whole domain), and lets `times_per_pass` times through the network at once on each process. The
    results do not depend on how many processes share a step.

    Raises ConfigurationError where a stage would not take a single step, and for numbers that make no training.
    """

    name: str
    seed: int
    statistics_samples: int  # training samples that statistics are computed from, at most
    model_channels: int
    channel_mult: tuple[int, ...]
    num_blocks: int
    attn_resolutions: tuple[int, ...]
    bottleneck_attention: bool
    dropout: float
    window: int | Literal["domain"]
    windows_per_time: int
    times_per_step: int
    times_per_pass: int
    regression_samples: int
    diffusion_samples: int
    learning_rate: float
    warm_up: int
    final_rate: float  # of the learning rate is left at the end of a stage; 1: constant after the warm-up
    gradient_clip: float  # norm above which gradients are scaled down
    skip_limit: int  # steps of a stage that may be skipped for gradients that are not finite
    half_life: int  # of the exponential moving average of the weights
    bfloat16: Literal["never", "cuda", "native"]  # where passes are autocast, native: where the device computes in it
    sigma_mean: float  # of ln sigma
    sigma_std: float
    save_every: int
    validate_every: int
    validation_times: int
    defaults: Sampling

    def __post_init__(self) -> None:
        check_name(self.name)
        at_least_one = (
            "statistics_samples", "windows_per_time", "times_per_step", "times_per_pass", "half_life", "save_every",
            "validate_every", "validation_times",
        )  # fmt: skip
        self._demand("at least 1", at_least_one, lambda value: value >= 1)
        self._demand("0 or more", ("seed", "warm_up", "skip_limit"), lambda value: value >= 0)
        self._demand("above 0", ("learning_rate", "gradient_clip", "sigma_std"), lambda value: value > 0)
        self._demand("in 0..1", ("dropout", "final_rate"), lambda value: 0 <= value <= 1)
        if min(self.regression_samples, self.diffusion_samples) < self.batch:
            raise ConfigurationError(
                f"preset {self.name}: stages of {self.regression_samples} and {self.diffusion_samples} samples in "
                f"batches of {self.batch}: each stage needs at least one batch"
            )
        if self.window != "domain" and (self.attn_resolutions or self.bottleneck_attention):
            raise ConfigurationError(
                f"preset {self.name}: attention in windows of {self.window} points would meet many more when the "
                'whole domain is generated: set window = "domain", or attn_resolutions = [] and '
                "bottleneck_attention = false"
            )

    def _demand(self, what: str, names: tuple[str, ...], holds: Any) -> None:
        wrong = [f"{name} = {getattr(self, name)}" for name in names if not holds(getattr(self, name))]
        if wrong:
            raise ConfigurationError(f"preset {self.name}: {', '.join(wrong)} must be {what}")

    @property
    def batch(self) -> int:
        """Samples of one step."""
        return self.windows_per_time * self.times_per_step

    def samples(self, stage: StageName) -> int:
        return self.regression_samples if stage == "regression" else self.diffusion_samples

    def steps(self, stage: StageName) -> int:
        return self.samples(stage) // self.batch

    def window_of(self, domain: Domain) -> tuple[int, int]:
        """(y, x) of a window. ConfigurationError where it does not fit `domain` or the networks' levels."""
        shape = domain.shape if self.window == "domain" else (self.window, self.window)
        factor = 1 << (len(self.channel_mult) - 1)
        if any(side > whole for side, whole in zip(shape, domain.shape, strict=True)):
            raise ConfigurationError(
                f"preset {self.name}: windows of {shape} points, the domain {domain.name} has {domain.shape}: "
                "choose smaller windows"
            )
        if any(side < factor or side % factor for side in shape):
            raise ConfigurationError(
                f"preset {self.name}: windows of {shape} points, the networks need multiples of {factor}: "
                "choose other windows or fewer levels"
            )
        return shape

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, as a TOML file holds them."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        return values


def read_preset(name: str) -> Preset:
    """The preset `name` of this package, or that of a TOML file, which ends in .toml.

    Raises ConfigurationError for a name that is neither, a file that cannot be read, and every key that is unknown,
    missing or of another type.
    """
    if name in PRESETS:
        return preset_of(tomllib.loads((files(__package__) / "presets" / f"{name}.toml").read_text()), name)
    if not name.endswith(".toml"):
        raise ConfigurationError(f"no preset is called {name!r}: use {', '.join(PRESETS)} or FILE.toml")
    try:
        values = tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"preset {name}: {error}") from error
    return preset_of(values, name)


def preset_of(values: dict[str, Any], origin: str) -> Preset:
    """The preset that `values` describe, every key checked; `origin` is what an error calls it."""
    _refuse_keys(values, Preset, origin, "")
    if isinstance(values["defaults"], dict):
        _refuse_keys(values["defaults"], Sampling, origin, "defaults.")
    try:
        return _types().validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc']))} = {item['input']!r}: {item['msg']}" for item in error.errors()]
        raise ConfigurationError(f"preset {origin}: {'; '.join(wrong)}") from None
    except CorrdiffError as error:
        raise ConfigurationError(f"preset {origin}: {str(error).removeprefix(f'preset {origin}: ')}") from None


@cache
def _types() -> TypeAdapter[Preset]:
    return TypeAdapter(Preset)


def _refuse_keys(values: dict[str, Any], cls: Any, origin: str, prefix: str) -> None:
    known = {field.name for field in fields(cls)}
    needed = {field.name for field in fields(cls) if field.default is MISSING}
    missing, unknown = sorted(needed - set(values)), sorted(set(values) - known)
    if missing or unknown:
        told = [
            f"{what} {', '.join(prefix + name for name in names)}"
            for what, names in (("missing", missing), ("unknown", unknown))
            if names
        ]
        raise ConfigurationError(f"preset {origin}: {'; '.join(told)}; the keys are those of the preset demo")
