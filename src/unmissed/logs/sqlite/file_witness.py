"""Whether the file of a log is as its last user left it, or was restored, copied or changed in between."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

_LATE_NS = 50_000_000
"""How long after the time that is stored with a commit its files may have changed. A copy takes longer than that."""

_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """Which files a log used: a copy has other inodes. The number of a device is only valid during one boot."""

    boot: str | None
    device: int
    inode: int
    wal_inode: int

    def encoded(self) -> str:
        """Return the identity as text."""
        return json.dumps(asdict(self))

    @classmethod
    def decoded(cls, text: str) -> "FileIdentity | None":
        """Return the identity that was encoded, or None for other texts."""
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def matches(self, other: "FileIdentity") -> bool:
        """Return whether both are the same files."""
        if (self.inode, self.wal_inode) != (other.inode, other.wal_inode):
            return False
        return self.boot is None or self.boot != other.boot or self.device == other.device


@dataclass(frozen=True, slots=True)
class _Closed:
    """What a closed file looked like: the content of the mark beside it. ``written_ns`` is the time of the mark."""

    file: FileIdentity
    size: int
    modified_ns: int
    written_ns: int

    @classmethod
    def decoded(cls, mark: bytes) -> "_Closed":
        """Return what a mark says. Raises ValueError or TypeError for other bytes."""
        fields = json.loads(mark)
        return cls(**{**fields, "file": FileIdentity(**fields["file"])})

    def is_now(self, file: FileIdentity, status: os.stat_result) -> bool:
        """Return whether the closed file is this one, unchanged.

        Its time of modification counts, since an administrator may change the owner or the permissions meanwhile.
        """
        return self.file.matches(file) and (self.size, self.modified_ns) == (status.st_size, status.st_mtime_ns)


class FileWitness:
    """Looks at a file and its write-ahead log before they are opened, and compares them with what their user has noted.

    An older copy of a file is complete in itself, so its content cannot show that it is old. But it has another inode;
    or, if it was copied over the file, it was changed later than its content says, and a program cannot set that time.
    Windows has no such time: there, a copy that keeps the time of modification is not recognised.

    A closed file has a mark beside it, which is removed before the next change. A mark that was copied is not valid.
    ``boot`` identifies this boot of the machine, and ``clock`` returns Unix nanoseconds, as the file system counts.
    """

    def __init__(self, path: str, *, boot: str | None, clock: Callable[[], int] = time.time_ns) -> None:
        # SQLite follows links, too.
        self._path = Path(path).resolve()
        self._wal_path = self._path.with_name(f"{self._path.name}-wal")
        self._mark_path = self._path.with_name(f"{self._path.name}-closed")
        self._boot = boot
        self._clock = clock
        self._found, self._found_wal = _status(self._path), _status(self._wal_path)
        self._found_mark = _status(self._mark_path)

    def now_ns(self) -> int:
        """Return the time to store with a commit."""
        return self._clock()

    def was_closed(self) -> bool:
        """Return whether the file was closed in order, and nothing has changed it since."""
        found, wal = self._found, self._found_wal
        if found is None or self._found_mark is None or (wal is not None and wal.st_size):
            return False
        try:
            closed = _Closed.decoded(self._mark_path.read_bytes())
            is_original = _changed_ns(self._found_mark) <= closed.written_ns + _LATE_NS
        except (OSError, ValueError, TypeError, KeyError):
            return False
        return is_original and closed.is_now(self._identity(found), found)

    def is_untouched(self, left: FileIdentity | None, written_ns: int) -> bool:
        """Return whether these are the files that a process left without closing them, as of its last commit."""
        found, wal = self._found, self._found_wal
        if left is None or found is None or wal is None:
            return False
        # Not also an earlier change: a loss of power may leave older times than those of the last commit.
        return (
            left.matches(self._identity(found, wal))
            and max(_changed_ns(found), _changed_ns(wal)) <= written_ns + _LATE_NS
        )

    def is_late(self, written_ns: int) -> bool:
        """Return whether a commit was delayed so long that its files would seem changed. Then its time is noted again.

        The files are looked at only if the commit took long.
        """
        if self._clock() <= written_ns + _LATE_NS // 2:
            return False
        files = [_status(path) for path in (self._path, self._wal_path)]
        return any(file is not None and _changed_ns(file) > written_ns + _LATE_NS // 2 for file in files)

    def identity(self) -> FileIdentity:
        """Return which files are open."""
        return self._identity(_status(self._path), _status(self._wal_path))

    def mark_closed(self) -> None:
        """Note, durably, that the file is complete and closed: nothing may change it until the mark is removed."""
        for _ in range(_ATTEMPTS):
            file = self._path.stat()
            closed = _Closed(self._identity(file), file.st_size, file.st_mtime_ns, self._clock())
            with os.fdopen(os.open(self._mark_path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY, 0o600), "wb") as mark:
                mark.write(json.dumps(asdict(closed)).encode())
                mark.flush()
                os.fsync(mark.fileno())
            # On a busy machine, the process may have been interrupted before it wrote.
            if _changed_ns(self._mark_path.stat()) <= closed.written_ns + _LATE_NS:
                break
        _sync_folder(self._path.parent)

    def remove_mark(self) -> None:
        """Remove the mark of a closed file, durably."""
        if self._mark_path.exists():
            self._mark_path.unlink()
            _sync_folder(self._path.parent)

    def _identity(self, file: os.stat_result | None, wal: os.stat_result | None = None) -> FileIdentity:
        device, inode = (0, 0) if file is None else (file.st_dev, file.st_ino)
        return FileIdentity(self._boot, device, inode, 0 if wal is None else wal.st_ino)


def _status(path: Path) -> os.stat_result | None:
    """Return the status of a file, or None without one."""
    try:
        return path.stat()
    except OSError:
        return None


def _changed_ns(file: os.stat_result) -> int:
    """Return when the content or the status of a file was last changed, in Unix nanoseconds."""
    return file.st_mtime_ns if os.name == "nt" else file.st_ctime_ns


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
