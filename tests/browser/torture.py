"""Hard use of the client in Chromium: prints what was received, recovered, lost and doubled, and fails if it should.

Run it with ``PYTHONPATH=src:tests python tests/browser/torture.py faults --seconds 300 --seed 7 --transports events``.
``faults`` drops, freezes and reloads a page and restarts the server. ``tabs`` closes and crashes leaders
of shared tabs. ``publishes`` cuts the network of a page that publishes.
"""

import argparse
import random
import sys
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from browser.account import RECORDING, Account, Publisher
from browser.chromium import find_chromium
from browser.devtools import crash, debugged
from browser.proxy import Proxy
from support import LOGGED, SOCKETS
from unmissed import Settings
from unmissed.testing import SECRET, LiveServer

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = 60.0


class Recorder:
    """One page that records what its stream receives, also over reloads."""

    def __init__(self, page: "Page", url: str, *, token: str, **options: Any) -> None:
        self.page = page
        self.account = Account()
        self._arguments = [token, options]
        page.add_init_script(RECORDING)
        page.goto(f"{url}/livez")
        self.connect()
        self.wait_until("stream.status === 'live'")
        epoch, position = page.evaluate("[stream.epoch, stream.position]")
        self.account.first[epoch] = position

    def connect(self) -> None:
        self.page.evaluate("([token, options]) => record(token, options)", self._arguments)

    def collect(self) -> None:
        self.account.add(self.page.evaluate("takeNotes()"))

    def reload(self) -> None:
        """Reload the page, as soon as the server is there."""
        self.page.reload()
        self.connect()

    def wait_until(self, condition: str) -> None:
        self.page.wait_for_function(condition, polling=50, timeout=PATIENCE * 1000)


@dataclass
class Run:
    """What a scenario is given."""

    browser: "Browser"
    seconds: float
    chance: random.Random
    transports: list[str]


def _serve(stack: ExitStack, **settings: Any) -> LiveServer:
    loaded = Settings.load(jwt_secret=SECRET, drain_seconds=0.2, max_messages=5_000, **settings)
    return stack.enter_context(LiveServer(settings=loaded, **SOCKETS["native"], **LOGGED))


def faults(run: Run) -> Counter[str]:
    """Drop, cut, freeze and reload a page, and restart the server, about 200 times in 300 seconds."""
    context = run.browser.contexts[0]
    counts = Counter[str]()
    with ExitStack() as stack:
        server = _serve(stack)
        proxy = stack.enter_context(Proxy(int(server.url.rpartition(":")[2])))
        recorder = Recorder(context.new_page(), proxy.url, token=server.token(), transports=run.transports)
        publisher = stack.enter_context(Publisher(server))
        lifecycle = context.new_cdp_session(recorder.page)
        ends = time.monotonic() + run.seconds
        while time.monotonic() < ends:
            fault = run.chance.choices(["drop", "cut", "freeze", "reload", "restart"], [8, 6, 3, 2, 1])[0]
            counts[fault] += 1
            match fault:
                case "drop":
                    recorder.page.evaluate("(pause) => stream.drop(pause)", run.chance.uniform(0, 1500))
                case "cut":
                    proxy.cut()
                case "freeze":
                    lifecycle.send("Page.setWebLifecycleState", {"state": "frozen"})
                    time.sleep(run.chance.uniform(0.1, 2))
                    lifecycle.send("Page.setWebLifecycleState", {"state": "active"})
                case "reload":
                    recorder.reload()
                case "restart":
                    server.restart()
            recorder.page.wait_for_timeout(run.chance.uniform(0, 2000))
            recorder.collect()
        publisher.stop()
        recorder.wait_until(
            f"stream.epoch === '{server.manager.window.epoch}' && stream.position >= {server.manager.window.latest}"
        )
        recorder.collect()
        counts.update(recorder.account.figures(publisher.published))
        return counts


def tabs(run: Run) -> Counter[str]:
    """Close or crash the leader of 20 shared tabs 20 times, and open another tab for each."""
    context = run.browser.new_context()
    leaders: list[Page] = []
    counts = Counter[str]()
    with ExitStack() as stack:
        stack.callback(context.close)
        server = _serve(stack)
        publisher = stack.enter_context(Publisher(server))

        def opened() -> Recorder:
            page = context.new_page()
            page.on("websocket", lambda _: leaders.append(page))
            page.on("request", lambda request: leaders.append(page) if "/websocket/events" in request.url else None)
            return Recorder(page, server.url, token=server.token(), shared=True, transports=run.transports)

        recorders = [opened() for _ in range(20)]
        for _ in range(20):
            counts["more than one socket"] += len(server.manager.connections) > 1
            while not (leading := [each for each in recorders if each.page is leaders[-1]]):
                recorders[0].page.wait_for_timeout(50)
            killed = leading[0]
            recorders.remove(killed)
            counts[_kill(killed.page, run.chance)] += 1
            recorders.append(opened())
            recorders[0].page.wait_for_timeout(run.chance.uniform(0, 2_000))
            for recorder in recorders:
                recorder.collect()
        publisher.stop()
        for recorder in recorders:
            recorder.wait_until(f"stream.position >= {server.manager.window.latest}")
            recorder.collect()
            counts.update(recorder.account.figures(publisher.published))
        return counts


def _kill(page: "Page", chance: random.Random) -> str:
    kind = chance.choice(["closed", "crashed"])
    if kind == "crashed":
        crash(page)
    page.close()
    return kind


def publishes(run: Run) -> Counter[str]:
    """Publish 1,000 messages from a page whose network is cut every second."""
    context = run.browser.new_context()
    counts = Counter[str]()
    with ExitStack() as stack:
        stack.callback(context.close)
        server = _serve(stack)
        proxy = stack.enter_context(Proxy(int(server.url.rpartition(":")[2])))
        recorder = Recorder(context.new_page(), proxy.url, token=server.token(), transports=run.transports)
        recorder.page.evaluate(
            """() => {
                globalThis.answers = [];
                for (let data = 0; data < 1000; data++) {
                    stream.publish({ type: "a", data }).then((number) => answers.push([data, number]));
                }
            }"""
        )
        ends = time.monotonic() + run.seconds
        while recorder.page.evaluate("answers.length") < 1000 and time.monotonic() < ends:
            recorder.page.wait_for_timeout(1000)
            proxy.cut()
            counts["cuts"] += 1
        stored = {
            each.sequence_number: each.as_dict()["data"] for each in server.manager.get_messages_since(0).messages
        }
        answers = recorder.page.evaluate("answers")
        counts["received"] = len(stored)
        counts["lost"] = 1000 - len(set(stored.values()))
        counts["unanswered"] = 1000 - len(answers)
        counts["duplicates"] = len(stored) - len(set(stored.values()))
        counts["wrong answers"] = sum(stored.get(number) != data for data, number in answers)
        return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=["faults", "tabs", "publishes"])
    parser.add_argument("--seconds", type=float, default=300.0, help="how long faults lasts, publishes at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--transports", default="websocket,events,polling")
    arguments = parser.parse_args()
    scenario = {"faults": faults, "tabs": tabs, "publishes": publishes}[arguments.scenario]
    path = find_chromium()
    if path is None:
        sys.exit("Chromium is not installed: install it, or set CHROMIUM to its path")
    with debugged(path) as browser:
        counts = scenario(
            Run(
                browser,
                seconds=arguments.seconds,
                chance=random.Random(arguments.seed),
                transports=arguments.transports.split(","),
            )
        )
    sys.stdout.write(", ".join(f"{name} {count}" for name, count in counts.items()) + "\n")
    bad = ("lost", "duplicates", "out of order", "untold resets", "wrong answers", "unanswered", "more than one socket")
    sys.exit(any(counts[name] for name in bad))


if __name__ == "__main__":
    main()
