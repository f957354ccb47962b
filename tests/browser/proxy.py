"""The fault proxy in a thread, for tests that have no event loop."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import TracebackType
from typing import Any, Self

from unmissed.lab.faults import ConnectionFault, NetworkFault
from unmissed.lab.proxy import FaultProxy


class InThread(ABC):
    """What serves in an event loop of its own, in a thread, while the context is open."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)
        self._stack = AsyncExitStack()

    @abstractmethod
    def serving(self) -> AbstractAsyncContextManager[Any]:
        """Serve while the context is open."""

    def __enter__(self) -> Self:
        self._thread.start()
        self.run(self._stack.enter_async_context(self.serving()))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the thread, and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)


class Proxy(InThread):
    """A network before a local port: ``with Proxy(port) as proxy:``. ``faults`` is the proxy itself."""

    def __init__(self, upstream_port: int) -> None:
        super().__init__()
        self.limit: int | None = None
        """After how many bytes of the server the next connections are cut."""
        self.faults = FaultProxy("127.0.0.1", upstream_port, draw=self._draw)

    @property
    def url(self) -> str:
        return self.faults.url

    def serving(self) -> AbstractAsyncContextManager[FaultProxy]:
        return self.faults.serving()

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

        self.run(acting())
