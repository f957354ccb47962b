"""The default log: one process stamps, its memory keeps, a restart begins a new epoch."""

import os
import secrets
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePath

from unmissed.core.errors import ConfigurationError
from unmissed.core.messages import Draft, rfc3339
from unmissed.core.receipts import Receipt, Receipts
from unmissed.core.window import Retention, Window
from unmissed.logs.base import Publication

_SERVERS = {"uvicorn", "gunicorn", "hypercorn", "fastapi"}


class MemoryLog:
    """A log in this process's memory. ``clock`` (monotonic seconds) decides about age."""

    def __init__(
        self,
        *,
        retention: Retention | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._retention = retention or Retention()
        self._clock = clock
        self._wall_clock = wall_clock
        self._begin(appended=lambda: None)

    async def start(self, *, appended: Callable[[], None]) -> None:
        """Begin a new epoch with an empty window. Raises ConfigurationError in one of several workers."""
        refuse_several_workers(sys.argv, os.environ)
        self._begin(appended=appended)

    async def stop(self) -> None:
        """Let go of everything: what follows is another epoch."""
        self._begin(appended=lambda: None)

    def expire(self) -> None:
        """Evict messages and forget idempotency keys that are past ``max_age`` now."""
        now = self._clock()
        self.window.expire(now)
        self._receipts.expire(now)

    async def publish(self, drafts: Sequence[Draft], *, idempotency_key: str | None = None) -> Publication:
        """Stamp and append the drafts. It does not yield to the event loop, so a block is never interleaved."""
        now = self._clock()
        if idempotency_key and (known := self._receipts.find(idempotency_key, now=now)):
            return Publication(known, ())
        timestamp = rfc3339(self._wall_clock())
        first = self.window.latest + 1
        messages = tuple(
            draft.stamp(number, timestamp=timestamp, now=now) for number, draft in enumerate(drafts, start=first)
        )
        for message in messages:
            self.window.append(message)
        receipt = Receipt(first, len(messages), self.epoch, timestamp)
        if idempotency_key:
            self._receipts.keep(idempotency_key, receipt, now=now)
        self._appended()
        return Publication(receipt, messages)

    def _begin(self, *, appended: Callable[[], None]) -> None:
        self.epoch = secrets.token_urlsafe(9)
        self.window = Window(self._retention)
        self._receipts = Receipts(max_age=self._retention.max_age)
        self._appended = appended


def refuse_several_workers(arguments: Sequence[str], environment: Mapping[str, str]) -> None:
    """Raise ConfigurationError when the server's command line or environment asks for more than one worker.

    Each worker would number its own messages and keep its own log, so clients would miss messages in silence.
    The children of a server see its command line as their own ``sys.argv``.
    """
    program = PurePath(arguments[0] if arguments else "")
    if program.name == "__main__.py":
        program = program.parent
    asked = _workers(arguments[1:]) if program.stem in _SERVERS else []
    asked += _workers(environment.get("GUNICORN_CMD_ARGS", "").split())
    asked.append(environment.get("WEB_CONCURRENCY", "1"))
    if any(count.isdecimal() and int(count) > 1 for count in asked):
        raise ConfigurationError(
            "the memory log lives in one process and cannot be shared by several workers: "
            "run one worker (uvicorn --workers 1) and unset WEB_CONCURRENCY"
        )


def _workers(options: Sequence[str]) -> list[str]:
    parser = ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("-w", "--workers", action="append", nargs="?", const="", default=[])
    workers: list[str] = parser.parse_known_args(options)[0].workers
    return workers
