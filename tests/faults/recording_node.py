"""A node as a process: it publishes all the time, and writes what was acknowledged and what its window had.

Arguments are the URL of its log and its name. SIGTERM closes it in order.
"""

import asyncio
import signal
import sys
import time
from itertools import count

from unmissed import Draft, Log, Window
from unmissed.core.retention import Retention, Rule
from unmissed.logs.urls import log_from_url

PAUSE_SECONDS = 0.005
RETENTION = Retention(rules=(Rule("rooms.*", 500, 3_600.0),))


def write(kind: str, number: int, data: str) -> None:
    print(kind, number, data, flush=True)  # noqa: T201  # the journal


async def publish(log: Log, window: Window, name: str) -> None:
    position = window.latest
    for index in count():
        data = f"{name}-{index}"
        publication = await log.publish(
            [Draft.of({"type": "count", "data": data, "topics": ["rooms.1"]}, max_bytes=1_000)]
        )
        write("acknowledged", publication.receipt.first, data)
        for message in [*window.messages_after(max(position, window.evicted_through))]:
            write("seen", message.sequence_number, message.as_dict()["data"])
        position = window.latest
        await asyncio.sleep(PAUSE_SECONDS)


async def listen(log: Log) -> None:
    """Listen for notes as every node does: a node that closes finds out whether others run."""
    if log.channel is not None:
        async for _ in log.channel.receive():
            pass


async def main(url: str, name: str) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    log = log_from_url(url, retention=RETENTION, first_number=None, clock=time.monotonic, wall_clock=time.time)
    window = await log.open()
    print("ready", window.first_number, name, flush=True)  # noqa: T201  # the journal
    tasks = [asyncio.create_task(publish(log, window, name)), asyncio.create_task(listen(log))]
    await ended.wait()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await log.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
