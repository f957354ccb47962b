"""Which browser pages may use the server: the origin check of connections, and CORS for the routes over HTTP."""

import re
from collections.abc import Iterable
from ipaddress import ip_address

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp

from unmissed.core.errors import OriginRefused

_METHODS = ("GET", "POST", "DELETE")
_DEFAULT_PORTS = {"http": ":80", "https": ":443", "ws": ":80", "wss": ":443"}


class Origins:
    """The allowed origins (RFC 6454): the server's own host, and those in ``allowed``.

    ``*`` allows any origin, and ``http://localhost:*`` allows any port of that host. Other origins must match exactly,
    but for case and for the default port of their scheme, which may be left out.
    """

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        allowed = tuple(allowed)
        self._any = "*" in allowed
        self._pattern = re.compile("|".join(_pattern(origin) for origin in allowed) or "(?!)", re.IGNORECASE)

    def allow(self, origin: str | None, *, host: str | None) -> bool:
        """Return whether a page of this origin may connect to this ``Host``. Only browsers send an origin."""
        if origin is None or self._pattern.fullmatch(origin):
            return True
        scheme, _, own = origin.lower().partition("://")
        port = _DEFAULT_PORTS.get(scheme, "")
        return bool(host and own) and own.removesuffix(port) == str(host).lower().removesuffix(port)

    def refusal(self, connection: HTTPConnection) -> OriginRefused | None:
        """Return why this connection is refused, or None if it comes from a page that may connect or from no page."""
        origin, host = connection.headers.get("origin"), connection.headers.get("host")
        if origin is None or self.allow(origin, host=host):
            return None
        return OriginRefused(origin, host=host)

    def cors(self, app: ASGIApp, *, origin: str) -> CORSMiddleware:
        """Wrap an app so that it answers preflight requests and sends CORS headers, if the origin is an allowed one.

        Its pages may send cookies, unless any origin is allowed: then any page could act in the name of its visitor.
        """
        return CORSMiddleware(
            app,
            allow_origin_regex=f"(?i:{self._pattern.pattern})",
            allow_methods=_METHODS,
            # Any header: tracing and proxies add their own. Starlette repeats the requested ones, because browsers do
            # not take "*" for Authorization.
            allow_headers=["*"],
            allow_credentials=not self._any and self._pattern.fullmatch(origin) is not None,
            max_age=600,
        )


def _pattern(origin: str) -> str:
    if origin == "*":
        return ".*"
    origin = origin.rstrip("/")
    if origin.endswith(":*"):
        return re.escape(origin.removesuffix(":*")) + "(:[0-9]+)?"
    port = _DEFAULT_PORTS.get(origin.partition("://")[0].lower())
    return re.escape(origin) if port is None else f"{re.escape(origin.removesuffix(port))}({port})?"


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
