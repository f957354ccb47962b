"""A file loses its newest messages, as by an old copy: no number is used twice, and nothing is lost silently."""

import asyncio
import random
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from faults.test_redis_disasters import DISASTERS, History, RecordingNode
from places import Place
from support import until
from unmissed.core.window import Outcome
from unmissed.lab.process import running

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

FILES = ("", "-wal")


@asynccontextmanager
async def node_of(place: Place, folder: Path, history: History) -> AsyncIterator[RecordingNode]:
    """Run a node, kill it at the end unless it has ended, and add its journal."""
    node = RecordingNode(place.url, folder)
    async with running([node]):
        await until(node.journal)
        yield node
    history.add(node)


def copied(node: RecordingNode, path: Path, copy: Path) -> None:
    """Copy the files of a log at one moment, as a snapshot of its volume does."""
    node.signal(signal.SIGSTOP)
    for suffix in FILES:
        shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    node.signal(signal.SIGCONT)


def restored(path: Path, copy: Path, *, removed: bool, with_log: bool) -> None:
    """Put the copy in the place of the file, with or without its write-ahead log."""
    for suffix in FILES:
        if removed or (suffix and not with_log):
            Path(f"{path}{suffix}").unlink()
    for suffix in FILES[: 1 + with_log]:
        shutil.copy(f"{copy}{suffix}", f"{path}{suffix}")


@pytest.mark.parametrize("options", ["", "?synchronous=normal"])
async def test_an_old_copy_uses_no_number_again_and_loses_nothing_silently(tmp_path: Path, options: str) -> None:
    path, copy = tmp_path / "log.db", tmp_path / "copy.db"
    place, history, seed, losses = Place(f"sqlite:{path}{options}"), History(), random.Random(7), list[int]()
    for disaster in range(DISASTERS):
        async with node_of(place, tmp_path, history) as node:
            await asyncio.sleep(seed.uniform(0.5, 1.0))
            copied(node, path, copy)
            await asyncio.sleep(seed.uniform(1.0, 5.0))
        restored(path, copy, removed=bool(disaster & 1), with_log=bool(disaster & 2))

        log, window = await place.open()
        losses.append(history.losses(window))
        await place.close(log)

    assert all(losses), losses


@pytest.mark.parametrize("options", ["", "?synchronous=normal"])
async def test_an_end_of_the_process_is_complete_however_it_ends(tmp_path: Path, options: str) -> None:
    place, history = Place(f"sqlite:{tmp_path}/log.db{options}"), History()
    for end in range(DISASTERS):
        async with node_of(place, tmp_path, history) as node:
            if end % 3 == 0:
                await node.terminate()

        log, window = await place.open()
        assert Outcome.COMPLETE is window.locate(min(message.sequence_number for message in window)).outcome
        assert 0 == history.losses(window)
        await place.close(log)
