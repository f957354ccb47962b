"""Whether the server is shutting down, as far as an ASGI application can know."""

import signal


def server_stops() -> bool:
    """Return whether uvicorn has received SIGTERM. It waits for every response, and tells the application afterwards.

    Its signal handler is a method of the server. Other servers set a limit to the time that they wait.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, "should_exit", False) is True
