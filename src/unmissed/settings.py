"""Everything that can be set: ``UNMISSED_*`` environment variables, read and checked once."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import MESSAGE_OVERHEAD, STAMP_BYTES
from unmissed.core.window import Retention

PREFIX = "UNMISSED_"
CLIENT_VARIABLES = frozenset({"UNMISSED_URL", "UNMISSED_TOKEN"})
"""Read by the command line's clients, not by the server."""

_ORIGIN = re.compile(r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^\s/*?#]+(:\*)?/?")
_MIN_SECRET_BYTES = 32
_PUBLIC_KEY_ALGORITHMS = ("RS", "ES", "PS")

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Everything that can be set. Each field is ``UNMISSED_<NAME>`` and a flag of ``unmissed serve``."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    jwt_secret: SecretStr | None = Field(
        None, description="Key that tokens are signed with; a PEM public key for RS/ES."
    )
    jwt_secret_file: Path | None = Field(None, description="File that holds the key, instead of JWT_SECRET.")
    jwt_algorithm: Algorithm = Field("HS256", description="The only signature algorithm that is accepted.")
    jwt_audience: str | None = Field(None, description="Required value of the aud claim.")
    jwt_issuer: str | None = Field(None, description="Required value of the iss claim.")
    max_messages: Count = Field(500, description="Messages that the log keeps.")
    max_age: Seconds = Field(900.0, description="Seconds that the log keeps a message.")
    max_bytes: Count = Field(33_554_432, description="Bytes that the log keeps.")
    max_message_bytes: Count = Field(65_536, description="Bytes of JSON in one published message.")
    heartbeat_seconds: Seconds = Field(25.0, description="Seconds between two heartbeats of a connection.")
    stall_seconds: Seconds = Field(30.0, description="Seconds after which a client that takes nothing is dropped.")
    drain_seconds: Seconds = Field(5.0, description="Seconds that a stop may take, and that clients come back within.")
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Origins of browser pages, by commas; * is any, http://localhost:* any port. Default: same host.",
    )
    allow_query_token: bool = Field(default=False, description="Accept ?token= on the WebSocket URL.")
    max_connections: Count | None = Field(None, description="WebSockets in all.")
    max_connections_per_user: Count | None = Field(None, description="WebSockets of one user.")
    log_url: Literal["memory:"] = Field("memory:", description="Where the log lives.")

    @classmethod
    def load(cls, **values: object) -> Self:
        """Return the settings of the environment, with these values instead where given.

        Raises ConfigurationError, whose text names each variable that is wrong and what it should be.
        """
        try:
            return cls(**values)  # type: ignore[arg-type]  # pydantic checks the values
        except ValidationError as error:
            raise ConfigurationError(
                "\n".join(_explain(detail["loc"], detail["msg"]) for detail in error.errors())
            ) from None

    @field_validator("allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("allowed_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if not _ORIGIN.fullmatch(origin):
                raise ValueError(f"{origin!r} is not an origin: write https://app.example.com, http://localhost:* or *")
        return origins

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        least = self.max_message_bytes + STAMP_BYTES + MESSAGE_OVERHEAD
        if self.max_bytes < least:
            raise ValueError(f"UNMISSED_MAX_BYTES must be at least {least}: the log must hold the largest message")
        return self

    def key(self) -> str:
        """Return the key that tokens are verified with. Raises ConfigurationError when there is none, or a weak one."""
        secret = self._secret()
        if not self.jwt_algorithm.startswith(_PUBLIC_KEY_ALGORITHMS) and len(secret.encode()) < _MIN_SECRET_BYTES:
            raise ConfigurationError(
                f"UNMISSED_JWT_SECRET has {len(secret.encode())} bytes and needs at least {_MIN_SECRET_BYTES}: "
                "make one with: openssl rand -base64 48"
            )
        return secret

    def retention(self) -> Retention:
        """Return how much the log keeps."""
        return Retention(max_messages=self.max_messages, max_age=self.max_age, max_bytes=self.max_bytes)

    def _secret(self) -> str:
        if self.jwt_secret is not None and self.jwt_secret_file is not None:
            raise ConfigurationError("UNMISSED_JWT_SECRET and UNMISSED_JWT_SECRET_FILE are both set: keep one")
        if self.jwt_secret is not None:
            return self.jwt_secret.get_secret_value()
        if self.jwt_secret_file is None:
            raise ConfigurationError(
                "UNMISSED_JWT_SECRET is not set: give it at least 32 random bytes (openssl rand -base64 48), "
                "or try the server out with: unmissed serve --dev"
            )
        try:
            return self.jwt_secret_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(f"UNMISSED_JWT_SECRET_FILE cannot be read: {error}") from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ``UNMISSED_*`` variables that mean nothing, such as misspelt ones."""
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    return sorted(name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known)


def _explain(location: tuple[int | str, ...], message: str) -> str:
    name = f"{PREFIX}{str(location[0]).upper()}: " if location else ""
    return f"{name}{message.removeprefix('Value error, ')}"
