"""What can be set from outside, by environment variables that begin with ORDINAUT_.

`load_settings()` is the door: it answers with a `Settings`, or with one `Invalid` that names every
variable that is wrong. Nothing else in the program reads ORDINAUT_ variables, but for the secrets of
tasks (ordinaut/runtime/secrets.py).
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from ordinaut.domain.errors import Fault, Invalid
from ordinaut.runtime.redis_url import parse_redis_url

PREFIX = "ORDINAUT_"


class Settings(BaseSettings):
    """Every knob, with its unit. Durations are seconds, sizes are bytes unless a field says otherwise."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore", frozen=True)

    database_url: str = Field(
        "postgresql://postgres@localhost:5432/ordinaut",
        repr=False,
        min_length=1,
        description="PostgreSQL (15 or newer) that holds the log and the read tables; may carry a password.",
    )
    redis_url: str = Field(
        "redis://localhost:6379/0",
        repr=False,
        min_length=1,
        description="Server of the Redis protocol (6.2 or newer) for streams: redis://, rediss:// (TLS),"
        " redis+sentinel:// or redis+cluster://; may carry a password.",
    )
    pool_max: int = Field(10, ge=2, description="PostgreSQL connections each process may open, at the most.")
    connect_seconds: float = Field(
        10.0, gt=0, description="Longest wait for one new connection to PostgreSQL or Redis (seconds)."
    )

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8080, ge=0, le=65535, description="TCP port the API listens on; 0 takes a free one.")
    api_key: SecretStr | None = Field(
        None, description="First admin key; when unset `ordinaut dev` makes one and shows it once."
    )
    space: str = Field("default", min_length=1, description="Space (tenant) used where none is named.")
    max_body_bytes: int = Field(
        1024 * 1024, ge=1024, description="Largest request body the API accepts (bytes); more is a 413."
    )

    metrics_port: int | None = Field(
        None,
        ge=1,
        le=65535,
        description="TCP port (on `host`) of this process's own /metrics, whatever its roles; unset: none.",
    )

    catch_up_per_second: float = Field(
        100.0,
        ge=0.01,
        le=100_000,
        description="Runs, over all spaces, that begin to be caught up in one second at the most.",
    )

    queue_high_water: int = Field(
        100_000,
        ge=1,
        description="Runs that wait for workers from which on intake takes in nothing more.",
    )
    max_deliveries: int = Field(
        5,
        ge=3,
        le=1000,
        description="How often a stream entry is delivered without an end before it is a dead letter.",
    )

    worker_concurrency: int = Field(100, ge=1, description="Runs one worker process carries at once.")
    lease_seconds: float = Field(
        30.0, ge=1, description="How long a lease holds without a heartbeat before another worker takes over."
    )
    poll_seconds: float = Field(
        1.0, gt=0, description="Slow poll beneath every wake-up (seconds); a lost NOTIFY costs this much."
    )
    secrets_dir: Path | None = Field(
        None, description="Directory with a file for each secret: the workers read tasks', the API webhooks'."
    )
    drain_seconds: float = Field(
        25.0,
        ge=0,
        description="After SIGTERM, how long running steps may finish before they are handed back.",
    )

    log_format: Literal["console", "json"] = Field(
        "console", description="`console` for people, `json` for one JSON object a line; both on stderr."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is written."
    )
    log_stream_maxlen: int = Field(
        100_000,
        ge=1,
        description="Entries kept, about, in the Redis stream `ordinaut:log`; older ones are in SQL.",
    )

    data_dir: Path = Field(
        Path(".ordinaut"), description="Directory of `ordinaut dev`: the embedded servers' data and dev.json."
    )

    @field_validator("redis_url")
    @classmethod
    def _redis_url(cls, url: str) -> str:
        parse_redis_url(url)
        return url

    def given(self, field: str) -> bool:
        """Whether `field` was set by somebody (environment or argument) rather than left at its default."""
        return field in self.model_fields_set


def load_settings(**overrides: Any) -> Settings:
    """The settings from the environment, with `overrides` (None means: not overridden) above them.

    Raises `Invalid` with one fault per wrong variable, named as it is written in the environment.
    """
    try:
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except ValidationError as error:
        faults = []
        for problem in error.errors(include_url=False):
            field = str(problem["loc"][0]) if problem["loc"] else ""
            known = Settings.model_fields.get(field)
            hint = (known.description or "") if known else ""
            faults.append(Fault("", f"{PREFIX}{field.upper()} {_wrong(problem)}", hint))
        raise Invalid.all_of(faults) from None


_MUST = {
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than_equal": "at most {le:g}",
    "literal_error": "one of {expected}",
}
"""What a setting must be, by the kind of pydantic's error; none of these kinds is about a secret's value."""


def _wrong(problem: ErrorDetails) -> str:
    if problem["type"] == "string_too_short":
        return "must not be empty"
    must = _MUST.get(problem["type"])
    if must is None:
        return f"is not valid: {problem['msg'].removeprefix('Value error, ')}"
    return f"must be {must.format(**problem.get('ctx', {}))}, not {str(problem['input'])[:60]!r}"
