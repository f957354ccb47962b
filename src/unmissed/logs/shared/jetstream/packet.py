"""Packets to a NATS server, and the errors in its answers."""

import json
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unmissed.logs.shared.jetstream.body import Body, decode_body

NO_RESPONDERS = 503
"""In place of an error code: nobody answers requests to this subject."""


@dataclass(frozen=True, slots=True)
class Packet:
    """A message to the server, which answers it if ``answered``."""

    subject: str
    body: bytes
    headers: dict[str, str] | None = None
    answered: bool = True


def api_request(subject: str, body: Mapping[str, Any] | None = None) -> Packet:
    """Return a request to the JetStream API, such as ``STREAM.INFO.unmissed``."""
    return Packet(f"$JS.API.{subject}", b"" if body is None else json.dumps(body).encode())


def error_code(answer: Mapping[str, Any]) -> int | None:
    """Return JetStream's number for the error that an answer reports, or None."""
    error = answer.get("error")
    return None if error is None else error.get("err_code", error.get("code", 0))


def error_text(answer: Mapping[str, Any]) -> str:
    """Return what an answer says about its error."""
    return f"JetStream: {answer['error'].get('description', 'unknown error')}"


def stored_body(message: Mapping[str, Any]) -> Body | None:
    """Return the body in an answer to ``STREAM.MSG.GET``, or None if it is not one of unmissed."""
    try:
        return decode_body(b64decode(message.get("data", "")))
    except ValueError:
        return None
