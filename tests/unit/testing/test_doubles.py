"""The socket in memory that applications test their delivery with, as a server sees it."""

import pytest

from unmissed.core.chunks import Chunk
from unmissed.testing import FakeSocket


class Listener:
    """Notes what a socket reports."""

    def __init__(self, socket: FakeSocket) -> None:
        self.reported: list[object] = []
        socket.attach(self)

    def socket_writable(self) -> None:
        self.reported.append("writable")

    def socket_received(self, frame: str | bytes) -> None:
        self.reported.append(frame)

    def socket_closed(self, code: int, reason: str) -> None:
        self.reported.append((code, reason))


@pytest.fixture
def socket() -> FakeSocket:
    return FakeSocket()


@pytest.fixture
def listener(socket: FakeSocket) -> Listener:
    return Listener(socket)


def test_frames_are_recorded_in_order_over_all_chunks(socket: FakeSocket) -> None:
    socket.write(Chunk(b'{"type":"a"}', b'{"type":"b"}'))
    socket.write(Chunk(b'{"type":"c"}'))

    assert ["a", "b", "c"] == [frame["type"] for frame in socket.frames]
    assert 2 == socket.write_progress


def test_a_write_while_the_network_takes_nothing_breaks_the_contract(socket: FakeSocket) -> None:
    socket.pause()

    with pytest.raises(AssertionError, match="not writable"):
        socket.write(Chunk(b"{}"))


def test_a_pause_is_not_reported_and_its_end_is(socket: FakeSocket, listener: Listener) -> None:
    socket.pause()
    assert not socket.buffer_empty
    socket.resume()

    assert ["writable"] == listener.reported
    assert socket.buffer_empty


def test_frames_of_the_client_are_reported_and_count_as_progress(socket: FakeSocket, listener: Listener) -> None:
    socket.receive("text")
    socket.receive(b"bytes")
    socket.pong()

    assert ["text", b"bytes"] == listener.reported
    assert 3 == socket.receive_progress


def test_the_end_is_reported_once_with_the_first_code(socket: FakeSocket, listener: Listener) -> None:
    socket.close(4401, "expired")
    socket.close(1011, "later")
    socket.abort()

    assert [(4401, "expired")] == listener.reported
    assert (4401, "expired") == socket.closed_with
    assert socket.aborted
    assert not socket.writable


def test_nothing_is_reported_after_the_end(socket: FakeSocket, listener: Listener) -> None:
    socket.drop()
    socket.receive("late")
    socket.resume()

    assert [(1006, "")] == listener.reported
