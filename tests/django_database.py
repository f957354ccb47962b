"""Django in tests: it is configured once in a process, and each test connects it to a database of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import connections
from django.db.backends.postgresql.base import DatabaseWrapper


@contextmanager
def django_connected(url: str) -> Iterator[DatabaseWrapper]:
    """Make this database the default one of the present thread."""
    if not settings.configured:
        lite = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        settings.configure(DATABASES={"default": {}, "lite": lite})
        django.setup()
    parts = urlsplit(url)
    place = {"NAME": parts.path[1:], "USER": parts.username, "HOST": parts.hostname, "PORT": parts.port}
    options = connections.configure_settings({"default": {"ENGINE": "django.db.backends.postgresql", **place}})
    connection = connections["default"] = DatabaseWrapper(options["default"])
    try:
        yield connection
    finally:
        connections.close_all()
