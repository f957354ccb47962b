"""The client of nats-py, and what it does not do as a log needs it."""

from typing import TYPE_CHECKING, Any

from unmissed.core.errors import ConfigurationError

if TYPE_CHECKING:
    from nats.aio.client import Client

UNLIMITED: dict[str, Any] = {"pending_msgs_limit": 0, "pending_bytes_limit": 0}
"""nats-py would drop messages over a limit. What arrives is limited by what was asked for."""


def new_client() -> "Client":
    """Return a client of nats-py. Raises ConfigurationError if it is not installed."""
    try:
        from nats.aio.client import Client  # noqa: PLC0415  # the package is optional
    except ImportError:
        raise ConfigurationError("a log at a nats:// URL needs nats-py: pip install 'unmissed[nats]'") from None

    class HeaderlessClient(Client):
        """Reads only the headers that are a status. The others take a sixth of all time, and nobody needs them."""

        async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
            if headers is None or not headers.startswith(b"NATS/1.0 "):
                return None
            try:
                parsed: dict[str, str] | None = await super()._process_headers(headers)
            except ValueError:
                return None  # Those of another program: reading would end with the connection.
            return parsed

    return HeaderlessClient()


def client_errors() -> tuple[type[Exception], ...]:
    """Return what a client raises when it cannot send."""
    from nats.errors import Error  # noqa: PLC0415  # the package is optional

    return Error, OSError


def abandon(client: "Client") -> None:
    """Discard what is unsent, and close the socket at once.

    nats-py would write the rest to a socket that is closed, fail, and leave its tasks running, or wait for a server
    that reads nothing.
    """
    client._pending.clear()  # noqa: SLF001
    client._pending_data_size = 0  # noqa: SLF001
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001
    if writer is not None:
        writer.transport.abort()


def uses_tls(client: "Client") -> bool:
    """Return whether the server has asked for TLS. nats-py encrypts only then, whatever the URL says."""
    return bool(client._server_info.get("tls_required"))  # noqa: SLF001
