"""Commands: functions of the application that clients call."""

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUndefinedAnnotation
from pydantic_core import SchemaValidator, to_jsonable_python

from unmissed.application.results import Results
from unmissed.application.threads import FairThreads
from unmissed.application.validation import explanation, validator_of
from unmissed.core.audience import Identity
from unmissed.core.client_frames import Command
from unmissed.core.encoding import encode_json
from unmissed.core.errors import CommandError, ConfigurationError
from unmissed.core.server_frames import ErrorFrame, ResultFrame
from unmissed.tasks import is_being_cancelled

logger = logging.getLogger("unmissed")

_POSITIONAL = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY


@dataclass(frozen=True, slots=True)
class CommandFunction:
    """A function that clients call by its name: which of its parameters takes the data, and which the identity."""

    name: str
    function: Callable[..., Any]
    data_name: str | None
    data_type: TypeAdapter[Any] | None
    data_validator: SchemaValidator | None
    data_required: bool
    identity_name: str | None

    @classmethod
    def of(cls, name: str, function: Callable[..., Any]) -> "CommandFunction":
        """Inspect a function. Raises ConfigurationError, whose text describes the parameters that it may have."""
        data, identity = _parameters(name, function)
        data_type = _type_adapter(name, data) if data else None
        return cls(
            name,
            function,
            data_name=data.name if data else None,
            data_type=data_type,
            data_validator=validator_of(data_type) if data_type else None,
            data_required=data is not None and data.default is inspect.Parameter.empty,
            identity_name=identity.name if identity else None,
        )

    def arguments(self, identity: Identity, data: bytes | None) -> Mapping[str, Any]:
        """Return what the function is called with: ``data`` is JSON. Raises CommandError for data that is invalid."""
        arguments: dict[str, Any] = {}
        if self.identity_name is not None:
            arguments[self.identity_name] = identity
        if self.data_name is None or self.data_validator is None:
            if data is not None:
                raise CommandError(f"the command {self.name} takes no data")
        elif data is not None or self.data_required:
            try:
                arguments[self.data_name] = self.data_validator.validate_json(data or b"null")
            except ValidationError as error:
                raise CommandError(explanation(error)) from None
        return arguments

    async def call(self, arguments: Mapping[str, Any], *, user_id: str, threads: FairThreads) -> object:
        """Call the function: on the event loop if it is async, else in one of the threads, as this user."""
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**arguments)
        result = await threads.run(user_id, partial(self.function, **arguments))
        return await result if inspect.isawaitable(result) else result


class Commands:
    """The commands of one application, by name, and the results of those that ran."""

    def __init__(self) -> None:
        self._functions: dict[str, CommandFunction] = {}

    def __iter__(self) -> Iterator[CommandFunction]:
        """Iterate over the commands in the order in which they were added."""
        return iter(self._functions.values())

    def __contains__(self, name: str) -> bool:
        return name in self._functions

    def add(self, name: str, function: Callable[..., Any]) -> None:
        """Let clients call a function by this name. Raises ConfigurationError."""
        if not name or not callable(function):
            raise ConfigurationError(
                f'a command is a function with a name, not {function!r} with the name {name!r}: @manager.command("say")'
            )
        if name in self._functions:
            raise ConfigurationError(f"two commands have the name {name!r}: rename one")
        self._functions[name] = CommandFunction.of(name, function)

    async def run(self, identity: Identity, command: Command, *, results: Results, threads: FairThreads) -> bytes:
        """Run a command, or repeat the answer of an earlier one with this id. Return the frame that answers it.

        Raises CommandError if there is no such command, or its data is invalid.
        """
        function = self._functions.get(command.name)
        if function is None:
            raise CommandError("no command has this name")

        def run() -> Coroutine[Any, Any, bytes]:
            # Validated here and not before: a repeated command is answered without the cost of its data.
            arguments = function.arguments(identity, command.data)
            return _frame(command.id, function, arguments, user_id=identity.user_id, threads=threads)

        data = command.data or b""
        # As JSON, the name ends with a quote: no other name and data have the same bytes.
        fingerprint = sha256(encode_json(command.name) + data).digest()
        return await results.once(identity.user_id, command.id, run, size=len(data), fingerprint=fingerprint)


async def _frame(
    command_id: str, function: CommandFunction, arguments: Mapping[str, Any], *, user_id: str, threads: FairThreads
) -> bytes:
    """Return the ``result`` frame, or the ``error`` frame for what the function has raised."""
    try:
        returned = await function.call(arguments, user_id=user_id, threads=threads)
        return ResultFrame(id=command_id, data=to_jsonable_python(returned)).encode()
    except CommandError as error:
        return ErrorFrame.of(error, request_id=command_id).encode()
    except asyncio.CancelledError:
        # Either this task is cancelled, at the stop, or the function has let the cancellation of another one escape.
        if is_being_cancelled():
            raise
        logger.exception("the command %s was cancelled", function.name)
        return ErrorFrame.internal(request_id=command_id).encode()
    except Exception:
        logger.exception("the command %s failed", function.name)
        return ErrorFrame.internal(request_id=command_id).encode()


def _parameters(name: str, function: Callable[..., Any]) -> tuple[inspect.Parameter | None, inspect.Parameter | None]:
    """Return the parameters for the data and for the identity."""
    try:
        parameters = list(inspect.signature(function, eval_str=True).parameters.values())
    except Exception as error:  # noqa: BLE001  # annotations may be any expression
        raise ConfigurationError(f"the command {name!r} cannot be inspected: {error}") from None
    identities = [each for each in parameters if _is_identity(each.annotation)]
    others = [each for each in parameters if each not in identities]
    if len(identities) > 1 or len(others) > 1 or any(each.kind not in _POSITIONAL for each in parameters):
        raise ConfigurationError(
            f"the command {name!r} may have two named parameters, such as (item: Item, identity: Identity): "
            "the data that the client sends, and who sends it"
        )
    return (others[0] if others else None), (identities[0] if identities else None)


def _is_identity(annotation: object) -> bool:
    """Return whether an annotation is an Identity, also an optional or annotated one. Clients must not choose it."""
    if get_origin(annotation) is not None:
        return any(map(_is_identity, get_args(annotation)))
    return isinstance(annotation, type) and issubclass(annotation, Identity)


def _type_adapter(name: str, parameter: inspect.Parameter) -> TypeAdapter[Any]:
    annotation = Any if parameter.annotation is inspect.Parameter.empty else parameter.annotation
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUndefinedAnnotation):
        raise ConfigurationError(
            f"the command {name!r}: {parameter.name} must be a Pydantic model or another type that JSON becomes"
        ) from None
