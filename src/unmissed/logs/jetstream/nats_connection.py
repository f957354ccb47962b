"""One connection to a NATS server, over nats-py: requests with answers, and inboxes."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any

from unmissed.core.errors import ConfigurationError, LogUnavailable
from unmissed.logs.jetstream.address import StreamAddress
from unmissed.logs.jetstream.packets import NO_RESPONDERS, Packet

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 5.0
_PING_SECONDS = 5
_FLUSH_SECONDS = 0.5
"""How long a server may take to receive what was sent before the connection is closed."""

_NO_LIMIT = 1 << 40
_PACKETS_IN_A_ROW = 50
"""Sending this many takes about half a millisecond."""

SOURCE = "Nats-Stream-Source"
"""The header of a message that the server has copied: its stream and sequence first, and its subject last."""

_UNLIMITED: dict[str, Any] = {"pending_msgs_limit": 0, "pending_bytes_limit": 0}
"""nats-py would drop messages over a limit. What arrives is limited by what was asked for."""


class NatsConnection:
    """A connection that is used until it is lost. Then it is closed, and another one opened.

    ``connect_seconds`` are the most that opening takes.

    nats-py must not reconnect by itself: it would keep messages that were reported as not stored, and send them later.
    """

    def __init__(self, address: StreamAddress, *, connect_seconds: float = _CONNECT_SECONDS) -> None:
        self.lost: str | None = None
        """Why this connection can no longer be used, or None."""
        self._address = address
        self._connect_seconds = connect_seconds
        self._label = address.label
        self._client = _new_client()
        self._complaint: str | None = None
        self._closed = asyncio.Event()
        self._answers: dict[str, asyncio.Future[Msg | None]] = {}
        self._tokens = map(str, count())
        self._on_end: list[Callable[[], None]] = []

    @property
    def version(self) -> tuple[int, int]:
        """The version of the server, such as (2, 12), or (0, 0) if it is no version."""
        version = self._client.connected_server_version
        try:
            return version.major, version.minor
        except ValueError:
            return 0, 0

    @property
    def server_id(self) -> str:
        """The name that the server has chosen when it started. After a restart, it has another one."""
        return str(self._client._server_info["server_id"])  # noqa: SLF001

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and body in one message."""
        return self._client.max_payload

    async def open(self) -> None:
        """Connect to one of the servers. Raises ConfigurationError if they refuse the credentials."""
        try:
            async with asyncio.timeout(self._connect_seconds):
                await self._client.connect(**self._options())
                # With credentials, ``_secret`` has refused a server without TLS already; without any, this does.
                if self._address.tls:
                    self._require_tls()
                if self._client.connected_url is not None:
                    self._label = f"nats://{self._client.connected_url.netloc}"
                self._inbox = self._client.new_inbox()
                await self._client.subscribe(f"{self._inbox}.*", cb=self._answered, **_UNLIMITED)
        except asyncio.CancelledError:
            await self.close()
            raise
        except Exception as error:
            await self.close()
            complaint = self._complaint or str(error)
            if "authorization violation" in complaint.lower():
                raise ConfigurationError(
                    f"{self._address.label} refuses the user or password in UNMISSED_LOG_URL"
                ) from None
            if isinstance(error, ConfigurationError):
                raise
            raise LogUnavailable(f"{self._address.label} cannot be reached") from error

    async def close(self) -> None:
        """Disconnect."""
        try:
            # nats-py sends later: a packet from just before, such as goodbye to other nodes, is still in its buffer.
            if self.lost is None:
                with contextlib.suppress(Exception):
                    await self._client.flush(timeout=_FLUSH_SECONDS)  # type: ignore[arg-type]  # any number works
        finally:
            self.end("the connection was closed")
            # Releases nats-py, which may be waiting in ``_disconnected``, before it is closed.
            self._closed.set()
            _abandon(self._client)
            await self._client.close()
            await asyncio.sleep(0)

    def end(self, reason: str) -> None:
        """Stop using this connection, and wake everything that waits for it."""
        if self.lost is not None:
            return
        self.lost = reason
        # Not an exception: asyncio logs those of futures that are never awaited, such as the later ones of an exchange.
        for future in self._answers.values():
            if not future.done():
                future.set_result(None)
        for call in self._on_end:
            call()

    def check(self) -> None:
        """Raise LogUnavailable if the connection is lost."""
        if self.lost is not None:
            raise LogUnavailable(self.lost)

    async def ask(self, request: Packet) -> dict[str, Any]:
        """Return the answer to one request."""
        [answer] = await self.exchange([request])
        return answer

    async def exchange(self, packets: Sequence[Packet]) -> list[dict[str, Any]]:
        """Send all packets in order, and return the answers to those that are answered.

        Raises LogUnavailable when an answer is missing. Then it is unknown which of the packets had an effect.
        """
        tokens: list[str] = []
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                for index, packet in enumerate(packets, start=1):
                    await self._send(packet, tokens)
                    if index % _PACKETS_IN_A_ROW == 0:
                        await asyncio.sleep(0)
                return [self._content(await self._answers[token]) for token in tokens]
        except TimeoutError:
            self.end(self._complaint or f"{self._label} does not answer")
            raise LogUnavailable(self.lost or "") from None
        finally:
            for token in tokens:
                del self._answers[token]

    async def send(self, packet: Packet, *, reply: str = "") -> None:
        """Send one packet without waiting for an answer."""
        self.check()
        with self._ending():
            await self._client.publish(packet.subject, packet.body, reply=reply, headers=packet.headers)

    async def subscribe(
        self, receive: Callable[["Msg"], Awaitable[None]], *, on_end: Callable[[], None], subject: str | None = None
    ) -> tuple[str, Callable[[], Awaitable[None]]]:
        """Receive messages from now on. Return the prefix of their subjects, and a function that ends the subscription.

        With ``subject``, receive only those of this subject. ``on_end`` is called when the connection is lost.
        """
        self.check()
        inbox = self._client.new_inbox()
        with self._ending():
            subscription: Subscription = await self._client.subscribe(subject or f"{inbox}.*", cb=receive, **_UNLIMITED)
        self._on_end.append(on_end)

        async def unsubscribe() -> None:
            self._on_end.remove(on_end)
            with contextlib.suppress(LogUnavailable), self._ending():
                if self.lost is None:
                    await subscription.unsubscribe()

        return inbox, unsubscribe

    @contextlib.contextmanager
    def _ending(self) -> Iterator[None]:
        """End the connection if the client cannot send: nats-py closes it some time before it reports that."""
        try:
            yield
        except _client_errors() as error:
            self.end(self._complaint or f"{self._label} cannot be reached")
            raise LogUnavailable(self.lost or "") from error

    async def _send(self, packet: Packet, tokens: list[str]) -> None:
        reply = ""
        if packet.answered:
            token = next(self._tokens)
            # Before the packet is sent: its answer may arrive while sending still waits.
            self._answers[token] = asyncio.get_running_loop().create_future()
            tokens.append(token)
            reply = f"{self._inbox}.{token}"
        await self.send(packet, reply=reply)

    async def _answered(self, message: "Msg") -> None:
        future = self._answers.get(message.subject.rpartition(".")[2])
        if future is not None and not future.done():
            future.set_result(message)

    def _content(self, message: "Msg | None") -> dict[str, Any]:
        if message is None:
            raise LogUnavailable(self.lost or "")
        if message.headers is not None and message.headers.get("Status") == str(NO_RESPONDERS):
            return {"error": {"code": NO_RESPONDERS, "description": "no server answers at the moment"}}
        content: dict[str, Any] = json.loads(message.data)
        return content

    async def _disconnected(self) -> None:
        """End the connection. nats-py calls this before it reconnects: waiting here prevents that."""
        self.end(f"{self._label} cannot be reached")
        await self._closed.wait()

    async def _failed(self, error: Exception) -> None:
        """Keep the error that the server reports. It may be a missing permission, and explain a missing answer."""
        text = str(error).removeprefix("nats: ")
        if "violation" in text.lower():
            self._complaint = f"{self._label}: {text}"

    def _options(self) -> dict[str, Any]:
        address = self._address
        options: dict[str, Any] = {
            "servers": [*address.servers],
            "name": "unmissed",
            # Answers come to an inbox under this prefix, so permissions can keep users from the inboxes of other users.
            "inbox_prefix": f"_INBOX.{address.name}",
            "error_cb": self._failed,
            "disconnected_cb": self._disconnected,
            "max_reconnect_attempts": 1,
            "reconnect_time_wait": 0,
            "ping_interval": _PING_SECONDS,
            # With a limit, publishing would wait for the socket, and swallow a cancellation while it waits.
            "pending_size": _NO_LIMIT,
        }
        if address.tls:
            options["tls"] = ssl.create_default_context()
        if address.password is not None:
            options |= {"user": lambda: self._secret(address.user), "password": address.password}
        elif address.user is not None:
            options["token"] = lambda: self._secret(address.user)
        return options

    def _secret(self, text: str | None) -> str:
        """Return a credential, which the client is about to send."""
        if self._address.tls:
            self._require_tls()
        return text or ""

    def _require_tls(self) -> None:
        """Refuse a server that does not encrypt."""
        if not _uses_tls(self._client):
            raise ConfigurationError(f"{self._address.label} does not use TLS: configure it, or leave out ?tls=true")


def _new_client() -> "Client":
    """Return a client of nats-py. Raises ConfigurationError if it is not installed."""
    try:
        from nats.aio.client import Client  # noqa: PLC0415  # the package is optional
    except ImportError:
        raise ConfigurationError("a log at a nats:// URL needs nats-py: pip install 'unmissed[nats]'") from None

    class HeaderlessClient(Client):
        """Parses only the headers of a status, and the source of an archived message.

        Parsing all headers takes a sixth of all time, for no use.
        """

        async def _process_headers(self, headers: bytes | None) -> dict[str, str] | None:
            if headers is None:
                return None
            if not headers.startswith(b"NATS/1.0 "):
                # The last one, which the server has added: a publisher may have set another.
                _, found, source = headers.rpartition(b"\r\nNats-Stream-Source: ")
                return {SOURCE: source.split(b"\r\n", 1)[0].decode(errors="replace")} if found else None
            try:
                parsed: dict[str, str] | None = await super()._process_headers(headers)
            except ValueError:
                return None  # Those of another program: reading would end with the connection.
            return parsed

    return HeaderlessClient()


def _client_errors() -> tuple[type[Exception], ...]:
    """Return what a client raises when it cannot send."""
    from nats.errors import Error  # noqa: PLC0415  # the package is optional

    return Error, OSError


def _abandon(client: "Client") -> None:
    """Discard what is unsent, and close the socket at once.

    nats-py would write the rest to a socket that is closed, fail, and leave its tasks running, or wait for a server
    that reads nothing.
    """
    client._pending.clear()  # noqa: SLF001
    client._pending_data_size = 0  # noqa: SLF001
    writer = getattr(client._transport, "_io_writer", None)  # noqa: SLF001
    if writer is not None:
        writer.transport.abort()


def _uses_tls(client: "Client") -> bool:
    """Return whether the server has asked for TLS. nats-py encrypts only then, whatever the URL says."""
    return bool(client._server_info.get("tls_required"))  # noqa: SLF001
