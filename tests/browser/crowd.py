"""Clients of many users, whose names have any length, script and direction."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from websockets.sync.client import connect

from unmissed.testing import LiveServer

LONG = "bartholomew.featherstonehaugh-cholmondeley@accounts.subsidiary.of.a.very.large.corporation.example.com"
MARKUP = "<img src=x onerror=alert(1)>"
REVERSED = "\N{RIGHT-TO-LEFT OVERRIDE}gpj.tnemetats\N{POP DIRECTIONAL FORMATTING}"
"""Would be read as ``statement.jpg``."""

NAMES = [
    "alice",
    "bob",
    LONG,
    "محمد عبد الله الأنصاري",
    "👩‍👩‍👧‍👦 the Millers 🎉",
    "שלום-עולם 123",
    "日本語のとても長いユーザー名です、折り返しはありません、続きます、まだ続きます",
    "мария.иванова",
    MARKUP,
    REVERSED,
]
LONG_TOPIC = "orders/" + "eu-central-1:" * 14
TOPICS = [[], ["orders.42"], ["rooms.1", "rooms.2", "rooms.3", "rooms.4", "rooms.5"], [LONG_TOPIC]]


@contextmanager
def connected(server: LiveServer, number: int) -> Iterator[None]:
    """Connect so many clients, which read nothing by themselves."""
    with ExitStack() as stack:
        for index in range(number):
            repeated = index // len(NAMES)
            user = NAMES[index % len(NAMES)] + (f" {repeated}" if repeated else "")
            token = server.token(user, topics=TOPICS[index % len(TOPICS)])
            headers = {"Authorization": f"Bearer {token}"}
            stack.enter_context(connect(server.websocket_url, additional_headers=headers, proxy=None, max_queue=None))
        yield
