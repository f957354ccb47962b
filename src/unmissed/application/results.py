"""The answers to commands by id, so that a repeated command gets its first answer, and does not run again."""

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from unmissed.core.errors import CommandError, TooManyRequests
from unmissed.core.receipts import MAX_KEYS, Keys, has_room, key_of_user

MAX_ANSWER_BYTES = 33_554_432
"""The most bytes of answers that are kept. The keys of the commands are kept longer, without their answers."""

MAX_RUNNING_OF_USER = 100
"""The most commands of one user that run, or wait for a thread, at a time."""

MAX_RUNNING_BYTES = 4_194_304
"""The most bytes of JSON that the running commands of all users have; a sixteenth of them of one user.

Values take up to 45 times the memory of their JSON, such as lists in lists.
"""

RUNNING_OVERHEAD = 1_000
"""Bytes that count for a running command besides its data."""

ANSWER_OVERHEAD = 800
"""Bytes that the first answer to a user takes besides its text: tracemalloc counts 760 on CPython 3.11."""

_FINGERPRINT_BYTES = 15


@dataclass(frozen=True, slots=True)
class _RunningCommand:
    """A command that is running."""

    fingerprint: bytes
    task: asyncio.Task[bytes]


class Results:
    """The commands that are running, and the finished ones, each for at least ``max_age`` seconds.

    If the answers of a user need more room than its share, its oldest ones are dropped. ``clock`` returns monotonic
    seconds.
    """

    def __init__(
        self,
        *,
        max_age: float,
        clock: Callable[[], float],
        max_keys: int = MAX_KEYS,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        max_running: int = MAX_RUNNING_OF_USER,
        max_running_bytes: int = MAX_RUNNING_BYTES,
    ) -> None:
        self._clock = clock
        self._max_running = max_running
        self._max_running_bytes = max_running_bytes
        self._running_of_user, self._running_bytes_of_user = Counter[str](), Counter[str]()
        self._running_bytes = 0
        self._done = Keys(max_age=max_age, max_keys=max_keys)
        self._answers = Answers(max_age=max_age, max_bytes=max_answer_bytes)
        self._running: dict[str, _RunningCommand] = {}

    async def once(
        self,
        user_id: str,
        command_id: str,
        run: Callable[[], Coroutine[Any, Any, bytes]],
        *,
        size: int,
        fingerprint: bytes,
    ) -> bytes:
        """Return the answer to this command: of an earlier run, of one that has not ended yet, or of a new one.

        ``run`` is called for a new command only, and may refuse it. The run continues when its caller is cancelled. The
        data have ``size`` bytes. Raises CommandError when the id was used with another fingerprint, or the answer was
        dropped. Raises TooManyRequests when the id of a new command could not be remembered, or too many commands of
        the user are running or waiting.
        """
        key, now = key_of_user(user_id, command_id), self._clock()
        running = self._running.get(key)
        known = running.fingerprint if running else self._done.find(key, now=now)
        fingerprint = fingerprint[:_FINGERPRINT_BYTES]
        if known not in (None, fingerprint):
            raise CommandError("this id was used for another command: use a new id")
        if known and not running:
            answer = self._answers.get(user_id, key)
            if answer is None:
                raise CommandError("this command was done, and its answer is forgotten: it is not done again")
            return answer
        size += RUNNING_OVERHEAD
        self._check_running(user_id, size)
        if running is not None:
            # It holds its data, too, while it waits for the run of another caller.
            self._count_running(user_id, 1, size)
            try:
                # Shielded: other callers wait for the same run, or will ask for its answer.
                return await asyncio.shield(running.task)
            finally:
                self._count_running(user_id, -1, -size)
        self._done.check_room(key, now=now)
        # ``run`` may refuse the command here: then its id is not remembered, and may be used again.
        task = asyncio.create_task(run())
        # Before the command runs: what it does must be remembered, however it ends.
        self._done.keep(key, fingerprint, now=now)
        self._running[key] = _RunningCommand(fingerprint, task)
        self._count_running(user_id, 1, size)
        task.add_done_callback(lambda _: self._end(user_id, key, size))
        return await asyncio.shield(task)

    def cancel(self) -> None:
        """Cancel the commands that are running."""
        for run in self._running.values():
            run.task.cancel()

    def _check_running(self, user_id: str, size: int) -> None:
        mine = self._running_bytes_of_user[user_id] + size
        if (
            self._running_of_user[user_id] >= self._max_running
            or mine > self._max_running_bytes // 16
            or not has_room(mine=mine, used=self._running_bytes + size, total=self._max_running_bytes)
        ):
            raise TooManyRequests("too many commands are running", retry_after=1.0)

    def _count_running(self, user_id: str, count: int, size: int) -> None:
        self._running_bytes += size
        for counter, change in ((self._running_of_user, count), (self._running_bytes_of_user, size)):
            counter[user_id] += change
            if not counter[user_id]:
                del counter[user_id]

    def _end(self, user_id: str, key: str, size: int) -> None:
        run, now = self._running.pop(key), self._clock()
        self._count_running(user_id, -1, -size)
        if run.task.cancelled():
            return
        if self._done.find(key, now=now) is None:  # It has run for longer than ``max_age``.
            self._done.keep(key, run.fingerprint, now=now)
        self._answers.keep(user_id, key, run.task.result(), now=now)


@dataclass(slots=True)
class _AnswersOfUser:
    """The answers to one user, oldest first, each with the time of its end."""

    size: int = 0
    kept: dict[str, tuple[float, bytes]] = field(default_factory=dict)

    @property
    def newest(self) -> float:
        """When the newest of them was kept."""
        return next(reversed(self.kept.values()))[0]


class Answers:
    """The newest answers to each user: at most ``max_bytes`` to all users, of which each has a share.

    Answers older than ``max_age`` are dropped when a new answer is kept, to the same user or to another one.
    """

    def __init__(self, *, max_age: float, max_bytes: int) -> None:
        self._max_age = max_age
        self._max_bytes = max_bytes
        self._size = 0
        self._of_user = OrderedDict[str, _AnswersOfUser]()
        """By user. The one with the newest answer is at the end."""

    def get(self, user_id: str, key: str) -> bytes | None:
        """Return an answer, or None if it was dropped."""
        mine = self._of_user.get(user_id)
        return mine.kept[key][1] if mine and key in mine.kept else None

    def keep(self, user_id: str, key: str, answer: bytes, *, now: float) -> None:
        """Keep an answer. The oldest ones of its user make room for it; if there is still none, it is dropped."""
        mine = self._of_user.setdefault(user_id, _AnswersOfUser())
        self._of_user.move_to_end(user_id)
        mine.kept[key] = now, answer
        self._resize(mine, len(answer) + ANSWER_OVERHEAD)
        while mine.kept and not has_room(mine=mine.size - 1, used=self._size, total=self._max_bytes):
            self._drop_oldest(mine)
        self._drop_old(now - self._max_age)

    def _drop_old(self, until: float) -> None:
        """Drop answers of ``until`` or before: of the first users, which have no newer ones, and of the last user."""
        while self._of_user:
            user_id, first = next(iter(self._of_user.items()))
            if first.kept and first.newest > until:
                break
            del self._of_user[user_id]
            self._size -= first.size
        if self._of_user:
            last = next(reversed(self._of_user.values()))
            while last.kept and next(iter(last.kept.values()))[0] <= until:
                self._drop_oldest(last)

    def _drop_oldest(self, mine: _AnswersOfUser) -> None:
        _, answer = mine.kept.pop(next(iter(mine.kept)))
        self._resize(mine, -len(answer) - ANSWER_OVERHEAD)

    def _resize(self, mine: _AnswersOfUser, change: int) -> None:
        mine.size += change
        self._size += change
