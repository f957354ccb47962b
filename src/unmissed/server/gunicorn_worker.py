"""``gunicorn -k unmissed.server.GunicornWorker shop.main:app``: a worker with the native classes, which drains."""

import asyncio
import logging
import os
import signal
import socket
import sys
from typing import Any

from gunicorn.arbiter import Arbiter  # type: ignore[import-untyped]
from gunicorn.workers.base import Worker as BaseWorker  # type: ignore[import-untyped]

from unmissed.core.errors import ConfigurationError
from unmissed.delivery.served_application import ServedApplication
from unmissed.framework_names import Config
from unmissed.server.arriving import HttpProtocol
from unmissed.server.drain import Server
from unmissed.server.websocket_protocol import WebSocketProtocol

_LEAST_MARGIN = 1.0
"""Seconds of gunicorn's graceful timeout that are left when the worker has ended: then gunicorn kills it."""

_NOTIFY_SECONDS = 0.4
"""Half of the shortest time after which gunicorn aborts a silent worker, and a little less."""

_LOGGERS = {"uvicorn.error": "error_log", "uvicorn.access": "access_log", "unmissed": "error_log"}
_TLS_OPTIONS = {
    "ssl_keyfile": "keyfile",
    "ssl_certfile": "certfile",
    "ssl_cert_reqs": "cert_reqs",
    "ssl_ca_certs": "ca_certs",
    "ssl_ciphers": "ciphers",
}
"""The options of uvicorn, and those of gunicorn that they come from."""


class GunicornWorker(BaseWorker):  # type: ignore[misc]  # gunicorn has no types
    """One process of gunicorn. It asks its clients to reconnect before it ends, also after ``max_requests``."""

    def init_signals(self) -> None:
        """Leave signals to the server, except the one for log files, which must not interrupt system calls."""
        for number in self.SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGUSR1, self.handle_usr1)
        signal.siginterrupt(signal.SIGUSR1, False)  # noqa: FBT003  # the function has no keywords

    def run(self) -> None:
        """Serve until SIGTERM, SIGINT or SIGQUIT. Ends so that gunicorn gives up if the application cannot start."""
        self._take_log_handlers()
        server = NotifyingServer(self._config(), worker=self)
        # gunicorn sends it for a quick shutdown, and waits as long as for any other.
        signal.signal(signal.SIGQUIT, lambda _, frame: server.handle_exit(signal.SIGTERM, frame))
        try:
            server.run([listener.sock for listener in self.sockets])
        except ConfigurationError as error:
            self.log.error("unmissed: %s", error)  # noqa: TRY400  # the text says what to change
            sys.exit(Arbiter.WORKER_BOOT_ERROR)

    def _config(self) -> Config:
        options: dict[str, Any] = {}
        if self.cfg.is_ssl:
            options = {name: self.cfg.ssl_options.get(own) for name, own in _TLS_OPTIONS.items()}
        return Config(
            # It reports a ConfigurationError at the start in one line.
            ServedApplication(lambda: self.wsgi),
            http=HttpProtocol,
            ws=WebSocketProtocol,
            log_config=None,
            backlog=self.cfg.backlog,
            timeout_keep_alive=self.cfg.keepalive,
            limit_max_requests=self.max_requests,
            forwarded_allow_ips=self.cfg.forwarded_allow_ips,
            **options,
        )

    def _take_log_handlers(self) -> None:
        for name, own in _LOGGERS.items():
            logger, target = logging.getLogger(name), getattr(self.log, own)
            logger.handlers, logger.level, logger.propagate = target.handlers, target.level, False


class NotifyingServer(Server):
    """Notifies gunicorn, also while it starts and drains. uvicorn would not, and gunicorn would abort the worker."""

    def __init__(self, config: Config, *, worker: GunicornWorker) -> None:
        super().__init__(config, started=Server.check_managers, max_seconds=worker.cfg.graceful_timeout - _LEAST_MARGIN)
        self._worker = worker

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the application, which may wait for its engine, and listen."""
        self._notify()
        await super().startup(sockets)

    def _notify(self) -> None:
        """Notify gunicorn again and again. Shut down if gunicorn reloads the application, or has ended."""
        self._worker.notify()
        if not self._worker.alive or self._worker.ppid != os.getppid():
            self.should_exit = True
        asyncio.get_running_loop().call_later(_NOTIFY_SECONDS, self._notify)
