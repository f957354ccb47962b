"""Calls the bearer and the endpoint of a route directly where FastAPI has nothing else to inject."""

from collections.abc import Callable, Coroutine, Mapping
from inspect import getclosurevars, isfunction
from typing import Any

from fastapi import Request, Response

from unmissed.api.identity import Bearer, get_identity

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def direct(inject: Handler, *, bearer: Bearer | None) -> Handler:
    """Return a handler that calls ``endpoint(request, identity)`` itself, if that is all FastAPI's ``inject`` does.

    Injection takes longer than authenticating a request and reading ten messages. FastAPI still does it for routes with
    other dependencies or another authentication, and while the application overrides the identity.
    """
    match _variables(inject):
        case {
            "dependant": object(call=endpoint, dependencies=[object(name="identity", call=dependency)]),
            "dependency_overrides_provider": provider,
        } if bearer is not None and dependency in (bearer, get_identity):

            async def handler(request: Request) -> Any:
                if dependency in getattr(provider, "dependency_overrides", ()):
                    return await inject(request)
                return await endpoint(request, await bearer(request))

            return handler
    return inject


def _variables(inject: Handler) -> Mapping[str, Any]:
    """Return the variables of FastAPI's handler: what it calls, and what it injects.

    The route itself does not know the dependencies of the routers and the application that include it. If a version of
    FastAPI names these variables differently, or another package has replaced the handler, everything is injected.
    """
    return getclosurevars(inject).nonlocals if isfunction(inject) else {}
