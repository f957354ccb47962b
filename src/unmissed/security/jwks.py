"""The keys of an identity provider: loaded from its JWK Set, refreshed, and kept while the provider is away."""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Self

from unmissed.core.encoding import decode_json
from unmissed.core.errors import ConfigurationError, InvalidToken, ProviderUnavailable
from unmissed.retrying import Backoff
from unmissed.security.jwks_sources import Fetch, checked_url, content_of
from unmissed.security.keys import PUBLIC_KEY_ALGORITHMS, KeySet, ProviderKey
from unmissed.tasks import end

MAX_UNKNOWN = 1_000
"""Most ids that are remembered as unknown. Beyond that, the oldest is forgotten."""

_FIRST_RETRY = 5.0
"""Seconds between two loads that tokens lead to, while no key is known and nothing loads them from time to time."""

_UNKNOWN_KEY = "the token's key is not one of the identity provider's: get a new token"

logger = logging.getLogger("unmissed")

Load = Callable[[], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class LoadTiming:
    """When the keys are loaded, in seconds."""

    refresh: float = 600.0
    """Between two loads while nothing asks for one."""
    unknown: float = 60.0
    """Between two loads because of unknown ids, which anyone can send."""
    load: float = 10.0
    """The longest duration of a load."""
    retry: float = 30.0
    """The longest pause after a load that failed."""


TIMING = LoadTiming()


class Jwks:
    """The keys of one provider. ``load`` returns its JWK Set, and ``location`` names it in logs.

    ``removed`` is called when a key is gone that was there before. ``clock`` returns monotonic seconds.
    """

    def __init__(
        self,
        location: str,
        load: Load,
        *,
        algorithms: Collection[str] = PUBLIC_KEY_ALGORITHMS,
        removed: Callable[[], None],
        timing: LoadTiming = TIMING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._location = location
        self._read = load
        self._algorithms = _checked_algorithms(algorithms)
        self._removed = removed
        self._timing = timing
        self._clock = clock
        self._keys: tuple[ProviderKey, ...] = ()
        self._by_id: dict[str | None, list[ProviderKey]] = {}
        self._loaded = False
        self._failure: str | None = None
        """Why the last load failed."""
        self._ignored: tuple[str, ...] = ()
        self._backoff = Backoff(first=1.0, most=timing.retry)
        self._loading: asyncio.Task[None] | None = None
        self._may_load_at = -math.inf
        """When an unknown id may lead to a load again."""
        self._unknown: dict[str | None, float] = {}
        """Ids that the provider did not have, and until when that is certain."""
        self._kept_fresh = False
        self._old_at = math.inf

    @classmethod
    def at(cls, source: str | Path, *, algorithms: Collection[str], removed: Callable[[], None]) -> Self:
        """Return the keys at a URL, which are not loaded yet, or in a file. Raises ConfigurationError."""
        if isinstance(source, Path):
            try:
                _usable(content_of(source), algorithms=_checked_algorithms(algorithms))
            except (OSError, ValueError) as error:
                raise ConfigurationError(f"UNMISSED_JWKS_FILE cannot be used: {error}") from None
            load: Load = partial(asyncio.to_thread, content_of, source)
            return cls(str(source), load, algorithms=algorithms, removed=removed)
        return cls(checked_url(source), Fetch(source), algorithms=algorithms, removed=removed)

    @property
    def problem(self) -> str | None:
        """Why no key is known, as a public text, or None, also where the first token leads to the first load."""
        return None if self._loaded or not self._kept_fresh else str(ProviderUnavailable())

    def find(self, key_id: str | None) -> Sequence[ProviderKey] | None:
        """Return the keys with this id, or None if the provider must be asked. Raises InvalidToken."""
        # Most providers name their keys. With one key, nothing has to be chosen.
        if self._loaded and len(self._keys) == 1 and None in {key_id, self._keys[0].id}:
            return self._keys
        if self._loaded and key_id is None:
            raise InvalidToken("the token has no kid, and the identity provider has several keys")
        return self._by_id.get(key_id)

    async def look_up(self, key_id: str | None) -> Sequence[ProviderKey]:
        """Return the keys with this id, after loading them again.

        Raises InvalidToken if the provider does not have it, and ProviderUnavailable if that cannot be known now: a
        client that is refused gives up, and one that is asked to come back does so.
        """
        now = self._clock()
        if now < self._unknown.get(key_id, now):
            raise InvalidToken(_UNKNOWN_KEY)
        if self._loading is None:
            if now < self._may_load_at:
                raise ProviderUnavailable(loaded=self._loaded)
            self._may_load_at = now + (self._timing.unknown if self._loaded or self._kept_fresh else _FIRST_RETRY)
        await self._load_once()
        keys = self.find(key_id)
        if keys is None and self._failure is None:
            self._note_unknown(key_id)
            raise InvalidToken(_UNKNOWN_KEY)
        if keys is None:
            raise ProviderUnavailable(loaded=self._loaded)
        return keys

    def _note_unknown(self, key_id: str | None) -> None:
        self._unknown.pop(key_id, None)
        self._unknown[key_id] = self._clock() + self._timing.unknown
        if len(self._unknown) > MAX_UNKNOWN:
            del self._unknown[next(iter(self._unknown))]

    async def load(self) -> str:
        """Load the keys now, and return a line about them. Raises ConfigurationError, with the reason."""
        await self._load_once()
        if self._failure is not None:
            raise ConfigurationError(f"the keys at {self._location} cannot be loaded: {self._failure}")
        names = ", ".join(sorted(f"{key.id or 'without kid'} ({'/'.join(key.by_algorithm)})" for key in self._keys))
        ignored = f"; ignored: {'; '.join(self._ignored)}" if self._ignored else ""
        return f"{len(self._keys)} keys at {self._location}: {names}{ignored}"

    @asynccontextmanager
    async def kept_fresh(self) -> AsyncIterator[None]:
        """Load the keys, and then load them again from time to time. A provider that is away delays the start only."""
        if self._kept_fresh:
            yield
            return
        self._kept_fresh = True
        await self._load_once()
        refreshing = asyncio.create_task(self._refresh())
        try:
            yield
        finally:
            self._kept_fresh = False
            await end(refreshing)
            if self._loading is not None:
                await end(self._loading)

    def refresh_if_old(self) -> None:
        """Load old keys again beside other work, where ``kept_fresh`` is not entered, as in mounted applications."""
        if self._kept_fresh or self._loading is not None or self._clock() < self._old_at:
            return
        # A thread has no event loop. The next token on one leads to the load.
        with suppress(RuntimeError):
            self._loading = asyncio.get_running_loop().create_task(self._load())

    async def _refresh(self) -> None:
        while True:
            failed = self._failure is not None
            await asyncio.sleep(self._backoff.failed(random.random()) if failed else self._timing.refresh)
            await self._load_once()

    async def _load_once(self) -> None:
        """Load the keys, or wait for the load that is running."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        # A request that is cancelled does not cancel the load, for which others wait.
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        """Replace the keys. If that fails, those of the last answer stay: a provider may be away for hours."""
        try:
            async with asyncio.timeout(self._timing.load):
                found = _usable(await self._read(), algorithms=self._algorithms)
        except TimeoutError:
            self._failed(f"no answer within {self._timing.load:g} seconds")
        except (OSError, ValueError) as error:
            self._failed(str(error) or type(error).__name__)
        except Exception as error:
            logger.exception("loading the keys at %s failed", self._location)
            self._failed(repr(error))
        else:
            self._succeeded(found)
        finally:
            self._loading = None
            self._old_at = self._clock() + (self._timing.refresh if self._failure is None else self._timing.retry)

    def _failed(self, reason: str) -> None:
        if self._failure is None:
            kept = "those of the last answer are used" if self._loaded else "no token can be verified until they are"
            logger.error("the keys at %s cannot be loaded, and %s: %s", self._location, kept, reason)
        self._failure = reason

    def _succeeded(self, found: KeySet) -> None:
        if self._failure is not None:
            logger.warning("the keys at %s can be loaded again", self._location)
        if found.ignored != self._ignored:
            logger.warning("ignoring keys at %s: %s", self._location, "; ".join(found.ignored) or "none any longer")
        if not self._loaded:
            # The first load is for any key, and no reason to wait for the next one.
            self._may_load_at = -math.inf
        gone = {(key.id, key.material) for key in self._keys} - {(key.id, key.material) for key in found.keys}
        self._keys, self._ignored, self._loaded, self._failure = found.keys, found.ignored, True, None
        self._by_id = {key.id: [each for each in found.keys if each.id == key.id] for key in found.keys}
        self._backoff.succeeded()
        if gone:
            self._removed()


def _usable(content: bytes, *, algorithms: Collection[str]) -> KeySet:
    """Return a set with at least one key. Raises ValueError."""
    found = KeySet.of(decode_json(content), algorithms=algorithms)
    if not found.keys:
        raise ValueError("it has no key that can be used: " + ("; ".join(found.ignored) or "it is empty"))
    return found


def _checked_algorithms(algorithms: Collection[str]) -> Collection[str]:
    for each in algorithms:
        if each not in PUBLIC_KEY_ALGORITHMS:
            raise ConfigurationError(
                f"{each} is not an algorithm for the keys of a provider: use {', '.join(PUBLIC_KEY_ALGORITHMS)}"
            )
    return algorithms
