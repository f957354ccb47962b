"""How much of a client's data is parsed at once."""

from typing import Any, cast

import pytest
from websockets.frames import Frame, Opcode
from websockets.protocol import OPEN, SERVER, Protocol
from websockets.server import ServerProtocol

from unmissed.server.frame_parser import FrameParser, Received, StillSending


class Loop:
    """Remembers what is to run later."""

    def __init__(self) -> None:
        self.later: list[Any] = []

    def call_soon(self, callback: Any) -> object:
        self.later.append(callback)
        return object()

    def time(self) -> float:
        return 0.0


class Transport:
    """A transport that is open."""

    paused = False

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Receiver:
    """Counts messages, and how often the client was found to keep sending."""

    def __init__(self) -> None:
        self.transport = Transport()
        self.messages = 0
        self.still_sending = 0

    def handle(self, received: Received) -> None:
        self.messages += isinstance(received, str | bytes)
        self.still_sending += isinstance(received, StillSending)


class ResumingReceiver(Receiver):
    """Pauses and resumes while it handles a message."""

    frames: FrameParser

    def __init__(self) -> None:
        super().__init__()
        self.order: list[Received] = []

    def handle(self, received: Received) -> None:
        self.order.append(received)
        self.frames.pause()
        self.frames.resume()


def frames_of(parser: Protocol, receiver: Receiver, loop: Loop) -> FrameParser:
    return FrameParser(
        parser,
        cast("Any", receiver.transport),
        handle=receiver.handle,
        send_output=lambda: None,
        loop=cast("Any", loop),
        max_size=65_536,
    )


HANDSHAKE = b"GET / HTTP/1.1\r\nHost: test\r\nX-Long: " + b"x" * 8_000 + b"\r\n\r\n"


@pytest.mark.parametrize(
    ("parser", "before"),
    [(Protocol(SERVER, state=OPEN), b""), (ServerProtocol(), HANDSHAKE)],
    ids=["plain", "complete"],
)
def test_a_flood_after_the_handshake_is_parsed_in_small_steps(parser: Protocol, before: bytes) -> None:
    loop, receiver = Loop(), Receiver()
    frames = frames_of(parser, receiver, loop)
    one = Frame(Opcode.TEXT, b"").serialize(mask=True)
    if before:
        frames.feed(before)
    receiver.messages = 0

    frames.feed(one * 10_000)

    assert receiver.messages <= 1_024 // len(one) + 1
    assert receiver.transport.paused
    assert 1 == len(loop.later)


def test_frames_keep_their_order_when_a_listener_resumes_while_it_handles_one() -> None:
    loop, receiver = Loop(), ResumingReceiver()
    receiver.frames = frames_of(Protocol(SERVER, state=OPEN), receiver, loop)
    messages = [str(number) for number in range(1_000)]

    receiver.frames.feed(b"".join(Frame(Opcode.TEXT, each.encode()).serialize(mask=True) for each in messages))
    while loop.later:
        loop.later.pop(0)()

    assert messages == receiver.order
    assert not receiver.transport.paused


def test_what_waits_for_a_resume_is_parsed_in_a_later_turn() -> None:
    """An application that resumes whenever it has received everything would otherwise parse it all in one turn."""
    loop, receiver = Loop(), Receiver()
    frames = frames_of(Protocol(SERVER, state=OPEN), receiver, loop)
    frames.pause()
    frames.feed(Frame(Opcode.TEXT, b"").serialize(mask=True))

    frames.resume()

    before = receiver.messages
    loop.later.pop(0)()
    assert (0, 1) == (before, receiver.messages)


def test_a_client_that_does_not_stop_after_the_close_is_not_read_any_more() -> None:
    parser, receiver = Protocol(SERVER, state=OPEN), Receiver()
    frames = frames_of(parser, receiver, Loop())
    parser.send_close(4_429, "too many messages")
    one = Frame(Opcode.TEXT, b"x" * 1_000).serialize(mask=True)
    fed = 0

    while not receiver.transport.paused:
        frames.feed(one)
        fed += len(one)

    assert 65_536 < fed <= 65_536 + len(one)
    assert 1 == receiver.still_sending
    assert receiver.messages <= 4_096 // len(one)
