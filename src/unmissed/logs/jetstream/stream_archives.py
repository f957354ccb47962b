"""Reading what the server keeps beyond the tail, for a node that starts."""

import asyncio
import contextlib
import secrets
from base64 import b64decode
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unmissed.core.errors import LogUnavailable
from unmissed.core.retention import Retention
from unmissed.logs.engine import Archive
from unmissed.logs.feed import Record
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.archive_streams import archive_streams
from unmissed.logs.jetstream.nats_connection import SOURCE, NatsConnection
from unmissed.logs.jetstream.packets import NO_MESSAGE, Packet, api_request, decode_body, error_code, error_text
from unmissed.logs.jetstream.stream import StreamInfo, unix_ms_of

if TYPE_CHECKING:
    from nats.aio.msg import Msg

_PULL_MESSAGES = 200
_SILENCE_SECONDS = 5.0

_LAG_SECONDS = 20.0
"""How long the archives may take to receive what the stream has. After a new epoch, the server needs 10 seconds."""

_LAG_PAUSE_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Kept:
    """A message in an archive: the parts of its subject there, without the epoch, and its record."""

    place: tuple[str, ...]
    record: Record


class StreamArchives:
    """Reads the archives of one stream, as far as they are below the number ``before``."""

    def __init__(
        self,
        connection: NatsConnection,
        stream: StreamInfo,
        address: StreamAddress,
        retention: Retention,
        *,
        before: int,
        lag_seconds: float = _LAG_SECONDS,
    ) -> None:
        self._connection = connection
        self._stream = stream
        self._before = before
        self._lag_seconds = lag_seconds
        self._configs = {
            config["name"].removeprefix(f"{address.name}-"): config for config in archive_streams(address, retention)
        }
        self._firsts = [stream.oldest]
        """The number of the oldest message in each stream."""
        self._is_old = False
        """Whether messages may be gone because they were too old."""
        self._knows_others = False
        """Whether the last message below the tail for keys without a rule is known, if there is one."""
        self._full = 0
        """The number through which messages may be gone because there was no room for them."""

    async def read(self) -> Archive:
        """Return what is retained, and what may be lost. Raises LogUnavailable if an archive is not filled in time."""
        read = {part: await self._read(part, config) for part, config in self._configs.items()}
        records: dict[int, Record] = {}
        lost: dict[str, int] = {}
        for part, messages in read.items():
            if part.startswith("rule-"):
                records.update({kept.record.number: kept.record for kept in messages})
        partial = frozenset(self._partial_values(read["values"], records))
        records |= {kept.record.number: kept.record for kept in read["values"] if _is_value(kept)}
        everyone, others = self._before - 1, None
        unknown = max(self._full, self._stream.filed_since, min(self._firsts) - 1 if self._is_old else 0)
        if "marks" in read:
            most = self._configs["marks"]["max_msgs_per_subject"]
            everyone = self._last_broadcast([kept for kept in read["marks"] if kept.place == ("b",)], most)
            mixed = [kept for kept in read["marks"] if kept.place == ("x",)]
            unknown = max(unknown, self._take_mixed(mixed, most, records, lost))
            others = self._last_other(read["others"], mixed) if self._knows_others else None
        below = self._before - 1
        return Archive(
            [records[number] for number in sorted(records) if number < self._before],
            {key: min(number, below) for key, number in lost.items()},
            everyone=min(everyone, below),
            others=None if others is None else min(others, below),
            unknown=min(unknown, below),
            partial=partial,
        )

    def _partial_values(self, kept: Sequence[_Kept], records: dict[int, Record]) -> Iterator[int]:
        """Yield the numbers of the values whose last piece is not retained."""
        pieces = {each.place[1]: each.record.number for each in kept if each.place[0] == "p"}
        for each in filter(_is_value, kept):
            number, last_piece = each.record.number, pieces.get(each.place[1], 0)
            if number < last_piece < self._before and last_piece not in records:
                yield number

    def _last_broadcast(self, kept: Sequence[_Kept], most: int) -> int:
        below = [each.record.number for each in kept if each.record.number < self._before]
        if below:
            return below[-1]
        return self._before - 1 if len(kept) >= most else 0

    def _last_other(self, kept: Sequence[_Kept], mixed: Sequence[_Kept]) -> int:
        """Return the number of the last message below the tail for a key that no rule is about."""
        filing = self._stream.filing
        numbers = [each.record.number for each in mixed if filing.has_unruled(each.record.draft.audience)]
        last = self._last_broadcast(kept, self._configs["others"]["max_msgs_per_subject"])
        return max([last, *(number for number in numbers if number < self._before)])

    def _take_mixed(self, kept: Sequence[_Kept], most: int, records: dict[int, Record], lost: dict[str, int]) -> int:
        """Count messages as lost for keys with a rule that do not decide about them. Return what is unknown."""
        for each in kept:
            number = each.record.number
            if number < self._before and number not in records:
                for key in self._stream.filing.other_ruled(each.record.draft.audience):
                    lost[key] = max(lost.get(key, 0), number)
        return kept[0].record.number - 1 if len(kept) >= most else 0

    def _gone(self, kept: Sequence[_Kept], info: Mapping[str, Any]) -> tuple[bool, int]:
        """Return whether messages may have become too old for an archive, and through which it had no room for them."""
        config = info["config"]
        age_ms = unix_ms_of(info["ts"]) - unix_ms_of(info["created"])
        is_full = 0 < config["max_bytes"] <= 2 * info["state"]["bytes"]
        return age_ms * 1e6 >= config["max_age"], kept[0].record.number - 1 if is_full and kept else 0

    async def _read(self, part: str, config: dict[str, Any]) -> list[_Kept]:
        """Return the messages of this epoch in one archive, after it has received what the stream has."""
        name = config["name"]
        await self._until_filled(name, config["sources"][0]["subject_transforms"])
        info = await self._asked(f"STREAM.INFO.{name}", None)
        kept = [each async for each in self._messages(name)]
        is_old, full = self._gone(kept, info)
        self._firsts += [each.record.number for each in kept[:1]]
        self._is_old |= is_old
        if part == "others":
            self._knows_others = not full
        else:
            self._full = max(self._full, full)
        return kept

    async def _until_filled(self, name: str, transforms: Sequence[Mapping[str, str]]) -> None:
        expected = max([await self._last_in_stream(transform["src"]) for transform in transforms])
        try:
            async with asyncio.timeout(self._lag_seconds):
                while await self._last_in_archive(name) < expected:
                    await asyncio.sleep(_LAG_PAUSE_SECONDS)
        except TimeoutError:
            reason = f"the stream {name} has not received in {self._lag_seconds:g} s what {self._stream.name} has"
            raise LogUnavailable(reason) from None

    async def _last_in_stream(self, filed: str) -> int:
        """Return the sequence of the last message of this epoch that an archive should have."""
        own, _, *rest = filed.split(".")
        answer = await self._last(self._stream.name, ".".join((own, self._stream.epoch, *rest)))
        return 0 if answer is None else int(answer["seq"])

    async def _last_in_archive(self, name: str) -> int:
        answer = await self._last(name, f"{self._stream.epoch}.>")
        if answer is None:
            return 0
        headers = b64decode(answer.get("hdrs", "")).decode(errors="replace")
        return int(headers.rpartition(f"{SOURCE}: ")[2].split(" ")[1])

    async def _last(self, name: str, subject: str) -> dict[str, Any] | None:
        answer = await self._asked(f"STREAM.MSG.GET.{name}", {"last_by_subj": subject}, unless=NO_MESSAGE)
        return answer.get("message")

    async def _asked(
        self, request: str, body: Mapping[str, Any] | None, *, unless: int | None = None
    ) -> dict[str, Any]:
        answer = await self._connection.ask(api_request(request, body))
        if error_code(answer) not in (None, unless):
            raise LogUnavailable(error_text(answer))
        return answer

    async def _messages(self, name: str) -> AsyncIterator[_Kept]:
        """Yield what an archive has of this epoch, oldest first."""
        consumer = secrets.token_hex(8)
        filtered = f"{self._stream.epoch}.>"
        config = {
            "name": consumer,
            "filter_subject": filtered,
            "deliver_policy": "all",
            "ack_policy": "none",
            "inactive_threshold": 60 * 10**9,
            "mem_storage": True,
            "num_replicas": 1,
        }
        created = await self._asked(
            f"CONSUMER.CREATE.{name}.{consumer}.{filtered}", {"stream_name": name, "config": config}
        )
        arrived: asyncio.Queue[Msg | None] = asyncio.Queue()
        inbox, unsubscribe = await self._connection.subscribe(arrived.put, on_end=lambda: arrived.put_nowait(None))
        try:
            left = created["num_pending"]
            while left > 0:
                pull = api_request(f"CONSUMER.MSG.NEXT.{name}.{consumer}", {"batch": min(left, _PULL_MESSAGES)})
                await self._connection.send(Packet(pull.subject, pull.body), reply=f"{inbox}.0")
                for _ in range(min(left, _PULL_MESSAGES)):
                    if (kept := self._kept(await self._next(arrived))) is not None:
                        yield kept
                left -= _PULL_MESSAGES
        finally:
            await unsubscribe()
            with contextlib.suppress(LogUnavailable):
                await self._connection.send(api_request(f"CONSUMER.DELETE.{name}.{consumer}"))

    async def _next(self, arrived: "asyncio.Queue[Msg | None]") -> "Msg":
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                message = await arrived.get()
        except TimeoutError:
            raise LogUnavailable(f"nothing is heard of the archives of {self._stream.name}") from None
        self._connection.check()
        if message is None or not message.reply:
            raise LogUnavailable(f"reading the archives of {self._stream.name} ended")
        return message

    def _kept(self, message: "Msg") -> _Kept | None:
        """Return an archived message, or None for one that cannot be read: it counts as lost."""
        parts = ((message.headers or {}).get(SOURCE) or "").split(" ")
        number = self._stream.number_of({"seq": parts[1], "subject": parts[-1]})
        try:
            body = decode_body(message.data)
        except ValueError:
            self._full = max(self._full, number)
            return None
        return _Kept(tuple(message.subject.split(".")[1:]), Record(number, body.unix_ms, body.log_ms, body.draft))


def _is_value(kept: _Kept) -> bool:
    """Return whether a message in the archive of values is a whole value. A tombstone is a message of its rule."""
    value = kept.record.draft.value
    return kept.place[0] == "v" and value is not None and not value.deleted
