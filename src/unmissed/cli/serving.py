"""Runs an application in this process: it is loaded, served, checked, and drained at the end."""

import gc
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from unmissed.cli.application import LoadedApplication
from unmissed.cli.development import Announcement
from unmissed.core.errors import ConfigurationError
from unmissed.delivery.served_application import ServedApplication
from unmissed.framework_names import Config
from unmissed.manager import ConnectionManager
from unmissed.server import Server
from unmissed.settings import Settings

logger = logging.getLogger("unmissed")


@dataclass(frozen=True, slots=True)
class Site:
    """What a process serves. It is passed to worker processes, which load the application themselves."""

    load: Callable[[], LoadedApplication]
    """Raises ConfigurationError."""
    settings: Settings
    """Those of the environment and the flags, which an application may replace by its own in code."""
    flags: Sequence[str]
    """The names of the settings that are flags on the command line."""
    announcement: Announcement | None = None
    """What is printed when the server is ready."""

    def server(self, config: Config) -> Server:
        """Load the application into a configuration, and return a server for it. Raises ConfigurationError."""
        loaded = self.load()
        # It reports a ConfigurationError at the start in one line.
        config.app = ServedApplication(lambda: loaded.app)
        # Before the freeze, so that it includes the modules that uvicorn imports here.
        config.load()
        _freeze_what_is_loaded()
        return Server(config, started=lambda server: self._check(loaded, server))

    def _check(self, loaded: LoadedApplication, server: Server) -> None:
        """Report what the application lacks, and announce where it is. Raises ConfigurationError."""
        server.check_managers()
        for routed in loaded.routed:
            if routed.manager not in server.managers:
                raise ConfigurationError(
                    f"{loaded.name} has not started the manager of {routed.prefix}/ws: enter 'async with manager:' in "
                    "the lifespan of the application (that of a mounted application does not run)"
                )
        for name in self.flags:
            self._check_effect(name, loaded, server.managers)
        if not loaded.routed:
            logger.warning("%s has no routes of create_router: app.include_router(create_router(manager))", loaded.name)
        if self.announcement is not None:
            self.announcement.show(loaded, port=server.port)

    def _check_effect(self, name: str, loaded: LoadedApplication, managers: Sequence[ConnectionManager]) -> None:
        """Raise ConfigurationError if a flag of the command line has no effect on any manager."""
        wanted = getattr(self.settings, name)
        using = [manager for manager in managers if name not in manager.running.unused_settings]
        if all(getattr(manager.settings, name) != wanted for manager in using):
            code = f"sets {name} in code" if using else "passes a log to its ConnectionManager"
            raise ConfigurationError(
                f"--{name.replace('_', '-')} has no effect, because {loaded.name} {code}: remove the flag, or "
                "the value in the code"
            )


def _freeze_what_is_loaded() -> None:
    """Exempt modules and routes from garbage collection: a full collection would visit them all, and free nothing."""
    gc.collect()
    gc.freeze()
