"""The settings of a run: one frozen object, from the environment (`CORRDIFF_...`) and from a run's own options."""

import os
from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from corrdiff_core.credentials import refuse_credentials
from corrdiff_core.cycle import Clock
from corrdiff_core.errors import ConfigurationError
from corrdiff_core.sources import SOURCES

PREFIX = "CORRDIFF_"

Parsed = TypeVar("Parsed")


class Settings(BaseSettings):
    """Every field is the environment variable `CORRDIFF_<FIELD>`, a flow parameter and an option of `corrdiff`.

    An option given to a run beats the environment, which beats the defaults. None leaves the choice to the checkpoint's
    manifest (members, steps, solver), to the source (its URL) or to the machine (device).
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True)

    archive: str = Field("./archive", min_length=1, description="directory or fsspec URL of the archive")
    models: str = Field("./models", min_length=1, description="directory or fsspec URL of the model registry")
    model: str | None = Field(
        None,
        description="checkpoint: name or name@version in the registry, path or URL; the demo checkpoint by default",
    )
    dataset: str | None = Field(
        None, description="samples to train on: what `corrdiff dataset build` made, or the CWA's"
    )
    runs: str = Field("./runs", min_length=1, description="directory of trainings under way")
    source: str = Field("gfs", description="where the weather comes from")
    source_url: str | None = Field(
        default_factory=lambda given: os.environ.get(_url_variable(given.get("source", ""))) or None,
        description="root of the source's files: CORRDIFF_GFS_URL for gfs; where they are published by default",
    )
    cache: str = Field("./cache", min_length=1, description="directory for what is cut out of large files once (ERA5)")
    hours: int = Field(13, ge=1, le=241, description="valid hours in a window; 13 as CWA's RWRF")
    members: int | None = Field(None, ge=1, le=10000)
    steps: int | None = Field(None, ge=2, le=1000, description="sampler steps")
    solver: Literal["heun", "euler"] | None = None
    seed: int = Field(0, ge=0)
    wait: float = Field(0.0, ge=0, le=600, description="minutes to wait for a cycle that is still arriving")
    fallback: bool = Field(True, description="whether the previous cycle may stand in for one that is late")
    batch: int | None = Field(None, ge=1, description="members sampled at once; as many as fit in memory by default")
    device: str | None = Field(None, description="torch device; CUDA when there is one")
    ahead: int = Field(4, ge=1, le=256, description="slots of a backfill that are fetched while one is sampled")
    dask: str | None = Field(None, description="address of a Dask scheduler; threads of this process by default")
    home: str | None = Field(None, description="checkout that workers run the flows from; read by prefect.yaml")

    keep: str | None = Field(None, description="age up to which forecasts stay, such as 30d; all of them by default")
    truth: str | None = Field(None, description="what the archive is verified against: 2-km truth, or era5")
    alert_url: SecretStr | None = Field(None, description="where alerts are posted to, for `ops bootstrap`")
    clock: str | None = Field(None, description="NOMINAL@REAL[xSPEED]: replays the past, by the schedule")

    @field_validator("clock")
    @classmethod
    def _refuse_no_clock(cls, text: str | None) -> str | None:
        if text is not None:
            Clock.parse(text)
        return text

    @property
    def time(self) -> Clock:
        """The clock that this run goes by."""
        return Clock() if self.clock is None else Clock.parse(self.clock)

    @model_validator(mode="after")
    def _refuse_misspelt_environment(self) -> "Settings":
        known = {f"{PREFIX}{name}".upper() for name in type(self).model_fields} | set(map(_url_variable, SOURCES))
        strays = sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)
        if strays:
            raise ValueError(
                f"{', '.join(strays)} in the environment: no such setting; known are {', '.join(sorted(known))}"
            )
        return self

    @model_validator(mode="after")
    def _refuse_credentials(self) -> "Settings":
        for name, value in self:
            if isinstance(value, str):
                try:
                    refuse_credentials(value)
                except ConfigurationError as error:
                    raise ValueError(f"{name}: {error}") from None
        return self

    @classmethod
    def of(cls, **options: Any) -> "Settings":
        """The settings with those of `options` that are not None; ConfigurationError names each that makes no sense.

        >>> Settings.of(members=4, hours=None).members
        4
        """
        try:
            return cls(**{name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            raise ConfigurationError("; ".join(_in_words(problem) for problem in error.errors())) from None


def parsed(parse: Callable[[str], Parsed], text: str) -> Parsed:
    """`parse` of an option's text; ConfigurationError where that makes no sense."""
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _url_variable(source: str) -> str:
    """The environment variable that says where a source lies, whatever its member."""
    return f"{PREFIX}{source.partition('-')[0]}_URL".upper()


def _in_words(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0])
    return f"{name} = {problem['input']!r} (option or {PREFIX}{name.upper()}): {message}"
