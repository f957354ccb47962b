"""``--workers`` and ``--reload``: processes that uvicorn's supervisors start and replace."""

import logging
import os
import signal
import sys
import threading
from functools import partial
from socket import socket

from unmissed.cli.serving import Site
from unmissed.core.errors import ConfigurationError
from unmissed.framework_names import (
    STARTUP_FAILURE,
    ChangeReload,
    Config,
    Multiprocess,
    Process,
    start_workers_of,
)
from unmissed.server import Server

ANSWER_SECONDS = 30
"""Seconds in which a worker must answer its supervisor. It first imports this package, and the machine may be busy."""

logger = logging.getLogger("unmissed")


def run_workers(config: Config, site: Site) -> None:
    """Serve in ``config.workers`` processes until SIGTERM.

    Ends with a status that is not 0 if a worker could not start.
    """
    start_workers_of(partial(Worker, site=site))
    supervisor = Multiprocess(config, [config.bind_socket()])
    supervisor.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


def run_reloading(config: Config, site: Site) -> None:
    """Serve in one process until SIGTERM, and replace the process whenever a file of Python changes.

    If it cannot start, the next change gives it another chance.
    """
    ChangeReload(config, target=partial(_serve, config, site), sockets=[config.bind_socket()]).run()


class Worker(Process):
    """A process that drains its clients before it ends."""

    _served: Server | None = None
    """The server, once it is created in this process."""

    def __init__(self, config: Config, sockets: list[socket], *, site: Site) -> None:
        super().__init__(config, sockets)
        self._site = site

    def start(self) -> None:
        """Start the process, and close its end of the pipe here: only then is its death noticed at once."""
        super().start()
        self.child_conn.close()

    def target(self, sockets: list[socket] | None = None) -> None:
        """Serve until SIGTERM. Ends with the status at which the supervisor gives up if it cannot start."""
        # As in ``start``: close the supervisor's end of the pipe here.
        self.parent_conn.close()
        # The supervisor replaces a worker that does not answer in time, and loading may take longer.
        threading.Thread(target=self.always_pong, daemon=True).start()
        try:
            self._served = self._site.server(self.config)
            self._served.run(sockets)
        except ConfigurationError as error:
            _give_up(error)

    def pong(self) -> None:
        """Report to the supervisor whether the server has started. Shut down if the supervisor is gone."""
        try:
            self.child_conn.recv()
            self.child_conn.send(self._served is not None and self._served.started)
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)
            sys.exit()


def _serve(config: Config, site: Site, sockets: list[socket] | None = None) -> None:
    """Serve in a process that is replaced after a change."""
    try:
        site.server(config).run(sockets)
    except ConfigurationError as error:
        _give_up(error)


def _give_up(error: ConfigurationError) -> None:
    logger.error("%s", error)
    sys.exit(STARTUP_FAILURE)
