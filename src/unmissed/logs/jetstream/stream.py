"""The stream that stores a log: its settings, and what it holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from unmissed.core.errors import ConfigurationError, LogUnavailable
from unmissed.core.retention import Retention
from unmissed.logs.engine import Seen
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.filing import Filing
from unmissed.logs.jetstream.segments import Numbering

_FORMAT = "3"
_EPOCH_KEY = "unmissed-epoch"
_FORMAT_KEY = "unmissed-format"
_NUMBERING_KEY = "unmissed-numbers"
_RULES_KEY = "unmissed-rules"
_FILED_SINCE_KEY = "unmissed-filed-since"

_LEAST_MESSAGES = 10_000
"""Messages are also the receipts of their keys, so a stream holds more of them than a window."""

_HEADER_BYTES = 1_024
"""Upper bound of the bytes that the server stores with a message besides its body."""

_JUMP_SECONDS = 7_200.0
"""How far the clock of the server may jump before the stream discards messages and their keys early."""

_LEAST_AGE = 0.1
"""Seconds. JetStream accepts no shorter ``max_age``."""

_TOUCH_SECONDS = 3.0
"""A leader that has heard from most replicas within this time is the only one: they elect another after 4 seconds."""

_FIXED: dict[str, Any] = {
    "retention": "limits",
    "storage": "file",
    "discard": "old",
    "max_msgs_per_subject": -1,
    "max_msg_size": -1,
    "no_ack": False,
    "sealed": False,
    "allow_atomic": True,
}
_OPTIONS = {
    "subjects": "--subjects",
    "num_replicas": "--replicas",
    "discard": "--discard",
    "max_age": "--max-age",
    "max_msgs": "--max-msgs",
    "max_bytes": "--max-bytes",
    "max_msgs_per_subject": "--max-msgs-per-subject",
    "max_msg_size": "--max-msg-size",
    "no_ack": "--ack",
    "allow_atomic": "--allow-batch",
}
"""Settings that ``nats stream edit`` can change. All other settings need another stream."""


def settings(address: StreamAddress, retention: Retention, *, epoch: str, first_number: int) -> dict[str, Any]:
    """Return the settings of the stream for a new epoch."""
    max_messages = max(_LEAST_MESSAGES, 2 * retention.max_messages)
    return {
        **_FIXED,
        "name": address.name,
        "description": "Messages of unmissed",
        "num_replicas": address.replicas,
        "max_age": int((retention.max_age + _JUMP_SECONDS) * 1e9),
        "max_msgs": max_messages,
        "max_bytes": 2 * retention.max_bytes + max_messages * _HEADER_BYTES,
        # Nothing uses message ids. The default of two minutes would not allow a shorter max_age.
        "duplicate_window": int(_LEAST_AGE * 1e9),
        "first_seq": first_number,
        # Deleting a single message would leave a hole in the numbers.
        "deny_delete": True,
        **addressed(address.name, epoch, Numbering(), Filing(retention.rules), filed_since=first_number - 1),
    }


def addressed(name: str, epoch: str, numbering: Numbering, filing: Filing, *, filed_since: int) -> dict[str, Any]:
    """Return the settings that depend on the numbers of new messages, and on the rules by which they are filed.

    Epoch, offset and rules are parts of the subjects: the server refuses a message of a node that expects others.
    Messages up to the number ``filed_since`` may have been filed by other rules.
    """
    return {
        "subjects": [f"{name}.{epoch}.*.{numbering.last.offset}.{filing.name}.>"],
        "metadata": {
            _EPOCH_KEY: epoch,
            _FORMAT_KEY: _FORMAT,
            _NUMBERING_KEY: numbering.text,
            _RULES_KEY: filing.text,
            _FILED_SINCE_KEY: str(filed_since),
        },
    }


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What the server says about a stream at one time."""

    name: str
    epoch: str
    first_number: int
    numbering: Numbering
    filing: Filing
    filed_since: int
    """Messages up to this number may have been filed by other rules."""
    first_sequence: int
    first_offset: int
    last_sequence: int
    last_offset: int
    """The offsets between the sequences and the numbers of the oldest and of the newest message."""
    deleted: int
    """How many messages between the oldest and the latest are missing."""
    server_ms: float
    leader_is_certain: bool
    """Whether the server that answered is certain to be the leader still."""
    is_clustered: bool
    leader_run: str
    """Names the leader and the time since when it has been the leader, or is empty if the server does not say."""
    config: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, info: Mapping[str, Any], address: StreamAddress, retention: Retention) -> "StreamInfo":
        """Read an answer to ``STREAM.INFO``. Raises ConfigurationError if this node cannot use the stream."""
        config, state, cluster = info["config"], info["state"], info.get("cluster") or {}
        if info.get("cluster") is not None and not cluster.get("leader"):
            raise LogUnavailable(f"the stream {address.name} has no leader at the moment")
        metadata = _metadata(config, address.name)
        epoch, numbering = metadata[_EPOCH_KEY], Numbering.of(metadata[_NUMBERING_KEY])
        filing, filed_since = Filing.of(metadata[_RULES_KEY]), int(metadata[_FILED_SINCE_KEY])
        wanted = settings(address, retention, epoch=epoch, first_number=0)
        _check(config, wanted | addressed(address.name, epoch, numbering, filing, filed_since=filed_since))
        return cls(
            name=address.name,
            epoch=epoch,
            first_number=config.get("first_seq", 1),
            numbering=numbering,
            filing=filing,
            filed_since=filed_since,
            first_sequence=state["first_seq"],
            first_offset=numbering.number(state["first_seq"]) - state["first_seq"],
            last_sequence=state["last_seq"],
            last_offset=numbering.number(state["last_seq"]) - state["last_seq"],
            deleted=state.get("num_deleted", 0),
            server_ms=unix_ms_of(info["ts"]),
            leader_is_certain=_has_majority(config["num_replicas"], cluster.get("replicas") or ()),
            is_clustered="name" in cluster,
            leader_run=f"{cluster['leader']} {cluster['leader_since']}" if "leader_since" in cluster else "",
            config=config,
        )

    @property
    def is_empty(self) -> bool:
        """Whether no message is stored."""
        return self.last_sequence < self.first_sequence

    @property
    def newest(self) -> int:
        """The number of the newest message that is stored, or was."""
        return self.last_sequence + self.last_offset

    @property
    def latest(self) -> int:
        """The highest number that is used, or that is passed because messages are lost."""
        return max(self.newest, self.numbering.lost, self.first_number - 1)

    @property
    def oldest(self) -> int:
        """The number of the oldest message that is stored, or ``latest + 1``."""
        return self.latest + 1 if self.is_empty else self.first_sequence + self.first_offset

    @property
    def subjects(self) -> str:
        """What the subjects of this epoch begin with."""
        return f"{self.name}.{self.epoch}."

    def number_of(self, message: Mapping[str, Any]) -> int:
        """Return the number of the message in an answer to ``STREAM.MSG.GET``."""
        return int(message["seq"]) + int(message["subject"].split(".", 4)[3])

    def has_lost(self, seen: Seen, *, stored_ms: int | None) -> bool:
        """Return whether a message that was seen is lost, or its number would be used again.

        ``stored_ms`` is when the stored message with the number ``seen.latest`` was stamped, or None without one.
        """
        if self.epoch != seen.epoch:
            return seen.latest >= self.first_number
        if seen.latest > self.latest:
            return True
        return seen.unix_ms != 0 and stored_ms not in (None, seen.unix_ms)


def _metadata(config: Mapping[str, Any], name: str) -> Mapping[str, str]:
    metadata: Mapping[str, str] = config.get("metadata") or {}
    if _EPOCH_KEY not in metadata:
        raise ConfigurationError(
            f"UNMISSED_LOG_URL: the stream {name} belongs to another application: choose another ?name="
        )
    if metadata.get(_FORMAT_KEY) != _FORMAT:
        raise ConfigurationError(
            f"UNMISSED_LOG_URL: the stream {name} was created by another version, in format "
            f"{metadata.get(_FORMAT_KEY)} instead of {_FORMAT}: choose another ?name="
        )
    return metadata


def _check(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if this node cannot work with some settings. The text names all of them."""
    name = wanted["name"]
    # The server leaves out settings that are false.
    different = {
        key: wanted[key]
        for key in (*_FIXED, "subjects", "num_replicas", "max_age", "max_msgs", "max_bytes")
        if not _fits(key, config.get(key, False), wanted[key])
    }
    if config.get("mirror") or config.get("sources") or config.get("subject_transform"):
        different["sources"] = None
    if not different:
        return
    found = ", ".join(f"{key} is {config.get(key)} instead of {value}" for key, value in different.items())
    if different.keys() <= _OPTIONS.keys():
        options = " ".join(f"{_OPTIONS[key]}{_argument(key, value)}" for key, value in different.items())
        fix = f"run nats stream edit {name} {options}, or change the settings of this node"
    else:
        fix = f"run nats stream rm {name}, which deletes its messages, or choose another ?name="
    raise ConfigurationError(f"UNMISSED_LOG_URL: this node cannot use the stream {name}: {found}: {fix}")


def _fits(key: str, found: Any, wanted: Any) -> bool:
    """Return whether a setting is as wanted, or, for a limit, not lower. 0 and -1 mean no limit."""
    if key in ("max_age", "max_msgs", "max_bytes"):
        return bool(found <= 0 or found >= wanted)
    return bool(found == wanted)


def _argument(key: str, value: Any) -> str:
    if value is True or key == "no_ack":
        return ""
    if key == "max_age":
        return f"={value / 1e9:g}s"
    return f"={value[0] if isinstance(value, list) else value}"


def _has_majority(replicas: int, others: Any) -> bool:
    """Return whether the leader has heard from a majority recently, so that no other leader can exist."""
    in_touch = sum(
        bool(other.get("current") and not other.get("offline") and other.get("active", 0) < _TOUCH_SECONDS * 1e9)
        for other in others
    )
    return 2 * (1 + in_touch) > replicas


def unix_ms_of(text: str) -> float:
    """Return a time of the server, such as ``2026-01-31T12:00:00.123456789Z``, in Unix milliseconds."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return datetime.fromisoformat(f"{seconds}+00:00").timestamp() * 1000 + float(f"0.{fraction or 0}") * 1000
