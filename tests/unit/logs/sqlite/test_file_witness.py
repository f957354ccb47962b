"""The witness of a file: what a file that was left, closed or killed, looks like when nothing has touched it."""

import os
import shutil
import time
from pathlib import Path

import pytest

from unmissed.logs.sqlite.file_witness import FileWitness

LATER_NS = 1_000_000_000


def witness(folder: Path, *, boot: str | None = "boot", later_ns: int = 0) -> FileWitness:
    """Return a witness of a file that has a write-ahead log; its clock is ahead of that of the file system."""
    return FileWitness(str(folder / "log.db"), boot=boot, clock=lambda: time.time_ns() + later_ns)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "log.db").write_bytes(b"file")
    (tmp_path / "log.db-wal").write_bytes(b"")
    return tmp_path


def copied(folder: Path, name: str) -> None:
    """Replace a file by a copy of itself that has the same times, as far as a program can set them."""
    shutil.copy2(folder / name, folder / "copy")
    (folder / name).unlink()
    shutil.copy2(folder / "copy", folder / name)


def test_a_closed_file_is_known_until_its_mark_is_removed(folder: Path) -> None:
    witness(folder).mark_closed()

    closed = witness(folder)
    assert closed.was_closed()
    closed.remove_mark()
    assert not witness(folder).was_closed()


def test_a_file_that_was_never_closed_is_not_closed(folder: Path) -> None:
    assert not witness(folder).was_closed()


@pytest.mark.parametrize("content", [b"", b"{}", b"no", b"[1]", b'{"file": 1, "size": 4}', b"\xff"])
def test_a_damaged_mark_is_none(folder: Path, content: bytes) -> None:
    (folder / "log.db-closed").write_bytes(content)

    assert not witness(folder).was_closed()


def test_a_closed_file_that_was_changed_is_not_closed(folder: Path) -> None:
    witness(folder).mark_closed()
    (folder / "log.db").write_bytes(b"file")

    assert not witness(folder).was_closed()


def test_a_closed_file_beside_a_log_with_commits_is_not_closed(folder: Path) -> None:
    """SQLite would apply them."""
    witness(folder).mark_closed()
    (folder / "log.db-wal").write_bytes(b"commits")

    assert not witness(folder).was_closed()


def test_a_mark_that_was_copied_is_not_valid(folder: Path) -> None:
    witness(folder, later_ns=-LATER_NS).mark_closed()

    assert not witness(folder).was_closed()


def test_a_closed_file_may_get_other_permissions(folder: Path) -> None:
    witness(folder).mark_closed()
    (folder / "log.db").chmod(0o600)

    assert witness(folder).was_closed()


def test_the_device_of_a_closed_file_counts_during_one_boot_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    witness(folder).mark_closed()
    stat = Path.stat

    def moved(path: Path, **options: bool) -> os.stat_result:
        found = stat(path, **options)
        return os.stat_result(
            [*found[:2], found.st_dev + 1, *found[3:]],
            {"st_mtime_ns": found.st_mtime_ns, "st_ctime_ns": found.st_ctime_ns},
        )

    monkeypatch.setattr(Path, "stat", moved)

    assert not witness(folder).was_closed()
    assert witness(folder, boot="another").was_closed()


def test_a_file_that_was_killed_is_untouched(folder: Path) -> None:
    left = witness(folder)
    identity, written_ns = left.identity(), left.now_ns()

    assert witness(folder).is_untouched(identity, written_ns)
    assert witness(folder, boot="another").is_untouched(identity, written_ns)


def test_a_file_that_was_changed_after_its_last_commit_is_touched(folder: Path) -> None:
    left = witness(folder, later_ns=-LATER_NS)

    assert not witness(folder).is_untouched(left.identity(), left.now_ns())


def test_without_its_log_or_its_identity_a_killed_file_is_touched(folder: Path) -> None:
    left = witness(folder)
    identity, written_ns = left.identity(), left.now_ns()

    assert not witness(folder).is_untouched(None, written_ns)
    (folder / "log.db-wal").unlink()
    assert not witness(folder).is_untouched(identity, written_ns)


@pytest.mark.parametrize("name", ["log.db", "log.db-wal"])
def test_a_copy_is_another_file_whatever_the_time_is(folder: Path, name: str) -> None:
    left = witness(folder)
    # Kept, so that the file system cannot give its inode to the copy.
    os.link(folder / name, folder / "original")
    identity = left.identity()
    copied(folder, name)

    assert not witness(folder).is_untouched(identity, time.time_ns() + LATER_NS)


def test_a_commit_is_late_if_its_files_were_changed_long_after_its_time(folder: Path) -> None:
    written_ns = time.time_ns() - LATER_NS

    assert witness(folder).is_late(written_ns)
    assert not witness(folder).is_late(time.time_ns())
    assert not witness(folder, later_ns=LATER_NS).is_late(time.time_ns())
