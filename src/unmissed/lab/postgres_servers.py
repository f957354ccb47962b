"""PostgreSQL, and PgBouncer in front of it, on free ports of this machine."""

import contextlib
import getpass
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from weakref import finalize

from unmissed.core.errors import ConfigurationError
from unmissed.lab.engine_servers import EngineServer
from unmissed.lab.process import answers, free_ports

_USER = "unmissed"
_DATABASE = "postgres"
_STARTUP = b"\x00\x03\x00\x00user\x00" + _USER.encode() + b"\x00database\x00" + _DATABASE.encode() + b"\x00\x00"
_HELLO = (len(_STARTUP) + 4).to_bytes(4) + _STARTUP
"""The first bytes of a client, version 3.0 of the protocol. A server that is ready asks for authentication: ``R``."""

_UNPRIVILEGED = ("postgres", "nobody")
_WITH_ALL = (signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT)
"""Signals for all processes of a server: those that serve clients would go on for a while."""

_OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "200",
    # For transactions with PREPARE TRANSACTION.
    "max_prepared_transactions": "50",
    "shared_buffers": "32MB",
}


class PostgresServer(EngineServer):
    """One PostgreSQL, whose data survives restarts, in the newest version that is installed.

    PostgreSQL refuses root: then it runs as another user, in a folder of its own that this user can reach. ``copy`` is
    a folder with the data of an earlier server. ``options`` are settings.
    """

    program = "postgres"
    package = "postgresql"

    def __init__(self, folder: Path, *, copy: Path | None = None, options: dict[str, str] | None = None) -> None:
        self._user = _other_user()
        self.data = _own_folder(self, self._user) / "data"
        [self.port] = free_ports(1)
        self.url = f"postgresql://{_USER}@127.0.0.1:{self.port}/{_DATABASE}"
        if copy is None:
            self._create()
        else:
            self.restore(copy)
        settings = {**_OPTIONS, "port": str(self.port), **(options or {})}
        super().__init__(
            self.program,
            [self.path(), "-D", str(self.data), *(f"--{name}={value}" for name, value in settings.items())],
            ready=partial(answers, self.port, _HELLO, expected=b"R"),
            output=folder / f"postgres-{self.port}.log",
            user=self._user,
        )

    @classmethod
    def path(cls) -> str:
        """Return the path of the program. Debian has its versions side by side, none of them on the PATH."""
        return installed(cls.program)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, to all processes if it stops or kills them. SIGTERM ends clients instead of waiting."""
        children = self.children if number in _WITH_ALL and self.running else []
        super().signal(signal.SIGINT if number == signal.SIGTERM else number)
        for child in children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)

    def restore(self, copy: Path) -> None:
        """Replace the data, while the server does not run, with a copy."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(copy, self.data)
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        for path in (self.data, *self.data.rglob("*")):
            _give(path, self._user)

    def _create(self) -> None:
        command = [installed("initdb"), "-D", str(self.data), "--auth=trust", f"--username={_USER}"]
        command += ["--encoding=UTF8", "--locale=C", "--no-sync"]
        created = subprocess.run(  # noqa: S603  # our own command
            command, user=self._user, capture_output=True, text=True, check=False, cwd=self.data.parent
        )
        if created.returncode:
            raise ConfigurationError(f"initdb failed:\n{created.stderr.strip()}")


class PgBouncer(EngineServer):
    """One PgBouncer in transaction mode, with a few connections to a server."""

    program = package = "pgbouncer"

    def __init__(self, folder: Path, server: PostgresServer, *, pool_size: int = 5) -> None:
        [self.port] = free_ports(1)
        self.url = f"postgresql://{_USER}@127.0.0.1:{self.port}/{_DATABASE}?notify=false"
        self.server = server
        user = _other_user()
        own = _own_folder(self, user)
        users, configuration = own / "users.txt", own / "pgbouncer.ini"
        users.write_text(f'"{_USER}" ""\n')
        configuration.write_text(
            f"[databases]\n* = host=127.0.0.1 port={server.port}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {self.port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = transaction\n"
            f"default_pool_size = {pool_size}\nmax_client_conn = 500\nserver_login_retry = 0.1\n"
        )
        for path in (users, configuration):
            _give(path, user)
        super().__init__(
            self.program,
            [self.path(), str(configuration)],
            ready=partial(answers, self.port, _HELLO, expected=b"R"),
            output=folder / f"pgbouncer-{self.port}.log",
            user=user,
        )

    @property
    def servers(self) -> Sequence[EngineServer]:
        """The server, and this process in front of it."""
        return (self.server, self)


def installed(program: str) -> str:
    """Return the path of a program of PostgreSQL. Raises ConfigurationError, whose text names what to install."""
    found = shutil.which(program) or max(
        map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{program}")), key=_version, default=None
    )
    if found is None:
        raise ConfigurationError(f"there is no {program} on the PATH or in /usr/lib/postgresql: install postgresql")
    return found


def _version(path: str) -> int:
    version = Path(path).parts[-3]
    return int(version) if version.isdecimal() else 0


def _other_user() -> str | None:
    """Return the user who runs the server if we are root, or None."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in _UNPRIVILEGED if name in known), getpass.getuser())


def _own_folder(server: EngineServer, user: str | None) -> Path:
    """Return a new folder that this user can reach. It is removed with the server, or at the end of this process."""
    folder = Path(mkdtemp(prefix="unmissed-"))
    finalize(server, shutil.rmtree, folder, ignore_errors=True)
    _give(folder, user)
    return folder


def _give(path: Path, user: str | None) -> None:
    if user is not None:
        os.chown(path, pwd.getpwnam(user).pw_uid, -1)
