"""How an application adds its functions and models to a manager."""

from collections.abc import Callable
from typing import Any, TypeVar, overload

from pydantic import BaseModel

from unmissed.application.commands import Commands
from unmissed.application.hooks import ConnectHook, DisconnectHook, FollowHook, Hooks, UnfollowHook
from unmissed.application.typed_messages import TypedMessages
from unmissed.core.errors import ConfigurationError

_Function = TypeVar("_Function", bound=Callable[..., Any])
_ConnectHook = TypeVar("_ConnectHook", bound=ConnectHook)
_DisconnectHook = TypeVar("_DisconnectHook", bound=DisconnectHook)
_FollowHook = TypeVar("_FollowHook", bound=FollowHook)
_UnfollowHook = TypeVar("_UnfollowHook", bound=UnfollowHook)
_Hook = TypeVar("_Hook")
_Model = TypeVar("_Model", bound=type[BaseModel])


class Registration:
    """The commands, hooks and events of one application. They are added by decorators."""

    def __init__(self) -> None:
        self.commands = Commands()
        self.events = TypedMessages()
        self._hooks = Hooks()

    @overload
    def command(self, name_or_function: str) -> Callable[[_Function], _Function]: ...
    @overload
    def command(self, name_or_function: _Function) -> _Function: ...
    def command(self, name_or_function: str | _Function) -> Callable[[_Function], _Function] | _Function:
        """Let clients call a function: ``@manager.command("cart.add")``, or ``@manager.command`` for its own name.

        The function, async or not, has at most one parameter for the data from the client, and at most one of the type
        ``Identity``. The data is a Pydantic model or another type that JSON becomes. The returned value is sent back,
        and CommandError refuses the command. A function that is not async runs in a thread. Raises ConfigurationError.
        """
        if not isinstance(name_or_function, str):
            self.commands.add(_name_of(name_or_function), name_or_function)
            return name_or_function

        def register(function: _Function) -> _Function:
            self.commands.add(name_or_function, function)
            return function

        return register

    def on_connect(self, hook: _ConnectHook) -> _ConnectHook:
        """Call a function, async or not, with a ``Connected`` when a client has connected: ``@manager.on_connect``.

        Raises ConfigurationError.
        """
        self._hooks.on_connect.append(_checked_hook(hook, "on_connect"))
        return hook

    def on_disconnect(self, hook: _DisconnectHook) -> _DisconnectHook:
        """Call a function, async or not, with a ``Disconnected`` when a connection ends: ``@manager.on_disconnect``.

        Raises ConfigurationError.
        """
        self._hooks.on_disconnect.append(_checked_hook(hook, "on_disconnect"))
        return hook

    def on_follow(self, hook: _FollowHook) -> _FollowHook:
        """Call a function, async or not, with a ``Followed`` when a client begins to follow topics.

        That is also when it connects, after ``on_connect``. Write ``@manager.on_follow``. Raises ConfigurationError.
        """
        self._hooks.on_follow.append(_checked_hook(hook, "on_follow"))
        self._hooks.watch_topics()
        return hook

    def on_unfollow(self, hook: _UnfollowHook) -> _UnfollowHook:
        """Call a function, async or not, with an ``Unfollowed`` when a client no longer follows topics.

        That is also when it has disconnected, before ``on_disconnect``. Write ``@manager.on_unfollow``. Raises
        ConfigurationError.
        """
        self._hooks.on_unfollow.append(_checked_hook(hook, "on_unfollow"))
        self._hooks.watch_topics()
        return hook

    @overload
    def event(self, name_or_model: str) -> Callable[[_Model], _Model]: ...
    @overload
    def event(self, name_or_model: _Model) -> _Model: ...
    def event(self, name_or_model: str | _Model) -> Callable[[_Model], _Model] | _Model:
        """Describe the data of a message type: ``@manager.event``, or ``@manager.event("order.shipped")``.

        The Pydantic model is described in ``asyncapi.json``, and by ``unmissed types`` in TypeScript. ``emit(model)``
        publishes it with that type, by default the name of its class. Raises ConfigurationError.
        """
        if not isinstance(name_or_model, str):
            self.events.add(name_or_model, getattr(name_or_model, "__name__", ""))
            return name_or_model

        def register(model: _Model) -> _Model:
            self.events.add(model, name_or_model)
            return model

        return register


def _name_of(function: object) -> str:
    name = getattr(function, "__name__", None)
    if not callable(function) or not isinstance(name, str) or not name.isidentifier():
        raise ConfigurationError(
            f"@manager.command has no name for {function!r}: decorate a function, or give it one, as in "
            '@manager.command("cart.add")'
        )
    return name


def _checked_hook(hook: _Hook, decorator: str) -> _Hook:
    if not callable(hook):
        raise ConfigurationError(f"{decorator} takes a function, not {hook!r}: write @manager.{decorator} above it")
    return hook
