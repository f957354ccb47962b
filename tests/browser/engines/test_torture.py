"""Half a minute of drops, cuts, silences and reloads, in every engine."""

import json
import random
import time
from collections import Counter
from typing import Any

import pytest

from browser.account import RECORDING, Account, Publisher
from browser.engines.conftest import OpenPage, StartSite
from browser.engines.page import EnginePage
from browser.engines.site import Site

pytestmark = [pytest.mark.live, pytest.mark.long]

SECONDS = 30.0
STREAMS: list[dict[str, Any]] = [
    {"transports": ["websocket"]},
    {"transports": ["events"]},
    {"transports": ["polling"]},
    {"shared": True},
    {"shared": True},
]


class Recorder:
    """A page that notes what its stream receives."""

    def __init__(self, page: EnginePage, site: Site, options: dict[str, Any]) -> None:
        self.page = page
        self.account = Account()
        self._arguments = f"{json.dumps(site.token())}, {json.dumps(options)}"
        self._connect()
        epoch, position = page.live().evaluate("[stream.epoch, stream.position]")
        self.account.first[epoch] = position

    def reload(self) -> None:
        self.page.reload()
        self._connect()

    def drop(self, milliseconds: float) -> None:
        self.page.evaluate(f"stream.drop({milliseconds})")

    def collect(self) -> None:
        self.account.add(self.page.evaluate("takeNotes()"))

    def _connect(self) -> None:
        self.page.evaluate(f"void (0, eval)({json.dumps(RECORDING)})")
        self.page.evaluate(f"record({self._arguments})")


def test_torture_loses_and_doubles_nothing(start_site: StartSite, open_page: OpenPage) -> None:
    site = start_site(heartbeat_seconds=0.5, max_messages=20_000)
    recorders = [Recorder(open_page(site.page), site, options) for options in STREAMS]
    chance = random.Random(7)
    faults = [
        lambda: chance.choice(recorders).drop(chance.uniform(0, 1_500)),
        lambda: chance.choice(recorders).reload(),
        site.network.cut,
        site.network.silence,
    ]

    with Publisher(site.server) as publisher:
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            chance.choice(faults)()
            chance.choice(recorders).page.evaluate(
                f"new Promise((done) => setTimeout(done, {chance.uniform(0, 1_000)}))"
            )
            for recorder in recorders:
                recorder.collect()
    figures = Counter[str]()
    for recorder in recorders:
        recorder.page.wait_until(f"stream.position >= {site.server.manager.window.latest}")
        recorder.collect()
        figures.update(recorder.account.figures(publisher.published))

    assert figures["recovered"] > 0
    assert figures["received"] == len(recorders) * len(publisher.published[site.server.manager.window.epoch])
    assert {} == {name: count for name, count in figures.items() if count and name not in ("received", "recovered")}
