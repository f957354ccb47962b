"""The fault proxy in a thread, for tests that have no event loop."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

from unmissed.lab.faults import ConnectionFault, NetworkFault
from unmissed.lab.proxy import FaultProxy


class Proxy:
    """A network before a local port: ``with Proxy(port) as proxy:``. ``faults`` is the proxy itself."""

    def __init__(self, upstream_port: int) -> None:
        self.limit: int | None = None
        """After how many bytes of the server the next connections are cut."""
        self.faults = FaultProxy("127.0.0.1", upstream_port, draw=self._draw)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._stack = AsyncExitStack()

    @property
    def url(self) -> str:
        return self.faults.url

    def __enter__(self) -> Self:
        self._thread.start()
        self._run(self._stack.enter_async_context(self.faults.serving()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut(self) -> None:
        """Cut all connections."""
        self._call(self.faults.cut)

    def silence(self) -> None:
        """From now on, discard what the server sends on the connections that are open."""
        self._call(self.faults.silence)

    def _draw(self) -> ConnectionFault | None:
        return None if self.limit is None else ConnectionFault(NetworkFault.CUT, False, self.limit, 0.0)  # noqa: FBT003

    def _call(self, act: Callable[[], None]) -> None:
        async def acting() -> None:
            act()

        self._run(acting())

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)
