"""Builds the drafts of a batch without blocking the event loop for long."""

from collections.abc import Iterable, Mapping
from typing import Any

from unmissed.core.errors import InvalidMessage, MessageTooLarge
from unmissed.core.messages import Draft
from unmissed.core.window import Retention
from unmissed.tasks import Pace


async def drafts_of(
    messages: Iterable[Mapping[str, Any]], *, max_message_bytes: int, retention: Retention
) -> list[Draft]:
    """Check and encode the messages of a batch, and let others run every 5 ms.

    Raises InvalidMessage, also for no messages and for more than the log retains.
    """
    drafts, size, pace = list[Draft](), 0, Pace()
    for message in messages:
        drafts.append(Draft.of(message, max_bytes=max_message_bytes))
        size += drafts[-1].size_in_log
        if size > retention.max_bytes:
            raise MessageTooLarge("the batch, which must fit in the log,", limit=retention.max_bytes)
        if len(drafts) > retention.max_messages:
            break
        await pace.keep()
    if not 0 < len(drafts) <= retention.max_messages:
        raise InvalidMessage(f"a batch has 1 to {retention.max_messages} messages, as many as the log retains")
    return drafts
