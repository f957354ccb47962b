"""``unmissed serve --workers``: processes that share a log, started and replaced by uvicorn's supervisor."""

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Mapping
from socket import socket

from unmissed.core.errors import ConfigurationError
from unmissed.framework_names import STARTUP_FAILURE, Config, Multiprocess, Process, start_workers_of
from unmissed.main import app
from unmissed.server import Server

logger = logging.getLogger("unmissed")


def run_workers(config: Config, *, environment: Mapping[str, str]) -> None:
    """Serve ``unmissed.main:app`` in ``config.workers`` processes until SIGTERM, configured by this environment.

    Ends with a status that is not 0 if a worker could not start.
    """
    os.environ.update(environment)
    start_workers_of(Worker)
    supervisor = Multiprocess(config, [config.bind_socket()])
    supervisor.run()
    if any(worker.exitcode == STARTUP_FAILURE for worker in supervisor.processes):
        sys.exit(STARTUP_FAILURE)


class Worker(Process):
    """A process that drains its clients before it ends."""

    _served: Server | None = None
    """The server, once it is created in this process."""

    def target(self, sockets: list[socket] | None = None) -> None:
        """Serve until SIGTERM. Ends with the status at which the supervisor gives up if the settings are invalid."""
        # Close the supervisor's end of the pipe here: only then does the other end report its death.
        self.parent_conn.close()
        # The supervisor replaces a worker that does not answer within some seconds, and loading may take longer.
        threading.Thread(target=self.always_pong, daemon=True).start()
        try:
            manager = app.application.state.manager
        except ConfigurationError as error:
            logger.error("%s", error)  # noqa: TRY400  # the text says what to change
            sys.exit(STARTUP_FAILURE)
        self.config.load()
        freeze_what_is_loaded()
        self._served = Server(self.config, manager=manager)
        self._served.run(sockets)

    def pong(self) -> None:
        """Report to the supervisor whether the server has started. Shut down if the supervisor is gone."""
        try:
            self.child_conn.recv()
            self.child_conn.send(self._served is not None and self._served.started)
        except (EOFError, OSError):
            os.kill(os.getpid(), signal.SIGTERM)
            sys.exit()


def freeze_what_is_loaded() -> None:
    """Exempt modules and routes from garbage collection: a full collection would visit them all, and free nothing."""
    gc.collect()
    gc.freeze()
