"""All settings: ``UNMISSED_*`` environment variables, read and checked once."""

import hmac
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from unmissed.core.audience import checked_grant
from unmissed.core.errors import ConfigurationError, InvalidTopic
from unmissed.core.messages import MESSAGE_OVERHEAD, STAMP_BYTES
from unmissed.core.retention import Retention, Rule, rules_from

PREFIX = "UNMISSED_"
CLIENT_VARIABLES = frozenset({"UNMISSED_URL", "UNMISSED_TOKEN"})
"""Read by the client commands, not by the server."""

_SERVICE_LINK = re.compile(
    r".*_(PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|SERVICE_HOST|SERVICE_PORT(_.*)?)", re.ASCII
)
"""Variables that Kubernetes sets in each pod for each service, among them a service with the name unmissed."""

_ORIGIN = re.compile(r"\*|[A-Za-z][A-Za-z0-9+.-]*://[^\s/*?#]+(:\*)?/?")
_MIN_SECRET_BYTES = 32
_NODE_KEY_LABEL = b"unmissed: notes between nodes"

Algorithm = Literal["HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
Names = Annotated[tuple[str, ...], NoDecode]
"""Separated by commas."""
FirstNumber = Annotated[int, Field(gt=0, le=2**52)]


class Settings(BaseSettings):
    """All settings. Each field is ``UNMISSED_<NAME>`` in the environment and a flag of ``serve``, except the secret."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=False)

    jwt_secret: SecretStr | None = Field(
        default=None, description="Key that verifies tokens; for RS and ES algorithms a public key as PEM."
    )
    jwt_secret_file: Path | None = Field(default=None, description="File with that key, instead of JWT_SECRET.")
    jwt_previous_secret: SecretStr | None = Field(
        default=None, description="Another key whose tokens are accepted, while JWT_SECRET is rotated."
    )
    jwt_previous_secret_file: Path | None = Field(
        default=None, description="File with that other key, instead of JWT_PREVIOUS_SECRET."
    )
    jwks_url: str | None = Field(
        default=None,
        description="URL of an identity provider's keys (a JWK Set), in place of JWT_SECRET: https, or http locally.",
    )
    jwks_file: Path | None = Field(
        default=None, description="File with a JWK Set, in place of JWKS_URL. It is read again every 10 minutes."
    )
    node_secret: SecretStr | None = Field(
        default=None,
        description="Secret that authenticates notes between the nodes of a log; by default derived from JWT_SECRET.",
    )
    jwt_algorithm: Algorithm = Field(
        default="HS256",
        description=(
            "The only signature algorithm that is accepted. With JWKS_URL or JWKS_FILE, the default is that of each "
            "key: RS256 to RS512, or ES256 to ES512."
        ),
    )
    jwt_audience: Names = Field(
        default=(), description="Comma-separated values, one of which must be in the aud claim."
    )
    jwt_ignore_audience: bool = Field(
        default=False, description="Accept tokens with an aud claim although no audience is configured."
    )
    jwt_issuer: Names = Field(default=(), description="Comma-separated values, one of which the iss claim must have.")
    scope_claim: Names = Field(
        default=("scope",),
        description="Comma-separated claims with scopes, such as permissions, or realm_access.roles in a nested one.",
    )
    topics_claim: str = Field(default="topics", description="Claim with the topics that the user may follow.")
    token_leeway: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = Field(
        default=0.0,
        description="Seconds for which a token is accepted after its exp; before its nbf and iat, at least 5.",
    )
    max_messages: Count = Field(default=500, description="Number of messages that the log retains.")
    max_age: Positive = Field(default=900.0, description="Seconds for which the log retains a message.")
    max_bytes: Count = Field(default=33_554_432, description="Bytes that the log retains.")
    retention: Annotated[tuple[Rule, ...], NoDecode] = Field(
        default=(),
        description=(
            "Comma-separated rules for topics, such as rooms.*=100/7d: the newest 100 messages of each topic that "
            "matches, for 7 days. @*=200/7d is for messages to one user. Others share MAX_MESSAGES and MAX_AGE."
        ),
    )
    presence: Names = Field(
        default=(),
        description=(
            "Comma-separated topics, or prefixes with a * at their end, whose followers are announced as messages: "
            "who comes, and who leaves."
        ),
    )
    presence_grace_seconds: Annotated[float, Field(ge=0, le=3_600, allow_inf_nan=False)] = Field(
        default=10.0,
        description="Seconds without a connection to any node after which a user has left a topic of PRESENCE.",
    )
    max_message_bytes: Count = Field(default=65_536, description="Largest published message in bytes of JSON.")
    first_number: Literal["clock"] | FirstNumber = Field(
        default="clock",
        description="First sequence number: clock (microseconds since 1970), or an integer, for tests only.",
    )
    heartbeat_seconds: Positive = Field(default=25.0, description="Seconds between two heartbeats of a connection.")
    stall_seconds: Positive = Field(
        default=30.0, description="Seconds after which a client that reads nothing is disconnected."
    )
    events_seconds: Positive = Field(
        default=3_600.0,
        description="Longest duration of an event stream in seconds, after which its client reconnects.",
    )
    drain_seconds: Positive = Field(
        default=5.0, description="Seconds for which a shutdown waits for clients, and within which they reconnect."
    )
    allowed_origins: Names = Field(
        default=(),
        description=(
            "Comma-separated origins that browsers may connect from; * allows any, http://localhost:* any port. "
            "Default: the server's own host."
        ),
    )
    allow_query_token: bool = Field(
        default=False, description="Accept ?token= in the URLs of WebSockets and event streams."
    )
    console: bool = Field(
        default=False, description="Serve /websocket/console/, which needs a token with the scope admin."
    )
    docs: bool = Field(default=True, description="Serve /docs and /openapi.json.")
    client_rate: Positive = Field(
        default=10.0,
        description=(
            "Requests a second that a user may send: publish, command, follow, unfollow and authenticate frames over "
            "all WebSockets, and commands and presence requests over HTTP."
        ),
    )
    client_burst: Count = Field(
        default=20, description="Requests that a user may send at once, over all WebSockets and HTTP together."
    )
    trace: bool = Field(
        default=False, description="Record publishes and recoveries as spans of OpenTelemetry, and continue traces."
    )
    max_connections: Count | None = Field(
        default=None, description="Maximum number of WebSockets and event streams in total."
    )
    max_connections_per_user: Count | None = Field(
        default=None, description="Maximum number of WebSockets and event streams per user."
    )
    log_url: str = Field(
        default="memory:",
        description=(
            "Where the log is stored: memory:, or a URL such as sqlite:unmissed.db, postgresql://host/database, "
            "redis://host, nats://host."
        ),
    )
    outbox_url: str = Field(
        default="",
        description=(
            "Where transactions publish if the log is in no PostgreSQL: a URL such as postgresql://host/database. "
            "Its messages are moved to the log."
        ),
    )
    publish_seconds: Positive = Field(
        default=2.0,
        description="Seconds for which publishing waits for a log that is unavailable, before it is refused.",
    )

    @classmethod
    def load(cls, **values: object) -> Self:
        """Return the settings from the environment, overridden by these values.

        Raises ConfigurationError. Its text names each invalid variable and states what is valid.
        """
        try:
            return cls(**values)  # type: ignore[arg-type]  # pydantic checks the values
        except ValidationError as error:
            raise ConfigurationError(_explain(error)) from None

    @model_validator(mode="before")
    @classmethod
    def _leave_out_what_is_empty(cls, values: dict[str, object]) -> dict[str, object]:
        """Treat an empty value as unset: compose files give one for a variable that is not set where they run."""
        return {name: value for name, value in values.items() if not isinstance(value, str) or value.strip()}

    @field_validator("allowed_origins", "jwt_audience", "jwt_issuer", "presence", "scope_claim", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("retention", mode="before")
    @classmethod
    def _read_rules(cls, value: object) -> object:
        if isinstance(value, Mapping):
            value = [f"{pattern}={limits}" for pattern, limits in value.items()]
        if not isinstance(value, str | list | tuple) or not all(isinstance(each, str) for each in value):
            return value
        try:
            # Two rules for one pattern are refused with all others in mind.
            return Retention(rules=rules_from(value)).rules
        except ConfigurationError as error:
            raise ValueError(str(error)) from None

    @field_validator("presence")
    @classmethod
    def _check_presence(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        try:
            return tuple(map(checked_grant, patterns))
        except InvalidTopic as error:
            raise ValueError(f"{error}; or a prefix with a * at its end, such as rooms.*") from None

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
        """Return the key of new tokens, or a public key. Raises ConfigurationError when it is missing or too short."""
        return self.keys()[0]

    def keys(self) -> tuple[str, ...]:
        """Return the key that signs tokens, or its public key, and then the previous one, if there is one.

        Raises ConfigurationError when the first is missing, or one is too short.
        """
        secret = self._secret_of("JWT_SECRET")
        if secret is None:
            raise ConfigurationError(
                "UNMISSED_JWT_SECRET is not set: set it to at least 32 random bytes (openssl rand -base64 48), "
                "or try the server with: unmissed serve --dev. If an identity provider issues your tokens, set "
                "UNMISSED_JWKS_URL"
            )
        previous = self._secret_of("JWT_PREVIOUS_SECRET")
        found = {"UNMISSED_JWT_SECRET": secret, "UNMISSED_JWT_PREVIOUS_SECRET": previous}
        given = {name: value for name, value in found.items() if value is not None}
        return tuple(given.values() if self.has_public_keys else (_checked(*each) for each in given.items()))

    def jwks_source(self) -> str | Path | None:
        """Return where an identity provider's keys are, or None without one. Raises ConfigurationError."""
        source = self.jwks_url or self.jwks_file
        if self.jwks_url and self.jwks_file:
            raise ConfigurationError("UNMISSED_JWKS_URL and UNMISSED_JWKS_FILE are both set: keep one")
        if source is not None and self._has_secret:
            raise ConfigurationError(
                "the keys of a provider (UNMISSED_JWKS_URL or _FILE) and UNMISSED_JWT_SECRET are both set: keep one. "
                "UNMISSED_NODE_SECRET authenticates the notes between nodes"
            )
        if source is not None and self._has_previous_secret:
            raise ConfigurationError(
                "UNMISSED_JWT_PREVIOUS_SECRET has no effect with the keys of a provider (UNMISSED_JWKS_URL or _FILE), "
                "which rotates them itself: remove it"
            )
        return source

    def node_keys(self) -> tuple[bytes, ...]:
        """Return the keys of notes between nodes, none without a secret. Raises ConfigurationError.

        The first one authenticates the notes of this node, and each is accepted from others. They are derived from
        NODE_SECRET, or else from the secrets of tokens, unless those are public keys.
        """
        if self.node_secret is not None:
            secrets: tuple[str, ...] = (_checked("UNMISSED_NODE_SECRET", self.node_secret.get_secret_value()),)
        elif self.has_public_keys or not self._has_secret:
            return ()
        else:
            secrets = self.keys()
        # The same secret signs tokens: no code of a note may be a signature.
        return tuple(hmac.digest(secret.encode(), _NODE_KEY_LABEL, "sha256") for secret in secrets)

    def environment(self, names: Iterable[str]) -> dict[str, str]:
        """Return the variables that give these settings to other code or another process, except those that are unset.

        They may contain the secret.
        """
        values = {name: getattr(self, name) for name in names}
        return {f"{PREFIX}{name.upper()}": _as_variable(value) for name, value in values.items() if value is not None}

    def log_retention(self) -> Retention:
        """Return how much the log retains."""
        return Retention(
            max_messages=self.max_messages, max_age=self.max_age, max_bytes=self.max_bytes, rules=self.retention
        )

    @property
    def has_keys(self) -> bool:
        """Whether a secret, a public key or a provider of keys is set."""
        return self._has_secret or self.jwks_url is not None or self.jwks_file is not None

    @property
    def has_public_keys(self) -> bool:
        """Whether tokens are verified with public keys, so that this server cannot issue any."""
        return self.jwks_source() is not None or not self.jwt_algorithm.startswith("HS")

    @property
    def _has_secret(self) -> bool:
        return self.jwt_secret is not None or self.jwt_secret_file is not None

    @property
    def _has_previous_secret(self) -> bool:
        return self.jwt_previous_secret is not None or self.jwt_previous_secret_file is not None

    def _secret_of(self, name: str) -> str | None:
        """Return the value of one of the secrets that may be in a file, or None. Raises ConfigurationError."""
        secret: SecretStr | None = getattr(self, name.lower())
        file: Path | None = getattr(self, f"{name.lower()}_file")
        if secret is not None and file is not None:
            raise ConfigurationError(f"UNMISSED_{name} and UNMISSED_{name}_FILE are both set: keep one")
        if secret is not None:
            return secret.get_secret_value()
        if file is None:
            return None
        try:
            return file.read_text().strip()
        except OSError as error:
            # Without the path, which may be a secret that was meant for the variable without _FILE.
            raise ConfigurationError(f"UNMISSED_{name}_FILE cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ConfigurationError(f"UNMISSED_{name}_FILE cannot be read: its content is not text") from None


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return the ``UNMISSED_*`` variables that are not settings, such as misspelled ones.

    Those that Kubernetes sets for its services are left out.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    return sorted(name for name in unknown if not _SERVICE_LINK.fullmatch(name))


def _checked(name: str, secret: str) -> str:
    """Return a secret. Raises ConfigurationError if it is too short."""
    if (size := len(secret.encode())) < _MIN_SECRET_BYTES:
        raise ConfigurationError(
            f"{name} has {size} bytes and needs at least {_MIN_SECRET_BYTES}: create one with: openssl rand -base64 48"
        )
    return secret


def _as_variable(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _explain(error: ValidationError) -> str:
    """Return one line for each invalid variable."""
    reasons: dict[str, list[str]] = {}
    for detail in error.errors():
        # Never the ``input`` of a detail, which may be a secret.
        variable = f"{PREFIX}{str(detail['loc'][0]).upper()}: " if detail["loc"] else ""
        reasons.setdefault(variable, []).append(detail["msg"].removeprefix("Value error, "))
    return "\n".join(variable + ", or ".join(messages) for variable, messages in reasons.items())
