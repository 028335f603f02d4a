"""The settings of dflow: few, each with a default that works, each from the environment if it is there.

A setting ``x`` is read from ``DFLOW_X``. `origins` tells where each value comes from.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from dflow.errors import ResultStoreError, SettingsError
from dflow.results.stores import url_of

PREFIX = "DFLOW_"
"""With what the names of settings begin in the environment, in upper or lower case."""


def _names(value: Any) -> Any:
    """Return the names in a text: a list in JSON, or names with commas between them."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return json.loads(value)
    return [name.strip() for name in value.split(",") if name.strip()]


class Settings(BaseSettings):
    """What can be set, with units in the descriptions."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    home: Path = Field(
        default=Path("~/.dflow"), description="the folder of the journal and of kept results"
    )
    durability: Literal["normal", "full"] = Field(
        default="normal",
        description="'normal' survives a killed process, 'full' also a power cut",
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="the lowest level of log lines that are recorded and shown"
    )
    extra_loggers: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        default=(),
        description="other loggers whose lines inside of a run are its log lines: names with commas",
    )
    task_runner: str = Field(
        default="dask-in-process",
        description="the runner of flows that name none: dask-in-process, dask, threads or inline",
    )
    small_result: int = Field(
        default=16_384,
        ge=0,
        le=1_000_000,
        description="bytes up to which a result is kept in the journal itself",
    )
    result_storage: str = Field(
        default="",
        description="a folder or a URL such as s3://bucket/results, where larger results are kept; "
        "without one the folder 'results' in DFLOW_HOME",
    )
    result_quota: int = Field(
        default=5_000_000_000,
        ge=0,
        description="bytes that a run may take of it for results that nobody has asked to be kept",
    )
    persist_seconds: float = Field(
        default=1.0,
        ge=0.0,
        description="seconds from which on a result is worth being kept, if nobody has said so",
    )
    stop_grace: float = Field(
        default=10.0,
        ge=0.0,
        description="seconds that running bodies get to stop when their flow has failed",
    )


def load() -> Settings:
    """Return the settings as the environment has them now. Raises `SettingsError`."""
    return _read(_surroundings())


def _surroundings() -> tuple[Any, ...]:
    """Return all that the settings are made from; while that is the same, so are they."""
    names = [name for name in os.environ if name[:6].upper() == PREFIX]
    ours = tuple((name, os.environ.get(name)) for name in names)
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # it was removed, which matters only to relative paths
        folder = None
    return ours, os.environ.get("HOME"), folder


@lru_cache(maxsize=8)
def _read(_surroundings: tuple[Any, ...]) -> Settings:
    try:
        settings = Settings()
    except ValidationError as error:
        lines = [
            f"DFLOW_{str(e['loc'][0]).upper()}={e['input']!r}: {e['msg']}" for e in error.errors()
        ]
        raise SettingsError(
            "A setting in the environment cannot be used: " + "; ".join(lines)
        ) from None
    home = settings.home.expanduser().absolute()
    try:
        storage = url_of(settings.result_storage or home / "results")
    except ResultStoreError as error:
        raise SettingsError(
            f"A setting in the environment cannot be used: DFLOW_RESULT_STORAGE: {error}"
        ) from None
    return settings.model_copy(update={"home": home, "result_storage": storage})


def origins() -> dict[str, str]:
    """Return for each setting where its value comes from: an environment variable, or the default."""
    return {
        name: f"DFLOW_{name.upper()}" if f"DFLOW_{name.upper()}" in os.environ else "default"
        for name in Settings.model_fields
    }
