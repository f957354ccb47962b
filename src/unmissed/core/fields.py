"""What the fields of frames contain: how each kind of value is described in JSON Schema, and how it is sent."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Self, get_type_hints

from unmissed.core.audience import MAX_TOPICS, TOPIC_PATTERN

MAX_SEQUENCE_NUMBER = 2**53 - 1
"""The largest integer that JavaScript holds exactly."""

REQUEST_ID_PATTERN = "^[!-~]{1,255}$"
"""What the id of a request looks like: a regular expression for documents."""

Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Content:
    """What a field contains: ``since: Annotated[int, NUMBER]``."""

    schema: Schema
    sent: Callable[[Any], object] | None = None
    """Returns the form in which a value is sent, or None to leave it out."""
    names: tuple[str, ...] = ()
    """The fields of the JSON, if they are not named as in Python."""

    def described(self, text: str) -> Self:
        """Return the same content with a description."""
        return replace(self, schema={**self.schema, "description": text})

    def named(self, *names: str) -> Self:
        """Return the same content for fields with these names in the JSON."""
        return replace(self, names=names)


@dataclass(frozen=True, slots=True)
class FrameField:
    """A field in the JSON of a frame. It may be absent unless it is ``required``."""

    name: str
    attribute: str
    content: Content
    required: bool


def fields_of(frame: type) -> list[FrameField]:
    """Return the fields of a dataclass whose fields are annotated with their content."""
    hints = get_type_hints(frame, include_extras=True)
    contents = [(each, *hints[each.name].__metadata__) for each in fields(frame)]
    return [
        FrameField(name, each.name, content, each.default is MISSING)
        for each, content in contents
        for name in content.names or (each.name,)
    ]


ANY = Content({})
TEXT = Content({"type": "string"})
INTEGER = Content({"type": "integer"})
NUMBER = Content({"type": "integer", "minimum": 0, "maximum": MAX_SEQUENCE_NUMBER})
"""A sequence number, or the position 0."""
BOOLEAN = Content({"type": "boolean"})
TRUE = Content({"type": "boolean"}, lambda value: value or None)
"""A flag, which is sent only if it is true."""
MESSAGES = Content({"type": "array", "items": {"type": "object"}})
REQUEST_ID = Content({"type": "string", "pattern": REQUEST_ID_PATTERN})
# The values of ``window.Outcome``. The window imports messages, and those import the reserved types of frames.
OUTCOME = Content({"enum": ["complete", "gap", "reset"]})
_TOPIC = {"type": "string", "pattern": TOPIC_PATTERN}
TOPICS = Content({"type": "array", "items": _TOPIC, "maxItems": MAX_TOPICS}, sorted)
